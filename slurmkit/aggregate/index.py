"""What was read of metrics files, kept in one file: a file that did not change is not read again.

The file is a cache: there as a whole or not at all (written aside, then renamed), checked by its CRC, and thrown away
at any doubt. Two commands may write it at once; the later one wins, and each is true. It is a line with the CRC of all
that follows, a line of JSON that says which arrays follow, and their bytes.
"""

import os
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import eq
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from slurmkit import files
from slurmkit.aggregate.columns import Columns, Positions
from slurmkit.errors import StoreError
from slurmkit.records import Json, RunStatus

INDEX_SCHEMA = 1
"""Version of the file and of how metrics files are read. Raised when either changes: all files are then read anew."""
_SETTLED_NS = 2_000_000_000
"""A file younger than this may change once more without a new time: some file systems count in steps of 2 seconds."""
_CRC_BYTES = 9
"""Eight hexadecimal digits and the end of the line."""
_LEFTOVER_S = 3600
"""A file written aside that is older than this was left by a command that was killed."""

Marks = np.ndarray[Any, np.dtype[np.int64]]
"""(files, 4): size, time of the last change of content and of anything in ns, inode; zeros where there is no file."""


@dataclass(frozen=True, slots=True)
class Index:
    """Good metrics files as they were when they were read.

    Attributes:
        ids: whose file each is.
        checked: what each was checked against (`checked_against`).
        marks: what each looked like.
        columns: what they hold.
    """

    ids: list[str]
    checked: list[str]
    marks: Marks
    columns: Columns

    def with_others(self, known: "Index") -> "Index":
        """Return this index, and what another one knows of other runs."""
        own = set(self.ids)
        kept = [row for row, run_id in enumerate(known.ids) if run_id not in own]
        if not kept:
            return self
        count = len(self.ids)
        merged = Columns(count + len(kept))
        merged.take(self.columns, np.arange(count), np.arange(count))
        merged.take(known.columns, count + np.arange(len(kept)), np.array(kept, dtype=np.int64))
        return Index(
            [*self.ids, *(known.ids[row] for row in kept)],
            [*self.checked, *(known.checked[row] for row in kept)],
            np.concatenate([self.marks, known.marks[kept]]),
            merged,
        )


def empty() -> Index:
    """Return an index that knows nothing."""
    return Index([], [], np.zeros((0, 4), dtype=np.int64), Columns(0))


def checked_against(status: RunStatus) -> str:
    """Return what a run's file is checked against: the run's config, and the file's hash observed at completion."""
    return f"{status.config_sha256[:16]} {(status.metrics_sha256 or '')[:16]}"


def settled_before_ns() -> int:
    """Return the time before which a file must have changed last to be remembered from now on."""
    return time.time_ns() - _SETTLED_NS


def marks_of(paths: Sequence[str]) -> Marks:
    """Return what files look like now: a rename changes the inode, and no program can set the second time."""
    found: list[int] = []  # flat: the garbage collector would walk a tuple each again and again
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116 -- a Path takes three times as long, and there may be 100,000
        except OSError:
            found += (0, 0, 0, 0)
        else:
            found += (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return np.array(found, dtype=np.int64).reshape(len(paths), 4)


def rows_of(index: Index, ids: Sequence[str], checked: Sequence[str], marks: Marks) -> Positions:
    """Return (runs,): where in the index the file of each run stands; -1: it is not known as it is now.

    Args:
        index: what was read before.
        ids: (runs,) of the runs.
        checked: (runs,) what their files are checked against (`checked_against`).
        marks: (runs, 4) what these look like now.
    """
    if ids == index.ids:
        rows = np.arange(len(ids))
    else:
        place = dict(zip(index.ids, range(len(index.ids)), strict=True))
        rows = np.array([place.get(run_id, -1) for run_id in ids], dtype=np.int64)
    before = [*index.checked, ""]
    same = np.fromiter(map(eq, map(before.__getitem__, rows.tolist()), checked), np.bool_, len(rows))
    known = np.flatnonzero((rows >= 0) & same)
    found = np.full(len(rows), -1, dtype=np.int64)
    unchanged = known[(index.marks[rows[known]] == marks[known]).all(axis=1)]
    found[unchanged] = rows[unchanged]
    return found


def load(path: Path) -> Index:
    """Read an index; an empty one if there is none, or it is of another version, or not as it was written."""
    try:
        content = path.read_bytes()
        view = memoryview(content)
        if int(content[:_CRC_BYTES], 16) != zlib.crc32(view[_CRC_BYTES:]):
            return empty()
        end = content.index(b"\n", _CRC_BYTES)
        told = orjson.loads(view[_CRC_BYTES:end])
        return _unpacked(told, view[end + 1 :]) if told["schema"] == INDEX_SCHEMA else empty()
    except (OSError, ValueError, KeyError, TypeError):
        return empty()


def _unpacked(told: dict[str, Json], body: memoryview) -> Index:
    count = int(told["files"])
    arrays = _Arrays(body, count)
    marks = arrays.next(np.int64, 4).reshape(count, 4)
    numbers = {key: arrays.next(np.float64) for key in told["numbers"]}
    codes = {key: arrays.next(np.int32) for key in told["values"]}
    names = bytes(body[arrays.offset :]).decode().split("\n") if count else []
    if len(names) != 2 * count:
        raise ValueError(f"{len(names)} names of {count} files")
    return Index(names[:count], names[count:], marks, Columns(count, numbers, told["values"], codes))


class _Arrays:
    """Arrays one after the other in some bytes."""

    def __init__(self, body: memoryview, count: int) -> None:
        self._body = body
        self._count = count
        self.offset = 0

    def next(self, dtype: Any, width: int = 1) -> np.ndarray[Any, Any]:
        """Return the next array, of so many values a file."""
        end = self.offset + np.dtype(dtype).itemsize * width * self._count
        array = np.frombuffer(self._body[self.offset : end], dtype)
        self.offset = end
        return array


def save(path: Path, index: Index) -> None:
    """Replace the index; where it cannot be written the old one stays, and files are read again next time."""
    columns = index.columns
    told = {
        "schema": INDEX_SCHEMA,
        "files": len(index.ids),
        "numbers": list(columns.numbers),
        "values": columns.values,
    }
    parts = [orjson.dumps(told), b"\n", index.marks.tobytes()]
    parts += [column.tobytes() for column in columns.numbers.values()]
    parts += [columns.codes[key].tobytes() for key in columns.values]
    rest = b"".join([*parts, "\n".join([*index.ids, *index.checked]).encode()])
    with suppress(StoreError, OSError):  # a full disk, or somebody else's collection
        files.write_atomic(path, b"%08x\n" % zlib.crc32(rest) + rest, durable=False)
        for left in path.parent.glob(f".{path.name}.*.tmp"):
            if left.stat().st_mtime < time.time() - _LEFTOVER_S:
                left.unlink()

"""What was read of metrics files, kept in two files: what was observed at completion is not read again.

A row is known by its run and by the SHA-256 that the journal holds of its metrics file. Nothing but the same bytes has
that hash, so a row is true whenever it is found, whoever wrote it; the metrics files themselves are not looked at.

The base holds nearly all rows; what was read since stands in a second, small file, until that has grown to a share of
the base, and both become a new base. Each file is a cache: there as a whole or not at all (written aside, then
renamed), checked by its CRC, and thrown away at any doubt. Two commands may write at once; the later one wins. A file
is a line with the CRC of all that follows it and the length of the next line, that line of JSON, which says what
arrays follow, and their bytes.
"""

import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from operator import eq
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from slurmkit import files
from slurmkit.aggregate.columns import Columns, Positions
from slurmkit.errors import StoreError
from slurmkit.records import Json

INDEX_SCHEMA = 2
"""Version of the files and of how metrics files are read. Raised when either changes: all files are then read anew."""
_RECENT_SHARE = 1 / 16
"""Of the base: a larger second file costs more to write again each time than a new base does now and then."""
_CRC_BYTES = 9
"""Eight hexadecimal digits and a space."""
_HEAD_BYTES = 18
"""The same, and as many digits and the end of the line."""
_LEFTOVER_S = 3600
"""A file written aside that is older than this was left by a command that was killed."""


@dataclass(frozen=True, slots=True)
class Part:
    """Good metrics files.

    Attributes:
        ids: whose file each is.
        observed: SHA-256 of each.
        columns: what they hold.
    """

    ids: list[str] = field(default_factory=list[str])
    observed: list[str] = field(default_factory=list[str])
    columns: Columns = field(default_factory=lambda: Columns(0))

    def rows_of(self, ids: Sequence[str], observed: Sequence[str | None]) -> Positions:
        """Return (runs,): where the file of each run stands; -1: it is not known, or is another one.

        Args:
            ids: (runs,) of the runs.
            observed: (runs,) SHA-256 of the file of each; None: it has none that counts.
        """
        if not self.ids:
            return np.full(len(ids), -1, dtype=np.int64)
        if ids == self.ids:
            rows = np.arange(len(ids))
        else:
            place = dict(zip(self.ids, range(len(self.ids)), strict=True))
            rows = np.fromiter((place.get(run_id, -1) for run_id in ids), np.int64, len(ids))
        known = [*self.observed, ""]  # for -1
        same = np.fromiter(map(eq, map(known.__getitem__, rows.tolist()), observed), np.bool_, len(rows))
        return np.where(same, rows, -1)

    def columns_of(self, ids: Sequence[str], rows: Positions) -> Columns:
        """Return what is known of some runs: as many megabytes as it may be, these columns themselves where they fit.

        Args:
            ids: (runs,) of the runs.
            rows: (runs,) from `rows_of`; -1: left empty.
        """
        if ids != self.ids:
            return self.columns.picked(rows)
        self.columns.clear(np.flatnonzero(rows < 0))
        return self.columns

    def chosen(self, rows: Positions) -> "Part":
        """Return some of the files."""
        places: list[int] = rows.tolist()
        return Part(
            [self.ids[place] for place in places],
            [self.observed[place] for place in places],
            self.columns.picked(rows),
        )

    def with_others(self, other: "Part") -> "Part":
        """Return these files, and another part's of other runs."""
        own = set(self.ids)
        kept = np.array([row for row, run_id in enumerate(other.ids) if run_id not in own], dtype=np.int64)
        if not len(kept):
            return self
        count = len(self.ids)
        merged = Columns(count + len(kept))
        merged.take(self.columns, np.arange(count), np.arange(count))
        merged.take(other.columns, count + np.arange(len(kept)), kept)
        rest = other.chosen(kept)
        return Part([*self.ids, *rest.ids], [*self.observed, *rest.observed], merged)


@dataclass(frozen=True, slots=True)
class Index:
    """The two files.

    Attributes:
        base: nearly all.
        recent: what was read since the base was written; may hold a newer file of a run of the base.
    """

    base: Part = field(default_factory=Part)
    recent: Part = field(default_factory=Part)


def load(path: Path) -> Index:
    """Read an index; a part is empty if there is none, or it is of another version, or not as it was written."""
    return Index(_load(path), _load(_recent_file(path)))


def save(path: Path, known: Index, read: Part, fresh: Positions) -> None:
    """Remember files; where nothing can be written the old index stays, and they are read again next time.

    Args:
        path: of the base.
        known: what `load` gave.
        read: the good files of the runs asked for, known before or not.
        fresh: which of them are not in `known`.
    """
    with suppress(StoreError, OSError):  # a full disk, or somebody else's collection
        if len(fresh) + len(known.recent.ids) < _RECENT_SHARE * len(known.base.ids):
            _save(_recent_file(path), read.chosen(fresh).with_others(known.recent))
        else:
            _save(path, read.with_others(known.recent).with_others(known.base))
            _recent_file(path).unlink(missing_ok=True)
        for left in path.parent.glob(f".{path.name}.*.tmp"):
            if left.stat().st_mtime < time.time() - _LEFTOVER_S:
                left.unlink()


def _recent_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.recent")


def _load(path: Path) -> Part:
    try:
        content = np.fromfile(path, np.uint8)  # bytes that can be written to: columns of the base are used as they are
        view = content.data
        if int(bytes(view[:_CRC_BYTES]), 16) != zlib.crc32(view[_CRC_BYTES:]):
            return Part()
        end = _HEAD_BYTES + int(bytes(view[_CRC_BYTES:_HEAD_BYTES]), 16)
        told = orjson.loads(view[_HEAD_BYTES:end])
        return _unpacked(told, view[end:]) if told["schema"] == INDEX_SCHEMA else Part()
    except (OSError, ValueError, KeyError, TypeError):
        return Part()


def _unpacked(told: dict[str, Json], body: memoryview) -> Part:
    count = int(told["files"])
    arrays = _Arrays(body, count)
    numbers = {key: arrays.next(np.float64) for key in told["numbers"]}
    codes = {key: arrays.next(np.int32) for key in told["values"]}
    names = bytes(body[arrays.offset :]).decode().split("\n") if count else []
    if len(names) != 2 * count:
        raise ValueError(f"{len(names)} names of {count} files")
    return Part(names[:count], names[count:], Columns(count, numbers, told["values"], codes))


class _Arrays:
    """Arrays one after the other in some bytes."""

    def __init__(self, body: memoryview, count: int) -> None:
        self._body = body
        self._count = count
        self.offset = 0

    def next(self, dtype: Any) -> np.ndarray[Any, Any]:
        """Return the next array, of one value a file."""
        end = self.offset + np.dtype(dtype).itemsize * self._count
        array = np.frombuffer(self._body[self.offset : end], dtype)
        self.offset = end
        return array


def _save(path: Path, part: Part) -> None:
    columns = part.columns
    told = {
        "schema": INDEX_SCHEMA,
        "files": len(part.ids),
        "numbers": list(columns.numbers),
        "values": columns.values,
    }
    line = orjson.dumps(told)
    line += b" " * (-(_HEAD_BYTES + len(line) + 1) % 8) + b"\n"  # numbers at multiples of 8 bytes are read faster
    parts = [b"%08x\n" % len(line), line, *(column.data for column in columns.numbers.values())]
    parts += [columns.codes[key].data for key in columns.values]
    rest = b"".join([*parts, "\n".join([*part.ids, *part.observed]).encode()])
    files.write_atomic(path, b"%08x " % zlib.crc32(rest) + rest, durable=False)

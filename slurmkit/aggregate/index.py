"""What was read of metrics files, kept in two files: what was observed at completion is not read again.

A row is known by its run and by the SHA-256 that the journal holds of its metrics file. Nothing but the same bytes has
that hash, so a row is true whenever it is found, whoever wrote it; the metrics files themselves are not looked at.

The base holds nearly all rows; what was read since stands in a second, small file, until that has grown to a share of
the base, and both become a new base. Each is a cache (`cache_file`), thrown away at any doubt.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from slurmkit import cache_file
from slurmkit.aggregate.columns import Columns, Positions
from slurmkit.packed import Digests, Texts
from slurmkit.records import Json

INDEX_SCHEMA = 3
"""Version of the files and of how metrics files are read. Raised when either changes: all files are then read anew."""
_RECENT_SHARE = 1 / 16
"""Of the base: a larger second file costs more to write again each time than a new base does now and then."""

Hashes = np.ndarray[Any, np.dtype[np.uint64]]
"""(n, 4): a SHA-256 each."""


def hashes_of(digests: Digests) -> Hashes:
    """Return digests as an array."""
    return np.frombuffer(digests.packed, dtype=np.uint64).reshape(-1, 4)


NO_HASH = hashes_of(Digests.of([None]))
"""(1, 4): stands for none."""


@dataclass(frozen=True, slots=True)
class Part:
    """Good metrics files.

    Attributes:
        ids: whose file each is.
        observed: SHA-256 of each; `NO_HASH` where it is forgotten.
        columns: what they hold.
    """

    ids: Texts = field(default_factory=lambda: Texts.of([]))
    observed: Hashes = field(default_factory=lambda: NO_HASH[:0])
    columns: Columns = field(default_factory=lambda: Columns(0))

    def rows_of(self, ids: Texts, observed: Hashes) -> Positions:
        """Return (runs,): where the file of each run stands; -1: it is not known, or is another one.

        Args:
            ids: (runs,) of the runs.
            observed: (runs, 4) SHA-256 of the file of each; `NO_HASH`: none was observed.
        """
        if not len(self.ids):
            return np.full(len(ids), -1, dtype=np.int64)
        if ids.packed == self.ids.packed:
            rows = np.arange(len(ids))
        else:
            place = dict(zip(self.ids, range(len(self.ids)), strict=True))
            rows = np.array([place.get(run_id, -1) for run_id in ids], dtype=np.int64)
        same = (self.observed[rows] == observed).all(axis=1) & (observed != NO_HASH).any(axis=1)
        return np.where(same & (rows >= 0), rows, -1)

    def columns_of(self, ids: Texts, rows: Positions) -> Columns:
        """Return what is known of some runs: as many megabytes as it may be, these columns themselves where they fit.

        Args:
            ids: (runs,) of the runs.
            rows: (runs,) from `rows_of`; -1: left empty.
        """
        if ids.packed != self.ids.packed:
            return self.columns.picked(rows)
        other = np.flatnonzero(rows < 0)
        self.columns.clear(other)
        self.observed[other] = NO_HASH
        return self.columns

    def chosen(self, rows: Positions) -> "Part":
        """Return some of the files: this part itself, if it is all of them in order."""
        if len(rows) == len(self.ids) and (rows == np.arange(len(rows))).all():
            return self
        ids = self.ids.listed()
        return Part(Texts.of([ids[row] for row in rows.tolist()]), self.observed[rows], self.columns.picked(rows))

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
        return Part(Texts.of([*self.ids, *rest.ids]), np.concatenate([self.observed, rest.observed]), merged)


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


def save(path: Path, known: Index, asked: Part, good: Positions, fresh: Positions) -> None:
    """Remember files; where nothing can be written the old index stays, and they are read again next time.

    Args:
        path: of the base.
        known: what `load` gave.
        asked: the files of the runs asked for.
        good: which of them are, known before or not.
        fresh: which of them are not in `known`.
    """
    if len(fresh) + len(known.recent.ids) < _RECENT_SHARE * len(known.base.ids):
        _save(_recent_file(path), asked.chosen(fresh).with_others(known.recent))
    elif _save(path, asked.chosen(good).with_others(known.recent).with_others(known.base)):
        with suppress(OSError):
            _recent_file(path).unlink(missing_ok=True)


def _recent_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.recent")


def _load(path: Path) -> Part:
    read = cache_file.read(path)
    if read is None:
        return Part()
    told, pieces = read
    try:
        return _unpacked(told, iter(pieces)) if told["schema"] == INDEX_SCHEMA else Part()
    except (KeyError, TypeError, ValueError):
        return Part()


def _unpacked(told: dict[str, Json], pieces: Iterator[memoryview]) -> Part:
    ids = Texts.read(told["files"], bytes(next(pieces)))
    observed = np.frombuffer(next(pieces), dtype=np.uint64).reshape(-1, 4)
    numbers = {key: np.frombuffer(next(pieces), dtype=np.float64) for key in told["numbers"]}
    codes = {key: np.frombuffer(next(pieces), dtype=np.int32) for key in told["values"]}
    return Part(ids, observed, Columns(len(ids), numbers, told["values"], codes))


def _save(path: Path, part: Part) -> bool:
    """Write one file; say whether it could be written."""
    columns = part.columns
    told = {
        "schema": INDEX_SCHEMA,
        "files": len(part.ids),
        "numbers": list(columns.numbers),
        "values": columns.values,
    }
    arrays = [part.observed, *columns.numbers.values(), *(columns.codes[key] for key in columns.values)]
    return cache_file.write(path, told, [part.ids.packed, *(np.ascontiguousarray(array).data for array in arrays)])

"""Values of many metrics files as columns: numbers as they are, texts and lists as positions in a list of each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from slurmkit.packed import Coded
from slurmkit.records import Json

PROVENANCE_PREFIX = "provenance/"
"""Keys that say where the numbers come from; no metrics."""

Floats = np.ndarray[Any, np.dtype[np.float64]]
Positions = np.ndarray[Any, np.dtype[np.int64]]
Codes = np.ndarray[Any, np.dtype[np.int32]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

_ABSENT_BITS = np.int64(0x7FF8_0000_0000_0001)
"""A NaN that no arithmetic makes: the file has not got the key. A null is the usual NaN."""
_ABSENT: np.float64 = _ABSENT_BITS.view(np.float64)


def codes_of(column: Coded) -> Codes:
    """Return (rows,) places of a column's values."""
    return np.asarray(column.codes, dtype=np.int32)


def rows_with(column: Coded, value: Json) -> Bools:
    """Return (rows,): which have a value."""
    return np.array([own == value for own in column.values], dtype=np.bool_)[codes_of(column)]


@dataclass(slots=True)
class Columns:
    """The content of some metrics files, by key; row i belongs to the i-th of them.

    Attributes:
        rows: how many files.
        numbers: key to (rows,); NaN for a null, and another NaN (`absent`) where a file has no number there.
        values: key to the different bools, texts and lists that files have.
        codes: key of `values` to (rows,) positions in its list; -1 where a file has none.
    """

    rows: int
    numbers: dict[str, Floats] = field(default_factory=dict[str, Floats])
    values: dict[str, list[Json]] = field(default_factory=dict[str, list[Json]])
    codes: dict[str, Codes] = field(default_factory=dict[str, Codes])

    def add_files(self, keys: Sequence[str], positions: Sequence[int], values: list[Json]) -> None:
        """Take the content of some files with the same keys.

        Args:
            keys: of each file.
            positions: the row of each file.
            values: those of the first file in the order of `keys`, then those of the next.
        """
        rows = np.array(positions, dtype=np.int64)
        for offset, key in enumerate(keys):
            if not key.startswith(PROVENANCE_PREFIX):
                self._add(key, rows, values[offset :: len(keys)])

    def _add(self, key: str, rows: Positions, values: list[Json]) -> None:
        """Take the values of one key for some rows."""
        types = set(map(type, values))
        if types <= {float, int, type(None)}:
            self._numbers_of(key)[rows] = np.array(values, dtype=np.float64)  # None becomes NaN
            return
        if types & {float, int}:
            for wanted in (True, False):
                chosen = [i for i, value in enumerate(values) if (type(value) in (float, int)) is wanted]
                self._add(key, rows[chosen], [values[i] for i in chosen])
            return
        known, codes = self._values_of(key)
        places = {_identity(value): place for place, value in enumerate(known)}
        found: list[int] = []
        for value in values:
            place = -1 if value is None else places.setdefault(_identity(value), len(places))
            if place == len(known):
                known.append(value)
            found.append(place)
        codes[rows] = found

    def take(self, other: "Columns", positions: Positions, rows: Positions) -> None:
        """Take some rows of other columns.

        Args:
            other: whose.
            positions: (n,) where they go.
            rows: (n,) which they are there.
        """
        for key, column in other.numbers.items():
            self._numbers_of(key)[positions] = column[rows]
        for key, values in other.values.items():
            known, codes = self._values_of(key)
            places = {_identity(value): place for place, value in enumerate(known)}
            moved = [places.setdefault(_identity(value), len(places)) for value in values]
            known += [value for value, place in zip(values, moved, strict=True) if place >= len(known)]
            codes[positions] = np.array([*moved, -1], dtype=np.int32)[other.codes[key][rows]]

    def picked(self, rows: Positions) -> "Columns":
        """Return columns of some of the rows: these themselves, if it is all of them in order.

        Args:
            rows: (n,) which row each becomes; -1: an empty one.
        """
        if len(rows) == self.rows and (rows == np.arange(self.rows)).all():
            return self
        chosen = Columns(len(rows))
        if self.rows:  # whole columns at once, and what is too much emptied: there are few such rows
            chosen.numbers = {key: column[rows] for key, column in self.numbers.items()}
            chosen.values = {key: list(values) for key, values in self.values.items()}
            chosen.codes = {key: codes[rows] for key, codes in self.codes.items()}
            chosen.clear(np.flatnonzero(rows < 0))
        return chosen

    def clear(self, rows: Positions) -> None:
        """Empty some rows."""
        for column in self.numbers.values():
            column[rows] = _ABSENT
        for codes in self.codes.values():
            codes[rows] = -1

    def _numbers_of(self, key: str) -> Floats:
        column = self.numbers.get(key)
        if column is None:
            column = self.numbers[key] = np.full(self.rows, _ABSENT)
        return column

    def _values_of(self, key: str) -> tuple[list[Json], Codes]:
        if key not in self.values:
            self.values[key] = []
            self.codes[key] = np.full(self.rows, -1, dtype=np.int32)
        return self.values[key], self.codes[key]

    def number_keys(self) -> list[str]:
        """Return the keys that some file has with a number or a null."""
        return [key for key, column in self.numbers.items() if (column.view(np.int64) != _ABSENT_BITS).any()]

    def value_keys(self) -> list[str]:
        """Return the keys that some file has with a bool, a text or a list."""
        return [key for key, codes in self.codes.items() if (codes >= 0).any()]

    def listed(self, key: str) -> list[Json]:
        """Return (rows,) bools, texts and lists of a key, None where a file has none."""
        values = [*self.values[key], None]
        return [values[code] for code in self.codes[key].tolist()]


def _identity(value: Json) -> str | bytes:
    """Return what equal values share, and different ones (1 and true) do not."""
    return value if type(value) is str else orjson.dumps(value)

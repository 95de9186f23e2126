"""Columns of many values, packed: each is read and written as one piece, and taken apart when first looked at.

Nothing here knows what the values mean, or needs numpy, which would double the start-up of a command.
"""

import re
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self, overload

import orjson

from slurmkit.records import Json

_DIGEST_BYTES = 32
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NO_DIGEST = b"there is no such SHA-256 to meet".hex()
"""Stands for None among digests."""


class Column(Sequence[Any], ABC):
    """Values of one kind, one a row."""

    @classmethod
    @abstractmethod
    def of(cls, values: Sequence[Json]) -> Self:
        """Pack values.

        Raises:
            ValueError, TypeError: they are not all of this kind.
        """

    @classmethod
    @abstractmethod
    def read(cls, told: Json, content: bytes) -> Self:
        """Make the column that gave `told` and `content`."""

    @abstractmethod
    def told(self) -> Json:
        """Return what is to be written as JSON."""

    @abstractmethod
    def content(self) -> bytes:
        """Return what is to be written as it is."""

    @abstractmethod
    def listed(self) -> list[Any]:
        """Return all values."""

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """Return one value, or some."""
        return self.listed()[index]

    def __iter__(self) -> Iterator[Any]:
        """Iterate over all values at once: asking for one after the other takes far longer."""
        return iter(self.listed())


class Joined(Column):
    """A column that is one run of bytes until it is looked at."""

    def __init__(self, packed: bytes, count: int) -> None:
        self.packed = packed
        self._count = count
        self._values: list[Any] | None = None

    @classmethod
    def read(cls, told: Json, content: bytes) -> Self:
        """Take the bytes as they are."""
        return cls(content, told)

    def told(self) -> Json:
        """Return how many values there are."""
        return self._count

    def content(self) -> bytes:
        """Return the bytes."""
        return self.packed

    def listed(self) -> list[Any]:
        """Return all values, and keep them."""
        if self._values is None:
            self._values = self._taken_apart() if self._count else []
        return self._values

    @abstractmethod
    def _taken_apart(self) -> list[Any]: ...

    def __len__(self) -> int:
        return self._count


class Texts(Joined):
    """Texts without line ends, a line each."""

    @classmethod
    def of(cls, values: Sequence[Json]) -> Self:
        """Pack texts of one line."""
        joined = "\n".join(values)
        if joined.count("\n") != max(len(values) - 1, 0):
            raise ValueError("a text has several lines")
        return cls(joined.encode(), len(values))

    def _taken_apart(self) -> list[Any]:
        return self.packed.decode().split("\n")


class Digests(Joined):
    """SHA-256 in hex, or None; 32 bytes each."""

    @classmethod
    def of(cls, values: Sequence[Json]) -> Self:
        """Pack digests in small letters."""
        texts = [_NO_DIGEST if value is None else value for value in values]
        joined = "".join(texts)
        packed = bytes.fromhex(joined)
        if packed.hex() != joined or set(map(len, texts)) - {2 * _DIGEST_BYTES}:
            raise ValueError("a text is no SHA-256")
        return cls(packed, len(texts))

    @classmethod
    def of_valid(cls, values: Sequence[Json]) -> "Digests":
        """Pack what is a digest; what is none becomes None."""
        try:
            return cls.of(values)
        except (ValueError, TypeError):
            return cls.of([value if isinstance(value, str) and _DIGEST.fullmatch(value) else None for value in values])

    def changed(self, news: Mapping[int, str | None]) -> "Digests":
        """Return the column with other values in some rows; what is no digest becomes None."""
        packed, fresh = bytearray(self.packed), memoryview(Digests.of_valid(list(news.values())).packed)
        for place, row in enumerate(news):
            packed[_slot(row)] = fresh[_slot(place)]
        return Digests(bytes(packed), len(self))

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """Return one value, which need not wait for the others, or some."""
        if isinstance(index, slice):
            return self.listed()[index]
        text = self.packed[_slot(range(len(self))[index])].hex()
        return None if text == _NO_DIGEST else text

    def _taken_apart(self) -> list[Any]:
        texts = self.packed.hex("\n", _DIGEST_BYTES).split("\n")
        return [None if text == _NO_DIGEST else text for text in texts]


def _slot(row: int) -> slice:
    return slice(_DIGEST_BYTES * row, _DIGEST_BYTES * (row + 1))


class Values(Joined):
    """Values of any kind, mostly different ones: a JSON list."""

    @classmethod
    def of(cls, values: Sequence[Json]) -> Self:
        """Pack values of JSON."""
        return cls(orjson.dumps(list(values)), len(values))

    def _taken_apart(self) -> list[Any]:
        return orjson.loads(self.packed)


class Coded(Column):
    """Values of any kind, few different ones: each of these once, and for each row its place among them.

    Attributes:
        values: the different values, in the order in which they first appear; after `mapped`, some may be equal.
        codes: (rows,) places in `values`, four bytes each.
    """

    def __init__(self, values: list[Any], codes: "array[int]") -> None:
        self.values = values
        self.codes = codes

    @classmethod
    def of(cls, values: Sequence[Json]) -> Self:
        """Pack values of JSON, or texts of an enumeration."""
        keys = _identities(values)
        different = dict.fromkeys(keys) if keys is values else dict(zip(keys, values, strict=True))
        places = dict(zip(different, range(len(different)), strict=True))
        own = list(different) if keys is values else list(different.values())
        return cls(own, array("i", map(places.__getitem__, keys)))

    @classmethod
    def read(cls, told: Json, content: bytes) -> Self:
        """Take the different values and the places."""
        codes = array("i")
        codes.frombytes(content)
        return cls(told, codes)

    def told(self) -> Json:
        """Return the different values."""
        return self.values

    def content(self) -> bytes:
        """Return the places."""
        return self.codes.tobytes()

    def listed(self) -> list[Any]:
        """Return the value of each row."""
        return list(map(self.values.__getitem__, self.codes))

    def mapped(self, change: Callable[[Any], Any]) -> "Coded":
        """Return the column with something made of each of its different values."""
        return Coded(list(map(change, self.values)), self.codes)

    def rows_with(self, value: Json) -> list[int]:
        """Return the rows that have a value."""
        wanted = {place for place, own in enumerate(self.values) if own == value}
        return [row for row, code in enumerate(self.codes) if code in wanted] if wanted else []

    def changed(self, news: Mapping[int, Any]) -> "Coded":
        """Return the column with other values in some rows."""
        fresh = Coded.of(list(news.values()))
        codes = self.codes[:]
        for row, code in zip(news, fresh.codes, strict=True):
            codes[row] = len(self.values) + code
        return Coded([*self.values, *fresh.values], codes)

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """Return one value, or some."""
        return self.listed()[index] if isinstance(index, slice) else self.values[self.codes[index]]


def packed(kind: type[Column], values: Sequence[Json]) -> Column:
    """Pack values as the kind that they should be of; as values of any kind where somebody has written others."""
    try:
        return kind.of(values)
    except (ValueError, TypeError):
        return Values.of(values)


def _identities(values: Sequence[Json]) -> Sequence[Json]:
    """Return what the same values share, and others that equal them (1, true and 1.0; 0.0 and -0.0) do not."""
    kinds = set(map(type, values))
    if all(kind is int or kind is type(None) or issubclass(kind, str) for kind in kinds):
        return values
    if kinds == {tuple} and all(type(part) is str for value in dict.fromkeys(values) for part in value):
        return values
    if kinds == {float}:
        return memoryview(array("d", values)).cast("B").cast("q").tolist()
    return list(map(orjson.dumps, values))

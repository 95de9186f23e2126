"""Which figures lie there already as they would be drawn, so that a report costs what has changed since the last."""

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from importlib.resources import files as package_files
from pathlib import Path

import pandas as pd

from slurmkit import files
from slurmkit.errors import StoreError
from slurmkit.records import Json, is_mapping
from slurmkit.report.model import Figure

ENDINGS = ("svg", "pdf", "png", "csv")
_RECORD = ".drawn.json"


class Kept:
    """The figures of a folder, and a record beside them of what each was drawn from and of the files that this made.

    The record only spares work: where it is gone, is no record, or does not fit the files, figures are drawn anew.
    """

    def __init__(self, folder: Path) -> None:
        """Read the record.

        Args:
            folder: where the figures are.
        """
        self._folder = folder
        self._old = self._read()
        self._new: dict[str, dict[str, str]] = {}

    def _read(self) -> dict[str, Json]:
        try:
            record: Json = files.read_json(self._folder / _RECORD)
        except (FileNotFoundError, StoreError):
            return {}
        return record if is_mapping(record) else {}

    def svg(self, figure: Figure) -> bytes | None:
        """Return a figure's SVG if all its files are there and as it would be drawn now, and None else."""
        own = self._new[figure.name] = {"drawn_from": fingerprint(figure)}
        old = self._old.get(figure.name)
        if not is_mapping(old) or old.get("drawn_from") != own["drawn_from"]:
            return None
        found: dict[str, bytes] = {}
        for ending in ENDINGS:
            try:
                found[ending] = self._path(figure, ending).read_bytes()
            except OSError:
                return None
            if old.get(ending) != _sha256(found[ending]):
                return None
            own[ending] = old[ending]
        return found["svg"]

    def write(self, figure: Figure, ending: str, content: bytes) -> None:
        """Write one file of a figure.

        Raises:
            StoreError: it cannot be written.
        """
        files.write_atomic(self._path(figure, ending), content, durable=False)
        self._new[figure.name][ending] = _sha256(content)

    def remember(self) -> None:
        """Write the record of what lies there now.

        Raises:
            StoreError: it cannot be written.
        """
        files.write_json(self._folder / _RECORD, self._new, durable=False)

    def _path(self, figure: Figure, ending: str) -> Path:
        return self._folder / f"{figure.name}.{ending}"


def fingerprint(figure: Figure) -> str:
    """Return what changes when a figure would be drawn in another way: by its data, labels, looks, or by other code."""
    parts = [_code(), figure.name.encode(), figure.csv(), *_written(figure.beside)]
    return _sha256(b"".join(_sha256(part).encode() for part in parts))


def _written(values: tuple[object, ...]) -> Iterator[bytes]:
    for value in values:
        yield value.to_csv(index=False).encode() if isinstance(value, pd.DataFrame) else repr(value).encode()


@cache
def _code() -> bytes:
    """Return the code that draws: its own text, and the version of the library."""
    sources = sorted(package_files("slurmkit.report.figures").iterdir(), key=lambda source: source.name)
    texts = [source.read_bytes() for source in sources if source.name.endswith(".py")]
    return b"\0".join([*texts, version("matplotlib").encode()])


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

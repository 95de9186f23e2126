"""A file of what can be made anew: there as a whole or not at all, and thrown away at any doubt.

It is a line with the CRC of all that follows it and the length of the next line, that line of JSON, and pieces of bytes
whose lengths it says. Two commands may write at once: the later one wins.
"""

import os
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import orjson

from slurmkit import files
from slurmkit.errors import StoreError
from slurmkit.records import Json

_CRC_BYTES = 9
"""Eight hexadecimal digits and a space."""
_HEAD_BYTES = 18
"""The same, and as many digits and the end of the line."""
_ALIGNED = 8
"""All pieces start at multiples of so many bytes: numbers are read faster there."""
_LEFTOVER_S = 3600
"""A file written aside that is older than this was left by a command that was killed."""


def write(path: Path, told: Json, pieces: Sequence[bytes | memoryview]) -> bool:
    """Replace a cache. Where it cannot be written (a full disk, somebody else's collection) the old one stays.

    Args:
        path: the file.
        told: what `read` gives back, JSON.
        pieces: likewise, bytes.

    Returns:
        whether it was written.
    """
    sizes = [memoryview(piece).nbytes for piece in pieces]
    line = orjson.dumps({"told": told, "sizes": sizes})
    line += b" " * (-(_HEAD_BYTES + len(line) + 1) % _ALIGNED) + b"\n"
    padded = [part for piece, size in zip(pieces, sizes, strict=True) for part in (piece, b" " * (-size % _ALIGNED))]
    rest = b"".join([b"%08x\n" % len(line), line, *padded])
    try:
        files.write_atomic(path, b"%08x " % zlib.crc32(rest) + rest, durable=False)
    except StoreError:
        return False
    with suppress(OSError):
        for left in path.parent.glob(f".{path.name}.*.tmp"):
            if left.stat().st_mtime < time.time() - _LEFTOVER_S:
                left.unlink()
    return True


def read(path: Path) -> tuple[Json, list[memoryview]] | None:
    """Return what was written, the pieces as memory that can be written to; None if it is not there as a whole."""
    try:
        with path.open("rb") as file:
            content = bytearray(os.fstat(file.fileno()).st_size)
            if file.readinto(content) != len(content):
                return None
        view = memoryview(content)
        if int(bytes(view[:_CRC_BYTES]), 16) != zlib.crc32(view[_CRC_BYTES:]):
            return None
        start = _HEAD_BYTES + int(bytes(view[_CRC_BYTES:_HEAD_BYTES]), 16)
        head: Json = orjson.loads(view[_HEAD_BYTES:start])
        pieces: list[memoryview] = []
        for size in head["sizes"]:
            pieces.append(view[start : start + size])
            start += size + -size % _ALIGNED
        return head["told"], pieces
    except (OSError, ValueError, KeyError, TypeError):
        return None

"""Durable files: whole-file replacement, append-only lines, and one lock that works on NFS.

Nothing here knows what the files mean; `store` does.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import orjson

from slurmkit.errors import LockTimeoutError, StoreError

_JSON_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_DATACLASS


def write_atomic(path: Path, content: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Replace a file as a whole: a reader sees the old content or the new, never a part.

    Args:
        path: the file; its folder exists.
        content: the bytes.
        mode: permissions of the new file.
        durable: wait until the content is on disk (it survives a power cut); False for heartbeats.

    Raises:
        StoreError: the disk is full or the folder cannot be written; the old file stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            _write_all(descriptor, content)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        if durable:
            _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StoreError(f"{path}: cannot be written: {error.strerror}. {_advice(error)}") from error


def write_json(path: Path, record: Any, *, mode: int = 0o644, durable: bool = True) -> None:
    """Replace a JSON file as a whole (see `write_atomic`); readable, two blanks of indent."""
    content = orjson.dumps(record, option=_JSON_OPTIONS | orjson.OPT_INDENT_2) + b"\n"
    write_atomic(path, content, mode=mode, durable=durable)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: there is none.
        StoreError: it is not JSON, or cannot be read.
    """
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except orjson.JSONDecodeError as error:
        raise StoreError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}.") from error
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}.") from error


def json_line(record: Any) -> bytes:
    """Return a record as one line of JSON, newline included."""
    return orjson.dumps(record, option=_JSON_OPTIONS) + b"\n"


def append_lines(path: Path, records: list[Any], *, mode: int = 0o644) -> None:
    """Append records to a file of JSON lines and wait until they are on disk.

    The caller holds the lock that guards the file. A torn last line, left by a writer that was killed or by a full
    disk, is cut off first; if this write fails it is taken back whole.

    Raises:
        StoreError: the disk is full or the file cannot be written; nothing was appended.
    """
    content = b"".join(json_line(record) for record in records)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        try:
            end = _end_of_last_whole_line(descriptor)
            os.ftruncate(descriptor, end)
            os.lseek(descriptor, end, os.SEEK_SET)
            try:
                _write_all(descriptor, content)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, end)
                raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}. {_advice(error)}") from error


def read_lines(path: Path, *, offset: int = 0) -> tuple[list[Any], int]:
    """Read JSON lines from a byte offset on; a torn last line is left for later.

    Returns:
        the records, and the offset behind the last whole line.

    Raises:
        StoreError: a whole line is not JSON, or the file cannot be read. No file is no lines.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}.") from error
    return parse_lines(content, str(path), start=offset)


def parse_lines(content: bytes, where: str, *, start: int = 0) -> tuple[list[Any], int]:
    """Parse JSON lines; a torn last line is left for later.

    Args:
        content: of a file, from the start of a line to the end.
        where: the file, for the error.
        start: at which of its bytes the content starts.

    Returns:
        the records, and the offset in the file behind the last whole line.

    Raises:
        StoreError: a whole line is not JSON.
    """
    *lines, torn = content.split(b"\n")
    records: list[Any] = []
    try:
        for line in lines:
            records.append(orjson.loads(line))
    except orjson.JSONDecodeError as error:
        number = len(records) + 1
        at = f"{where}:{number}" if start == 0 else f"{where}: line {number} after byte {start}"
        raise StoreError(f"{at}: not JSON: {error.msg}. Restore the file from a backup.") from error
    return records, start + len(content) - len(torn)


@contextlib.contextmanager
def lock(path: Path, *, timeout_s: float = 60.0) -> Generator[None]:
    """Hold an exclusive lock on a file for the time of the block.

    The kernel gives the lock back when its holder dies, however it dies, and on NFS (v3 with lockd, v4) it holds
    between hosts. File systems without locks (Lustre mounted without flock) fall back to filelock's marker file.

    Raises:
        LockTimeoutError: another process held it for all of `timeout_s`.
        StoreError: the lock file cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}. {_advice(error)}") from error
    try:
        try:
            held = _flock(descriptor, timeout_s)
        except OSError as error:
            if error.errno not in {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}:
                raise
            with _marker_lock(path, timeout_s):
                yield
            return
        if not held:
            raise LockTimeoutError(_held_message(path, timeout_s))
        if not _is_still_at(descriptor, path):
            raise StoreError(f"{path}: was removed by another command while this one waited. Run the command again.")
        yield
    finally:
        os.close(descriptor)  # gives the lock back


def try_lock(path: Path) -> int | None:
    """Take an exclusive lock if nobody has it, to be held until the process ends.

    Returns:
        the descriptor that holds the lock (close it to give the lock back), or None: somebody has it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    if _flock(descriptor, 0.0):
        return descriptor
    os.close(descriptor)
    return None


def _is_still_at(descriptor: int, path: Path) -> bool:
    """Say whether a path still names the open file: a lock on a removed file keeps nobody out."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _flock(descriptor: int, timeout_s: float) -> bool:
    """Try to lock until the time is over; say whether it is held."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.001
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.05)
        else:
            return True


@contextlib.contextmanager
def _marker_lock(path: Path, timeout_s: float) -> Generator[None]:
    """Lock by the existence of a file, where the file system has no locks."""
    from filelock import SoftFileLock, Timeout

    try:
        with SoftFileLock(path.with_name(path.name + ".held"), timeout=timeout_s):
            yield
    except Timeout as error:
        raise LockTimeoutError(_held_message(path, timeout_s)) from error


def _held_message(path: Path, timeout_s: float) -> str:
    return f"{path}: another command has held the lock for {timeout_s:g} s. Wait for its end, or end it, and try again."


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    """Make a rename durable. Some network file systems cannot sync a folder; they order renames themselves."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _end_of_last_whole_line(descriptor: int) -> int:
    """Return the offset behind the last newline, 0 if there is none."""
    position = os.fstat(descriptor).st_size
    while position > 0:
        start = max(0, position - 65536)
        newline = os.pread(descriptor, position - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


def _advice(error: OSError) -> str:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "Free some space and run the command again; nothing was lost."
    return "Check the folder's permissions and run the command again."

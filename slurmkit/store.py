"""Sole owner of every path and record under ``runs/``: what is where, and how it is written."""

import contextlib
import hashlib
import os
import secrets
import shutil
import socket
from collections.abc import Generator, Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from slurmkit import files
from slurmkit.errors import StoreError, UsageError
from slurmkit.names import check_collection_name
from slurmkit.records import SCHEMA, Json, Row, is_mapping

_MARK = ".slurmkit"
_DELETED = ".deleted-"


def now() -> str:
    """Return the time as records write it: UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class FrozenRuns:
    """The frozen runs as they were read, the retired ones among them, in the definition's order.

    Attributes:
        path: the file.
        content: its bytes.
    """

    def __init__(self, path: Path, content: bytes) -> None:
        self.path = path
        self.content = content

    @cached_property
    def rows(self) -> list[Row]:
        """All runs, parsed when they are first asked for.

        Raises:
            StoreError: the file holds what is no run.
        """
        records, _ = files.parse_lines(self.content, str(self.path))
        try:
            return [Row.from_json(record) for record in records]
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{self.path}: holds what is no run. Restore the file from a backup.") from error


class Store:
    """The folder ``runs/`` of a project."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def checkouts(self) -> Path:
        """Where pinned commits are materialised."""
        return self.root / ".checkouts"

    @property
    def queue(self) -> Path:
        """This machine's local queue."""
        return self.root / ".queue" / socket.gethostname()

    @property
    def _last(self) -> Path:
        return self.root / ".last"

    def names(self) -> list[str]:
        """Return the names of all collections, sorted. Run directories are not looked into."""
        return sorted(self._names_below(self.root, ""))

    def _names_below(self, folder: Path, prefix: str) -> Iterator[str]:
        try:
            entries = list(os.scandir(folder))
        except FileNotFoundError:
            return
        for entry in entries:
            if entry.name.startswith(".") or not entry.is_dir():
                continue
            path = Path(entry.path)
            if (path / _MARK / "collection.json").exists():
                yield prefix + entry.name
            elif not (path / "config.json").exists():
                yield from self._names_below(path, f"{prefix}{entry.name}/")

    def collection(self, name: str) -> "CollectionStore":
        """Return the records of one collection, which may not exist yet."""
        return CollectionStore(self.root / name, name)

    def existing(self, name: str) -> "CollectionStore":
        """Return the records of a collection that exists.

        Raises:
            UsageError: there is none of that name; says which there are.
        """
        store = self.collection(name)
        if not _is_name(name) or not store.exists():
            from difflib import get_close_matches

            names = self.names()
            near = get_close_matches(name[:200], names, 1)
            hint = f"Did you mean {near[0]}?" if near else _list_of(names)
            raise UsageError(f"collection {name!r}: not found below {self.root}. {hint}")
        return store

    def last(self) -> str | None:
        """Return the name of the collection last touched, if it still exists."""
        try:
            name = self._last.read_text(encoding="utf-8").strip()
        except (FileNotFoundError, UnicodeDecodeError):
            return None
        return name if _is_name(name) and self.collection(name).exists() else None

    def touch(self, name: str) -> None:
        """Remember a collection as the one last touched."""
        if self.last() != name:
            with contextlib.suppress(StoreError):  # a convenience: never a reason to fail
                files.write_atomic(self._last, name.encode() + b"\n", durable=False)


def _list_of(names: Sequence[str]) -> str:
    if not names:
        return "There is none yet: slurmkit collection create FILE"
    shown = ", ".join(names[:10])
    return f"There are: {shown}" + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _is_name(name: str) -> bool:
    try:
        check_collection_name(name)
    except ValueError:
        return False
    return True


class CollectionStore:
    """The records of one collection."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name

    @property
    def records(self) -> Path:
        """The folder that only commands write."""
        return self.folder / _MARK

    @property
    def journal(self) -> Path:
        """The append-only events."""
        return self.records / "journal.jsonl"

    @property
    def jobs(self) -> Path:
        """submitit's folder."""
        return self.records / "jobs"

    @property
    def overview_cache(self) -> Path:
        """The last overview of a collection at rest, with what it was made from."""
        return self.records / "overview.json"

    @property
    def runs_index(self) -> Path:
        """What the frozen runs and the journal come to: a cache, made anew where it is gone or doubted."""
        return self.records / "runs.index"

    @property
    def metrics_index(self) -> Path:
        """What was read of the runs' metrics files: a cache, made anew where it is gone."""
        return self.records / "metrics.index"

    @property
    def runs_file(self) -> Path:
        """The frozen runs: ``runs.jsonl``, or after an extension ``runs.<generation>.jsonl``."""
        return self.records / self.header.get("runs_file", "runs.jsonl")

    @property
    def header_file(self) -> Path:
        """The frozen definition and its pin."""
        return self.records / "collection.json"

    @property
    def definition_file(self) -> Path:
        """The person's file, byte for byte: ``definition.yaml``, or ``definition.<generation>.yaml``."""
        return self.records / self.header.get("definition_file", "definition.yaml")

    @property
    def definition_files(self) -> list[Path]:
        """The person's files, oldest first: one for the creation and one for each extension."""
        latest = int(self.header.get("generation", 1))
        later = [f"definition.{generation}.yaml" for generation in range(2, latest + 1)]
        return [self.records / name for name in ["definition.yaml", *later]]

    def exists(self) -> bool:
        """Whether the collection was created."""
        return self.header_file.exists()

    def run_dir(self, run_name: str) -> Path:
        """The directory of one run."""
        return self.folder / run_name

    def attempt_dir(self, run_name: str, attempt: int) -> Path:
        """The directory of one attempt."""
        return self.folder / run_name / "attempts" / str(attempt)

    @cached_property
    def header(self) -> dict[str, Json]:
        """``collection.json``."""
        try:
            header = files.read_json(self.header_file)
        except FileNotFoundError as error:
            raise UsageError(f"collection {self.name!r}: not found. slurmkit collection list") from error
        if not is_mapping(header) or not is_mapping(header.get("definition")) or "commit" not in header:
            raise StoreError(f"{self.header_file}: not a collection's record. Restore the file from a backup.")
        if header.get("schema") != SCHEMA:
            raise StoreError(
                f"{self.header_file}: schema: {header.get('schema')!r} was written by another version of slurmkit "
                f"({header.get('slurmkit_version')}); this one reads {SCHEMA}. Use that version.",
            )
        return header

    def create(self, header: dict[str, Json], definition: bytes, rows: Sequence[Row]) -> None:
        """Write a new collection, all of it or nothing.

        Raises:
            UsageError: one of that name exists, or it would lie inside another.
            StoreError: it cannot be written.
        """
        if self.exists():
            raise UsageError(
                f"collection {self.name!r}: exists already ({self.folder}). Add to it with "
                f"slurmkit collection extend, give another name with --name, or delete it first.",
            )
        temporary = self.folder / f".new-{secrets.token_hex(4)}"
        try:
            self._refuse_nesting()
            self.folder.mkdir(parents=True, exist_ok=True)
            (temporary / "jobs").mkdir(parents=True)
            files.write_atomic(temporary / "definition.yaml", definition)
            files.write_atomic(temporary / "runs.jsonl", _lines(rows))
            files.write_json(temporary / "collection.json", header)
            files.append_lines(temporary / "journal.jsonl", [{"event": "created", "at": now()}])
            temporary.rename(self.records)
        except OSError as error:
            self._undo(temporary)
            if self.exists():
                raise self._made_meanwhile() from error
            raise StoreError(f"{self.folder}: cannot be written: {error.strerror}. Nothing was created.") from error
        except StoreError:
            self._undo(temporary)
            raise

    def _undo(self, temporary: Path) -> None:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _refuse_nesting(self) -> None:
        depth = len(Path(self.name).parts)
        for parent in list(self.folder.parents)[: depth - 1]:
            if (parent / _MARK / "collection.json").exists():
                raise UsageError(
                    f"collection {self.name!r}: {parent.name!r} is a collection itself. Choose another name."
                )
        try:
            inside = [entry.name for entry in self.folder.iterdir() if not entry.name.startswith(".new-")]
        except FileNotFoundError:
            return
        if _MARK in inside and self.exists():
            raise self._made_meanwhile()
        if inside:
            raise UsageError(
                f"collection {self.name!r}: {self.folder} is not empty (it holds {inside[0]!r}). "
                f"Choose another name, or move the folder away.",
            )

    def _made_meanwhile(self) -> UsageError:
        return UsageError(f"collection {self.name!r}: another shell has just created it.")

    def frozen_runs(self) -> FrozenRuns:
        """Read the frozen runs.

        Raises:
            StoreError: the file is gone or cannot be read: a collection without runs would look complete.
        """
        path = self.runs_file
        try:
            return FrozenRuns(path, path.read_bytes())
        except FileNotFoundError as error:
            raise StoreError(f"{path}: is missing. Restore the file from a backup.") from error
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror}.") from error

    def rows(self) -> list[Row]:
        """Read and parse the frozen runs, the retired ones among them, in the definition's order.

        Raises:
            StoreError: the file is gone, or holds what is no run.
        """
        return self.frozen_runs().rows

    def journal_content(self) -> bytes:
        """Read the journal as it is.

        Raises:
            StoreError: it is gone, or has no whole line (its first one is as old as the collection): without it, runs
                that are under way or completed would look as if they had never been submitted.
        """
        try:
            content = self.journal.read_bytes()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise StoreError(f"{self.journal}: cannot be read: {error.strerror}.") from error
        if b"\n" not in content:
            raise StoreError(f"{self.journal}: is missing or empty. Restore the file from a backup.")
        return content

    def events(self) -> list[dict[str, Json]]:
        """Read and parse the journal.

        Raises:
            StoreError: it is gone or empty, or a line is not JSON.
        """
        return files.parse_lines(self.journal_content(), str(self.journal))[0]

    def replace_rows(self, rows: Sequence[Row], header: dict[str, Json], definition: bytes) -> None:
        """Replace the frozen runs after an extension. The caller holds the lock.

        The new runs and the new definition go to files of their own, and the header, which names them, is replaced
        last: all change in one rename, and the runs as they were stay readable.
        """
        generation = int(header.get("generation", 1)) + 1
        fresh = {"runs_file": f"runs.{generation}.jsonl", "definition_file": f"definition.{generation}.yaml"}
        files.write_atomic(self.records / fresh["runs_file"], _lines(rows))
        files.write_atomic(self.records / fresh["definition_file"], definition)
        files.write_json(self.header_file, header | {"generation": generation, **fresh})
        self.__dict__.pop("header", None)

    def append(self, *events: dict[str, Json]) -> None:
        """Append events to the journal, on disk when this returns. The caller holds the lock."""
        files.append_lines(self.journal, [{"at": now(), **event} for event in events])

    @contextlib.contextmanager
    def lock(self, *, timeout_s: float = 60.0) -> Generator[None]:
        """Hold the collection's lock: needed to write anything below ``.slurmkit/``.

        Raises:
            UsageError: the collection does not exist, or was deleted while this waited.
            LockTimeoutError: another command held it for all of `timeout_s`.
        """
        if not self.exists():
            raise UsageError(f"collection {self.name!r}: not found. slurmkit collection list")
        with files.lock(self.records / "lock", timeout_s=timeout_s):
            self.__dict__.pop("header", None)  # another command may have extended the collection in the meantime
            yield

    def fingerprint(self) -> list[int]:
        """Return what changes whenever a record of the collection does: sizes and times of its files."""
        marks: list[int] = []
        for path in (self.header_file, self.journal):
            status = path.stat()
            marks += [status.st_size, status.st_mtime_ns]
        return marks

    def delete(self) -> None:
        """Remove the collection and all of its runs.

        All goes in one rename: a command that is killed leaves the collection whole or gone, and the next deletion
        removes the files that it left.
        """
        depth = len(Path(self.name).parts)
        root = self.folder.parents[depth - 1]
        self.folder.rename(root / f"{_DELETED}{secrets.token_hex(4)}")
        for doomed in root.glob(f"{_DELETED}*"):
            shutil.rmtree(doomed, ignore_errors=True)  # two commands may be at it
        for parent in list(self.folder.parents)[: depth - 1]:
            with contextlib.suppress(OSError):
                parent.rmdir()


def _lines(rows: Sequence[Row]) -> bytes:
    return b"".join(files.json_line(row.to_json()) for row in rows)


def sha256(content: bytes) -> str:
    """Return the SHA-256 of some bytes, in hex."""
    return hashlib.sha256(content).hexdigest()

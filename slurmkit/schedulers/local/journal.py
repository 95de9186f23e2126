"""A queue's journal on disk: appended under a lock by submitters and supervisor, read by growth, kept short.

Batches of which all jobs have ended move to the archive, one line each; so what a reader reads follows the work at
hand, not the queue's age. A new journal replaces the old as a whole and has a new first line: thus readers notice.
"""

import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from slurmkit import files
from slurmkit.errors import StoreError
from slurmkit.records import SCHEMA
from slurmkit.schedulers import JobReport
from slurmkit.schedulers.local.state import QueueState, Record
from slurmkit.states import JobState

COMPACT_BYTES = 1_000_000
"""A journal below this size is left as it is: it is read in some milliseconds."""
ARCHIVE_DAYS = 90
"""How long the queue remembers jobs that have ended. A collection's own journal remembers them for ever."""
_HEADER_BYTES = 512
"""More than a first line can have."""


def now() -> str:
    """Return the time as the journal writes it: UTC, ISO 8601, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Journal:
    """The journal and archive of one queue, with the state as of the last `refresh`."""

    def __init__(self, queue: Path) -> None:
        self.queue = queue
        self.path = queue / "journal.jsonl"
        self.archive = Archive(queue / "archive.jsonl")
        self._lock = queue / "lock"
        self._forget()

    def refresh(self) -> bool:
        """Take in what others have appended; say whether there was anything.

        Raises:
            StoreError: the journal cannot be read.
        """
        changed = False
        while True:
            header = self._read_header()
            if header != self._header:
                self._forget()
                self._header = header
                changed = True
            records, offset = files.read_lines(self.path, offset=self._offset)
            if self._read_header() == header:
                break  # else: replaced while it was read
        for record in records:
            self.state.apply(record)
        if records:
            self._offset = offset
        return changed or bool(records)

    def commit(self, plan: Callable[[QueueState], list[Record]]) -> list[Record]:
        """Append what a plan decides on the newest state, all or nothing, and wait until it is on disk.

        Args:
            plan: gets the state, applies its records to it as it goes, and returns them.

        Raises:
            StoreError: the disk is full, or the lock is not to be had; nothing was appended.
        """
        with files.lock(self._lock):
            self.refresh()
            try:
                records = plan(self.state)
                self._append(records)
            except BaseException:
                self._forget()  # the state may be ahead of the disk: read it anew
                raise
        return records

    def compact(self) -> bool:
        """Move ended batches to the archive, if the journal has grown; say whether any was moved.

        Killed between its two writes it leaves a batch in both files; the journal's is then the one that counts.
        """
        if not self.path.exists() or self.path.stat().st_size < COMPACT_BYTES:
            return False
        with files.lock(self._lock):
            self.refresh()
            done = [batch for batch in self.state.batches.values() if batch.open == 0]
            if not done:
                return False
            self.archive.add([self._archived(batch.id) for batch in done])
            kept = self._kept_records({batch.id for batch in done})
            content = b"".join(files.json_line(record) for record in [_header(), *kept])
            files.write_atomic(self.path, content, mode=0o600)
            self._remove_environments({record["environment"] for record in kept if record["event"] == "submit"})
            self._forget()
            self.refresh()
        return True

    def reports(self, job_ids: set[str]) -> dict[str, JobReport]:
        """Return what is known of jobs, in the journal or in the archive."""
        found = {job_id: self.state.jobs[job_id].report() for job_id in job_ids if job_id in self.state.jobs}
        return found | self.archive.reports(job_ids - set(found))

    def batch_of(self, token: str) -> list[str] | None:
        """Return the jobs of the submission with this token, or None."""
        if token in self.state.tokens:
            return list(self.state.batches[self.state.tokens[token]].jobs)
        return self.archive.batch_of(token)

    @property
    def position(self) -> tuple[bytes, int]:
        """How far the journal has been read: which journal, and the byte."""
        return self._header, self._offset

    def elsewhere(self) -> str | None:
        """Return the machine that the queue belongs to, if it is not this one: only there its processes are seen."""
        host: str | None = orjson.loads(self._header)["host"] if self._header else None
        return None if host == socket.gethostname() else host

    def _forget(self) -> None:
        self.state = QueueState(self.archive.state_of)
        self._header = b""
        self._offset = 0

    def _read_header(self) -> bytes:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be read: {error.strerror}.") from error
        try:
            line, newline, _ = os.pread(descriptor, _HEADER_BYTES, 0).partition(b"\n")
        finally:
            os.close(descriptor)
        return line if newline else b""

    def _append(self, records: list[Record]) -> None:
        if not records:
            return
        if self._header == b"":
            head = _header()
            files.append_lines(self.path, [head, *records], mode=0o600)
            self._header = files.json_line(head).rstrip(b"\n")
        else:
            files.append_lines(self.path, records, mode=0o600)
        self._offset = self.path.stat().st_size

    def _archived(self, batch_id: str) -> Record:
        batch = self.state.batches[batch_id]
        jobs = {job_id: asdict(self.state.jobs[job_id].report()) for job_id in batch.jobs}
        return {"batch": batch.id, "token": batch.token, "time": now(), "jobs": jobs}

    def _kept_records(self, leaving: set[str]) -> list[Record]:
        """Return the journal's records without those of some batches."""
        records, _ = files.read_lines(self.path)
        kept: list[Record] = []
        for record in records:
            match record["event"]:
                case "journal":
                    continue
                case "submit":
                    stays = record["batch"] not in leaving
                case "cancel":
                    staying = [job for job in record["jobs"] if job.rpartition("_")[0] not in leaving]
                    record["jobs"] = staying
                    stays = bool(staying)
                case _:
                    stays = record["job"].rpartition("_")[0] not in leaving
            if stays:
                kept.append(record)
        return kept

    def _remove_environments(self, used: set[str]) -> None:
        for path in (self.queue / "environments").glob("*.json"):
            if path.name not in used:
                path.unlink(missing_ok=True)


class Archive:
    """Ended batches, one line each; read only when somebody asks for a job that the journal no longer holds."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, lines: list[Record]) -> None:
        """Append batches, and let go of those that are too old. The caller holds the queue's lock."""
        files.append_lines(self._path, lines, mode=0o600)
        first = self._path.read_bytes().split(b"\n", 1)[0]
        if _time_of(orjson.loads(first)) < datetime.now(UTC) - timedelta(days=ARCHIVE_DAYS + 10):
            records, _ = files.read_lines(self._path)
            oldest = datetime.now(UTC) - timedelta(days=ARCHIVE_DAYS)
            young = [files.json_line(record) for record in records if _time_of(record) >= oldest]
            files.write_atomic(self._path, b"".join(young), mode=0o600)

    def state_of(self, job_id: str) -> JobState | None:
        """Return how a job ended, or None if the archive does not know it."""
        report = self.reports({job_id}).get(job_id)
        return None if report is None else report.state

    def reports(self, job_ids: set[str]) -> dict[str, JobReport]:
        """Return what is known of jobs."""
        found: dict[str, JobReport] = {}
        for batch_id in {job_id.rpartition("_")[0] for job_id in job_ids}:
            record = self._line_with("batch", batch_id)
            jobs: dict[str, Record] = {} if record is None else record["jobs"]
            for job_id in job_ids & set(jobs):
                report: Record = {**jobs[job_id], "state": JobState(jobs[job_id]["state"])}
                found[job_id] = JobReport(**report)
        return found

    def batch_of(self, token: str) -> list[str] | None:
        """Return the jobs of the submission with this token, or None."""
        record = self._line_with("token", token)
        return None if record is None else list(record["jobs"])

    def _line_with(self, key: str, value: str) -> Record | None:
        """Return the last line that has a value; lines without it are passed over unparsed."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        needle = f'"{key}":'.encode() + orjson.dumps(value)
        place = content.rfind(needle)
        if place < 0:
            return None
        start = content.rfind(b"\n", 0, place) + 1
        end = content.find(b"\n", place)
        return orjson.loads(content[start:end]) if end > 0 else None


def _header() -> dict[str, Any]:
    return {"event": "journal", "schema": SCHEMA, "id": secrets.token_hex(8), "host": socket.gethostname()}


def _time_of(record: Record) -> datetime:
    return datetime.fromisoformat(record["time"])

"""The folder of one attempt, and all records that its worker writes."""

import contextlib
import errno
import hashlib
import os
import socket
import stat
import time
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import cast

import orjson

from slurmkit import __version__, files
from slurmkit.diagnose import check_metrics
from slurmkit.errors import StoreError
from slurmkit.log_tail import LogTail
from slurmkit.records import SCHEMA, Json, Outcome, WorkOrder
from slurmkit.states import Reason
from slurmkit.store import now
from slurmkit.worker.imports import remove_lists
from slurmkit.worker.signals import Signals

_OF_THE_COMMAND = ("metrics.json", "error.json", "progress.json")
"""Files that the command writes into the run's directory about one attempt."""

_TAIL_BYTES = 65536
_MAX_ERROR_BYTES = 1_000_000
_MAX_METRICS_BYTES = 64 * 2**20
"""More than any record of final numbers; a series belongs into ``history.jsonl``."""

_OUTCOME_RETRIES_S = (1.0, 5.0, 15.0)
"""Pauses between tries to write the outcome: a disk can be full, or a server away, for a moment."""

_NO_LOCKS = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK})


class AttemptFolder:
    """``<run>/attempts/<n>/`` and the run's directory, as far as they are this attempt's.

    Attributes:
        path: the attempt's folder.
        restart: how often this attempt was started before.
    """

    def __init__(self, order: WorkOrder) -> None:
        self._order = order
        self.run_dir = Path(order.run_dir)
        self.path = self.run_dir / "attempts" / str(order.attempt)
        self.stdout, self.stderr = self.path / "stdout.log", self.path / "stderr.log"
        self.imports = self.path / ".imports"
        self.restart = 0
        self.started_at = now()
        self._stderr_offset = 0

    @contextlib.contextmanager
    def hold(self, signals: Signals) -> Generator[bool]:
        """Make the folder, and hold the attempt for the time of the block once no other worker of it is alive.

        A scheduler that lost sight of a worker can start a second one; both would write the same files. The lock is
        on the log, so that it leaves no file of its own; on file systems without locks there is none.

        Yields:
            whether the attempt is held; False if a signal asked to stop while another worker had it.
        """
        descriptor = None
        with _told(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                while (descriptor := files.try_lock(self.stdout)) is None and not signals.received:
                    signals.wait(0.2)
                held = descriptor is not None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                held = True
        try:
            yield held
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def completed_before(self) -> bool:
        """Whether this attempt has completed already and its metrics are still those that it left."""
        outcome = _read(self.path / "outcome.json")
        if outcome is None or outcome.get("outcome") != "completed":
            return False
        try:
            content = (self.run_dir / "metrics.json").read_bytes()
        except OSError:
            return False
        return hashlib.sha256(content).hexdigest() == outcome.get("metrics_sha256")

    def preempted_for_good(self) -> bool:
        """Whether an earlier start ended by one preemption more than the definition allows.

        A scheduler that queues what it preempts again asks nobody: it starts such an attempt once more.
        """
        outcome = _read(self.path / "outcome.json") or {}
        return outcome.get("outcome") == "failed" and outcome.get("reason") == Reason.PREEMPTED

    def requeued(self) -> dict[str, int]:
        """Count, by reason, how often earlier starts of this attempt asked to be queued again."""
        earlier = [_read(path) or {} for path in self.path.glob("outcome.*.json")]
        asked = [record.get("reason") for record in earlier if record.get("outcome") == "requeue"]
        return Counter(reason for reason in asked if isinstance(reason, str))

    def begin(self, job_id: str) -> None:
        """Put away what earlier attempts and starts left, and write what this one starts with.

        None of these records waits for the disk: after a power cut the attempt is one that never recorded an end,
        whatever is left of them.
        """
        order = self._order
        with _told(self.path):
            self._put_away_earlier_start()
            self._put_away_earlier_attempt()
            with contextlib.suppress(FileNotFoundError):
                self._stderr_offset = self.stderr.stat().st_size
            remove_lists(self.imports)
        for folder in (self.run_dir, self.path):
            files.write_json(folder / "config.json", order.config, durable=False)
        if order.changes:
            files.write_json(self.path / "changes.json", {"schema": SCHEMA, **order.changes}, durable=False)
        started = {
            "schema": SCHEMA,
            "run_id": order.run_id,
            "attempt": order.attempt,
            "restart": self.restart,
            "job_id": job_id,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started_at": self.started_at,
            "commit": order.commit,
            "checkout": order.checkout,
            "command": order.command,
            "config_sha256": order.config_sha256,
            "slurmkit": __version__,
        }
        files.write_json(self.path / "started.json", started, durable=False)

    def beat(self, rss_mb: float, peak_rss_mb: float) -> None:
        """Write the heartbeat. If it cannot be written the command goes on: its results matter more."""
        record = {
            "schema": SCHEMA,
            "time": now(),
            "restart": self.restart,
            "rss_mb": round(rss_mb, 1),
            "peak_rss_mb": round(peak_rss_mb, 1),
        }
        with contextlib.suppress(StoreError):
            files.write_json(self.path / "heartbeat.json", record, durable=False)

    def take_error(self) -> dict[str, Json] | None:
        """Move the command's ``error.json`` to the attempt, and return what it says."""
        path = self.path / "error.json"
        try:
            (self.run_dir / "error.json").rename(path)
            record: Json = orjson.loads(_regular_content(path, _MAX_ERROR_BYTES))
        except FileNotFoundError:
            return None
        except OSError as error:
            return {"kind": "error", "message": f"error.json cannot be read: {error.strerror}"}
        except orjson.JSONDecodeError as error:
            return {"kind": "error", "message": f"error.json is not JSON: {error.msg}"}
        if not isinstance(record, dict):
            return {"kind": "error", "message": "error.json is not a JSON object"}
        return cast("dict[str, Json]", record)

    def take_metrics(self) -> tuple[str | None, str | None]:
        """Check ``metrics.json``, and see that it is on disk, for the outcome will vouch for it.

        Returns:
            its SHA-256 and None, or None and what is wrong with it.
        """
        try:
            content = _regular_content(self.run_dir / "metrics.json", _MAX_METRICS_BYTES, durable=True)
        except FileNotFoundError:
            return None, "was not written"
        except OSError as error:
            return None, f"cannot be read: {error.strerror}"
        problem = check_metrics(content)
        return (hashlib.sha256(content).hexdigest(), None) if problem is None else (None, problem)

    def stderr_tail(self) -> LogTail:
        """Return the end of what this start of the command wrote to stderr, with its line numbers in the whole log."""
        try:
            with self.stderr.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                begin = max(self._stderr_offset, end - _TAIL_BYTES)
                file.seek(begin)
                content = file.read(_TAIL_BYTES)
                file.seek(0)
                lines_before = _count_lines(file.read(min(2**20, begin - at)) for at in range(0, begin, 2**20))
        except OSError:
            return LogTail()
        return LogTail(content, lines_before + 1)

    def end(self, outcome: Outcome) -> None:
        """Record the end, durably.

        Raises:
            StoreError: it could not be written, also not later.
        """
        for pause_s in _OUTCOME_RETRIES_S:
            try:
                files.write_json(self.path / "outcome.json", outcome)
            except StoreError:
                time.sleep(pause_s)
            else:
                return
        files.write_json(self.path / "outcome.json", outcome)

    def _put_away_earlier_start(self) -> None:
        """Number what an earlier start of this attempt left. The mark that it was started goes last."""
        numbers = [path.name.split(".")[1] for path in self.path.glob("started.*.json")]
        self.restart = 1 + max((int(number) for number in numbers if number.isdigit()), default=-1)
        if not (self.path / "started.json").exists():
            return
        earlier = self.restart
        self.restart += 1
        for name in ("error", "metrics"):  # of a start that did not live to take them
            _move(self.run_dir / f"{name}.json", self.path / f"{name}.{earlier}.json")
        for name in ("outcome", "error", "started"):
            _move(self.path / f"{name}.json", self.path / f"{name}.{earlier}.json")

    def _put_away_earlier_attempt(self) -> None:
        """Move what an earlier attempt left to its folder, so that it can never be read as this one's."""
        if self.restart:
            return
        here = self._order.attempt
        earlier = [n for n in range(here - 1, 0, -1) if (self.path.parent / str(n)).is_dir()]
        folder, prefix = (self.path.parent / str(earlier[0]), "") if earlier else (self.path, "before.")
        for name in _OF_THE_COMMAND:
            _move(self.run_dir / name, folder / f"{prefix}{name}")


def _move(source: Path, target: Path) -> None:
    """Rename a file if it is there; what has the new name already stays beside it."""
    if target.exists():
        target = target.with_name(f"{target.name}.{time.time_ns()}")
    with contextlib.suppress(FileNotFoundError):
        source.rename(target)


def _read(path: Path) -> dict[str, Json] | None:
    """Read a JSON object; None if there is none that can be read."""
    try:
        record: Json = files.read_json(path)
    except (FileNotFoundError, StoreError):
        return None
    return cast("dict[str, Json]", record) if isinstance(record, dict) else None


def _regular_content(path: Path, most: int, *, durable: bool = False) -> bytes:
    """Return the bytes of a file that a command wrote; a pipe under its name blocks nobody.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger than `most` bytes.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        content = file.read(most + 1)
        if len(content) > most:
            raise OSError(errno.EFBIG, f"larger than {most:,} bytes")
        if durable:
            os.fsync(descriptor)
    return content


def _count_lines(chunks: Iterator[bytes]) -> int:
    return sum(chunk.count(b"\n") for chunk in chunks)


@contextlib.contextmanager
def _told(path: Path) -> Generator[None]:
    """Turn what the operating system refuses into an error that says where and what to do."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise StoreError(f"{where}: cannot be written: {error.strerror}. Mend that and resubmit the run.") from error

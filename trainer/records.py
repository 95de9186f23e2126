"""The files that a run leaves below its directory: progress, history, metrics, error. Owner of their names.

Whole files are replaced at once (temporary file, then rename), so that a reader never sees half of one.
"""

import fcntl
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError
from trainer.tracking import Tracking

STATE_FILE = "state.pt"
"""What a run goes on from, in its checkpoint's folder."""

PROGRESS_INTERVAL_S = 0.5
"""``progress.json`` is written at most that often."""

LOCK_PATIENCE_S = 3.0
"""How long the trainer before may take to die before the next one is refused."""


class RunRecords:
    """Writes the records of one run.

    Args:
        folder: the run's directory; made if there is none.
        tracking: who is told what was recorded.
    """

    def __init__(self, folder: Path, tracking: Tracking | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.checkpoint_folder = folder / "checkpoint"
        self.state_path = self.checkpoint_folder / STATE_FILE
        self.pool_folder = folder / "pool"
        self.tracking = tracking or Tracking(())
        self._next_progress = 0.0

    def begin(self) -> None:
        """Remove what an earlier try said of its end."""
        for name in ("error.json", "metrics.json"):
            (self.folder / name).unlink(missing_ok=True)

    def progress(self, step: int, of: int, metrics: Mapping[str, float], *, force: bool = False) -> None:
        """Say where the run stands, unless it was said less than half a second ago.

        Args:
            step: optimiser steps done.
            of: optimiser steps in all.
            metrics: what to show beside it; values that are not finite are left out.
            force: write it also if the last time was a moment ago.
        """
        now = time.monotonic()
        if now < self._next_progress and not force:
            return
        self._next_progress = now + PROGRESS_INTERVAL_S
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        record = {"step": step, "of": of, "metrics": finite, "time": datetime.now(UTC).isoformat()}
        write_json(self.folder / "progress.json", record)

    def history(self, point: Mapping[str, float | int | None]) -> None:
        """Append one point of the series."""
        with (self.folder / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(point, allow_nan=False) + "\n")
        self.tracking.point(point)

    def rewind_history(self, step: int) -> None:
        """Drop the points behind a step, and a torn last line: the run goes on from there."""
        path = self.folder / "history.jsonl"
        if not path.exists():
            return
        lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is torn, or nothing
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        write_bytes(path, b"".join(line + b"\n" for line in kept))

    def set_aside(self, series: str) -> Path:
        """Move checkpoint and history out of the way of another series, and return where they are kept."""
        kept = self.folder / f"series-{series[:12]}"
        kept.mkdir(exist_ok=True)
        for path in (self.checkpoint_folder, self.folder / "history.jsonl"):
            if path.exists():
                target = kept / path.name
                if target.is_dir():  # of an earlier time: the newer one is the one that counts
                    shutil.rmtree(target)
                path.replace(target)
        return kept

    def metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write the final metrics. A number that is not finite becomes null, with a reason beside it."""
        record: dict[str, Any] = {}
        for key, value in metrics.items():
            if isinstance(value, float) and not math.isfinite(value):
                record[key] = None
                record[f"{key}__reason"] = f"not a finite number ({value})"
            else:
                record[key] = value
        write_json(self.folder / "metrics.json", record)
        self.tracking.end(record)

    def error(self, *, kind: str, error: BaseException, **evidence: Any) -> None:
        """Say how the run failed.

        Args:
            kind: ``oom``, ``diverged`` or ``error``.
            error: what was raised.
            evidence: more of it: step, term and last checkpoint of a divergence, figures of the memory.
        """
        record = {"kind": kind, "type": type(error).__name__, "message": str(error)[:4000], **evidence}
        write_json(self.folder / "error.json", record)


@contextmanager
def sole_writer(folder: Path) -> Iterator[RunRecords]:
    """Keep a run's directory to this process for the time of the block, and begin a try in it.

    The lock is on the directory itself and falls with the process, however that ends. It holds on one machine: network
    file systems do not pass a directory's locks on, and one that knows none lets the run go without.

    Raises:
        TrainerError: the directory cannot be written, or another trainer is at work in it.
    """
    try:
        records = RunRecords(folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _unusable(folder, error) from error
    try:
        with suppress(OSError):
            _lock(folder, descriptor)
        try:
            records.begin()
        except OSError as error:
            raise _unusable(folder, error) from error
        yield records
    finally:
        os.close(descriptor)


def _unusable(folder: Path, error: OSError) -> TrainerError:
    return TrainerError(f"--run-dir: {folder} cannot be written: {error.strerror}. Name another folder.")


def _lock(folder: Path, descriptor: int) -> None:
    """Take the lock; a trainer that was killed a moment ago is waited for."""
    until = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise TrainerError(
                    f"--run-dir: another trainer is at work in {folder}. Let it end, or name another folder."
                ) from error
        time.sleep(0.1)


def write_json(path: Path, record: Any) -> None:
    """Replace a file by a record as JSON, at once."""
    write_bytes(path, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file by its new content, at once and durably."""
    with replacement(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacement(path: Path) -> Iterator[Path]:
    """Give the block a file to write beside `path`, and put it in its place when the block is done.

    A kill or a full disk leaves the old file. The temporary name is always the same, so that the leftover of a killed
    writer is used again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

"""Is a queue's supervisor alive, wake it, start one: the submitter's side."""

import contextlib
import hashlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

import slurmkit
from slurmkit import files
from slurmkit.errors import SchedulerError, StoreError
from slurmkit.schedulers.local.processes import MARK, is_alive

QUEUE_VARIABLE = "SLURMKIT_LOCAL_QUEUE"
MARK_PLACEHOLDER = "-" * 40
"""The supervisor's own value of the mark, as long as any job id: its forks write theirs over it."""
_START_TIMEOUT_S = 60
_SHAPES_INTERPRETER = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_")
"""Prefixes of environment variables that are read when an interpreter starts, and not again."""


def default_queue() -> Path:
    """Return the queue of people who name none: `QUEUE_VARIABLE`, or one a user and machine."""
    named = os.environ.get(QUEUE_VARIABLE)
    if named:
        return Path(named).absolute()
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "slurmkit" / "queue" / socket.gethostname()


def make_queue(queue: Path) -> None:
    """Make the folder of a queue, for its owner's eyes only.

    Raises:
        SchedulerError: it cannot be made.
    """
    try:
        queue.mkdir(mode=0o700, parents=True, exist_ok=True)
        (queue / "environments").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SchedulerError(f"{queue}: cannot be made: {error.strerror}. Check the folder's permissions.") from error


def wake_supervisor(queue: Path) -> None:
    """Make sure that a supervisor looks at the journal: the one that lives, or a new one.

    When it returns after a start, the new supervisor has taken over what the last one left.

    Raises:
        SchedulerError: a supervisor cannot be started, or does not stand in time.
    """
    try:
        lock = lock_if_unsupervised(queue)
    except OSError as error:
        raise SchedulerError(f"{queue}: cannot be written: {error.strerror}. Check the disk and the folder.") from error
    if lock is None:
        _ring(queue / "wake")
        return
    os.close(lock)
    package_root = Path(slurmkit.__file__).parent.parent
    command = [sys.executable, "-m", f"{__package__}.daemon", str(queue)]
    log = queue / "supervisor.log"
    try:
        answer = subprocess.run(
            command,
            cwd=package_root,
            env=os.environ | {MARK: MARK_PLACEHOLDER},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,  # a Ctrl-C at the submitter does not reach it
            timeout=_START_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        late = f"{queue}: the local queue's supervisor does not stand after {_START_TIMEOUT_S} s. See {log}."
        raise SchedulerError(f"{late} Run the command again when the machine is less busy.") from error
    if answer.returncode != 0:
        why = answer.stderr or (log.read_text(errors="replace") if log.exists() else "")
        last = why.strip().splitlines()[-1:] or ["no message"]
        raise SchedulerError(f"{queue}: the local queue's supervisor cannot start: {last[0]}. See {log}.")


def lock_if_unsupervised(queue: Path) -> int | None:
    """Take the supervisor's lock of a queue, or return None: one stands.

    Others hold it for a moment, and are waited for: somebody who looks, a supervisor that begins, and the fork of one
    that was killed, until it has let go of what it inherited.

    Raises:
        OSError: the lock file cannot be made.
        SchedulerError: somebody has held the lock for long, and no supervisor stands.
    """
    deadline = time.monotonic() + _START_TIMEOUT_S
    while (lock := files.try_lock(queue / "supervisor.lock")) is None and not _stands(queue):
        if time.monotonic() >= deadline:
            held = f"{queue / 'supervisor.lock'}: held for {_START_TIMEOUT_S} s, and by no supervisor that is at work."
            raise SchedulerError(f"{held} End what holds it, and run the command again.")
        time.sleep(0.01)
    return lock


def _stands(queue: Path) -> bool:
    """Whether the process lives that was the last to write down that it is the supervisor."""
    try:
        record = files.read_json(queue / "supervisor.json")
    except (FileNotFoundError, StoreError):  # it is not synced: a power cut can leave half of it
        return False
    return "ticks" not in record or is_alive(record["pid"], record["ticks"])  # an earlier version wrote none


def interpreter_fingerprint() -> str:
    """Name all that makes an interpreter started now behave as it does, slurmkit's own code included.

    Equal for submitter and supervisor, a job may be forked from the supervisor instead of executed.
    """
    package = Path(slurmkit.__file__).parent
    newest = max(path.stat().st_mtime_ns for path in package.rglob("*.py"))
    shaping = sorted(item for item in os.environ.items() if item[0].startswith(_SHAPES_INTERPRETER))
    described = json.dumps([sys.executable, sys.prefix, str(package), newest, shaping])
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def save_environment(queue: Path) -> str:
    """Write this process's environment variables where only their owner can read them; return the file's name."""
    variables = {name: value for name, value in os.environ.items() if name != MARK}
    content = json.dumps(variables, sort_keys=True).encode()  # escapes bytes that are not UTF-8, as orjson does not
    name = hashlib.sha256(content).hexdigest()[:32] + ".json"
    path = queue / "environments" / name
    if not path.exists():
        files.write_atomic(path, content, mode=0o600)
    return name


def new_batch_id() -> str:
    """Return an id that no other batch has: the time, for people to sort by, and chance."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    seconds, word = int(time.time()), ""
    while seconds:
        seconds, digit = divmod(seconds, 36)
        word = digits[digit] + word
    return word + "".join(secrets.choice(digits) for _ in range(4))


def _ring(fifo: Path) -> None:
    """Write a byte to the supervisor, if it listens already (else it reads the journal anyway, soon)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(descriptor, b".")
        finally:
            os.close(descriptor)

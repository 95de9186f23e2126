"""What the tests of the local queue share: a queue of their own, and functions for its jobs to run."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cloudpickle

from slurmkit.schedulers.local import launch, processes
from slurmkit.schedulers.local.claims import Claim, Claims
from slurmkit.schedulers.local.executor import LocalQueueExecutor
from slurmkit.schedulers.local.journal import Journal
from slurmkit.schedulers.local.state import Job

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a job cannot import the tests

IDLE = "schedulers.local.supervisor.IDLE_S"
PATIENT = {"schedulers.local.watch.MEMORY_GRACE_S": 600}
"""Constants of a supervisor that leaves a worker all the time it takes to tell what became of its command."""

WITH_CONSTANTS = """
import json, sys
from importlib import import_module
from pathlib import Path
from slurmkit.schedulers.local import daemon

for name, value in json.loads(sys.argv[2]).items():
    module, _, constant = name.rpartition(".")
    values = vars(import_module("slurmkit." + module))
    assert constant in values
    values[constant] = value
daemon.main(Path(sys.argv[1]))
"""


class Queue:
    """A queue in a folder of its own, and all that a test asks of it.

    Args:
        folder: for the pickles and logs of jobs.
        path: folder of the queue, if it is not to be one beside them.
    """

    def __init__(self, folder: Path, path: Path | None = None) -> None:
        self.path = path or folder / "queue"
        self.folder = folder / "jobs"
        self.folder.mkdir()
        self.executor = LocalQueueExecutor(self.folder, queue=self.path)

    def supervisor(self) -> int:
        """Return the process id that the latest supervisor wrote down; 0 before the first."""
        try:
            return json.loads((self.path / "supervisor.json").read_bytes())["pid"]
        except FileNotFoundError:
            return 0

    def jobs(self) -> dict[str, Job]:
        journal = Journal(self.path)
        journal.refresh()
        return journal.state.jobs

    def job(self, job_id: str) -> Job:
        return self.jobs()[job_id]

    def wait(self, done: Callable[[], Any], timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < deadline, f"still waiting; {_read(self.path / 'supervisor.log').decode()}"
            time.sleep(0.01)

    def wait_ended(self) -> dict[str, Job]:
        self.wait(lambda: all(job.state.ended for job in self.jobs().values()))
        return self.jobs()

    def claim(self, job_id: str) -> Claim:
        """Return who runs the present start of a job; process id 0: nobody yet."""
        return Claims(self.path / "claims").all().get((job_id, self.job(job_id).restarts), Claim(0, 0, None))

    def supervise(self, constants: Mapping[str, Any]) -> None:
        """Start a supervisor with some constants changed (see `start_supervisor`)."""
        start_supervisor(self.path, constants)

    def let_time_pass(self, job_id: str, ran_s: float, constants: Mapping[str, Any] | None = None) -> None:
        """Let a job have run for a time: its supervisor is killed, and the next one reads that it began so long ago."""
        self.kill_supervisor()
        path = self.path / "journal.jsonl"
        lines = path.read_text().splitlines(keepends=True)
        last = max(n for n, line in enumerate(lines) if '"started"' in line and f'"{job_id}"' in line)
        began = (datetime.now(UTC) - timedelta(seconds=ran_s)).isoformat(timespec="milliseconds")
        lines[last] = lines[last].replace(json.loads(lines[last])["time"], began)
        path.write_text("".join(lines))
        self.supervise(constants or {})

    def supervisors(self) -> list[int]:
        """Return the supervisors of this queue that are alive, those that only begin to be included."""
        found: list[int] = []
        for process in processes.all_processes().values():
            path = Path("/proc") / str(process.pid)
            if not process.zombie and str(self.path).encode() in _read(path / "cmdline"):
                leads = process.session == process.pid  # a job's process, between fork and claim, does not
                if leads and f"{processes.MARK}={launch.MARK_PLACEHOLDER}".encode() in _read(path / "environ"):
                    found.append(process.pid)
        return found

    def processes(self) -> set[int]:
        """Return all living processes of any job of this queue."""
        seen = processes.all_processes()
        return {pid for pids in processes.marked(seen, set(self.jobs())).values() for pid in pids}

    def kill_supervisor(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the supervisors that there are, and wait until they hold nothing any more.

        A process that ends has no command line for a moment in which it still holds its locks: its id is what counts.
        """
        killed = [process for pid in self.supervisors() if (process := processes.read_process(pid)) is not None]
        for process in killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)
        self.wait(lambda: not any(processes.is_alive(process.pid, process.ticks) for process in killed))

    def close(self) -> None:
        """Leave no process behind."""
        self.kill_supervisor()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def start_supervisor(queue: Path, constants: Mapping[str, Any]) -> None:
    """Start a supervisor for which, and for whose jobs, constants of slurmkit have other values; it does not leave.

    Args:
        queue: folder of the queue.
        constants: dotted name below ``slurmkit`` to value.
    """
    launch.make_queue(queue)
    subprocess.run(
        [sys.executable, "-c", WITH_CONSTANTS, str(queue), json.dumps({IDLE: 600, **constants})],
        env=os.environ | {processes.MARK: launch.MARK_PLACEHOLDER},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        check=True,
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def note(path: str, text: str = "", sleep_s: float = 0.0) -> None:
    """Append one line to a file, in one write."""
    time.sleep(sleep_s)
    with Path(path).open("a") as file:
        file.write(text + "\n")


def hold(path: str, text: str, until: str, code: int = 0) -> None:
    """Append that it began, wait until a file has a line, append that it ends, and exit with a code."""
    note(path, f"{text} began")
    while not has_line(until):
        time.sleep(0.01)
    note(path, f"{text} ends")
    if code != 0:
        sys.exit(code)


def has_line(path: str | Path, line: str = "") -> bool:
    """Say whether a file is there and has a line, or any line."""
    try:
        lines = Path(path).read_text().splitlines()
    except FileNotFoundError:
        return False
    return line in lines if line else bool(lines)


def family(path: str) -> None:
    """Start a grandchild in a session of its own, and one that is forked; once all are there, say so and wait."""
    code = (
        "import subprocess, time; subprocess.Popen(['sleep', '300'], start_new_session=True); "
        "print(flush=True); time.sleep(300)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    between = os.fork()
    if between == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(300)
        os._exit(0)
    os.waitpid(between, 0)
    assert child.stdout is not None
    child.stdout.readline()
    note(path, "up")
    time.sleep(300)


def fill(size_mb: int) -> int:
    """Use memory, in a child, until it is ended."""
    code = f"import time; x = bytearray(b'x' * ({size_mb} << 20)); time.sleep(300)"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode


def fill_again(path: str, size_mb: int) -> None:
    """Use memory, in a child, and in another one when that is killed for it."""
    for which in ("first", "again"):
        note(path, which)
        fill(size_mb)
    note(path, "over")


def fill_myself(size_mb: int) -> int:
    """Use memory in the job's own process, until it is ended."""
    held = bytearray(b"x" * (size_mb << 20))
    time.sleep(300)
    return len(held)


def listen(path: str) -> None:
    """Write down the signals that come, and go on."""
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, lambda number, _: note(path, signal.Signals(number).name))
    note(path, "began")
    while True:
        time.sleep(1)


def again(path: str, times: int) -> str:
    """Ask to be queued again some times, then complete."""
    restart = os.environ["SLURMKIT_RESTART"]
    note(path, restart)
    if int(restart) < times:
        sys.exit(75)
    return restart


def environment() -> dict[str, Any]:
    """Return what a job sees around it."""
    libc = ctypes.CDLL(None)
    held_back = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    return {
        "variables": dict(os.environ),
        "cwd": str(Path.cwd()),
        "umask": os.umask(0o22),
        "session": os.getsid(0) == os.getpid(),
        "stdin": os.read(0, 1),
        "held_back": sorted(held_back),
        "handlers": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGCHLD, signal.SIGHUP)],
        "descriptors": sorted(int(path.name) for path in Path("/proc/self/fd").iterdir()),
        "path": sys.path[0],
        "pid": os.getpid(),
        "parent": libc.getppid(),
    }


class Counter:
    """Counts up, and keeps its count when it is queued again: submitit's checkpoints."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.count = 0

    def __call__(self) -> int:
        before, self.count = self.count, 7
        note(self.path, f"from {before}")
        if before == 0:
            time.sleep(300)
        return self.count

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

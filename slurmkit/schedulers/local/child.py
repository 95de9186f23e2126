"""What happens in the process of a job between its fork from the supervisor and its end.

A job whose interpreter would be just like the supervisor's goes on in the fork: submitit's own entry function is called
in a process that has been made to look like a fresh ``python -u -m submitit.core._submit``. Any other is executed, and
this process stays beside it to pass signals on and to note its exit code.
"""

import atexit
import contextlib
import ctypes
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from submitit.core.utils import JobPaths

from slurmkit.schedulers.local.claims import Claims
from slurmkit.schedulers.local.launch import MARK_PLACEHOLDER
from slurmkit.schedulers.local.processes import ENTRY, MARK, read_process
from slurmkit.schedulers.local.state import Batch, Job

NOT_CLAIMED = 113
"""Exit code of a process that found the start of its job taken by another."""
DEFERRED = frozenset({signal.SIGTERM, signal.SIGUSR2})
"""Signals that are held back from before the fork until the job's own handlers stand: none is lost, none kills."""


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a job, as its process needs it.

    Attributes:
        queue: folder of the queue.
        in_fork: go on in the fork, instead of executing the interpreter.
        base_path: the supervisor's ``sys.path`` without its script folder and PYTHONPATH.
        mark_address: where the supervisor's own environment block holds the value of the mark.
    """

    queue: Path
    job: Job
    batch: Batch
    number: int
    in_fork: bool
    base_path: tuple[str, ...]
    mark_address: int


def mark_address() -> int:
    """Return where this process's environment block, which /proc shows to others, holds the mark's value."""
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    address = getenv(MARK.encode())
    assert address is not None, "the supervisor is started with the mark in its environment"
    return address


def run(start: Start) -> NoReturn:
    """Be the process of a job: claim its start, run it, note its exit code, end."""
    os.closerange(3, 65536)  # above all the supervisor's lock, which would outlive it here
    _fresh_signals()
    ctypes.memmove(start.mark_address, start.job.id.ljust(len(MARK_PLACEHOLDER)).encode(), len(MARK_PLACEHOLDER))
    os.setsid()
    Path("/proc/self/comm").write_text(start.job.id, encoding="ascii")  # what ps and top call it
    me = read_process(os.getpid())
    assert me is not None, "a process sees itself"
    claims = Claims(start.queue / "claims")
    number = start.number
    if not claims.take(start.job.id, number, me.pid, me.ticks):
        os._exit(NOT_CLAIMED)
    try:
        _enter(start)
        code = _go_on(start) if start.in_fork else _execute(start)
    except OSError as error:
        os.write(2, f"The job could not be started: {error}\n".encode())
        code = 1
    claims.finish(start.job.id, number, me.pid, me.ticks, code)
    os._exit(code)


def environment_of(start: Start) -> dict[str, str]:
    """Return the variables of a job: the submitter's, and what the queue adds."""
    path = start.queue / "environments" / start.batch.environment
    variables: dict[str, str] = json.loads(path.read_bytes())
    cpus = str(start.job.cpus)
    return variables | {
        MARK: start.job.id,
        "SLURMKIT_RESTART": str(start.number),
        "SLURMKIT_CPUS": cpus,
        "SUBMITIT_EXECUTOR": "slurmkit_local",
        "CUDA_VISIBLE_DEVICES": ",".join(start.job.gpu_ids),
        # Threads that spin at a barrier while others hold the CPUs cost a factor of ten and more.
        "OMP_NUM_THREADS": cpus,
        "MKL_NUM_THREADS": cpus,
        "OPENBLAS_NUM_THREADS": cpus,
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def _fresh_signals() -> None:
    """Undo the supervisor's handlers; `DEFERRED` stay held back."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, DEFERRED)


def _enter(start: Start) -> None:
    """Take over the job's output files, variables, umask and folder."""
    paths = JobPaths(start.batch.folder, job_id=start.job.id, task_id=0)
    paths.folder.mkdir(parents=True, exist_ok=True)
    for descriptor, path in ((1, paths.stdout), (2, paths.stderr)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666 & ~start.batch.umask)
        os.dup2(opened, descriptor)
        os.close(opened)
    variables = environment_of(start)
    os.environ.clear()
    os.environ.update(variables)
    os.umask(start.batch.umask)
    os.chdir(start.batch.cwd)


def _go_on(start: Start) -> int:
    """Run submitit's entry function here; return the exit code that an interpreter would have given."""
    time.tzset()
    extra = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[:] = [start.batch.cwd, *extra, *start.base_path]
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper), "nobody has replaced them in the supervisor"
        stream.reconfigure(write_through=True)  # python -u
    from submitit.core import submission

    sys.argv = [submission.__file__, start.batch.folder]
    code = 0
    try:
        submission.process_job(start.batch.folder)
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:  # the border of the process: what no code has caught, the interpreter prints
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    # As multiprocessing ends its forks: wait for threads, run what was registered. There is no public way.
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return code & 0xFF


def _execute(start: Start) -> int:
    """Run the job's own interpreter beside this process; return its exit code, or die of what it died of."""
    command = [*start.batch.python, "-u", "-m", ENTRY, start.batch.folder]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:  # it inherits the held-back signals

        def pass_on(number: int, _frame: FrameType | None) -> None:
            process.send_signal(number)

        for number in DEFERRED:
            signal.signal(number, pass_on)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, DEFERRED)
        code = process.wait()
    if code < 0:
        if -code not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code

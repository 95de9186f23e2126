"""The process tree below a worker: who is in it, what memory it takes, and how it is ended."""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Generator, Iterable
from pathlib import Path

from slurmkit.schedulers.local.processes import all_processes, family, read_process, send

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
"""From <linux/prctl.h>."""

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends; at once if that has happened already."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def adopting_orphans() -> Generator[None]:
    """Make this process, for the time of the block, the parent of descendants whose own parent ends."""
    before = ctypes.c_int(0)
    _libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)


def children(pid: int) -> set[int]:
    """Return the ids of a process's children, of all its threads; empty if it has ended."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in os.scandir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found.update(map(int, Path(task.path, "children").read_bytes().split()))
    return found


def descendants(roots: Iterable[int]) -> set[int]:
    """Return processes and all below them, by asking these alone: a machine can have thousands of others."""
    found: set[int] = set()
    open_pids = list(roots)
    while open_pids:
        pid = open_pids.pop()
        if pid not in found:
            found.add(pid)
            open_pids.extend(children(pid))
    return found


def rss_mb(pids: Iterable[int]) -> float:
    """Return the resident memory of processes in MiB; pages that they share are counted for each."""
    return sum(process.rss_mb for pid in pids if (process := read_process(pid)) is not None)


def own_peak_mb() -> float:
    """Return the most memory that this program has had resident, in MiB (VmHWM, ``man proc_pid_status``).

    Not `getrusage`, whose number also holds what the process was before it executed this program: a fork of something
    large.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) / 1024


def signal_all(roots: Iterable[int], number: signal.Signals) -> set[int]:
    """Send a signal to processes and all below them; return who got it."""
    processes = all_processes()
    pids = family(processes, roots)
    for pid in pids:
        send(processes[pid], number)
    return pids


def end_all(roots: Iterable[int], *, grace_s: float) -> None:
    """End processes and all below them, and wait for it: SIGTERM, and after the grace SIGKILL."""
    number, until = signal.SIGTERM, time.monotonic() + grace_s
    left = set(roots)
    while left:
        left = _wait_for_end(signal_all(left, number), until)
        number, until = signal.SIGKILL, time.monotonic() + 1.0


def reap(pids: Iterable[int]) -> None:
    """Take the exit status of children that have ended, so that nothing of them remains."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _wait_for_end(pids: set[int], deadline: float) -> set[int]:
    """Wait until processes have ended, at most until the deadline (monotonic); return those that have not."""
    pause_s = 0.001
    while True:
        reap(pids)
        alive = {pid for pid in pids if (process := read_process(pid)) is not None and not process.zombie}
        if not alive or time.monotonic() >= deadline:
            return alive
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.05)

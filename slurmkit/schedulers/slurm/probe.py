"""What a cluster shows of its jobs, found out by one tiny job array: for `slurmkit doctor`.

Each task answers one question: does SIGUSR2 reach the batch process, does a job that is queued again start again, is a
job that takes too much memory seen as such. Tasks write the time into files of the folder that runs share.
"""

import contextlib
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from slurmkit.errors import SchedulerError
from slurmkit.resources import Resources, format_duration, format_memory
from slurmkit.schedulers.slurm import script
from slurmkit.schedulers.slurm.commands import call
from slurmkit.schedulers.slurm.limits import Limits
from slurmkit.schedulers.slurm.quotas import parse_config
from slurmkit.schedulers.slurm.submission import Fate, call_sbatch, read_answer

Finding = tuple[str, str, str]
"""(``ok``, ``warning`` or ``problem``; what was looked at; what was found)."""

_LOOK_EVERY_S = 0.2
_ASK_EVERY_S = 1.0
_TIMEOUT_S = 20.0
_SLOW_S = 30.0
"""A shared folder or accounting that lags for longer is worth a warning: outcomes are seen that much later."""

_SIGNAL, _REQUEUE, _MEMORY = "0", "1", "2"
"""Tasks of the array, by number."""

_ALIVE = frozenset(("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "STOPPED", "REQUEUED")) | {
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "SPECIAL_EXIT",
    "RESIZING",
    "SIGNALING",
    "STAGE_OUT",
    "RESV_DEL_HOLD",
}
"""States that squeue gives to what has not ended (``man squeue``, JOB STATE CODES)."""

_SCRIPT = """\
#!/bin/sh
#SBATCH --job-name=slurmkit-doctor
#SBATCH --array=0-2
#SBATCH --ntasks=1 --cpus-per-task=1 --mem=64M --time=2
#SBATCH --signal=B:USR2@85
#SBATCH --requeue
#SBATCH --output=/dev/null
{partition}\
trap 'tell usr2; exit 0' USR2
cd {folder} || exit 3
tell() {{ date +%s.%N >"$1.new" && mv "$1.new" "$1"; }}
case $SLURM_ARRAY_TASK_ID in
0)  tell started ;;
1)  if [ "${{SLURM_RESTART_COUNT:-0}}" -gt 0 ]; then tell restarted; exit 0; fi
    scontrol requeue "$SLURM_JOB_ID" >refusal.new 2>&1 || mv refusal.new refusal ;;
2)  head -c 300M /dev/zero | tail >/dev/null || exit 1
    tell survived
    exit 0 ;;
esac
while :; do sleep 1; done  # a shell hears signals between commands
"""
"""Slurm looks every 30 s for jobs to warn: with a limit of 2 minutes, SIGUSR2 comes 5 to 35 s after the start."""


class _Probe:
    """The array and what was seen of it.

    Attributes:
        written: when a task wrote a file, by its own clock; by name, in seconds since 1970.
        seen: when that file was seen here.
        tasks: state and reason of each task, by number, as squeue last told.
        ended_at: when squeue first showed that the task for memory had ended.
        accounted_at: when accounting did.
        accounting: its state of that task, or why it has none.
    """

    def __init__(self, folder: Path, job: str, narrate: Callable[[str], None]) -> None:
        self._folder = folder
        self._job = job
        self._narrate = narrate
        self.written: dict[str, float] = {}
        self.seen: dict[str, float] = {}
        self.refusal = ""
        self.tasks: dict[str, tuple[str, str]] = {}
        self.ended_at: float | None = None
        self.accounted_at: float | None = None
        self.accounting = ""

    def watch(self, wait_s: float) -> None:
        """Look until all is seen, or the time is over; the last look comes after that."""
        deadline = time.monotonic() + wait_s
        next_question = 0.0
        while not self._complete():
            now = time.monotonic()
            self._look()
            if now >= min(next_question, deadline):
                self._ask()
                next_question = time.monotonic() + _ASK_EVERY_S
            if now >= deadline:
                return
            time.sleep(_LOOK_EVERY_S)

    def _complete(self) -> bool:
        answered = "usr2" in self.seen and ("restarted" in self.seen or self.refusal)
        return bool(answered and self.ended_at and (self.accounted_at or self.accounting))

    def _look(self) -> None:
        """Read the files that the tasks wrote."""
        for name in ("started", "usr2", "restarted", "survived"):
            if name in self.seen:
                continue
            with contextlib.suppress(FileNotFoundError, ValueError):
                self.written[name] = float((self._folder / name).read_text())
                self.seen[name] = time.time()
                self._narrate(f"  seen: {name}")
        with contextlib.suppress(FileNotFoundError):
            self.refusal = self.refusal or (self._folder / "refusal").read_text(errors="replace").strip() or "refused"

    def _ask(self) -> None:
        """Ask the controller, and accounting once it has something to tell. Silence is no answer, and no error."""
        with contextlib.suppress(SchedulerError):
            for line in _squeue(self._job).splitlines():
                number, state, reason = line.split("|", 2)
                self.tasks[number] = (state, reason)
        if self.ended_at is None and _has_ended(self.state(_MEMORY)):
            self.ended_at = time.time()
        if self.ended_at is not None and self.accounted_at is None and not self.accounting:
            self._ask_accounting()

    def _ask_accounting(self) -> None:
        options = ("--noheader", "--allocations", "--parsable2", "--format=State")
        try:
            said = call("sacct", *options, f"--jobs={self._job}_{_MEMORY}", timeout_s=_TIMEOUT_S).strip()
        except SchedulerError as error:
            self.accounting = str(error)
            return
        if said and _has_ended(said):
            self.accounting, self.accounted_at = said.split()[0], time.time()

    def state(self, number: str) -> str:
        """Return Slurm's word for a task; empty: it was never listed."""
        return self.tasks.get(number, ("", ""))[0]

    def ran(self) -> bool:
        """Say whether any task has started."""
        return bool(self.seen) or any(state not in {"PENDING", "CONFIGURING"} for state, _ in self.tasks.values())


def cluster(folder: Path) -> Iterator[Finding]:
    """Say what the cluster tells of itself.

    Args:
        folder: a new one, for what is asked.

    Raises:
        SchedulerError: the controller does not answer.
    """
    config = parse_config(call("scontrol", "show", "config", timeout_s=_TIMEOUT_S))
    host = config.get("SlurmctldHost[0]") or "its controller"
    yield "ok", "Slurm", f"{config.get('SLURM_VERSION', '')}, cluster {config.get('ClusterName', '')}, {host} answers"
    limits = Limits.load(folder)
    for partition in limits.partitions.values():
        words = [f"up to {format_duration(partition.max_time_s)}" if partition.max_time_s else "no time limit"]
        words += [f"{format_memory(partition.max_mem_mb)} a node"] if partition.max_mem_mb else []
        words += [f"{partition.gpus} GPUs a node"] if partition.gpus else []
        words += ["the default"] if partition.default else []
        yield "ok", f"partition {partition.name}", ", ".join(words)
    enforced = "hold" if limits.enforced else "are not enforced"
    yield "ok", "array limit", f"task numbers below {limits.array_size}; limits of accounts and QOS {enforced}"


def jobs(folder: Path, partition: str | None, wait_s: float, narrate: Callable[[str], None]) -> Iterator[Finding]:
    """Run the array, and say what it showed; whatever happens, it is cancelled.

    Args:
        folder: a new one that the nodes share.
        partition: where it shall run; None: where jobs go that name none.
        wait_s: how long to wait for it.
        narrate: is told what is awaited, and what came.

    Raises:
        SchedulerError: sbatch cannot be called.
    """
    line = f"#SBATCH --partition={shlex.quote(partition)}\n" if partition else ""
    path, answer = folder / "probe.sh", folder / "probe.answer"
    path.write_text(_SCRIPT.format(partition=line, folder=shlex.quote(str(folder))))
    try:
        call_sbatch(path, answer, script.environment(Resources(partition=partition)))
        told = read_answer(answer)
        if told.fate is not Fate.TAKEN:
            yield "problem", "test job", f"sbatch: {told.words or 'no answer'}"
            return
        narrate(f"Waiting up to {wait_s:g} s for job {told.job}, an array of 3 tasks (--no-job leaves it out) ...")
        probe = _Probe(folder, told.job, narrate)
        probe.watch(wait_s)
    finally:
        _cancel(answer)
    yield from _findings(probe, wait_s)


def _cancel(answer: Path) -> None:
    """Cancel the array, also where Ctrl-C came before sbatch had answered; wait until nothing of it runs.

    What cannot be cancelled ends by its time limit.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # people press Ctrl-C twice
    try:
        job = read_answer(answer).job
        if not job:
            return
        call("scancel", "--quiet", job, timeout_s=_TIMEOUT_S)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and any(
            not _has_ended(line.split("|")[1]) for line in _squeue(job).splitlines()
        ):
            time.sleep(_LOOK_EVERY_S)
    except SchedulerError:
        return
    finally:
        signal.signal(signal.SIGINT, before)


def _squeue(job: str) -> str:
    """Return a line for each task of an array: its number, state and reason."""
    options = ("--noheader", "--array", "--states=all", "--format=%K|%T|%r")
    return call("squeue", *options, f"--jobs={job}", timeout_s=_TIMEOUT_S)


def _has_ended(state: str) -> bool:
    return bool(state) and state.split()[0] not in _ALIVE


def _findings(probe: _Probe, wait_s: float) -> Iterator[Finding]:
    """Say what the array showed."""
    if not probe.ran():
        reason = next((reason for _, reason in probe.tasks.values()), "not listed by squeue")
        yield "warning", "test job", f"did not start within {wait_s:g} s ({reason}), and was cancelled. Try --wait 600."
        return
    yield _shared_folder(probe, wait_s)
    yield _usr2(probe, wait_s)
    yield _requeue(probe, wait_s)
    yield _memory(probe, wait_s)
    yield _accounting(probe, wait_s)


def _shared_folder(probe: _Probe, wait_s: float) -> Finding:
    what = "shared folder"
    if not probe.seen:
        return "problem", what, f"a job ran, and none of its files was seen here within {wait_s:g} s. Set SLURMKIT_RUNS"
    lag_s = max(probe.seen[name] - probe.written[name] for name in probe.seen)
    ahead = min(probe.seen[name] - probe.written[name] for name in probe.seen) < -1
    if ahead:
        return "warning", what, "a file was written later than it was seen here: the clocks of the machines differ"
    found = f"what a job writes is seen here {max(lag_s, 0):.1f} s later at most"
    return ("ok" if lag_s < _SLOW_S else "warning"), what, found


def _usr2(probe: _Probe, wait_s: float) -> Finding:
    if "usr2" in probe.seen:
        return "ok", "USR2 before the limit", "delivered to the batch process"
    found = f"not seen within {wait_s:g} s"
    if _has_ended(probe.state(_SIGNAL)):
        found += f"; the task ended as {probe.state(_SIGNAL)}"
    return "warning", "USR2 before the limit", found


def _requeue(probe: _Probe, wait_s: float) -> Finding:
    if "restarted" in probe.seen:
        return "ok", "requeue", "a job that is queued again starts again"
    if probe.refusal:
        return "warning", "requeue", f"refused: {' '.join(probe.refusal.split())}"
    state, reason = probe.tasks.get(_REQUEUE, ("not listed", "None"))
    found = f"second start not seen within {wait_s:g} s (clusters wait up to 2 minutes); the task is {state} ({reason})"
    return "warning", "requeue", found


def _memory(probe: _Probe, wait_s: float) -> Finding:
    state = probe.state(_MEMORY)
    if "survived" in probe.seen:
        found = "this cluster does not enforce memory: a task took 300M where it had asked for 64M"
        return "warning", "out of memory", found
    if "OUT_OF_MEMORY" in {state, probe.accounting}:
        return "ok", "out of memory", "a task that takes too much is ended, and shown as OUT_OF_MEMORY"
    if probe.ended_at is not None:
        return "warning", "out of memory", f"a task that took too much memory is shown as {state}, not as OUT_OF_MEMORY"
    return "warning", "out of memory", f"not seen within {wait_s:g} s; the task is {state or 'not listed'}"


def _accounting(probe: _Probe, wait_s: float) -> Finding:
    if probe.ended_at is not None and probe.accounted_at is not None:
        lag_s = probe.accounted_at - probe.ended_at
        return ("ok" if lag_s < _SLOW_S else "warning"), "accounting", f"knew of a task's end {lag_s:.1f} s later"
    if probe.accounting:
        return "warning", "accounting", f"none: {probe.accounting}"
    return "warning", "accounting", f"did not know of a task's end within {wait_s:g} s"

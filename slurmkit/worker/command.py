"""Run one command as a process tree: start it, watch it, pass signals on, and leave nothing of it behind."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from resource import struct_rusage

from slurmkit.worker.signals import Signals
from slurmkit.worker.tree import (
    adopting_orphans,
    children,
    descendants,
    die_with_parent,
    end_all,
    own_peak_mb,
    reap,
    rss_mb,
    signal_all,
)

_FIRST_SAMPLE_S = 0.05
_SAMPLE_INTERVAL_S = 0.2
"""Between looks at the memory of the tree; one takes some 0.1 ms a process."""

_FIRST_BEAT_S = 1.0
_BEAT_INTERVAL_S = 10.0
_LEFTOVER_GRACE_S = 2.0
"""For background processes of a command that has ended itself."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended.

    Attributes:
        exit_code: None if a signal ended it, or if it never started.
        signal: what ended it.
        not_started: why it could not be started; None: it was.
        passed_on: the signals that it was sent on the worker's behalf, or that kept it from being started.
        duration_s: how long it ran.
        peak_rss_mb: largest memory of its tree, in MiB: of samples, and of its largest process by the kernel's account.
    """

    exit_code: int | None
    signal: int | None
    not_started: str | None
    passed_on: tuple[int, ...]
    duration_s: float
    peak_rss_mb: float


def run_command(
    command: list[str],
    *,
    folder: Path,
    env: Mapping[str, str],
    stdout: Path,
    stderr: Path,
    signals: Signals,
    on_beat: Callable[[float, float], None],
    grace_s: float,
) -> Ended:
    """Run a command to its end, and end what it leaves running.

    A signal that asks to stop goes to the command itself, once a kind; it tells its own children. After SIGTERM or
    SIGINT it has a grace until all of its tree is killed. The command is killed if this process dies.

    Args:
        command: program and arguments.
        folder: where it runs.
        env: its whole environment.
        stdout: where its output is appended.
        stderr: likewise.
        signals: entered by the caller, before anything could send one.
        on_beat: called with the tree's memory now and at its peak, in MiB: after a second, then every ten.
        grace_s: time between SIGTERM and SIGKILL, in seconds.
    """
    if signals.received:
        return Ended(None, None, "it was asked to stop before", tuple(signals.received), 0.0, 0.0)
    with adopting_orphans(), stdout.open("ab") as out, stderr.open("ab") as err:
        strangers = children(os.getpid())
        worker = os.getpid()
        try:
            # The hook makes two system calls and takes no lock; workers have one thread, so a fork is safe for it.
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(worker),
            )
        except OSError as error:
            what = error.filename or command[0]
            return Ended(None, None, f"{what}: {error.strerror}", (), 0.0, 0.0)
        except ValueError as error:  # a NUL in an argument
            return Ended(None, None, f"{command[0]!r}: {error}", (), 0.0, 0.0)
        return _Watch(process, strangers, signals, on_beat, grace_s).to_the_end()


class _Watch:
    """Watches one started command."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        strangers: set[int],
        signals: Signals,
        on_beat: Callable[[float, float], None],
        grace_s: float,
    ) -> None:
        self._process = process
        self._strangers = strangers
        self._signals = signals
        self._on_beat = on_beat
        self._grace_s = grace_s
        self._started = time.monotonic()
        self._next_sample = self._started + _FIRST_SAMPLE_S
        self._next_beat = self._started + _FIRST_BEAT_S
        self._kill_at = float("inf")
        self._rss_mb = self._peak_mb = 0.0
        self._passed_on: list[int] = []
        self._seen = 0

    def to_the_end(self) -> Ended:
        """Wait for the command's end, then end what it left."""
        while True:
            pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                break
            self._pass_on()
            now = time.monotonic()
            if now >= self._next_sample:
                self._sample(now)
            if now >= self._kill_at:
                signal_all({self._process.pid, *self._own_children()}, signal.SIGKILL)
                self._kill_at = now + 1.0  # processes may have been started meanwhile
            self._signals.wait(min(self._next_sample, self._kill_at) - time.monotonic())
        duration_s = time.monotonic() - self._started
        code = os.waitstatus_to_exitcode(status)
        self._process.returncode = code  # it was not Popen that reaped it
        end_all(self._own_children(), grace_s=0.0 if self._passed_on else _LEFTOVER_GRACE_S)
        exit_code, number = (code, None) if code >= 0 else (None, -code)
        return Ended(exit_code, number, None, tuple(self._passed_on), duration_s, self._peak(usage))

    def _own_children(self) -> set[int]:
        """Return the command and the orphans of its tree, whose parent is this process now."""
        return children(os.getpid()) - self._strangers

    def _pass_on(self) -> None:
        for number in self._signals.received[self._seen :]:
            self._seen += 1
            if number not in self._passed_on:
                os.kill(self._process.pid, number)  # not reaped yet, so the id is still its own
                self._passed_on.append(number)
                if number != signal.SIGUSR2:
                    self._kill_at = min(self._kill_at, time.monotonic() + self._grace_s)
            elif number == signal.SIGINT:  # Ctrl-C again: no more patience
                self._kill_at = 0.0

    def _sample(self, now: float) -> None:
        own = self._own_children()
        reap(own - {self._process.pid})
        self._rss_mb = rss_mb(descendants(own))
        self._peak_mb = max(self._peak_mb, self._rss_mb)
        self._next_sample = now + _SAMPLE_INTERVAL_S
        if now >= self._next_beat:
            self._on_beat(self._rss_mb, self._peak_mb)
            self._next_beat = now + _BEAT_INTERVAL_S

    def _peak(self, usage: struct_rusage) -> float:
        """Return the largest of samples and the kernel's account, which is exact but holds the fork too.

        Until it became the command, the process had this one's memory: the kernel's number says something only above
        that, or where the command was too quick for a sample.
        """
        kernel_mb = usage.ru_maxrss / 1024
        return max(self._peak_mb, kernel_mb if kernel_mb > own_peak_mb() or self._peak_mb == 0.0 else 0.0)

"""The signals that a worker is sent, gathered for the loop that watches its command."""

import os
import select
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

STOP = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)
"""What asks a command to stop: the time limit is near, the job shall end, a person pressed Ctrl-C."""

_ENDED_CHILD = signal.SIGCHLD


class Signals:
    """While it is entered, signals are remembered instead of acted upon, and `wait` returns when one comes.

    A wake-up descriptor and not ``pidfd_open``: it serves both signals and ended children, on kernels before 5.3
    too. Needs the main thread, as all signal handlers in Python do.

    Attributes:
        received: the signals that ask to stop, in order, each as often as it came.
    """

    def __init__(self) -> None:
        self.received: list[int] = []

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {
            number: signal.signal(number, self._remember) for number in (*STOP, _ENDED_CHILD)
        }
        self._mask_before = signal.pthread_sigmask(signal.SIG_UNBLOCK, self._before)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask_before)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._reader)
        os.close(self._writer)

    def wait(self, timeout_s: float) -> None:
        """Return when a signal comes, a child ends, or the time is over; at once if that was since the last call."""
        ready, _, _ = select.select([self._reader], [], [], max(0.0, timeout_s))
        if ready:
            os.read(self._reader, 4096)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if number != _ENDED_CHILD:
            self.received.append(number)

"""Being asked to stop, at a step of one's choice."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch.nn.modules.module import register_module_forward_hook

from trainer.stop import StopRequest


class StopAfter(StopRequest):
    """Is asked to stop after it was looked at so many times: once a step."""

    def __init__(self, steps: int) -> None:
        self._left = steps
        super().__init__()

    @property
    def asked(self) -> bool:
        self._left -= 1
        return self._left <= 0

    @asked.setter
    def asked(self, value: bool) -> None:
        pass


class StopWithin(StopRequest):
    """Gets the signal inside the n-th block that may be broken off: two a step, the data's and the point's."""

    def __init__(self, blocks: int) -> None:
        self._left = blocks
        super().__init__()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        with super().interruptible():
            self._left -= 1
            if self._left == 0:
                self._receive(signal.SIGTERM, None)
            yield


class StopInside(StopRequest):
    """Gets a real signal at a certain pass through a layer, counted from the start of its n-th such block.

    Attributes:
        later: passes through layers since the signal.
    """

    def __init__(self, blocks: int, passes: int) -> None:
        self._blocks, self._passes = blocks, passes
        self.later = 0
        super().__init__()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        with super().interruptible():
            self._blocks -= 1
            yield

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take signals and count passes within the block."""
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
        self.install()
        counting = register_module_forward_hook(self._count)
        try:
            yield
        finally:
            counting.remove()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _count(self, *_: object) -> None:
        if self._passes == 0:
            self.later += 1
        elif self._blocks <= 0:
            self._passes -= 1
            if self._passes == 0:
                signal.raise_signal(signal.SIGTERM)


def wait_until(claim: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Wait for what a process brings about, however long it takes: a test's own limit is the end of it."""
    while not claim():
        assert process.poll() is None, f"it ended with {process.returncode} before that"
        time.sleep(0.01)

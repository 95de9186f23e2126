"""Being asked to stop, at a step of one's choice."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

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


class StopSoon(StopRequest):
    """Gets a real signal that long after it has entered its first block that may be broken off."""

    def __init__(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._send)
        self.sent_at = 0.0
        super().__init__()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        with super().interruptible():
            if not self._timer.ident:
                self._timer.start()
            yield

    def _send(self) -> None:
        self.sent_at = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)

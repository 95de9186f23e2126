"""Being asked to stop, at a step of one's choice."""

import signal
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

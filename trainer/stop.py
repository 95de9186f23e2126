"""Being asked to stop: SIGUSR2 (a scheduler's warning) and SIGTERM end a run so that it can go on later."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TRY_AGAIN_EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: everything that was reached is saved, start the same command again to go on."""


class StoppedError(Exception):
    """Somebody asked to stop within `StopRequest.interruptible`."""


class StopRequest:
    """Turns a signal into an orderly end.

    Where all that was reached is on disk already (imports, evaluation, sampling) the signal ends the process at once;
    files are replaced whole, so none is left half written.
    Inside `deferred` it only raises a flag, which the training loop looks at after each step. What takes long there
    and changes nothing that is saved is done inside `interruptible`.
    """

    def __init__(self) -> None:
        self.asked = False
        self._received = self._deferred = self._interruptible = False

    def install(self) -> None:
        """Listen from now on."""
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self._receive)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Leave it to the block to look at `asked`, to save and to end.

        Raises:
            SystemExit: at the block's end, where the signal came after its last look: by then all is saved.
        """
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self._received:
            raise SystemExit(TRY_AGAIN_EXIT_CODE)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Break off the block when somebody asks to stop.

        Raises:
            StoppedError: within the block, or at its start.
        """
        self._interruptible = True
        try:
            if self._received:
                raise StoppedError
            yield
        finally:
            self._interruptible = False

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = self._received = True
        if not self._deferred:
            # No exception: one that is raised inside an import of a large package may come out as another.
            os._exit(TRY_AGAIN_EXIT_CODE)
        if self._interruptible:
            self._interruptible = False  # a second signal breaks off neither the way out nor the saving
            raise StoppedError

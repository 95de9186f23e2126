"""Run the command line, and be killed or interrupted at the N-th point at which it changes something below a folder.

SIGKILL is for this process, as from ``kill -9``; SIGINT for its process group, as from Ctrl-C at a terminal.

A point is the moment before a file or folder is made, opened for writing, renamed or removed, the middle of a write
(half of the bytes are in the file; SIGINT comes when all are), and the start of another process that lives on (Python
or sbatch). A command that comes to its end writes the number of its points to a file.

What the kernel has been told survives a SIGKILL, so syncing changes nothing here and is no point.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.mkfifo"}


class Killer:
    """Counts the points, and dies at one of them."""

    def __init__(self, number: signal.Signals, folder: str, at: int) -> None:
        self.points = 0
        self._number = number
        self._below = folder + os.sep
        self._at = at
        self._write = os.write

    def point(self) -> bool:
        """Count one; say whether it is the one to die at."""
        self.points += 1
        return self.points == self._at

    def audit(self, event: str, values: tuple[Any, ...]) -> None:
        """Look at what Python is about to do."""
        if event == "open":
            path, _, flags = values
            changing = bool(flags & _WRITING) and self._is_below(path)
        elif event in _CHANGES:
            changing = self._is_below(values[0])
        else:
            changing = event == "subprocess.Popen" and str(values[0]) in {sys.executable, "sbatch"}
        if changing and self.point():
            self.strike()

    def write(self, descriptor: int, content: Any) -> int:
        """Write, or write half and die."""
        if self._is_below(descriptor) and self.point():
            half = len(content) // 2 if self._number is signal.SIGKILL else len(content)
            written = self._write(descriptor, bytes(content)[:half])
            self.strike()
            return written
        return self._write(descriptor, content)

    def strike(self) -> None:
        """End as by ``kill -9``, or be interrupted."""
        if self._number is signal.SIGKILL:
            os.kill(os.getpid(), signal.SIGKILL)
        os.killpg(0, self._number)

    def _is_below(self, path: Any) -> bool:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")  # noqa: PTH115 (nor here)
        return os.path.abspath(os.fsdecode(path)).startswith(self._below)  # noqa: PTH100 (pathlib would be audited, too)


def run(number: str, folder: str, at: int, count_file: str) -> None:
    """Run the command line of ``sys.argv`` under a killer, in a process (group) of its own.

    Args:
        number: name of the signal.
        folder: what is below it counts.
        at: the point at which it comes.
        count_file: where the number of points is written if the command comes to its end.
    """
    import slurmkit.cli

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a shell's foreground, whoever started the tests
    killer = Killer(signal.Signals[number], folder, at)
    sys.addaudithook(killer.audit)
    os.write = killer.write  # type: ignore[assignment]
    try:
        slurmkit.cli.main()
    finally:
        Path(count_file).write_text(str(killer.points), encoding="ascii")

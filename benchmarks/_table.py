"""What the benchmarks share: times of functions and of whole commands, and one plain table beside floors and peers.

Every time is the best of a few: on a busy machine the others tell of its other work.
"""

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")

HEADS = ("measure", "ours", "floor or peer", "ratio", "wanted")


class Took(NamedTuple):
    """What a command took, in seconds: by the clock, and of the processors."""

    wall_s: float
    cpu_s: float


def best(work: Callable[[], T], repeats: int = 3) -> tuple[float, T]:
    """Return the shortest of some times in seconds, and the last result."""
    times: list[float] = []
    while True:
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
        if len(times) == repeats:
            return min(times), result


def best_command(words: Callable[[int], Sequence[str]], *, cwd: Path, repeats: int = 3) -> Took:
    """Run a command a few times, its output to a pipe that is read, and return the best times.

    Args:
        words: the command and its arguments, given the number of the repeat.
        cwd: where to run it.
        repeats: how often.

    Raises:
        RuntimeError: it failed; with what it wrote to stderr.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["NO_COLOR"] = "1"
    walls, cpus = [], []
    for repeat in range(repeats):
        before, start = _children_cpu_s(), time.perf_counter()
        done = subprocess.run(words(repeat), cwd=cwd, env=environment, capture_output=True, text=True, check=False)
        walls.append(time.perf_counter() - start)
        cpus.append(_children_cpu_s() - before)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(done.args)}: exit {done.returncode}\n{done.stderr}")
    return Took(min(walls), min(cpus))


def fast_folder() -> Path | None:
    """Return a folder in memory with room for 100,000 small files, if there is one: a disk takes a minute for them."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > 2 * 2**30 else None


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Table:
    """A table that grows by rows and is printed once."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._rows: list[tuple[str, str, str, str, str]] = []

    def time(
        self, measure: str, ours: float | Took, floor_s: float | None, floor: str, limit_s: float | None = None
    ) -> None:
        """Add a time, its floor, and what it may take at most.

        Args:
            measure: what was timed.
            ours: seconds; of a command also those of the processors, which a busy machine does not stretch.
            floor_s: seconds that cannot be saved; None: there is nothing to compare with.
            floor: what the floor is.
            limit_s: what is wanted at most.
        """
        wall_s = ours.wall_s if isinstance(ours, Took) else ours
        shown = seconds(wall_s) + (f" (cpu {seconds(ours.cpu_s)})" if isinstance(ours, Took) else "")
        beside = "" if floor_s is None else f"{seconds(floor_s)} {floor}"
        ratio = "" if not floor_s else f"{wall_s / floor_s:.1f}"
        self.text(measure, shown, beside, ratio, "" if limit_s is None else f"<= {seconds(limit_s)}")

    def text(self, measure: str, ours: str, beside: str = "", ratio: str = "", wanted: str = "") -> None:
        """Add a row as it is."""
        self._rows.append((measure, ours, beside, ratio, wanted))

    def print(self) -> None:
        """Print the table, the machine above it."""
        print(f"{self.title}\n{machine()}\n")
        rows = [HEADS, *self._rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
        for row in rows:
            cells = [row[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            print("  ".join(cells).rstrip(), flush=True)


def machine() -> str:
    """Say on how many cores this runs, and how busy they are with other work."""
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, load {os.getloadavg()[0]:.1f}; each time the best of a few"


def seconds(value: float) -> str:
    """Write a time: ``13 ms``, ``0.42 s``, ``12.3 s``."""
    if value < 0.1:
        return f"{value * 1000:.0f} ms" if value >= 0.01 else f"{value * 1000:.1f} ms"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"

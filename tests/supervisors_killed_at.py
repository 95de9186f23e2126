"""Start supervisors of a queue one after the other, each to be killed at the N-th point at which it changes something.

    SLURMKIT_JOB=... python supervisors_killed_at.py QUEUE

Reads N line by line, and answers each with a line once that supervisor stands, or is dead. Its points are those of
`kill_at` and the moments before and after the fork of a job; the jobs themselves have none.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from kill_at import Killer

from slurmkit.schedulers.local import daemon


def supervise(queue: Path, at: int) -> None:
    """Become the supervisor of a queue, under a killer."""
    killer = Killer(signal.SIGKILL, str(queue), at)
    write = os.write
    forks: list[int] = []  # before this process: one is the supervisor, two are a job

    def point() -> None:
        if len(forks) == 1 and killer.point():
            killer.strike()

    def audit(event: str, values: tuple[Any, ...]) -> None:
        if len(forks) == 1:
            killer.audit(event, values)

    def write_or_die(descriptor: int, content: bytes) -> int:
        return killer.write(descriptor, content) if len(forks) == 1 else write(descriptor, content)

    os.register_at_fork(before=point, after_in_parent=point, after_in_child=lambda: forks.append(1))
    sys.addaudithook(audit)
    os.write = write_or_die  # type: ignore[assignment]
    daemon.main(queue)
    os._exit(0)


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            supervise(Path(sys.argv[1]), int(line))
        os.waitpid(child, 0)
        print(flush=True)

"""How many trivial jobs a second the local queue completes, beside submitit's own local executor.

    python benchmarks/local_queue.py [JOBS]

Each job is a function that returns its argument; the clock runs from the submission to the last job's end on record.
submitit's executor has no bound on its processes, so it is given few jobs.
"""

import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from _table import Table
from submitit.local.local import LocalExecutor

from slurmkit.files import read_json
from slurmkit.schedulers.local.executor import LocalQueueExecutor

SUBMITIT_JOBS = 8
WANTED_A_SECOND = 100


def measure(submit: Callable[[int], list[object]], jobs: int) -> float:
    """Return seconds from submission to the end of all jobs."""
    began = time.perf_counter()
    waiting = submit(jobs)
    while waiting:  # one at a time, so that watching takes no time from the jobs
        if waiting[-1].done():
            waiting.pop()
        else:
            time.sleep(0.01)
    return time.perf_counter() - began


def main(jobs: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        queue = folder / socket.gethostname()
        ours = LocalQueueExecutor(folder / "ours", queue=queue)
        theirs = LocalExecutor(folder / "theirs")
        try:
            ours.submit(int, 0).result()  # the supervisor stands: its start is not what is measured
            speed = jobs / measure(lambda count: ours.map_array(int, range(count)), jobs)
            peer = SUBMITIT_JOBS / measure(lambda count: theirs.map_array(int, range(count)), SUBMITIT_JOBS)
        finally:
            os.kill(read_json(queue / "supervisor.json")["pid"], signal.SIGTERM)
    table = Table("local queue: trivial jobs, durable records")
    table.text(
        f"{jobs} jobs, jobs/s",
        f"{speed:.1f}",
        f"{peer:.1f} submitit's LocalExecutor, {SUBMITIT_JOBS} jobs",
        f"{speed / peer:.0f}",
        f">= {WANTED_A_SECOND}",
    )
    table.print()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)

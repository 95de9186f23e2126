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

from rich.console import Console
from rich.table import Table
from submitit.local.local import LocalExecutor

from slurmkit.files import read_json
from slurmkit.schedulers.local.executor import LocalQueueExecutor

SUBMITIT_JOBS = 8


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
    table = Table("executor", "jobs", "seconds", "jobs/s", title=f"trivial jobs on {os.cpu_count()} CPUs")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        queue = folder / socket.gethostname()
        ours = LocalQueueExecutor(folder / "ours", queue=queue)
        try:
            ours.submit(int, 0).result()  # the supervisor stands: its start is not what is measured
            for label, executor, count in (
                ("slurmkit local queue, durable records", ours, jobs),
                ("submitit LocalExecutor", LocalExecutor(folder / "theirs"), SUBMITIT_JOBS),
            ):
                seconds = measure(lambda n, executor=executor: executor.map_array(int, range(n)), count)
                table.add_row(label, str(count), f"{seconds:.2f}", f"{count / seconds:.1f}")
        finally:
            os.kill(read_json(queue / "supervisor.json")["pid"], signal.SIGTERM)
    Console().print(table)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)

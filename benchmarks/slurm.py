"""Submission to a real Slurm, and the status of what it holds, beside submitit, bare sbatch, and squeue alone.

    python benchmarks/slurm.py [RUNS] [ROUNDS]

A throw-away cluster is started for it (four nodes, accounting, MaxArraySize 1001): that needs Slurm's programs and
root. The runs could start in an hour and are cancelled long before: measured is the handing over, not the work.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from _table import Table, best_command, seconds
from command_line import SLURMKIT, definition, make_project
from submitit.slurm.slurm import SlurmExecutor

from slurmkit.collection import Collection, verbs
from slurmkit.schedulers.slurm.listing import SQUEUE_FORMAT

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from slurm_cluster import Cluster, lacking  # pyright: ignore[reportMissingImports]  # a folder of its own

WANTED_A_SECOND = 2000
STATUS_LIMIT_S = 0.3
MOST_CALLS = 2
LARGEST_ARRAY = 1000
"""Tasks 0 to 999: the cluster's MaxArraySize is 1001."""

LATER = "now+1hour"
RESOURCES = f"resources: {{cpus: 1, mem: 100M, time: 5m, extra: {{begin: {LATER}}}}}\n"
SQUEUE = ["squeue", "--noheader", "--states=all", "--array", f"--user={os.getuid()}", SQUEUE_FORMAT]
COUNTED = ("squeue", "sacct")


class Bench:
    """A cluster with a project beside it.

    Args:
        cluster: it runs.
        folder: an empty one.
        runs: how many a collection has (a multiple of 1,000).
    """

    def __init__(self, cluster: Cluster, folder: Path, runs: int) -> None:
        self.cluster, self.folder, self.runs = cluster, folder, runs
        self._made = 0
        (folder / "sweep.yaml").write_text(definition(runs) + RESOURCES)
        make_project(folder)
        os.chdir(folder)

    def collection(self) -> str:
        """Create a collection with nothing submitted; return its name."""
        self._made += 1
        name = f"sweep-{self._made}"
        self.slurmkit("collection", "create", "sweep.yaml", "--name", name)
        return name

    def slurmkit(self, *words: str) -> None:
        """Run a command of slurmkit."""
        best_command(lambda _: [SLURMKIT, *words], cwd=self.folder, repeats=1)

    def submit_by_command(self, name: str) -> None:
        """Submit a collection, by a process of its own."""
        self.slurmkit("submit", name, "--backend", "slurm")

    def submit_here(self, name: str) -> None:
        """Submit a collection, in this process."""
        opened = Collection.load(name)
        verbs.submit(opened.project, opened.records, list, backend="slurm", dry_run=False)

    def submit_by_submitit(self, name: str) -> None:
        """Submit as many calls of a function: flat folder, two arrays, as it does not cut them itself."""
        executor = SlurmExecutor(self.folder / "runs" / f".submitit-{name}")
        executor.update_parameters(time=5, mem="100M", cpus_per_task=1, additional_parameters={"begin": LATER})
        for first in range(0, self.runs, LARGEST_ARRAY):
            executor.map_array(int, range(first, first + LARGEST_ARRAY))

    def submit_bare(self, _name: str) -> None:
        """Submit as many tasks that do nothing."""
        for _ in range(0, self.runs, LARGEST_ARRAY):
            self.cluster.submit("true", f"--array=0-{LARGEST_ARRAY - 1}", f"--begin={LATER}", "--mem=100M")

    def timed(self, submit: Callable[[str], None]) -> float:
        """Return how long a submission took, in seconds; all that it left in the queue is cancelled."""
        name = self.collection()
        start = time.perf_counter()
        submit(name)
        took = time.perf_counter() - start
        waiting = len(self.cluster.run("squeue", "--noheader", "--array", "--format=%i").split())
        if waiting != self.runs:
            raise RuntimeError(f"{submit.__name__}: {waiting} tasks are in the queue, {self.runs} were submitted")
        self.cluster.cancel_all()
        self.cluster.wait(lambda: not self.cluster.run("squeue", "--noheader"), "the queue is empty")
        return took


def measure_submission(table: Table, bench: Bench, rounds: int) -> None:
    ways = [bench.submit_by_command, bench.submit_here, bench.submit_by_submitit, bench.submit_bare]
    times: dict[str, float] = {}
    for _ in range(rounds):  # in turn, so that other work on the machine meets all of them
        for submit in ways:
            times[submit.__name__] = min(bench.timed(submit), times.get(submit.__name__, float("inf")))
    by_command, here, by_submitit, bare = times.values()
    for measure, ours in (("slurmkit submit, whole process", by_command), ("the same in a process at work", here)):
        for peer, name in ((by_submitit, "submitit's map_array"), (bare, "bare sbatch --array")):
            table.text(
                f"{measure}, runs/s",
                f"{bench.runs / ours:,.0f}",
                f"{bench.runs / peer:,.0f} {name}",
                f"{peer / ours:.2f}",
                f">= {WANTED_A_SECOND:,}",
            )


def measure_status(table: Table, bench: Bench, rounds: int) -> None:
    name = bench.collection()
    bench.submit_by_command(name)
    kept = bench.folder / "runs" / ".slurm" / "poll.json"

    def fresh_look(_: int) -> list[str]:
        kept.unlink(missing_ok=True)
        return [SLURMKIT, "status", name]

    ours = best_command(fresh_look, cwd=bench.folder, repeats=rounds)
    alone = best_command(lambda _: SQUEUE, cwd=bench.folder, repeats=rounds)
    table.time(f"status of {bench.runs:,} tasks in the queue", ours, alone.wall_s, "squeue alone")
    beyond = ours.wall_s - alone.wall_s
    table.text("beyond squeue", seconds(beyond), wanted=f"<= {seconds(STATUS_LIMIT_S)}")
    shared = best_command(lambda _: [SLURMKIT, "status", name], cwd=bench.folder, repeats=rounds)
    table.time("status from an answer of another shell", shared, alone.wall_s, "squeue alone")
    kept.unlink(missing_ok=True)
    live = count_calls(bench, name)
    bench.cluster.cancel_all()
    kept.unlink(missing_ok=True)
    table.text("its calls of squeue and sacct", str(live), wanted=f"<= {MOST_CALLS}")
    table.text("the same once all are cancelled", str(count_calls(bench, name)), wanted=f"<= {MOST_CALLS}")


def count_calls(bench: Bench, name: str) -> int:
    """Return how often a status calls squeue and sacct: wrappers that count stand first on PATH."""
    folder = Path(tempfile.mkdtemp(dir=bench.folder / "runs"))
    log = folder / "calls"
    for program in COUNTED:
        real = shutil.which(program)
        assert real is not None, program
        wrapper = folder / program
        wrapper.write_text(f'#!/bin/sh\necho {program} >> {shlex.quote(str(log))}\nexec {shlex.quote(real)} "$@"\n')
        wrapper.chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([SLURMKIT, "status", name], cwd=bench.folder, env=environment, check=True, capture_output=True)
    return len(log.read_text().split())


def main(runs: int, rounds: int) -> None:
    if why := lacking("nodes"):
        print(f"Slurm: not measured. {why}.")
        return
    home = Path.cwd()
    table = Table(f"Slurm: {runs:,} runs, arrays of at most {LARGEST_ARRAY:,}")
    with tempfile.TemporaryDirectory() as name, Cluster("nodes") as cluster:
        os.environ.update(cluster.env)
        bench = Bench(cluster, Path(name), runs)
        try:
            measure_submission(table, bench, rounds)
            measure_status(table, bench, rounds)
        finally:
            os.chdir(home)
    table.print()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000, int(sys.argv[2]) if len(sys.argv) > 2 else 3)

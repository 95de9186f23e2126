"""The submitting command killed at a hundred moments around a real sbatch: nothing is lost, nothing is doubled."""

import json
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from forked_commands import ForkedCommands, forking
from slurm_cluster import Cluster
from slurm_project import OnCluster, create, place

SWEEP = """\
name: sweep
command: ["{python}", trainer.py, "{config}", "{run_dir}"]
config: {seed: 0, act: complete}
axes:
  seed: SEEDS
resources: {cpus: 1, mem: 100M, time: 5m, extra: {begin: now+1hours}}
"""
Kill = Callable[[OnCluster, ForkedCommands, float, list[str]], None]

CHANGES = 22
"""Moments at which a command changes a record or calls sbatch; submitting one run has 24 of them at least."""

DURING_SBATCH = 28
"""Moments after the call of sbatch, a millisecond apart; it takes some ten."""

SBATCH = """\
#!/bin/sh
if read -r delay 2>/dev/null <{delay}; then
    (sleep "$delay"; kill -9 "$PPID") >/dev/null 2>&1 &
fi
{sbatch} "$@"
status=$?
wait
exit $status
"""
"""Kills the command that called it, after a delay, and ends only then: the command is sure to be there still."""


def test_a_submitter_killed_at_a_hundred_moments_around_sbatch_loses_and_doubles_nothing(
    nodes_cluster: Cluster, tmp_path: Path
) -> None:
    """Each run is submitted by a command that is killed, the next one of which settles what it left."""
    first, last = range(1, CHANGES + 1), range(CHANGES, 0, -1)
    early, late = range(DURING_SBATCH), (ms + 0.5 for ms in range(DURING_SBATCH))
    plans = [(kill_at_change, [*first]), (kill_at_change, [*last])]
    plans += [(kill_in_sbatch, [*early]), (kill_in_sbatch, [*late])]
    assert sum(len(moments) for _, moments in plans) == 100
    places = [place(tmp_path / f"{number}", nodes_cluster) for number in range(len(plans))]
    with ThreadPoolExecutor(len(plans)) as shells:
        list(shells.map(submit_all, places, *zip(*plans, strict=True)))
    for where, (_, moments) in zip(places, plans, strict=True):
        runs = where.runs_of("sweep")
        assert {run["state"] for run in runs} == {"queued"}, "none is lost"
        assert sum(where.jobs().values()) == len(moments), "none is doubled"
        assert len({run["job_id"] for run in runs}) == len(moments)
    for where in places[1:3]:
        for run in where.runs_of("sweep"):
            nodes_cluster.run("scontrol", "update", f"JobId={run['job_id']}", "StartTime=now")
        assert set(where.wait("sweep").values()) == {"completed"}
        assert set(where.starts("sweep").values()) == {1}


def submit_all(where: OnCluster, kill: Kill, moments: list[float]) -> None:
    """Submit run by run, each by a command that is killed at a moment of its own; in the end what is left."""
    create(where, SWEEP.replace("SEEDS", str([*range(len(moments))])))
    with forking() as commands:
        for seed, moment in enumerate(moments):
            kill(where, commands, moment, ["submit", "sweep", "--where", f"seed={seed}", "--backend", "slurm"])
    where.submit("sweep")


def kill_at_change(where: OnCluster, commands: ForkedCommands, moment: float, words: list[str]) -> None:
    """Run a command that is killed when it is about to change a record, or to call sbatch, for the N-th time."""
    kill_at = json.dumps(["SIGKILL", str(where.runs), moment, str(where.root.parent / "points")])
    done = commands.run(words, where.root, where.environment() | {"KILL_AT": kill_at})
    assert done.returncode == -signal.SIGKILL, done.stderr


def kill_in_sbatch(where: OnCluster, commands: ForkedCommands, moment: float, words: list[str]) -> None:
    """Run a command that is killed some milliseconds after it called sbatch."""
    programs = where.root.parent / "bin"
    programs.mkdir(exist_ok=True)
    delay, wrapper = programs / "delay", programs / "sbatch"
    wrapper.write_text(SBATCH.format(delay=delay, sbatch=shutil.which("sbatch")))
    wrapper.chmod(0o755)
    delay.write_text(f"{moment / 1000}\n")
    environment = where.environment()
    done = commands.run(words, where.root, environment | {"PATH": f"{programs}:{environment['PATH']}"})
    assert done.returncode == -signal.SIGKILL, done.stderr

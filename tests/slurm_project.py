"""A project whose commands talk to a throw-away cluster, and two programs for its runs."""

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from slurm_cluster import PATIENCE_S, Cluster
from workplace import TRAINER, Workplace, git

COUNTER = '''\
"""A trainer without the training: counts to a number of steps, and goes on from its checkpoint.

With "waits" it takes its last step only once there is a file "go" in its folder: it is stopped before its end for sure.
"""
import json, os, pathlib, signal, sys, time

asked = []
config = json.loads(pathlib.Path(sys.argv[1]).read_text())
run_dir = pathlib.Path(sys.argv[2])
if config.get("deaf"):
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
else:
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.append(1))
block = bytearray(config.get("megabytes", 0) << 20)
block[::4096] = b"x" * len(block[::4096])
if config.get("bug"):
    raise KeyError("no such strategy")
checkpoint, history = run_dir / "checkpoint", run_dir / "history.jsonl"


def save(step):
    new = checkpoint.with_suffix(".new")
    new.write_text(str(step))
    new.rename(checkpoint)


step = int(checkpoint.read_text()) if checkpoint.exists() else 0
kept = history.read_bytes().splitlines(keepends=True)[:step] if history.exists() else []
with open(history, "a") as series:
    series.truncate(sum(map(len, kept)))  # what came after the checkpoint is done again
    while step < config["steps"] and not asked:
        time.sleep(0.05)
        if config.get("waits") and step == config["steps"] - 1 and not (run_dir / "go").exists():
            continue
        step += 1
        print(json.dumps({"step": step, "pid": os.getpid()}), file=series, flush=True)
        if step % 5 == 0:
            save(step)
save(step)
if step < config["steps"]:
    sys.exit(75)
(run_dir / "metrics.json").write_text(json.dumps({"steps": step, "score": 1.0}))
'''


@dataclass
class OnCluster(Workplace):
    """A project whose commands talk to a throw-away cluster."""

    cluster: Cluster
    extra: dict[str, str] = field(default_factory=dict[str, str])

    def environment(self) -> dict[str, str]:
        return super().environment() | self.cluster.env | self.extra

    def submit(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.slurmkit("submit", name, "--backend", "slurm", *words)

    def runs_of(self, name: str) -> list[dict[str, str]]:
        runs = self.status(name)["runs"]
        assert isinstance(runs, list)
        return runs

    def jobs(self, *options: str) -> Counter[str]:
        """Return how many jobs of this project squeue lists by each name: all, unless options say less."""
        options = options or ("--states=all",)
        listed = self.cluster.run("squeue", "--noheader", "--array", "--format=%j|%Z", *options).splitlines()
        rows = (line.split("|", 1) for line in listed)
        return Counter(name for name, folder in rows if folder.startswith(f"{self.root}/"))

    def wait(self, name: str, timeout_s: float = PATIENCE_S) -> dict[str, str]:
        """Wait until nothing is under way, by squeue first: it costs a tenth of the command, and tells at once.

        Then until accounting has heard of what went wrong: the command would take squeue's word if that took too long.
        """
        active = "--states=pending,running,suspended,completing,configuring"
        self.cluster.wait(lambda: not self.jobs(active), f"no job of {name} is left", timeout_s)
        if self.cluster.kind.accounting:
            self.cluster.wait(self._accounted, "accounting has the ends", timeout_s)
        return super().wait(name, timeout_s)

    def _accounted(self) -> bool:
        options = ("--noheader", "--array", "--states=all", "--format=%F|%T|%Z")
        listed = [row.split("|", 2) for row in self.cluster.run("squeue", *options).splitlines()]
        arrays = {array for array, state, at in listed if state != "COMPLETED" and at.startswith(f"{self.root}/")}
        rows = self.cluster.sacct(",".join(sorted(arrays)), "JobID,End") if arrays else []
        known = {row.partition("|")[0].partition("_")[0] for row in rows}
        return arrays == known and not any(row.endswith("|Unknown") for row in rows)

    def nodes_of(self, jobs: list[str]) -> list[str]:
        """Return the node that each of some jobs runs on; empty for one that does not run."""
        listed = self.cluster.run("squeue", "--noheader", "--array", "--states=running", "--format=%i|%N").splitlines()
        where = dict(line.split("|", 1) for line in listed)
        return [where.get(job, "") for job in jobs]

    def series(self, name: str, run: str) -> list[dict[str, int]]:
        """Return the lines of a run's history; none before it has one."""
        path = self.runs / name / run / "history.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def counting(self, name: str, runs: Iterable[str]) -> bool:
        """Say whether runs of `COUNTER` have all gone on from a checkpoint of theirs."""
        return all(len(self.series(name, run)) > 8 for run in runs)

    def go(self, name: str, *runs: str) -> None:
        """Let runs of `COUNTER` that wait take their last step."""
        for run in runs:
            (self.runs / name / run / "go").touch()

    def starts(self, name: str) -> Counter[str]:
        """Return run name to how often its trainer ran to the end."""
        histories = (self.runs / name).glob("*/history.jsonl")
        return Counter({path.parent.name: len(path.read_text().splitlines()) for path in histories})


def place(tmp_path: Path, cluster: Cluster, **extra: str) -> OnCluster:
    """Make a project with the trainer of the tests."""
    root = tmp_path / "project"
    root.mkdir(parents=True)
    git(root, "init", "-q")
    (root / "trainer.py").write_text(TRAINER)
    (root / "counter.py").write_text(COUNTER)
    (root / ".gitignore").write_text("runs/\n")
    return OnCluster(root, cluster, extra)


def create(where: OnCluster, text: str, name: str = "sweep") -> None:
    """Define a collection and create it."""
    path = where.define(text, f"{name}.yaml")
    where.slurmkit("collection", "create", str(path))


def counted(where: OnCluster, tmp_path: Path, program: str, *, then: str = "") -> Path:
    """Put a wrapper of one of Slurm's programs first on PATH, which notes each call; return where it does."""
    real = subprocess.run(["which", program], capture_output=True, text=True, check=True).stdout.strip()
    folder, notes = tmp_path / "bin", tmp_path / f"{program}.calls"
    folder.mkdir(exist_ok=True)
    notes.touch()
    wrapper = folder / program
    wrapper.write_text(f'#!/bin/sh\necho "$$" >> {notes}\n{then or "exec"} {real} "$@"\n')
    wrapper.chmod(0o755)
    where.extra["PATH"] = f"{folder}:{os.environ['PATH']}"
    return notes

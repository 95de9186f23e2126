"""A project in a folder of its own for a test: a real git repository with a tiny trainer, and the installed command."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

from slurmkit.files import try_lock
from slurmkit.schedulers.local.executor import cancel_jobs
from slurmkit.schedulers.local.journal import Journal
from slurmkit.schedulers.local.processes import is_alive
from slurmkit.schedulers.local.state import QueueState

TRAINER = '''\
"""A trainer for tests: does what its config says."""
import json, os, pathlib, sys, time

config = json.loads(pathlib.Path(sys.argv[1]).read_text())
run_dir = pathlib.Path(sys.argv[2])
act = config.get("act", "complete")
while "until" in config and not os.path.exists(config["until"]):
    time.sleep(0.02)
if act == "sleep":  # until it is cancelled
    time.sleep(config.get("seconds", 600))
if act == "oom":  # a first attempt holds its memory until it is ended for it
    block = bytearray(config["megabytes"] * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    time.sleep(config.get("seconds", 600 if os.environ["SLURMKIT_ATTEMPT"] == "1" else 0))
if act == "diverge":
    told = {"kind": "diverged", "message": "loss is nan", "step": 12, "term": "kl"}
    (run_dir / "error.json").write_text(json.dumps(told))
    sys.exit(1)
if act == "bug":
    raise KeyError("no such strategy")
metrics = {"score": config.get("score", 1.0), "loss/val/total": 0.5}
(run_dir / "metrics.json").write_text(json.dumps(metrics))
with open(run_dir / "history.jsonl", "a") as file:
    file.write(json.dumps({"step": 1, "pid": os.getpid()}) + "\\n")
'''

SWEEP = """\
name: sweep
command: ["{python}", "train.py", "{config}", "{run_dir}"]
config: {act: complete, score: 0.0, seed: 0}
axes:
  task: {key: task, values: [add, sort]}
  seed: {key: seed, values: [1, 2]}
resources: {cpus: 1, mem: 300M, time: 60s}
"""


def git(folder: Path, *words: str) -> str:
    """Run git in a folder and return what it prints."""
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    who = {f"GIT_{role}_{what}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["git", *words], cwd=folder, env={**os.environ, **own, **who}, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@dataclass
class Workplace:
    """A project in a folder of its own, driven by the installed command."""

    root: Path

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SLURMKIT")}
        return {**kept, "SLURMKIT_LOCAL_CPUS": "2", "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "120"}

    def slurmkit(self, *words: str, exit_code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run the installed command; check its exit code unless that is None."""
        command = [str(Path(sys.executable).parent / "slurmkit"), *words]
        own = self.environment()
        done = subprocess.run(command, cwd=self.root, env=own, capture_output=True, text=True, check=False)
        if exit_code is not None:
            assert done.returncode == exit_code, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr or words[0] == "run", done.stderr
        return done

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start the installed command and return at once."""
        command = [str(Path(sys.executable).parent / "slurmkit"), *words]
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def define(self, text: str, name: str = "sweep.yaml") -> Path:
        """Write a definition and commit it."""
        path = self.root / "collections" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
        git(self.root, "add", "-A")
        git(self.root, "commit", "-q", "-m", f"Define {name}")
        return path

    def status(self, name: str) -> dict[str, object]:
        """Return ``status --json``."""
        return json.loads(self.slurmkit("status", name, "--json").stdout)

    def states(self, name: str) -> dict[str, str]:
        """Return run name to state."""
        runs = self.status(name)["runs"]
        assert isinstance(runs, list)
        return {run["name"]: run["state"] for run in runs}

    def wait(self, name: str, timeout_s: float = 100) -> dict[str, str]:
        """Wait until nothing of a collection is under way; return run name to state."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._wait_for_jobs(name, timeout_s=2)  # asking by the command costs them a CPU; but it wakes who works
            states = self.states(name)
            if not set(states.values()) & {"queued", "running", "unknown"}:
                return states
            assert time.monotonic() < deadline, states
            time.sleep(0.1)

    def _wait_for_jobs(self, name: str, timeout_s: float) -> None:
        """Wait until the local queue has no job of a collection that has not ended, but not for long."""
        folder = str(self.runs / name / ".slurmkit" / "jobs")
        deadline = time.monotonic() + timeout_s
        for queue in self.runs.glob(".queue/*"):
            while any(batch.open and batch.folder == folder for batch in queue_state(queue).batches.values()):
                if time.monotonic() >= deadline:
                    return
                time.sleep(0.03)

    def end_queue(self) -> None:
        """End all jobs of this project, then the supervisor that it started."""
        deadline = time.monotonic() + 60
        for queue in self.runs.glob(".queue/*"):
            if here := [job.id for job in queue_state(queue).jobs.values() if not job.state.ended]:
                cancel_jobs(queue, here)
            while any(not job.state.ended for job in queue_state(queue).jobs.values() if job.id in here):
                assert time.monotonic() < deadline, f"{queue}: jobs do not end"
                time.sleep(0.02)
            end_supervisor(queue)


def queue_state(queue: Path) -> QueueState:
    """Return what the journal of a local queue says now."""
    journal = Journal(queue)
    journal.refresh()
    return journal.state


def end_supervisor(queue: Path) -> None:
    """End the supervisor of a queue, if it has one, and wait for it."""
    deadline = time.monotonic() + 60
    while supervisor_lives(queue):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it only begins, or has just ended
            record = json.loads((queue / "supervisor.json").read_text())
            if is_alive(record["pid"], record["ticks"]):
                os.kill(record["pid"], signal.SIGTERM)
        assert time.monotonic() < deadline, f"{queue}: its supervisor does not end"
        time.sleep(0.02)


def supervisor_lives(queue: Path) -> bool:
    """Say whether a supervisor holds the queue's lock."""
    descriptor = try_lock(queue / "supervisor.lock")
    if descriptor is None:
        return True
    os.close(descriptor)
    return False

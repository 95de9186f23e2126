"""Runs with metrics files for the tests of aggregation: the sweep of 24 runs of which 19 completed."""

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson
from forked_commands import ForkedCommands

from slurmkit.ledger import Observation
from slurmkit.records import SCHEMA, Row, RunStatus
from slurmkit.states import Reason, State
from slurmkit.store import CollectionStore

Aggregate = Callable[..., "subprocess.CompletedProcess[str]"]

AXES = {
    "task": ("addition", "base_conversion", "equations", "grid", "lists", "sorting"),
    "pv": (0.0, 0.1),
    "rmkl": (0.0, 0.1),
    "seed": (314159,),
}
LEVEL = {"addition": 0.48, "base_conversion": 0.90, "equations": 0.50, "grid": 0.30, "lists": 0.52, "sorting": 0.20}
"""What the probe reads in the baseline, by task: two of the tasks lie far from the others."""
EFFECT = {(0.0, 0.0): 0.0, (0.0, 0.1): 0.01, (0.1, 0.0): -0.02, (0.1, 0.1): 0.03}
"""What a setting adds to it, in every task."""
UNFINISHED: dict[tuple[str, float, float], tuple[State, Reason | None]] = {
    ("sorting", 0.0, 0.0): (State.FAILED, Reason.OOM_HOST),
    ("sorting", 0.1, 0.0): (State.FAILED, Reason.OOM_HOST),
    ("sorting", 0.1, 0.1): (State.FAILED, Reason.OOM_HOST),
    ("base_conversion", 0.0, 0.0): (State.RUNNING, None),
    ("base_conversion", 0.1, 0.0): (State.RUNNING, None),
}


def make_run(
    root: Path,
    name: str,
    axes: dict[str, Any],
    metrics: dict[str, Any] | bytes | None,
    *,
    state: State = State.COMPLETED,
    reason: Reason | None = None,
    commit: str = "a" * 40,
    observed: bool = True,
) -> RunStatus:
    """Write a run's metrics file, as an object or as raw bytes, and return its status.

    Args:
        root: folder of the runs.
        name: of the run; its id is made from it.
        axes: its axis values.
        metrics: what the file holds; None: no file.
        state: where the run stands.
        reason: why it failed.
        commit: what it is pinned to.
        observed: whether the file's SHA-256 was noted at completion.
    """
    run_dir = root / name
    run_dir.mkdir(parents=True)
    content = metrics if isinstance(metrics, bytes) or metrics is None else orjson.dumps(metrics)
    if content is not None:
        (run_dir / "metrics.json").write_bytes(content)
    return RunStatus(
        id=hashlib.sha256(name.encode()).hexdigest()[:12],
        name=name,
        axes=axes,
        state=state,
        reason=reason,
        evidence="",
        attempt=1,
        job_id="1",
        commit=commit,
        config_sha256="c" * 64,
        folder=str(run_dir),
        metrics_sha256=hashlib.sha256(content).hexdigest() if content is not None and observed else None,
    )


def sweep(root: Path) -> list[RunStatus]:
    """Make 6 tasks x 2 pv x 2 rmkl x 1 seed: 19 completed, 3 failed of memory, 2 running."""
    runs: list[RunStatus] = []
    for task, pv, rmkl in _product():
        state, reason = UNFINISHED.get((task, pv, rmkl), (State.COMPLETED, None))
        probe = LEVEL[task] + EFFECT[pv, rmkl]
        metrics = {
            "router_test_final/router_probe_accuracy": probe,
            "loss/val/total": 1.0 + pv,
            "status": "ok",
            "provenance/host": "n1",
        }
        axes = {"task": task, "pv": pv, "rmkl": rmkl, "seed": 314159}
        name = f"task-{task}_pv{pv}_rmkl{rmkl}_s314159"
        runs.append(
            make_run(root, name, axes, metrics if state is State.COMPLETED else None, state=state, reason=reason)
        )
    return runs


def _product() -> Iterable[tuple[str, float, float]]:
    return ((task, pv, rmkl) for task in AXES["task"] for pv in AXES["pv"] for rmkl in AXES["rmkl"])


def record(
    project: Path,
    name: str,
    runs: list[RunStatus],
    axes: dict[str, tuple[Any, ...]],
    metrics: dict[str, dict[str, Any]] | None = None,
) -> None:
    """Write a collection's records as a command would: frozen runs, and a journal in which those that ended did.

    Args:
        project: folder of the project.
        name: of the collection.
        runs: its runs; their folders are moved there.
        axes: axis name to values.
        metrics: the definition's `metrics`; None: as frozen before there was such a key.
    """
    store = CollectionStore(project / "runs" / name, name)
    rows = [Row(run.id, run.name, run.axes, {}, run.config_sha256, {}, {}, run.commit) for run in runs]
    ended = [run for run in runs if run.state.terminal]
    header = {
        "schema": SCHEMA,
        "name": name,
        "commit": "a" * 40,
        "axes": {axis: list(values) for axis, values in axes.items()},
        "definition": {"seed_axis": "seed", **({} if metrics is None else {"metrics": metrics})},
    }
    moved = {run.run_dir: store.run_dir(run.name) for run in runs}
    store.create(header, b"", rows)
    for source, target in moved.items():
        source.rename(target)
    store.append(
        {"event": "intent", "token": "t", "backend": "local", "attempts": {run.id: 1 for run in ended}},
        {"event": "submitted", "token": "t", "jobs": ["1"] * len(ended)},
        {"event": "observed", "runs": {run.id: list(_observation(run)) for run in ended}},
    )


def _observation(run: RunStatus) -> Observation:
    return Observation(1, run.state, run.reason, run.evidence, 1.0, 1.0, run.metrics_sha256)


def aggregating(project: Path, forked: ForkedCommands) -> Aggregate:
    """Return a function that runs `slurmkit aggregate` on the sweep of a project."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SLURMKIT")}

    def run(*words: str, exit_code: int = 0) -> "subprocess.CompletedProcess[str]":
        env = {**kept, "SLURMKIT_RUNS": str(project / "runs")}
        done = forked.run(["aggregate", "direct/sweep", *words], project, env)
        assert done.returncode == exit_code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run

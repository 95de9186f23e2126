"""Runs that Slurm stops in four ways each go on in the same attempt, and leave one unbroken series."""

import json
from pathlib import Path

import pytest
from slurm_cluster import Cluster
from slurm_project import OnCluster, create, place

STEPS = {"limit": 420, "preempted": 150, "dead": 200, "cut": 450}
STOPPED = f"""\
name: stopped
command: ["{{python}}", counter.py, "{{config}}", "{{run_dir}}"]
axes:
  stop: {{key: stop, values: {list(STEPS)}}}
overrides:
  - {{where: {{stop: limit}}, set: {{steps: {STEPS["limit"]}}}, resources: {{cpus: 40, time: 2m}}}}
  - {{where: {{stop: preempted}}, set: {{steps: {STEPS["preempted"]}}}}}
  - {{where: {{stop: dead}}, set: {{steps: {STEPS["dead"]}}}}}
  - {{where: {{stop: cut}}, set: {{steps: {STEPS["cut"]}}}, resources: {{cpus: 32}}}}
resources: {{cpus: 64, mem: 100M, time: 5m}}
"""
"""A node has 64 CPUs: each run has one for itself."""


@pytest.mark.timeout(300)
def test_time_limit_preemption_and_lost_nodes_leave_no_gap_in_a_series(memory_cluster: Cluster, tmp_path: Path) -> None:
    where = place(tmp_path, memory_cluster)
    create(where, STOPPED, "stopped")
    where.submit("stopped")
    jobs = {run["name"].removeprefix("stop-"): run["job_id"] for run in where.runs_of("stopped")}
    stop_all(where, jobs)
    assert set(where.wait("stopped", timeout_s=150).values()) == {"completed"}
    starts: dict[str, int] = {}
    for stop, steps in STEPS.items():
        series = where.series("stopped", f"stop-{stop}")
        assert [line["step"] for line in series] == list(range(1, steps + 1)), stop
        assert "Restarts=1 " in memory_cluster.run("scontrol", "show", "job", jobs[stop])
        starts[stop] = len({line["pid"] for line in series})
    assert starts == {"limit": 2, "preempted": 2, "dead": 2, "cut": 1}, "who lives behind the cut is not doubled"
    assert {run["attempt"] for run in where.runs_of("stopped")} == {1}
    asked = {stop: first_outcome(where, stop) for stop in STEPS}
    assert asked == {
        "limit": ("requeue", "timeout"),
        "preempted": ("requeue", "preempted"),
        "dead": None,  # it had no time to say anything
        "cut": None,
    }


def stop_all(where: OnCluster, jobs: dict[str, str]) -> None:
    """Stop each run as its name says, once all count; give back the node that died.

    Slurm looks at time limits each 30 s only: at one that is less than 42 s away, a run is warned at the next look.
    """
    cluster = where.cluster
    cluster.wait(lambda: where.counting("stopped", (f"stop-{stop}" for stop in jobs)), "all count")
    node = dict(zip(jobs, where.nodes_of(list(jobs.values())), strict=True))
    assert len(set(node.values())) == 4
    cluster.run("scontrol", "update", f"JobId={jobs['limit']}", "EndTime=now+41")
    cluster.kill_node(node["dead"])
    cluster.kill_node(node["cut"], with_jobs=False)
    cluster.submit("true", "--partition=urgent", "--exclusive", f"--nodelist={node['preempted']}")
    cluster.wait(lambda: cluster.states(jobs["dead"]) == ["PENDING"], "the dead node is missed")
    cluster.start_node(node["dead"])


def first_outcome(where: OnCluster, stop: str) -> tuple[str, str] | None:
    """Return what the first start of a run recorded at its end, if it was started again."""
    path = where.runs / f"stopped/stop-{stop}/attempts/1/outcome.0.json"
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    return record["outcome"], record["reason"]

"""Runs that Slurm stops in four ways each go on in the same attempt, and leave one unbroken series."""

import contextlib
import json
from pathlib import Path

from slurm_cluster import Cluster
from slurm_project import OnCluster, create, place

STOPS = ("limit", "preempted", "dead", "cut")
STEPS = 20
STOPPED = f"""\
name: stopped
command: ["{{python}}", counter.py, "{{config}}", "{{run_dir}}"]
config: {{steps: {STEPS}, waits: true}}
axes:
  stop: {{key: stop, values: {list(STOPS)}}}
overrides:
  - {{where: {{stop: limit}}, resources: {{cpus: 40, time: 10m}}}}
  - {{where: {{stop: cut}}, resources: {{cpus: 32}}}}
resources: {{cpus: 64, mem: 100M, time: 60m}}
"""
"""A node has 64 CPUs: each run has one for itself."""


def test_time_limit_preemption_and_lost_nodes_leave_no_gap_in_a_series(memory_cluster: Cluster, tmp_path: Path) -> None:
    where = place(tmp_path, memory_cluster)
    create(where, STOPPED, "stopped")
    where.submit("stopped")
    jobs = {run["name"].removeprefix("stop-"): run["job_id"] for run in where.runs_of("stopped")}
    stop_all(where, jobs)
    assert set(where.wait("stopped").values()) == {"completed"}
    starts: dict[str, int] = {}
    for stop in STOPS:
        series = where.series("stopped", f"stop-{stop}")
        assert [line["step"] for line in series] == list(range(1, STEPS + 1)), stop
        assert started_again(where, jobs[stop])
        starts[stop] = len({line["pid"] for line in series})
    assert starts == {"limit": 2, "preempted": 2, "dead": 2, "cut": 1}, "who lives behind the cut is not doubled"
    assert {run["attempt"] for run in where.runs_of("stopped")} == {1}
    asked = {stop: first_outcome(where, stop) for stop in STOPS}
    assert asked == {
        "limit": ("requeue", "timeout"),
        "preempted": ("requeue", "preempted"),
        "dead": None,  # it had no time to say anything
        "cut": ("completed", None),
    }


def stop_all(where: OnCluster, jobs: dict[str, str]) -> None:
    """Stop each run as its name says, once all count; let each come to its end only when it has been stopped.

    Slurm looks at time limits each 30 s only. This run of ten minutes wants to be warned a minute before its end, so
    Slurm does it at the first look from 90 s before it. With an end in 80 s, that look may be most of a minute late.
    """
    cluster = where.cluster
    cluster.wait(lambda: where.counting("stopped", (f"stop-{stop}" for stop in jobs)), "all count")
    node = dict(zip(jobs, where.nodes_of(list(jobs.values())), strict=True))
    assert len(set(node.values())) == 4
    cluster.run("scontrol", "update", f"JobId={jobs['limit']}", "EndTime=now+80")
    cluster.kill_node(node["dead"])
    where.go("stopped", "stop-dead")
    cluster.kill_node(node["cut"], with_jobs=False)
    cluster.submit("true", "--partition=urgent", "--exclusive", f"--nodelist={node['preempted']}")
    cluster.start_node(node["dead"])
    for stop in ("preempted", "limit"):
        cluster.wait(lambda stop=stop: first_outcome(where, stop), f"the run is stopped: {stop}")
        where.go("stopped", f"stop-{stop}")
    cluster.wait(
        lambda: started_again(where, jobs["cut"]) and cluster.states(jobs["cut"]) == ["RUNNING"],
        "the run behind the cut is started a second time",
    )
    where.go("stopped", "stop-cut")


def started_again(where: OnCluster, job: str) -> bool:
    """Say whether Slurm has queued a job again, once."""
    return "Restarts=1 " in where.cluster.run("scontrol", "show", "job", job)


def first_outcome(where: OnCluster, stop: str) -> tuple[str, str] | None:
    """Return what the first start of a run recorded at its end; None: nothing yet, or ever."""
    attempt = where.runs / f"stopped/stop-{stop}/attempts/1"
    for name in ("outcome.json", "outcome.0.json"):  # the second start renames it
        with contextlib.suppress(FileNotFoundError):
            record = json.loads((attempt / name).read_text())
            if record["restart"] == 0:
                return record["outcome"], record["reason"]
    return None

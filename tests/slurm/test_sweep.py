"""A sweep of 24 runs on a real cluster in which six fail for four reasons, from the definition to the table."""

import json
from pathlib import Path

from slurm_cluster import Cluster, ClusterError
from slurm_project import OnCluster, create, place

SWEEP = """\
name: grid
command: ["{python}", counter.py, "{config}", "{run_dir}"]
config: {steps: 2, waits: false, deaf: true, megabytes: 0, bug: false}
axes:
  method: {key: method, values: [base, pv, pe, rmkl]}
  task: {key: task, values: [sorting, grid, words]}
  seed: {key: seed, values: [1, 2]}
resources: {cpus: 1, mem: 80M, time: 5m}
overrides:
  - {where: {method: pv, seed: 1}, set: {megabytes: 150}}
  - {where: {method: pe, task: words, seed: 2}, set: {bug: true}}
  - {where: {method: pe, task: grid, seed: 1}, set: {steps: 20, waits: true}, resources: {time: 1m}}
  - {where: {method: rmkl, task: sorting, seed: 2}, set: {steps: 20, waits: true}, resources: {cpus: 64}}
on_failure:
  oom: {resources.mem: x4, limit: 1}
  timeout: {resources.time: x2, limit: 1}
"""
SLOW, LOST, BUG = "method-pe_task-grid_seed-1", "method-rmkl_task-sorting_seed-2", "method-pe_task-words_seed-2"
HUNGRY = {f"method-pv_task-{task}_seed-1" for task in ("sorting", "grid", "words")}


def test_six_of_24_fail_for_four_reasons_and_all_but_the_bug_complete_when_tried_again(
    memory_cluster: Cluster, tmp_path: Path
) -> None:
    where = place(tmp_path, memory_cluster)
    create(where, SWEEP, "grid")
    where.submit("grid")
    fallen = stop_two(where)
    where.wait("grid")
    assert "18/24 complete, 6/24 failed" in where.slurmkit("status", "grid").stdout
    failed = {run["name"]: (run["reason"], run["evidence"]) for run in where.runs_of("grid") if run["reason"]}
    expected = {
        **dict.fromkeys(HUNGRY, ("oom_host", "Slurm: OUT_OF_MEMORY, step batch exit 0:125, limit 80 MB, on")),
        SLOW: ("timeout", "Slurm: TIMEOUT, limit 1m00s, on"),
        LOST: ("node_fail", f"Slurm: NODE_FAIL, on {fallen}"),
        BUG: ("error", "KeyError: 'no such strategy'"),
    }
    assert failed.keys() == expected.keys()
    for name, (reason, words) in expected.items():
        assert failed[name][0] == reason
        assert words in failed[name][1]

    memory_cluster.start_node(fallen)
    where.go("grid", SLOW, LOST)
    told = where.slurmkit("resubmit", "grid", "--failed", "--backend", "slurm").stdout
    assert told.count("mem 80 MB -> 320 MB") == 3
    assert told.count("time 1m00s -> 2m00s") == 1
    states = where.wait("grid")
    assert {name: state for name, state in states.items() if state != "completed"} == {BUG: "failed"}
    for name in (SLOW, LOST):
        series = where.series("grid", name)
        assert [line["step"] for line in series] == list(range(1, 21)), "the second try went on from the first"
        assert len({line["pid"] for line in series}) == 2

    table = json.loads(where.slurmkit("aggregate", "grid", "--json").stdout)
    lacking = [(cell["method"], cell["task"]) for cell in table["cells"] if cell["completed"] != cell["planned"]]
    assert (len(table["cells"]), lacking) == (12, [("pe", "words")])


def stop_two(where: OnCluster) -> str:
    """Take the time from one run and the node from another, as soon as both run; return the node.

    Slurm looks at time limits each 30 s only. A job that is not to be queued again is lost with its node.
    """
    cluster = where.cluster
    jobs = {run["name"]: run["job_id"] for run in where.runs_of("grid")}
    slow, lost = jobs[SLOW], jobs[LOST]
    cluster.wait(lambda: where.counting("grid", (SLOW, LOST)), "both count")
    cluster.wait(lambda: time_is_short(cluster, slow), "the time limit is near")
    cluster.run("scontrol", "update", f"JobId={lost}", "Requeue=0")
    (node,) = where.nodes_of([lost])
    cluster.kill_node(node)
    return node


def time_is_short(cluster: Cluster, job: str) -> bool:
    """Have a job end in some seconds; the controller refuses that if they are over when it hears of them."""
    try:
        cluster.run("scontrol", "update", f"JobId={job}", "EndTime=now+3")
    except ClusterError:
        return cluster.states(job) == ["TIMEOUT"]  # its minute is over
    return True

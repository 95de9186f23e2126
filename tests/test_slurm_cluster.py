"""The throw-away Slurm does for real what the tests of the scheduler rest on, and leaves nothing behind."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from slurm_cluster import PATIENCE_S, Cluster, ClusterError

TESTS = Path(__file__).parent
LEAVE_ONE_BEHIND = "setsid sleep 600 & touch $SLURM_JOB_ID.started; sleep 600"
OWNER = f"""\
import time
from slurm_cluster import Cluster
with Cluster("bare") as cluster:
    job = cluster.submit({LEAVE_ONE_BEHIND!r})
    cluster.wait((cluster.folder / "out" / f"{{job}}.started").exists, "the job runs")
    print(cluster.folder, flush=True)
    time.sleep(600)
"""
TAKE_200_MB = f"{sys.executable} -c 'x = bytearray(200 << 20); x[::4096] = x[::4096]; import time; time.sleep(2)'"


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    left: list[psutil.Process] = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end between two looks
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process)
    return left


def until(condition: Callable[[], object]) -> None:
    """Wait for what must come where there is no cluster to ask (`Cluster.wait`)."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def cgroups_of(cluster: Cluster) -> list[Path]:
    return [path for node in cluster.nodes for path in Path("/sys/fs/cgroup").glob(f"*/slurm_{node}")]


def wait_for(cluster: Cluster, job: str, *states: str) -> None:
    cluster.wait(lambda: cluster.states(job) == list(states), f"job {job} is {states}")


def accounted(cluster: Cluster, job: str, *rows: str) -> None:
    cluster.wait(lambda: cluster.sacct(job) == list(rows), f"sacct shows {rows} for job {job}")


def test_job_completes_and_is_accounted(nodes_cluster: Cluster):
    job = nodes_cluster.submit("echo done")
    accounted(nodes_cluster, job, "COMPLETED|0:0")
    assert (nodes_cluster.folder / "out" / job).read_text() == "done\n"


def test_hundred_tasks_of_an_array_run_at_once(nodes_cluster: Cluster):
    job = nodes_cluster.submit("sleep 600", "--array=0-99", "--mem=1M")
    wait_for(nodes_cluster, job, *["RUNNING"] * 100)


def test_urgent_job_preempts_and_the_preempted_one_is_requeued(nodes_cluster: Cluster):
    low = nodes_cluster.submit("sleep 600", "--nodes=4", "--exclusive")
    wait_for(nodes_cluster, low, "RUNNING")
    urgent = nodes_cluster.submit("true", "--partition=urgent", "--nodes=4", "--exclusive")
    accounted(nodes_cluster, urgent, "COMPLETED|0:0")
    started_again = "JobState=RUNNING .* Restarts=1 "
    nodes_cluster.wait(
        lambda: re.search(started_again, nodes_cluster.run("scontrol", "show", "job", low), re.DOTALL),
        "the preempted job runs again",
    )


def test_killed_node_takes_its_jobs_with_it_unless_told_otherwise(nodes_cluster: Cluster):
    alive = nodes_cluster.alive
    first, second = nodes_cluster.nodes[:2]
    here, there = (nodes_cluster.submit("sleep 600", f"--nodelist={node}") for node in (first, second))
    for job in (here, there):
        wait_for(nodes_cluster, job, "RUNNING")
    nodes_cluster.kill_node(first)
    nodes_cluster.kill_node(second, with_jobs=False)
    assert not alive(here)
    assert alive(there)
    for job in (here, there):
        wait_for(nodes_cluster, job, "PENDING")


def test_qos_few_refuses_the_sixth_job_of_a_user(nodes_cluster: Cluster):
    for _ in range(5):
        nodes_cluster.submit("sleep 600", "--qos=few")
    with pytest.raises(ClusterError, match="QOSMaxSubmitJobPerUserLimit"):
        nodes_cluster.submit("sleep 600", "--qos=few")


def test_array_index_beyond_a_thousand_is_refused(nodes_cluster: Cluster):
    with pytest.raises(ClusterError, match="Invalid job array specification"):
        nodes_cluster.submit("true", "--array=0-1001")


def test_controller_and_accounting_go_away_and_come_back(nodes_cluster: Cluster):
    job = nodes_cluster.submit("sleep 600")
    wait_for(nodes_cluster, job, "RUNNING")
    nodes_cluster.stop_controller()
    with pytest.raises(ClusterError, match="Unable to contact slurm controller"):
        nodes_cluster.run("squeue")
    nodes_cluster.stop_accounting()
    with pytest.raises(ClusterError, match="Connection refused"):
        nodes_cluster.sacct(job)
    nodes_cluster.start_accounting()
    nodes_cluster.start_controller()
    assert nodes_cluster.states(job) == ["RUNNING"]
    accounted(nodes_cluster, job, "RUNNING|0:0")


def test_without_accounting_a_job_runs_and_sacct_has_no_word(bare_cluster: Cluster):
    job = bare_cluster.submit("true")
    wait_for(bare_cluster, job, "COMPLETED")
    with pytest.raises(ClusterError, match="accounting storage is disabled"):
        bare_cluster.sacct(job)


def test_job_over_its_memory_is_killed_for_it(memory_cluster: Cluster):
    job = memory_cluster.submit(TAKE_200_MB, "--mem=50M")
    wait_for(memory_cluster, job, "OUT_OF_MEMORY")
    accounted(memory_cluster, job, "OUT_OF_MEMORY|0:125")


def test_stop_leaves_no_process_folder_or_cgroup(require_memory_limits: None):
    with Cluster("memory") as cluster:
        jobs = [cluster.submit(LEAVE_ONE_BEHIND) for _ in range(2)]
        for job in jobs:
            cluster.wait((cluster.folder / "out" / f"{job}.started").exists, "the job runs")
        cluster.run("scontrol", "suspend", jobs[0])
        wait_for(cluster, jobs[0], "SUSPENDED")
        assert len(cgroups_of(cluster)) >= 2
        processes = cluster.processes()
        assert (
            len(processes) >= 14
        )  # keeper, munge, MariaDB, three of Slurm, and a step, a shell, two sleeps of each job
    assert not cluster.folder.exists()
    assert not living(processes)
    assert not cgroups_of(cluster)


def test_nothing_is_left_when_the_owner_is_killed(require_slurm: None):
    owner = subprocess.Popen([sys.executable, "-c", OWNER], cwd=TESTS, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout:
        folder = Path(owner.stdout.readline().strip())
    processes = psutil.Process(owner.pid).children(recursive=True)
    owner.kill()
    owner.wait()
    assert len(processes) >= 11  # keeper, munge, controller and its helper, four nodes, a step, a shell, two sleeps
    until(lambda: not living(processes) and not folder.exists())


def test_nothing_is_left_of_a_cluster_that_cannot_start(
    require_slurm: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "slurmctld").write_text("#!/bin/sh\necho no room >&2\nexit 1\n")
    (tmp_path / "slurmctld").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    cluster = Cluster("bare")
    with pytest.raises(ClusterError, match=r"(?s)slurmctld answers.*no room"), cluster:
        pytest.fail("it cannot start")
    assert not cluster.folder.exists()
    commands = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if str(cluster.folder) in command]


def test_cluster_by_hand_is_up_once_and_down_once(require_slurm: None, tmp_path: Path):
    def by_hand(*words: str) -> str:
        command = [sys.executable, str(TESTS / "slurm_by_hand.py"), *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    try:
        export = by_hand("up", "bare")
        conf = Path(export.removeprefix("export SLURM_CONF=").strip())
        env = {**os.environ, "SLURM_CONF": str(conf)}
        sinfo = subprocess.run(["sinfo", "-h", "-N", "-o", "%t"], env=env, check=True, capture_output=True, text=True)
        assert set(sinfo.stdout.split()) == {"idle"}
        assert by_hand("up", "bare") == f"A cluster is up already. `make slurm-down` ends it.\n{export}"
    finally:
        told = by_hand("down")
    assert told == "The cluster is down.\n"
    assert not conf.parent.exists()
    assert by_hand("down") == "No cluster is up.\n"


def test_by_hand_an_owner_killed_is_no_cluster(require_slurm: None, tmp_path: Path):
    command = [sys.executable, str(TESTS / "slurm_by_hand.py"), "up", "bare"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    record = json.loads((tmp_path / ".slurm-cluster").read_text())
    owner = psutil.Process(record["pid"])
    owner.kill()
    until(lambda: not living([owner]))
    down = subprocess.run([*command[:2], "down"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert down.stdout == "No cluster is up.\n"
    until(lambda: not Path(record["SLURM_CONF"]).parent.exists())

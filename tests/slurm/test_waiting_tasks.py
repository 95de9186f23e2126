"""What a real cluster says of jobs that wait, or that waited in vain, where squeue and sacct disagree or fold."""

import contextlib
from pathlib import Path

import pytest
from slurm_cluster import Cluster, ClusterError

from slurmkit.schedulers import JobReport
from slurmkit.schedulers.slurm.watch import Watch
from slurmkit.states import JobState


@pytest.fixture
def watch(nodes_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watch:
    for name, value in nodes_cluster.env.items():
        monkeypatch.setenv(name, value)
    return Watch(tmp_path / "watch")


def wait_for(cluster: Cluster, watch: Watch, name: str, states: dict[str, JobState]) -> dict[str, JobReport]:
    """Wait until jobs of one name stand so, by accounting where they have ended; return the look that shows it."""
    seen: dict[str, JobReport] = {}

    def reached() -> bool:
        watch.forget()
        seen.update(watch.reports(dict.fromkeys(states, name)))
        return all(job in seen and seen[job].state is state and accounted(seen[job]) for job, state in states.items())

    cluster.wait(reached, f"{name}: {states}")
    return seen


def accounted(report: JobReport) -> bool:
    return "not in accounting" not in report.evidence


def test_each_waiting_task_has_its_own_reason_and_restarts(nodes_cluster: Cluster, watch: Watch) -> None:
    """One task is held, one was queued again, the rest wait for the throttle; squeue would fold them into one row.

    The second is held, too, lest it takes the place again that it leaves.
    """
    array = nodes_cluster.submit("sleep 600", "--job-name=swept", "--array=0-9%2", "--requeue")
    tasks = [f"{array}_{task}" for task in range(10)]
    wait_for(nodes_cluster, watch, "swept", {tasks[0]: JobState.RUNNING, tasks[1]: JobState.RUNNING})
    nodes_cluster.run("scontrol", "requeuehold", tasks[0])
    nodes_cluster.run("scontrol", "hold", tasks[5])
    wait_for(nodes_cluster, watch, "swept", dict.fromkeys(tasks[1:3], JobState.RUNNING))
    seen = wait_for(nodes_cluster, watch, "swept", dict.fromkeys([tasks[0], *tasks[3:]], JobState.PENDING))
    assert seen[tasks[5]].why_pending.startswith("JobHeldAdmin: ")  # it is root who held it
    assert [seen[task].restarts for task in tasks[3:]] == [0] * 7
    assert seen[tasks[0]].restarts == 1
    assert {seen[task].why_pending for task in tasks[6:]} == {"JobArrayTaskLimit"}


def test_cancelled_tasks_are_told_from_those_that_ran(nodes_cluster: Cluster, watch: Watch) -> None:
    """Accounting folds what never started, and goes on naming there a task that did."""
    array = nodes_cluster.submit("sleep 600", "--job-name=swept", "--array=0-4%1")
    wait_for(nodes_cluster, watch, "swept", {f"{array}_0": JobState.RUNNING})
    nodes_cluster.run("scancel", array)
    tasks = [f"{array}_{task}" for task in range(5)]
    seen = wait_for(nodes_cluster, watch, "swept", dict.fromkeys(tasks, JobState.CANCELLED))
    assert seen[tasks[0]].evidence.startswith("Slurm: CANCELLED by root, on n")
    for task in tasks[1:]:
        assert seen[task].evidence.startswith("Slurm: CANCELLED by root, before it started")
        assert (seen[task].started_at, seen[task].restarts) == (None, 0)


def test_dependency_that_had_failed_before_the_submission(nodes_cluster: Cluster, watch: Watch) -> None:
    """Accounting then has no reason at all; a person who cancels such a job is told apart by name."""
    failed = nodes_cluster.submit("exit 1", "--job-name=failed")
    wait_for(nodes_cluster, watch, "failed", {failed: JobState.FAILED})
    after = ("--job-name=after", f"--dependency=afterok:{failed}")
    taken = nodes_cluster.submit("true", *after, "--kill-on-invalid-dep=yes")
    cancelled = nodes_cluster.submit("true", *after, "--kill-on-invalid-dep=no")
    wait_for(nodes_cluster, watch, "after", {taken: JobState.DEPENDENCY_FAILED, cancelled: JobState.PENDING})
    nodes_cluster.run("scancel", cancelled)
    seen = wait_for(nodes_cluster, watch, "after", {cancelled: JobState.CANCELLED})
    assert "CANCELLED by root" in seen[cancelled].evidence


def test_job_that_cannot_make_its_deadline_is_a_timeout(nodes_cluster: Cluster, watch: Watch) -> None:
    node = ("--nodelist", nodes_cluster.nodes[0], "--exclusive")
    blocking = nodes_cluster.submit("sleep 600", "--job-name=blocking", *node)
    wait_for(nodes_cluster, watch, "blocking", {blocking: JobState.RUNNING})
    late = too_late(nodes_cluster, *node)
    seen = wait_for(nodes_cluster, watch, "late", {late: JobState.TIMEOUT})
    assert seen[late].evidence.startswith("Slurm: DEADLINE, before it started")


def too_late(cluster: Cluster, *options: str) -> str:
    """Submit a job of a minute that has to start within three seconds; return its id.

    Slurm refuses it if it hears of it later than that.
    """
    taken: list[str] = []

    def submitted() -> bool:
        with contextlib.suppress(ClusterError):
            taken.append(cluster.submit("true", "--job-name=late", "--time=1", "--deadline=now+63seconds", *options))
        return bool(taken)

    cluster.wait(submitted, "Slurm takes a job with a deadline")
    return taken[0]


def test_job_that_ends_after_a_requeue_says_so(nodes_cluster: Cluster, watch: Watch) -> None:
    job = nodes_cluster.submit('[ -n "$SLURM_RESTART_COUNT" ] || sleep 600', "--job-name=again", "--requeue")
    wait_for(nodes_cluster, watch, "again", {job: JobState.RUNNING})
    nodes_cluster.run("scontrol", "requeue", job)
    seen = wait_for(nodes_cluster, watch, "again", {job: JobState.COMPLETED})
    assert seen[job].evidence.endswith("; queued again 1x after REQUEUED")
    assert seen[job].restarts == 1

"""Traps in what Slurm 22.05.8 prints, each as it was captured from a real cluster.

`early`: three seconds after many jobs were submitted, while accounting lags. `restarts`: an array and jobs that started
more than once, all asked of accounting; `cancelled`: the same in squeue, cancelled a while before.
"""

from pathlib import Path

import pytest

from slurmkit.schedulers import JobReport
from slurmkit.schedulers.slurm.listing import parse_sacct, parse_squeue
from slurmkit.schedulers.slurm.verdict import Evidence, reports_of
from slurmkit.states import JobState

CAPTURED = Path(__file__).parent / "golden" / "slurm"


def look(jobs: dict[str, str], squeue: str = "", sacct: str = "", taken_at: float = 1795272636.0) -> list[JobReport]:
    """Report on jobs from captured texts, in order; all of them must be known."""
    queue, accounting = (read_captured(name) if name else "" for name in (squeue, sacct))
    evidence = Evidence(parse_squeue(queue), parse_sacct(accounting), taken_at)
    reports = reports_of(jobs, evidence, lambda uid: {0: "root"}[uid])
    return [reports[job] for job in jobs]


def read_captured(name: str) -> str:
    return (CAPTURED / name).read_text()


@pytest.mark.parametrize("squeue", ["early.squeue", ""])
def test_dependency_that_had_failed_before_the_submission(squeue: str):
    """Accounting gives None as the reason of such a job, and no user who cancelled it."""
    assert "|CANCELLED|0:0|0:0|1795272631|1795272631|1795272631||10M|Partition_Limit|None assigned|None|" in (
        read_captured("early.sacct")
    )
    (report,) = look({"69": "dependency-killed"}, squeue, "early.sacct")
    assert report.state is JobState.DEPENDENCY_FAILED


def test_dependent_job_that_a_person_cancelled_is_cancelled():
    """squeue shows it as Slurm's own doing; only accounting tells by whom."""
    (report,) = look({"71": "dependency-cancelled"}, "early.squeue", "early.sacct")
    assert report.state is JobState.CANCELLED
    assert report.evidence == "Slurm: CANCELLED by root, before it started (DependencyNeverSatisfied)"


def test_whole_array_that_never_started_is_one_row_of_accounting():
    """74_[0-3] once its dependency has failed."""
    tasks = {f"74_{task}": "whole-array" for task in range(4)}
    assert {report.state for report in look(tasks, "", "early.sacct")} == {JobState.DEPENDENCY_FAILED}


def test_running_job_that_accounting_calls_pending_and_by_no_name():
    """Until the start has reached accounting, a job is PENDING there, its name `allocation`, its id not the task's."""
    assert "99|PENDING|0:0|0:0|1795272631|1795272635|Unknown||16?||n1|None|allocation\n" in read_captured("early.sacct")
    running, urgent = look({"84_2": "throttled", "95": "urgent"}, "early.squeue", "early.sacct")
    assert (running.state, urgent.state) == (JobState.RUNNING, JobState.RUNNING)
    evidence = Evidence(parse_squeue(""), parse_sacct(read_captured("early.sacct")), 1795272636.0)
    assert reports_of({"95": "urgent", "99": "throttled"}, evidence) == {}


def test_each_waiting_task_has_its_own_reason_and_restarts():
    """squeue tells them apart with --array only; folded, it shows all reasons for all and the restarts of none."""
    again, waiting, held = look({"84_0": "throttled", "84_3": "throttled", "84_5": "throttled"}, "early.squeue")
    assert (again.restarts, waiting.restarts, held.restarts) == (1, 0, 0)
    assert (again.why_pending, waiting.why_pending) == ("JobArrayTaskLimit; queued again 1x", "JobArrayTaskLimit")
    assert held.why_pending.startswith("JobHeldAdmin: ")


def test_task_that_ran_is_not_judged_by_the_folded_row_that_still_names_it():
    assert "6_[9-11%2]|CANCELLED by 0|" in read_captured("restarts.sacct")
    ran, never = look({"6_9": "array", "6_10": "array"}, "", "restarts.sacct")
    assert (ran.evidence, ran.restarts) == ("Slurm: CANCELLED by root, on n1", 0)
    assert never.evidence == "Slurm: CANCELLED by root, before it started (JobArrayTaskLimit)"


@pytest.mark.parametrize(
    ("job", "name", "evidence"),
    [
        ("6_0", "array", "CANCELLED by root, before it started (JobArrayTaskLimit); queued again 1x after REQUEUED"),
        ("6_2", "array", "CANCELLED by root, before it started (JobArrayTaskLimit); queued again 1x after NODE_FAIL"),
        ("21", "preempted-once", "COMPLETED, on n4; queued again 1x after PREEMPTED"),
        ("43", "node-failed", "NODE_FAIL, on n2"),
        ("47", "node-failed-and-done", "COMPLETED, on n1; queued again 1x after NODE_FAIL"),
    ],
)
def test_earlier_starts_are_told_with_what_ended_them(job: str, name: str, evidence: str):
    (report,) = look({job: name}, "", "restarts.sacct")
    assert report.evidence == f"Slurm: {evidence}"


def test_cancelled_tasks_of_an_array_are_one_row_of_squeue_without_a_task():
    """Seen where there is no accounting: 6_10 is only to be found in the row of job 6."""
    never, ran = look({"6_10": "array", "6_9": "array"}, "cancelled.squeue", taken_at=1795272700.0)
    assert never.evidence.startswith("Slurm: CANCELLED, before it started (JobArrayTaskLimit); by squeue alone")
    assert ran.evidence.startswith("Slurm: CANCELLED, on n1; by squeue alone")


def test_cancelled_job_says_what_it_last_waited_for():
    (report,) = look({"42": "node-failed-once"}, "cancelled.squeue", "restarts.sacct", 1795272700.0)
    assert "before it started (ReqNodeNotAvail, UnavailableNodes:n2)" in report.evidence
    assert report.restarts == 1

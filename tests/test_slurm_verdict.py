"""Every way in which Slurm tells of a job becomes one report; the texts are those of real clusters (22.05)."""

import pytest
from test_slurm_listing import CAPTURED, ODD_NAME, sacct_rows, squeue_row

from slurmkit.schedulers import JobReport
from slurmkit.schedulers.slurm.listing import parse_sacct, parse_squeue
from slurmkit.schedulers.slurm.verdict import ACCOUNTING_GRACE_S, Evidence, active_ids, explain, reports_of
from slurmkit.states import JobState

TAKEN_AT = 1795273200.0


def captured(squeue: str | None, sacct: str | None, taken_at: float = TAKEN_AT, no_accounting: str = "") -> Evidence:
    """Return the evidence of texts in tests/golden/slurm; None: nothing was printed."""
    texts = ["" if name is None else (CAPTURED / name).read_text() for name in (squeue, sacct)]
    return Evidence(parse_squeue(texts[0]), parse_sacct(texts[1]), taken_at, no_accounting)


def one(job_id: str, name: str, evidence: Evidence) -> JobReport:
    return reports_of({job_id: name}, evidence, lambda uid: {0: "root"}[uid])[job_id]


NODES = captured("nodes.squeue", "nodes.sacct")
LATER = captured("later.squeue", "later.sacct")
MEMORY = captured("memory.squeue", "memory.sacct")
FORGOTTEN = captured(None, "later.sacct")


@pytest.mark.parametrize(
    ("job_id", "name", "evidence", "state", "line"),
    [
        ("35", "ok", NODES, JobState.COMPLETED, "Slurm: COMPLETED, on n3"),
        ("36", "fail", NODES, JobState.FAILED, "Slurm: FAILED, exit 3:0, on n3"),
        ("37", "killed", NODES, JobState.FAILED, "Slurm: FAILED, ended by SIGKILL, on n3"),
        ("38", "in-srun", NODES, JobState.FAILED, "Slurm: FAILED, exit 4:0, on n3"),
        ("49", "cancelled-waiting", NODES, JobState.CANCELLED, "Slurm: CANCELLED by root, before it started"),
        ("50", "cancelled-running", NODES, JobState.CANCELLED, "Slurm: CANCELLED by root, on n3"),
        ("45_6", "swept", NODES, JobState.CANCELLED, "Slurm: CANCELLED by root, before it started"),
        ("45_6", "swept", FORGOTTEN, JobState.CANCELLED, "Slurm: CANCELLED by root, before it started"),
        ("41", "taken-away", NODES, JobState.DEPENDENCY_FAILED, "Slurm: CANCELLED, before it started (Dependency"),
        ("43_2", "second", NODES, JobState.DEPENDENCY_FAILED, "Slurm: CANCELLED, before it started (Dependency"),
        ("43_2", "second", FORGOTTEN, JobState.DEPENDENCY_FAILED, "Slurm: CANCELLED, before it started (Dependency"),
        ("48", "late", NODES, JobState.TIMEOUT, "Slurm: DEADLINE, before it started"),
        ("51", "slow", LATER, JobState.TIMEOUT, "Slurm: TIMEOUT, limit 1m00s, on n3"),
        ("62", "node-died", LATER, JobState.NODE_FAIL, "Slurm: NODE_FAIL, on n4"),
        ("65", "no-log", NODES, JobState.FAILED, "Slurm: FAILED, exit 0:53"),
        ("1", "oom", MEMORY, JobState.OUT_OF_MEMORY, "Slurm: OUT_OF_MEMORY, step batch exit 0:125, limit 50 MB, on n1"),
        (
            "2",
            "oom-in-srun",
            MEMORY,
            JobState.OUT_OF_MEMORY,
            "Slurm: OUT_OF_MEMORY, step 0 exit 0:125, limit 50 MB, on n1",
        ),
        ("3", "oom-survived", MEMORY, JobState.COMPLETED, "Slurm: COMPLETED, on n1"),
    ],
)
def test_end_is_told_by_all_evidence(job_id: str, name: str, evidence: Evidence, state: JobState, line: str):
    report = one(job_id, name, evidence)
    assert report.state is state
    assert report.evidence.startswith(line)
    assert "\n" not in report.evidence
    assert report.ended_at is not None


def test_worker_end_is_reported_only_where_it_ended_by_itself():
    assert (one("36", "fail", NODES).exit_code, one("36", "fail", NODES).signal) == (3, None)
    assert (one("37", "killed", NODES).exit_code, one("37", "killed", NODES).signal) == (None, 9)
    for job_id, name, evidence in [
        ("51", "slow", LATER),
        ("62", "node-died", LATER),
        ("50", "cancelled-running", NODES),
        ("1", "oom", MEMORY),
        ("65", "no-log", NODES),
        ("48", "late", NODES),
    ]:
        report = one(job_id, name, evidence)
        assert (report.exit_code, report.signal) == (None, None), name


def test_times_are_utc_and_peak_is_the_largest_step():
    report = one("1", "oom", MEMORY)
    assert report.started_at == "2026-11-21T14:58:22+00:00"
    assert report.ended_at == "2026-11-21T14:58:26+00:00"
    assert one("2", "oom-in-srun", MEMORY).peak_rss_mb == pytest.approx(21544 / 1024)


def test_queue_row_of_a_requeued_job_wins_over_accounting_of_its_earlier_start():
    for job_id, name in [("61", "victim"), ("63", "node-died-requeued")]:
        report = one(job_id, name, LATER)
        assert (report.state, report.restarts) == (JobState.PENDING, 1)
        assert "queued again 1x" in report.why_pending
    assert one("44_3", ODD_NAME, LATER).state is JobState.PENDING


def test_end_after_a_requeue_is_not_taken_from_the_start_before():
    """Accounting has the preempted start and not yet the end of the second one."""
    queue = "61|FAILED|1|256|1795273020|1795273141|1795273150|n1|NonZeroExitCode|victim|\n"
    rows = [row for row in (CAPTURED / "later.sacct").read_text().splitlines() if row.startswith("61")]
    early = Evidence(parse_squeue(queue), parse_sacct("\n".join(rows[:2])), 1795273151.0)
    assert one("61", "victim", early).state is JobState.RUNNING
    late = Evidence(early.queue, early.accounting, 1795273150.0 + ACCOUNTING_GRACE_S)
    assert (one("61", "victim", late).state, one("61", "victim", late).restarts) == (JobState.FAILED, 1)


def test_earlier_starts_are_counted_when_squeue_has_forgotten():
    again = (
        sacct_rows("8", "PREEMPTED")
        + sacct_rows("8", "NODE_FAIL")
        + sacct_rows("8", "COMPLETED").replace("1700000000|1700000001|1700000002", "1700000003|1700000004|1700000005")
    )
    report = one("8", "mine", Evidence(parse_squeue(""), parse_sacct(again), TAKEN_AT))
    assert (report.state, report.restarts) == (JobState.COMPLETED, 2)
    assert "PREEMPTED, NODE_FAIL" in report.evidence


def test_completed_is_taken_at_once_while_accounting_lags():
    evidence = captured("nodes.squeue", None, taken_at=1795273017.0)
    assert one("35", "ok", evidence).state is JobState.COMPLETED


def test_other_ends_wait_for_accounting_for_some_seconds():
    """srun hides an OOM from squeue: taken at once, it would read as a plain failure."""
    early = captured("memory.squeue", None, taken_at=1795273108.0)
    report = one("2", "oom-in-srun", early)
    assert (report.state, report.evidence) == (JobState.RUNNING, "Slurm: FAILED, ended; accounting not in yet")
    late = captured("memory.squeue", None, taken_at=1795273107.0 + ACCOUNTING_GRACE_S)
    assert one("2", "oom-in-srun", late).state is JobState.FAILED
    never_ran = captured("nodes.squeue", None, taken_at=1795273021.0)
    assert one("49", "cancelled-waiting", never_ran).state is JobState.PENDING


def test_without_accounting_squeue_is_believed_at_once_and_the_evidence_says_so():
    evidence = captured("nodes.squeue", None, 1795273017.0, "Slurm accounting storage is disabled")
    report = one("36", "fail", evidence)
    assert (report.state, report.exit_code) == (JobState.FAILED, 3)
    assert report.evidence.endswith("by squeue alone (Slurm accounting storage is disabled)")
    assert one("41", "taken-away", evidence).state is JobState.DEPENDENCY_FAILED
    assert one("49", "cancelled-waiting", evidence).state is JobState.CANCELLED


def test_absent_from_both_is_absent_from_the_answer():
    assert reports_of({"99": "x", "44_99": ODD_NAME, "45": "swept"}, NODES) == {}


def test_job_of_another_name_is_not_ours():
    assert reports_of({"36": "other", "44_3": "odd", "45_6": "x"}, NODES) == {}
    text = sacct_rows("8", "FAILED") + sacct_rows("8", "COMPLETED", "of somebody else").replace("170000", "180000")
    evidence = Evidence(parse_squeue(squeue_row("8", "RUNNING", "a third", "n1")), parse_sacct(text), TAKEN_AT)
    assert one("8", "mine", evidence).state is JobState.FAILED


def test_running_in_accounting_and_unknown_to_the_controller_is_unknown():
    assert reports_of({"44_4": ODD_NAME, "61": "victim"}, FORGOTTEN) == {}


def test_unknown_word_is_never_guessed():
    evidence = Evidence(parse_squeue(squeue_row("8", "LEVITATING")), parse_sacct(sacct_rows("8")), TAKEN_AT)
    assert reports_of({"8": "mine"}, evidence) == {}
    evidence = Evidence(parse_squeue(""), parse_sacct(sacct_rows("8", "LEVITATING")), TAKEN_AT)
    assert reports_of({"8": "mine"}, evidence) == {}


def test_runs_of_one_allocation_share_its_report():
    reports = reports_of({"36+0": "fail", "36+2": "fail", "44_3+1": ODD_NAME}, NODES)
    assert {job: (report.state, report.shared) for job, report in reports.items()} == {
        "36+0": (JobState.FAILED, True),
        "36+2": (JobState.FAILED, True),
        "44_3+1": (JobState.RUNNING, True),
    }
    assert not one("36", "fail", NODES).shared


def test_only_jobs_that_squeue_shows_alive_need_no_accounting():
    jobs = {"39": "held", "44_3": ODD_NAME, "44_12+1": ODD_NAME, "36": "fail", "61": "other", "99": "gone"}
    assert active_ids(jobs, NODES.queue) == {"39", "44_3", "44_12+1"}


@pytest.mark.parametrize(
    ("job_id", "name", "words"),
    [
        ("39", "held", "JobHeldUser: held by its owner; `scontrol release 39`"),
        ("40", "never", "DependencyNeverSatisfied: a job that it waits for did not complete"),
        ("46", "long", "PartitionTimeLimit: its time limit is longer"),
        ("47", "wide", "PartitionNodeLimit: the partition does not allow"),
        ("44_12", ODD_NAME, "JobArrayTaskLimit"),
    ],
)
def test_pending_job_says_what_would_make_it_start(job_id: str, name: str, words: str):
    report = one(job_id, name, NODES)
    assert report.state is JobState.PENDING
    assert report.why_pending.startswith(words)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("launch failed requeued held", "scontrol release 5"),
        ("(launch_failed_requeued_held)", "scontrol release 5"),
        ("BadConstraints", "no node has"),
        ("QOSMaxCpuPerJobLimit", "ask for less"),
        ("AssocMaxWallDurationPerJobLimit", "ask for less"),
        ("QOSMaxJobsPerUserLimit", "starts when others end"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-2]", "down, drained or reserved"),
    ],
)
def test_reason_is_explained(reason: str, words: str):
    assert words in explain(reason, "5")


@pytest.mark.parametrize("reason", ["Priority", "Resources", "None"])
def test_reason_that_goes_away_by_itself_stands_alone(reason: str):
    assert explain(reason, "5") == reason

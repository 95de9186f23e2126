"""`--then report`: a report when all has ended, however it ended, from the local queue."""

import time
from pathlib import Path

from workplace import Workplace

from slurmkit.files import read_lines
from slurmkit.ledger import replay
from slurmkit.schedulers.local.journal import Journal

SWEEP = """\
name: sweep
command: ["{python}", train.py, "{config}", "{run_dir}"]
config: {act: complete, until: GO}
axes:
  act: {values: {good: {}, bad: {act: bug}}}
resources: {cpus: 1}
"""


def define(workplace: Workplace, text: str = SWEEP) -> Path:
    """Define the sweep; its runs go on once ``go`` is there."""
    return workplace.define(text.replace("GO", str(workplace.root.parent / "go")))


def wait_for(path: Path, timeout_s: float = 100) -> str:
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.1)
    return path.read_text()


def events(workplace: Workplace) -> list[dict[str, object]]:
    return [e for e in read_lines(workplace.runs / "sweep/.slurmkit/journal.jsonl")[0] if e["event"] == "then"]


def test_the_report_comes_after_all_runs_also_when_one_failed(workplace: Workplace) -> None:
    workplace.slurmkit("collection", "create", str(define(workplace)))
    told = workplace.slurmkit("submit", "sweep", "--then", "report").stderr
    assert "then: slurmkit report sweep, as job" in told
    assert "after 2 runs" in told
    (workplace.root.parent / "go").touch()
    text = wait_for(workplace.root / "reports/sweep/report.md")
    assert "1/2 complete, 1/2 failed" in text


def test_the_latest_follow_up_takes_the_place_of_one_that_waits_and_goes_with_a_cancelled_collection(
    workplace: Workplace,
) -> None:
    workplace.slurmkit("collection", "create", str(define(workplace)))
    workplace.slurmkit("submit", "sweep", "--where", "act=good", "--then", "report")
    workplace.slurmkit("submit", "sweep", "--where", "act=bad", "--then", "report")
    first, second = events(workplace)
    (queue,) = (workplace.runs / ".queue").iterdir()
    jobs = Journal(queue)
    reports = _reports(jobs, [str(first["job"]), str(second["job"])])
    assert [one.state.value for one in reports] == ["cancelled", "pending"]
    workplace.slurmkit("cancel", "sweep", "--all")
    (report,) = _reports(jobs, [str(second["job"])])
    assert report.state.value == "cancelled"
    assert replay(events(workplace)).then is None
    assert not (workplace.root / "reports").exists()


def _reports(journal: Journal, ids: list[str]) -> list:
    journal.refresh()
    found = journal.reports(set(ids))
    return [found[one] for one in ids]


def test_a_retry_for_memory_says_what_finished_siblings_needed(workplace: Workplace) -> None:
    text = """\
    name: sweep
    command: ["{python}", train.py, "{config}", "{run_dir}"]
    config: {act: complete, megabytes: 150, seconds: 600}
    axes:
      size: {key: size, values: [1, 2]}
      seed: {key: act, values: [complete, oom]}
    resources: {cpus: 1, mem: 100M}
    overrides:
      - {where: {size: 1}, set: {megabytes: 1, seconds: 0}}
    """
    workplace.slurmkit("collection", "create", str(workplace.define(text)), "--submit")
    states = workplace.wait("sweep")
    assert states.pop("size-2_seed-oom") == "failed"
    assert set(states.values()) == {"completed"}
    told = workplace.slurmkit("resubmit", "sweep", "--failed", "--set", "resources.mem=x4", "--dry-run").stderr
    assert "of size=2, 1 run that completed used up to" in told
    assert "would have done for them; this try: 400 MB" in told


def test_a_dry_run_says_what_may_be_used(workplace: Workplace) -> None:
    workplace.slurmkit("collection", "create", str(define(workplace, SWEEP.replace("cpus: 1", "cpus: 2, time: 90m"))))
    told = workplace.slurmkit("submit", "sweep", "--dry-run").stderr
    assert "at most 6.0 CPU-hours: 2 runs x (1h30m, 2 CPUs)" in told

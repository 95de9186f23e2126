"""A worker that is told to stop, and the same attempt started again: what goes on, and what is put aside."""

import json
import os
import signal

import pytest
from worker_bench import GOOD, Bench, has_line, once

from slurmkit.records import WorkOrder

STOPPABLE = """
import os, signal, sys, time, package
def stop(number, frame):
    print('got', number, file=sys.stderr)
    sys.exit(75)
for number in (signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, stop)
print('ready', os.getpid())
time.sleep(300)
"""


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGUSR2, "timeout"), (signal.SIGTERM, "preempted")])
def test_a_stop_signal_is_passed_on_and_the_run_is_queued_again(bench: Bench, number: int, reason: str) -> None:
    with once(has_line(bench.attempt / "stdout.log"), lambda: os.kill(os.getpid(), number)):
        code, outcome = bench.python(STOPPABLE)
    assert (code, outcome["outcome"], outcome["reason"]) == (75, "requeue", reason)
    assert (bench.attempt / "stderr.log").read_text() == f"got {number:d}\n"


def test_a_restart_goes_on_in_the_same_attempt_and_keeps_what_was_recorded(bench: Bench) -> None:
    ask_again = "import package, sys; print('first', file=sys.stderr); package.finish({'old': 1}); sys.exit(75)"
    code, first = bench.python(ask_again)
    assert (code, first["outcome"], first["reason"], first["restart"]) == (75, "requeue", None, 0)
    _, second = bench.python("raise KeyError('x')")
    assert (second["outcome"], second["restart"]) == ("failed", 1)
    assert "stderr line 4: KeyError: 'x'" in second["evidence"]
    assert (bench.attempt / "stderr.log").read_text().startswith("first\nTraceback")
    _, third = bench.python("pass")
    assert (third["reason"], third["restart"]) == ("no_metrics", 2)
    kept = sorted(path.name for path in bench.attempt.glob("*.[0-9].json"))
    assert kept == ["metrics.0.json", "outcome.0.json", "outcome.1.json", "started.0.json", "started.1.json"]
    assert json.loads((bench.attempt / "outcome.0.json").read_bytes()) == first


@pytest.mark.parametrize(
    ("number", "reason", "requeue", "starts"),
    [(signal.SIGUSR2, "timeout", {"timeout": 1}, 2), (signal.SIGTERM, "preempted", {"timeout": 5, "preempted": 0}, 1)],
)
def test_an_attempt_is_queued_again_for_a_reason_as_often_as_its_order_says(
    bench: Bench, number: int, reason: str, requeue: dict[str, int], starts: int
) -> None:
    codes: list[int] = []
    for start in range(starts):
        with once(has_line(bench.attempt / "stdout.log", start + 1), lambda: os.kill(os.getpid(), number)):
            codes.append(bench.python(STOPPABLE, requeue=requeue)[0])
    assert codes == [75] * (starts - 1) + [1]
    assert (bench.outcome["outcome"], bench.outcome["reason"]) == ("failed", reason)
    assert bench.outcome["evidence"][0].endswith(f"(on_failure.{reason}.requeue: {requeue[reason]})")
    with once(has_line(bench.run_dir / "attempts" / "2" / "stdout.log"), lambda: os.kill(os.getpid(), signal.SIGUSR2)):
        code, next_attempt = bench.having(attempt=2).python(STOPPABLE, requeue={"timeout": 1})
    assert (code, next_attempt["outcome"]) == (75, "requeue")


def test_returns_for_other_reasons_are_not_counted(bench: Bench) -> None:
    bench.run("sh", "-c", "exit 75")
    for start, number in enumerate((signal.SIGTERM, signal.SIGUSR2)):
        with once(
            has_line(bench.attempt / "stdout.log", start + 1), lambda number=number: os.kill(os.getpid(), number)
        ):
            code, outcome = bench.python(STOPPABLE, requeue={"timeout": 1})
        assert (code, outcome["outcome"], outcome["restart"]) == (75, "requeue", start + 1)


def test_an_attempt_that_was_preempted_too_often_is_not_started_again_by_its_scheduler(bench: Bench) -> None:
    with once(has_line(bench.attempt / "stdout.log"), lambda: os.kill(os.getpid(), signal.SIGTERM)):
        bench.python(STOPPABLE, requeue={"preempted": 0})
    before = bench.outcome
    code, outcome = bench.python(GOOD, requeue={"preempted": 0})
    assert (code, outcome) == (1, before)
    assert bench.python(GOOD, attempt=2)[0] == 0


def test_an_order_of_before_these_limits_still_reads(bench: Bench) -> None:
    older = bench.order.to_json()
    del older["requeue"]
    assert WorkOrder.from_json(older) == bench.order


def test_a_command_that_only_ever_asks_to_be_queued_again_fails_in_the_end(bench: Bench) -> None:
    codes = [bench.run("sh", "-c", "exit 75")[0] for _ in range(21)]
    assert codes == [75] * 20 + [1]
    assert "without having been asked" in bench.outcome["evidence"][0]


def test_an_earlier_attempt_s_result_is_never_the_new_one_s(bench: Bench) -> None:
    bench.python(f"{GOOD}; (package.run_dir / 'progress.json').write_text('{{}}'); raise SystemExit(1)")
    _, outcome = bench.python("pass", attempt=2)
    assert outcome["reason"] == "no_metrics"
    assert not (bench.run_dir / "metrics.json").exists()
    assert json.loads((bench.attempt / "metrics.json").read_bytes()) == {"loss": 0.5}
    assert (bench.attempt / "progress.json").exists()
    assert bench.outcome["outcome"] == "failed"


def test_files_that_were_there_before_the_first_attempt_are_put_aside(bench: Bench) -> None:
    bench.run_dir.mkdir(parents=True)
    (bench.run_dir / "metrics.json").write_text('{"loss": 0}')
    _, outcome = bench.run("true")
    assert outcome["reason"] == "no_metrics"
    assert (bench.attempt / "before.metrics.json").exists()


def test_a_completed_attempt_is_not_run_again(bench: Bench) -> None:
    command = f"{GOOD}; print('ran')"
    assert bench.python(command)[0] == 0
    assert bench.python(command)[0] == 0
    assert (bench.attempt / "stdout.log").read_text() == "ran\n"
    (bench.run_dir / "metrics.json").write_text('{"loss": 0.1}')
    assert bench.python(command)[1]["restart"] == 1

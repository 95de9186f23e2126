"""Diagnosis: each rule on its own, and what must hold for any evidence."""

import json
import signal
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurmkit.diagnose import CommandEnd, check_metrics, conclude, diagnose_exit, flatten
from slurmkit.log_tail import LogTail, printable
from slurmkit.records import SCHEMA, Outcome, PinProof
from slurmkit.schedulers import JobReport
from slurmkit.states import JobState, Reason, State

OOM_TRACEBACK = b"""\
step 10
Traceback (most recent call last):
  File "train.py", line 3, in <module>
    loss.backward()
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB
"""


def outcome(kind: str, **changes: Any) -> Outcome:
    base = Outcome(
        schema=SCHEMA,
        run_id="r",
        attempt=1,
        restart=0,
        job_id="7",
        outcome=kind,
        reason=None,
        evidence=[],
        exit_code=0,
        signal=None,
        started_at="",
        ended_at="",
        duration_s=1.0,
        peak_rss_mb=100.0,
        metrics_sha256="f" * 64 if kind == "completed" else None,
        pin=PinProof(proved=None, checked=0, foreign={}),
        host="h",
    )
    return base | changes  # pyright: ignore[reportReturnType]


class TestCommandEnd:
    """The worker's view."""

    @pytest.mark.parametrize(
        ("stderr", "reason", "line"),
        [
            (OOM_TRACEBACK, Reason.OOM_GPU, "stderr line 5: torch.OutOfMemoryError: CUDA out of memory"),
            (b"[rank1]: Traceback (most recent call last):\n[rank1]:   File\n[rank1]: torch.OutOfMemoryError: x\n"
             b"Traceback (most recent call last):\n  File\nChildFailedError: rank 1\n",
             Reason.OOM_GPU, "stderr line 3: torch.OutOfMemoryError: x"),
            (b"terminate called after throwing an instance of 'std::bad_alloc'\n", Reason.OOM_HOST, "line 1"),
            (b"slurmstepd: error: Detected 1 oom_kill event in StepId=7.0\n", Reason.OOM_HOST, "line 1"),
            (b"RuntimeError: [enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate\n",
             Reason.OOM_HOST, "line 1"),
            (b"warning: CUDA out of memory, retrying\nTraceback (most recent call last):\n  File\nKeyError: 1\n",
             Reason.ERROR, "stderr line 4: KeyError: 1"),
            (b"a\r 10%\r 20%\rlast\n\n", Reason.ERROR, "stderr line 1: last"),
        ],
    )  # fmt: skip
    def test_stderr_tells(self, stderr: bytes, reason: Reason, line: str) -> None:
        verdict = diagnose_exit(CommandEnd(exit_code=1, stderr=LogTail(stderr)))
        assert verdict.reason == reason
        assert verdict.evidence[0].startswith(line) or line in verdict.evidence[0]

    @pytest.mark.parametrize(
        ("record", "reason"),
        [
            ({"kind": "oom", "type": "OutOfMemoryError", "message": "CUDA out of memory."}, Reason.OOM_GPU),
            ({"kind": "oom", "type": "MemoryError", "message": ""}, Reason.OOM_HOST),
            ({"kind": "oom_gpu"}, Reason.OOM_GPU),
            ({"kind": "diverged", "step": 3, "term": "kl"}, Reason.DIVERGED),
            ({"kind": "error", "type": "torch.OutOfMemoryError", "message": "x"}, Reason.OOM_GPU),
            ({"kind": "error", "type": "KeyError", "message": "x"}, Reason.ERROR),
            ({"kind": ["what"], "step": {}}, Reason.ERROR),
            ({}, Reason.ERROR),
        ],
    )
    def test_the_command_s_own_record_tells(self, record: dict[str, Any], reason: Reason) -> None:
        assert diagnose_exit(CommandEnd(exit_code=1, error=record)).reason == reason

    def test_a_kill_near_the_memory_limit_is_memory_and_elsewhere_is_not(self) -> None:
        def killed(**more: Any) -> Reason | None:
            return diagnose_exit(CommandEnd(signal=signal.SIGKILL, mem_limit_mb=1000, **more)).reason

        assert killed(peak_rss_mb=950.0) == Reason.OOM_HOST
        assert killed(peak_rss_mb=500.0) == Reason.ERROR
        assert killed(peak_rss_mb=950.0, passed_on=(signal.SIGTERM,)) is None

    def test_a_stop_is_a_timeout_at_the_limit_and_a_cancellation_before_it(self) -> None:
        stopped = {"signal": signal.SIGTERM, "passed_on": (signal.SIGTERM,), "time_limit_s": 60}
        assert diagnose_exit(CommandEnd(**stopped, duration_s=61.0)).reason == Reason.TIMEOUT
        assert diagnose_exit(CommandEnd(**stopped, duration_s=30.0)).outcome == "cancelled"

    @pytest.mark.parametrize(
        ("asked", "ran_s", "reason", "limit", "before", "failed"),
        [
            (signal.SIGUSR2, 50.0, "timeout", None, 2, ""),
            (signal.SIGUSR2, 50.0, "timeout", None, 3, "queued again 3 times already (on_failure.timeout.requeue: 3)"),
            (signal.SIGUSR2, 50.0, "timeout", 5, 4, ""),
            (signal.SIGUSR2, 50.0, "timeout", 1, 1, "queued again once already (on_failure.timeout.requeue: 1)"),
            (signal.SIGUSR2, 50.0, "timeout", 0, 0, "wants to be queued again (on_failure.timeout.requeue: 0)"),
            (signal.SIGTERM, 61.0, "timeout", 1, 1, "queued again once already (on_failure.timeout.requeue: 1)"),
            (signal.SIGTERM, 50.0, "preempted", None, 1000, ""),
            (signal.SIGTERM, 50.0, "preempted", 2, 2, "queued again 2 times already (on_failure.preempted.requeue: 2)"),
        ],
    )
    def test_a_stopped_run_goes_back_to_the_queue_as_often_as_it_may(
        self, asked: int, ran_s: float, reason: str, limit: int | None, before: int, failed: str
    ) -> None:
        other = {"preempted": "timeout", "timeout": "preempted"}[reason]
        may = {other: 0} if limit is None else {other: 0, reason: limit}
        end = CommandEnd(
            exit_code=75,
            passed_on=(asked,),
            duration_s=ran_s,
            time_limit_s=60,
            restart=before + 7,
            requeued={reason: before, other: 7},
            requeue=may,
        )
        verdict = diagnose_exit(end)
        assert (verdict.outcome, verdict.reason) == ("failed" if failed else "requeue", reason)
        assert verdict.evidence[:-1] == ([failed] if failed else [])
        assert verdict.evidence[-1].startswith("exit code 75 after ")
        if asked == signal.SIGUSR2:
            early = diagnose_exit(replace(end, exit_code=None, not_started="stopped"))
            assert (early.outcome, early.reason) == (verdict.outcome, verdict.reason)

    def test_code_from_elsewhere_counts_before_everything_else(self) -> None:
        verdict = diagnose_exit(CommandEnd(exit_code=75, pin_problems=("module m came from /x",)))
        assert (verdict.outcome, verdict.reason) == ("failed", Reason.PIN_MISMATCH)
        assert verdict.evidence == ["module m came from /x", "exit code 75 after 0s"]

    @given(
        st.builds(
            CommandEnd,
            exit_code=st.none() | st.integers(0, 255),
            signal=st.none() | st.integers(1, 64),
            not_started=st.none() | st.text(),
            passed_on=st.lists(st.sampled_from([signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])).map(tuple),
            duration_s=st.floats(0, 1e7),
            time_limit_s=st.none() | st.integers(1, 10**7),
            mem_limit_mb=st.none() | st.integers(1, 10**7),
            peak_rss_mb=st.floats(0, 1e7),
            restart=st.integers(0, 100),
            requeued=st.dictionaries(st.sampled_from(["timeout", "preempted"]), st.integers(0, 9)),
            requeue=st.dictionaries(st.sampled_from(["timeout", "preempted"]), st.integers(0, 9)),
            error=st.none() | st.dictionaries(st.sampled_from(["kind", "type", "message", "step", "term"]), st.text()),
            stderr=st.binary(max_size=300).map(LogTail),
            metrics_problem=st.none() | st.text(),
            pin_problems=st.lists(st.text(), max_size=2).map(tuple),
        )
    )
    def test_any_end_has_an_outcome_a_fitting_reason_and_evidence(self, end: CommandEnd) -> None:
        verdict = diagnose_exit(end)
        well = end.exit_code == 0 and end.metrics_problem is None and not end.pin_problems and end.not_started is None
        assert (verdict.outcome == "completed") == well
        assert (verdict.outcome == "failed") <= (verdict.reason is not None)
        assert well or verdict.evidence


class TestConclude:
    """The manager's view."""

    @pytest.mark.parametrize(
        ("job", "reason"),
        [
            (JobState.OUT_OF_MEMORY, Reason.OOM_HOST),
            (JobState.TIMEOUT, Reason.TIMEOUT),
            (JobState.NODE_FAIL, Reason.NODE_FAIL),
            (JobState.PREEMPTED, Reason.PREEMPTED),
        ],
    )
    def test_the_scheduler_knows_what_it_did_itself(self, job: JobState, reason: Reason) -> None:
        killed = outcome("failed", reason="error", evidence=["ended by SIGKILL after 9s"], peak_rss_mb=4075.5)
        report = JobReport(job, evidence="step .0 exit 0:125, limit 4 GB", peak_rss_mb=2.8)
        for record in (None, killed, outcome("requeue"), outcome("cancelled")):
            assert conclude(report, record, attempt=1)[:2] == (State.FAILED, reason)
        peak = "; peak 3.98 GB" if job is JobState.OUT_OF_MEMORY else ""
        evidence = conclude(report, killed, attempt=1)[2]
        assert evidence == f"step .0 exit 0:125, limit 4 GB{peak}; ended by SIGKILL after 9s"

    @pytest.mark.parametrize("job", [None, *JobState])
    def test_a_recorded_completion_stands(self, job: JobState | None) -> None:
        report = None if job is None else JobReport(job)
        assert conclude(report, outcome("completed"), attempt=1)[0] is State.COMPLETED

    @pytest.mark.parametrize(
        ("job", "record", "state"),
        [
            (None, None, State.UNKNOWN),
            (None, outcome("requeue"), State.UNKNOWN),
            (None, outcome("failed", reason="diverged"), State.FAILED),
            (None, outcome("cancelled"), State.CANCELLED),
            (JobState.PENDING, outcome("requeue"), State.QUEUED),
            (JobState.RUNNING, outcome("requeue"), State.RUNNING),
            (JobState.PENDING, outcome("cancelled"), State.QUEUED),
            (JobState.COMPLETED, None, State.UNKNOWN),
            (JobState.LOST, None, State.FAILED),
            (JobState.FAILED, None, State.FAILED),
            (JobState.CANCELLED, None, State.CANCELLED),
            (JobState.CANCELLED, outcome("failed", reason="error"), State.CANCELLED),
            (JobState.FAILED, outcome("requeue", reason="timeout"), State.FAILED),
            (JobState.DEPENDENCY_FAILED, None, State.BLOCKED),
        ],
    )
    def test_what_nobody_saw_end_is_never_guessed(
        self, job: JobState | None, record: Outcome | None, state: State
    ) -> None:
        assert conclude(None if job is None else JobReport(job), record, attempt=1)[0] is state

    def test_a_lost_worker_is_named_so(self) -> None:
        state, reason, evidence = conclude(JobReport(JobState.LOST, "pid 17 is gone"), None, attempt=1)
        assert (state, reason, evidence) == (
            State.FAILED, Reason.ERROR, "worker vanished without an outcome; pid 17 is gone",
        )  # fmt: skip

    def test_the_record_of_another_attempt_is_no_evidence(self) -> None:
        old = outcome("completed")
        assert conclude(JobReport(JobState.RUNNING), old, attempt=2)[0] is State.RUNNING
        assert conclude(None, old, attempt=2)[0] is State.UNKNOWN

    def test_the_worker_s_reason_is_taken_where_the_scheduler_only_says_failed(self) -> None:
        record = outcome("failed", reason="oom_gpu", evidence=["stderr line 5: CUDA out of memory"])
        assert conclude(JobReport(JobState.FAILED), record, attempt=1) == (
            State.FAILED, Reason.OOM_GPU, "stderr line 5: CUDA out of memory",
        )  # fmt: skip

    @given(
        st.none() | st.builds(JobReport, state=st.sampled_from(JobState), evidence=st.text()),
        st.none()
        | st.builds(
            outcome,
            st.sampled_from(["completed", "failed", "cancelled", "requeue"]),
            reason=st.none() | st.sampled_from(Reason).map(str),
            evidence=st.lists(st.text(), max_size=2),
            metrics_sha256=st.none() | st.just("f" * 64),
            attempt=st.integers(1, 2),
        ),
    )
    def test_completed_needs_a_hash_and_failed_a_reason(self, report: JobReport | None, record: Outcome | None) -> None:
        state, reason, _ = conclude(report, record, attempt=1)
        proved = record is not None and record["attempt"] == 1 and record["outcome"] == "completed"
        assert (state is State.COMPLETED) == (proved and bool(record and record["metrics_sha256"]))
        assert (state is State.FAILED) == (reason is not None)


class TestMetrics:
    """What a ``metrics.json`` may be."""

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (b"", "is empty"),
            (b" \n", "is empty"),
            (b"[1]", "expected an object of metrics, got list"),
            (b'{"a": 1', "line 1, column 8: not JSON: unexpected end of data"),
            (b'{"a": 1,\n "b": NaN}', "b is nan"),
            (b'{"a": {"b": [1, -Infinity]}}', "a/b is [1, -inf]"),
            (b'{"a": 1e999}', "a is inf"),
            (b'{"a/b": 1, "a": {"b": 2}}', "a/b: appears twice"),
            (b"\xff", "line 1, column 1: not JSON"),
            (b'{"a":' * 5000, "depth limit"),
        ],
    )
    def test_a_problem_is_told_with_its_place(self, content: bytes, problem: str) -> None:
        assert problem in (check_metrics(content) or "")

    JSON = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
        max_leaves=8,
    )

    @given(st.dictionaries(st.text("abc"), JSON, max_size=4))
    def test_objects_of_finite_values_are_valid_and_others_are_not(self, record: dict[str, Any]) -> None:
        finite = "NaN" not in (text := json.dumps(record)) and "Infinity" not in text
        assert (check_metrics(text.encode()) is None) == finite

    @given(st.recursive(st.integers(), lambda inner: st.dictionaries(st.text("abc", min_size=1), inner), max_leaves=9))
    def test_flattening_loses_no_value(self, tree: Any) -> None:
        record = {"top": tree}
        leaves = dict(flatten(record))
        for key, value in leaves.items():
            found: Any = record
            for part in key.split("/"):
                found = found[part]
            assert found == value
        assert len(leaves) == _count(record)


def _count(tree: Any) -> int:
    return sum(map(_count, tree.values())) if isinstance(tree, dict) else 1


@given(st.text())
def test_anybody_s_text_is_shown_as_one_harmless_line(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) <= 404


@given(st.binary(max_size=2000), st.integers(1, 10**9))
def test_any_log_has_a_telling_line_or_is_empty(content: bytes, first_line: int) -> None:
    telling = LogTail(content, first_line).telling()
    if telling is not None:
        assert first_line <= telling.number <= first_line + content.count(b"\n")

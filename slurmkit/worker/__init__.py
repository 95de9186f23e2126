"""What happens on the node: run one attempt of one run in its pinned checkout, and record how it ended."""

import os
import socket
import sys
from pathlib import Path
from typing import Any

from slurmkit.diagnose import CommandEnd, Verdict, diagnose_exit
from slurmkit.errors import SlurmkitError
from slurmkit.log_tail import LogTail
from slurmkit.records import SCHEMA, TRY_AGAIN_EXIT_CODE, Outcome, PinProof, WorkOrder
from slurmkit.resources import Resources
from slurmkit.store import now
from slurmkit.worker.attempt import AttemptFolder
from slurmkit.worker.command import Ended, run_command
from slurmkit.worker.environment import command_environment, job_id
from slurmkit.worker.imports import check_imports, remove_lists
from slurmkit.worker.signals import Signals

GRACE_S = 20.0
"""Between SIGTERM and SIGKILL. Slurm itself leaves 30 s (KillWait), of which some are needed to record the end."""

_EXIT_CODES = {"completed": 0, "requeue": TRY_AGAIN_EXIT_CODE}


def work(order: dict[str, Any], *, grace_s: float = GRACE_S) -> int:
    """Run one attempt and record it below its run's directory. Call it in the main thread.

    An attempt that has completed already is not run again, nor one that was preempted too often, and one that another
    worker is running is waited for.

    Args:
        order: `WorkOrder.to_json`.
        grace_s: time that the command has to stop after SIGTERM, in seconds.

    Returns:
        exit code of the worker process: 0 completed, 75 to be queued again, 1 anything else.
    """
    with Signals() as signals:
        try:
            return _work(WorkOrder.from_json(order), signals, grace_s)
        except SlurmkitError as error:  # nobody above can tell it: this is the last word of a job
            print(f"slurmkit: {error}", file=sys.stderr, flush=True)
            return 1


def _work(order: WorkOrder, signals: Signals, grace_s: float) -> int:
    attempt = AttemptFolder(order)
    with attempt.hold(signals) as held:
        if attempt.completed_before():
            return 0
        if not held:
            return 1
        if attempt.preempted_for_good():
            print(
                "slurmkit: preempted more often than on_failure.preempted.requeue says: resubmit the run",
                file=sys.stderr,
            )
            return 1
        job = job_id(os.environ)
        attempt.begin(job)
        ended = _run(order, attempt, signals, grace_s)
        outcome = _conclude(order, attempt, ended, job)
        attempt.end(outcome)
        return _EXIT_CODES.get(outcome["outcome"], 1)


def _run(order: WorkOrder, attempt: AttemptFolder, signals: Signals, grace_s: float) -> Ended:
    checkout = Path(order.checkout)
    if not checkout.is_dir():
        gone = f"{checkout}: the checkout is gone. Submit the run again, which makes a new one"
        return Ended(None, None, gone, (), 0.0, 0.0)
    return run_command(
        order.command,
        folder=checkout,
        env=command_environment(order, os.environ, attempt.imports),
        stdout=attempt.stdout,
        stderr=attempt.stderr,
        signals=signals,
        on_beat=attempt.beat,
        grace_s=grace_s,
    )


def _conclude(order: WorkOrder, attempt: AttemptFolder, ended: Ended, job: str) -> Outcome:
    """Gather the evidence and make the record."""
    pin, pin_problems = check_imports(attempt.imports, Path(order.checkout))
    remove_lists(attempt.imports)
    error = attempt.take_error()
    metrics_sha256, metrics_problem = attempt.take_metrics() if ended.exit_code == 0 else (None, None)
    resources = Resources.from_json(order.resources)
    well = ended.exit_code == 0 and metrics_problem is None
    verdict = diagnose_exit(
        CommandEnd(
            exit_code=ended.exit_code,
            signal=ended.signal,
            not_started=ended.not_started,
            passed_on=ended.passed_on,
            duration_s=ended.duration_s,
            time_limit_s=resources.time_s,
            mem_limit_mb=resources.mem_mb,
            peak_rss_mb=ended.peak_rss_mb,
            restart=attempt.restart,
            requeued=attempt.requeued(),
            requeue=order.requeue,
            error=error,
            stderr=LogTail() if well else attempt.stderr_tail(),
            metrics_problem=metrics_problem,
            pin_problems=tuple(pin_problems),
        )
    )
    outcome = _outcome(order, attempt, ended, verdict, pin, job)
    if verdict.outcome == "completed":
        outcome["metrics_sha256"] = metrics_sha256
    if error is not None:
        outcome["error"] = error
    return outcome


def _outcome(
    order: WorkOrder, attempt: AttemptFolder, ended: Ended, verdict: Verdict, pin: PinProof, job: str
) -> Outcome:
    return Outcome(
        schema=SCHEMA,
        run_id=order.run_id,
        attempt=order.attempt,
        restart=attempt.restart,
        job_id=job,
        outcome=verdict.outcome,
        reason=verdict.reason,
        evidence=verdict.evidence,
        exit_code=ended.exit_code,
        signal=ended.signal,
        started_at=attempt.started_at,
        ended_at=now(),
        duration_s=round(ended.duration_s, 3),
        peak_rss_mb=round(ended.peak_rss_mb, 1),
        metrics_sha256=None,
        pin=pin,
        host=socket.gethostname(),
    )

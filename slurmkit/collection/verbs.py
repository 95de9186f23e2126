"""What can be done to a collection: submit, resubmit, cancel, delete. Plan first, then carry out."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slurmkit import pin
from slurmkit.collection import submit as submission
from slurmkit.collection.backends import backend_name, scheduler
from slurmkit.collection.poll import Snapshot, poll
from slurmkit.errors import PinError, UsageError
from slurmkit.project import Project
from slurmkit.records import Json, RunStatus
from slurmkit.states import State
from slurmkit.store import CollectionStore, Store

Choice = Callable[[list[RunStatus]], list[RunStatus]]
"""Picks runs out of a collection's; raises `UsageError` when the request makes no sense."""


@dataclass
class Done:
    """What a submission did, or in a dry run would do.

    Attributes:
        plan: the runs, and those left out with why.
        left_alone: chosen runs that are under way or need no new attempt, by state.
        rearmed: other collection to how many of its runs were submitted because what they need was tried again.
    """

    plan: submission.SubmitPlan
    left_alone: dict[State, int] = field(default_factory=dict[State, int])
    rearmed: dict[str, int] = field(default_factory=dict[str, int])


def submit(project: Project, records: CollectionStore, choose: Choice, *, backend: str, dry_run: bool) -> Done:
    """Submit the chosen runs that have not been submitted.

    Raises:
        SchedulerError, StoreError, UsageError: nothing was submitted, or all that the journal says.
    """
    states = {State.PLANNED, State.BLOCKED}
    done = _submit(project, records, choose, states, (), backend=backend, dry_run=dry_run)
    if done.plan.items and not dry_run:
        done.rearmed = _rearm(project, records.name, backend)
    return done


def resubmit(
    project: Project,
    records: CollectionStore,
    choose: Choice,
    by_hand: Sequence[tuple[str, Json]],
    *,
    backend: str,
    dry_run: bool,
    completed_too: bool = False,
) -> Done:
    """Make new attempts of the chosen runs that failed or were cancelled; arm again the runs that need them.

    Args:
        project: the project.
        records: the collection.
        choose: which runs.
        by_hand: (target, operation) of ``--set``.
        backend: where to.
        dry_run: plan only.
        completed_too: also try again what completed.
    """
    states = {State.FAILED, State.CANCELLED, *([State.COMPLETED] if completed_too else [])}
    done = _submit(project, records, choose, states, by_hand, backend=backend, dry_run=dry_run)
    if done.plan.items and not dry_run:
        done.rearmed = _rearm(project, records.name, backend)
    return done


def _submit(
    project: Project,
    records: CollectionStore,
    choose: Choice,
    states: set[State],
    by_hand: Sequence[tuple[str, Json]],
    *,
    backend: str,
    dry_run: bool,
) -> Done:
    def planned(snapshot: Snapshot) -> Done:
        chosen = choose(snapshot.statuses())
        ready = [status for status in chosen if status.state in states]
        left: dict[State, int] = {}
        for status in chosen:
            if status.state not in states:
                left[status.state] = left.get(status.state, 0) + 1
        return Done(submission.plan(project, snapshot, ready, by_hand), left)

    if dry_run:
        return planned(poll(project.store, records))
    with records.lock():
        snapshot = poll(project.store, records, locked=True)
        done = planned(snapshot)
        news = set(done.plan.held) - snapshot.ledger.held
        if news:
            records.append({"event": "held", "runs": sorted(news)})
        submission.hand_over(project, records, done.plan, backend_name(backend))
    return done


def _rearm(project: Project, name: str, backend: str) -> dict[str, int]:
    """Submit the runs that were held back because a run of `name` was not under way."""
    rearmed: dict[str, int] = {}
    for other in project.store.names():
        records = project.store.existing(other)
        needs = records.header["definition"]["needs"].values()
        if not any((need["collection"] or other) == name for need in needs):
            continue
        held = poll(project.store, records).ledger.held
        if not held:
            continue

        def released(statuses: list[RunStatus], held: set[str] = held) -> list[RunStatus]:
            return [status for status in statuses if status.id in held]

        done = _submit(project, records, released, {State.PLANNED}, (), backend=backend, dry_run=False)
        if done.plan.items:
            rearmed[other] = len(done.plan.items)
    return rearmed


def cancel(project: Project, records: CollectionStore, choose: Choice, *, dry_run: bool) -> list[RunStatus]:
    """Cancel the chosen runs: end those under way, and take those not submitted out of the plan.

    The end of a job is observed later; that of a run of which no more will be heard (unknown) is recorded at once, or
    it could never be tried again.

    Returns:
        the runs cancelled.
    """
    if dry_run:
        return _cancellable(choose(poll(project.store, records).statuses()))
    with records.lock():
        snapshot = poll(project.store, records, locked=True)
        doomed = _cancellable(choose(snapshot.statuses()))
        _end_jobs(project.store, snapshot, [status for status in doomed if status.state.active])
        jobless = [status.id for status in doomed if not status.state.active or status.state is State.UNKNOWN]
        if jobless:
            records.append({"event": "cancelled", "runs": jobless})
    return doomed


def _cancellable(statuses: Sequence[RunStatus]) -> list[RunStatus]:
    return [status for status in statuses if not status.state.terminal]


def _end_jobs(store: Store, snapshot: Snapshot, statuses: Sequence[RunStatus]) -> None:
    by_backend: dict[str, list[str]] = {}
    for status in statuses:
        attempt = snapshot.ledger.attempts[status.id]
        if attempt.job_id:
            by_backend.setdefault(attempt.backend, []).append(attempt.job_id)
    for backend, jobs in by_backend.items():
        scheduler(backend, store).cancel(jobs)


def delete(project: Project, records: CollectionStore, *, force: bool) -> None:
    """Delete a collection and all results of its runs.

    Raises:
        UsageError: runs are under way, or another collection needs its runs (unless `force`).
    """
    with records.lock():
        active = [status for status in poll(project.store, records, locked=True).statuses() if status.state.active]
        if active:
            raise UsageError(
                f"collection {records.name!r}: {len(active)} runs are queued or running. "
                f"First: slurmkit cancel {records.name}",
            )
        users = [
            other
            for other in project.store.names()
            if other != records.name
            and any(
                need["collection"] == records.name
                for need in project.store.existing(other).header["definition"]["needs"].values()
            )
        ]
        if users and not force:
            raise UsageError(
                f"collection {records.name!r}: {', '.join(users)} needs its runs. Delete that first, or use --force.",
            )
        repository, refs = Path(records.header["repository"]), records.header["refs"]
        records.delete()
    for ref in refs:
        with contextlib.suppress(PinError):  # the repository has moved: its references are its own affair
            pin.release(repository, ref)

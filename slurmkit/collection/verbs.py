"""What can be done to a collection: submit, resubmit, cancel, delete. Plan first, then carry out."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slurmkit import pin
from slurmkit.collection import handover
from slurmkit.collection import submit as submission
from slurmkit.collection.backends import backend_name, other_host, scheduler
from slurmkit.collection.follow_up import cancel_follow_up
from slurmkit.collection.poll import Snapshot, poll
from slurmkit.collection.spent import advice
from slurmkit.errors import PinError, SlurmkitError, UsageError
from slurmkit.ledger import replay
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
        rearmed: other collection to how many of its runs were submitted because what they need was tried again
            (a dry run does not look for them).
        notes: what went wrong with other collections.
        forecast: in a dry run, what would be handed over.
        advice: what those that finished suggest for those tried again, a line each.
    """

    plan: submission.SubmitPlan
    left_alone: dict[State, int] = field(default_factory=dict[State, int])
    rearmed: dict[str, int] = field(default_factory=dict[str, int])
    notes: list[str] = field(default_factory=list[str])
    forecast: handover.Forecast | None = None
    advice: list[str] = field(default_factory=list[str])


def submit(
    project: Project, records: CollectionStore, choose: Choice, *, backend: str, dry_run: bool, canary: int = 0
) -> Done:
    """Submit the chosen runs that have not been submitted.

    Args:
        project: the project.
        records: the collection.
        choose: which runs.
        backend: where to.
        dry_run: plan only.
        canary: how many runs go first on trial: the others wait until these completed, and are cancelled if not.

    Raises:
        SchedulerError, StoreError, UsageError: nothing was submitted, or all that the journal says.
    """
    states = {State.PLANNED, State.BLOCKED}
    done = _submit(project, records, choose, states, (), backend=backend, dry_run=dry_run, canary=canary)
    if done.plan.items and not dry_run:
        _rearm(project, done, records.name, backend)
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
        _rearm(project, done, records.name, backend)
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
    canary: int = 0,
) -> Done:
    def planned(snapshot: Snapshot) -> Done:
        chosen = choose(snapshot.statuses())
        ready = [status for status in chosen if status.state in states]
        left: dict[State, int] = {}
        for status in chosen:
            if status.state not in states:
                left[status.state] = left.get(status.state, 0) + 1
        cap = scheduler(backend_name(backend), project.store).memory_cap
        plan = submission.plan(project, snapshot, ready, by_hand, cap)
        if canary:
            plan.with_canaries(canary)
        return Done(plan, left, advice=advice(snapshot, plan.items))

    if dry_run:
        done = planned(poll(project.store, records))
        done.forecast = handover.forecast(project, records, done.plan, backend_name(backend))
        return done
    with records.lock():
        snapshot = poll(project.store, records, locked=True)
        done = planned(snapshot)
        news = set(done.plan.held) - snapshot.ledger.held
        if news:
            records.append({"event": "held", "runs": sorted(news)})
        handover.hand_over(project, records, done.plan, backend_name(backend))
    return done


def _rearm(project: Project, done: Done, name: str, backend: str) -> None:
    """Submit the runs that were held back because a run of `name` was not under way; then those that need them.

    What was asked for is submitted already: what goes wrong with another collection is a note.
    """
    submitted = [name]
    for tried_again in submitted:  # grows: a <- b <- c
        for other in project.store.names():
            try:
                count = _submit_held(project, other, tried_again, backend)
            except SlurmkitError as error:
                note = f"runs of {other} that may wait for these are not submitted: {error}"
                if note not in done.notes:
                    done.notes.append(note)
                continue
            if count:
                done.rearmed[other] = done.rearmed.get(other, 0) + count
                submitted.append(other)


def _submit_held(project: Project, other: str, name: str, backend: str) -> int:
    """Submit the runs of `other` that were held back, if it needs runs of `name`; return how many."""
    records = project.store.existing(other)
    needs = records.header["definition"]["needs"].values()
    if not any((need["collection"] or other) == name for need in needs):
        return 0
    held = poll(project.store, records).ledger.held
    if not held:
        return 0

    def released(statuses: list[RunStatus]) -> list[RunStatus]:
        return [status for status in statuses if status.id in held]

    done = _submit(project, records, released, {State.PLANNED}, (), backend=backend, dry_run=False)
    return len(done.plan.items)


def cancel(
    project: Project, records: CollectionStore, choose: Choice, *, dry_run: bool, with_causes: bool = False
) -> list[RunStatus]:
    """Cancel the chosen runs: end those under way, and take those not submitted out of the plan.

    The end of a job is observed later; that of a run of which no more will be heard (unknown) is recorded at once, or
    it could never be tried again.

    Args:
        project: the project.
        records: the collection.
        choose: which runs.
        dry_run: plan only.
        with_causes: let the reason of a run that has not ended, which has none of its own, be why the attempt before
            failed.

    Returns:
        the runs cancelled.

    Raises:
        UsageError: what became of a run can only be seen on another host; nothing was cancelled.
    """
    if dry_run:
        snapshot = poll(project.store, records)
        return _cancellable(snapshot, choose(_choosable(snapshot, with_causes=with_causes)))
    with records.lock():
        snapshot = poll(project.store, records, locked=True)
        doomed = _cancellable(snapshot, choose(_choosable(snapshot, with_causes=with_causes)))
        _end_jobs(project.store, snapshot, [status for status in doomed if status.state.active])
        jobless = [status.id for status in doomed if not status.state.active or status.state is State.UNKNOWN]
        if jobless:
            records.append({"event": "cancelled", "runs": jobless})
        if {status.id for status in doomed} >= set(snapshot.ledger.under_way):
            cancel_follow_up(project, records)
    return doomed


def _with_retired(snapshot: Snapshot) -> list[RunStatus]:
    """Return where the runs stand, and of those that an extension retired the ones that are still under way."""
    retired = [status for status in snapshot.statuses(snapshot.retired) if status.state.active]
    return [*snapshot.statuses(), *retired]


def _choosable(snapshot: Snapshot, *, with_causes: bool) -> list[RunStatus]:
    statuses = _with_retired(snapshot)
    if not with_causes:
        return statuses
    before = replay(snapshot.records.events(), where=str(snapshot.records.journal)).previous
    again = [status.id for status in statuses if not status.state.terminal and status.id in before]
    causes = {run: before[run].reason for run in again}
    return [status._replace(reason=causes.get(status.id, status.reason)) for status in statuses]


def _cancellable(snapshot: Snapshot, statuses: Sequence[RunStatus]) -> list[RunStatus]:
    for status in statuses:
        attempt = snapshot.ledger.attempts.get(status.id)
        if status.state is State.UNKNOWN and attempt and (host := other_host(attempt.backend)):
            raise UsageError(
                f"run {status.name}: is on host {host}, which cannot be asked from here. Cancel it there; here the "
                f"others, with --state or --run.",
            )
    return [status for status in statuses if not status.state.terminal]


def _end_jobs(store: Store, snapshot: Snapshot, statuses: Sequence[RunStatus]) -> None:
    by_backend: dict[str, list[str]] = {}
    for status in statuses:
        attempt = snapshot.ledger.attempts[status.id]
        if attempt.job_id:
            by_backend.setdefault(attempt.backend, []).append(attempt.job_id)
    _refuse_parts_of_packs(snapshot, [job for jobs in by_backend.values() for job in jobs])
    for backend, jobs in by_backend.items():
        scheduler(backend, store).cancel(jobs)


def _refuse_parts_of_packs(snapshot: Snapshot, jobs: Sequence[str]) -> None:
    """Refuse to end a Slurm job that other runs share, which would end with it."""
    packs = {job.partition("+")[0] for job in jobs if "+" in job}
    doomed = set(jobs)
    names = {row.id: row.name for row in (*snapshot.rows, *snapshot.retired)}
    for run, attempt in snapshot.ledger.under_way.items():
        pack, plus, _ = attempt.job_id.partition("+")
        if plus and pack in packs and attempt.job_id not in doomed and not snapshot.live[run].state.terminal:
            raise UsageError(f"run {names[run]} shares job {pack} with runs to be cancelled. Cancel it too, or none.")


def delete(project: Project, records: CollectionStore, *, force: bool) -> None:
    """Delete a collection and all results of its runs.

    Raises:
        UsageError: runs are under way, or another collection needs its runs (unless `force`).
    """
    with records.lock():
        statuses = _with_retired(poll(project.store, records, locked=True))
        active = sum(status.state.active for status in statuses)
        if active:
            raise UsageError(
                f"collection {records.name!r}: {active} runs are queued, running or unknown. "
                f"First: slurmkit cancel {records.name} --all",
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
        cancel_follow_up(project, records)
        repository, refs = Path(records.header["repository"]), records.header["refs"]
        records.delete()
    for ref in refs:
        with contextlib.suppress(PinError):  # the repository has moved: its references are its own affair
            pin.release(repository, ref)

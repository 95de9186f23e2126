"""Find out where the runs of a collection stand, and record what has ended.

The journal says what was observed to end; only attempts that it does not know to have ended are asked about: one
query to their scheduler, and the outcome files of those that the scheduler calls ended.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from slurmkit import files, runs_index
from slurmkit.collection.backends import scheduler
from slurmkit.collection.needs import needed_first
from slurmkit.diagnose import conclude
from slurmkit.errors import LockTimeoutError, SchedulerError, StoreError
from slurmkit.ledger import Attempt, Ledger, Observation
from slurmkit.recorded import Recorded, changed_keys
from slurmkit.records import Outcome, Row, RunStatus
from slurmkit.schedulers import JobReport, OutOfReachError
from slurmkit.states import Reason, State
from slurmkit.statuses import Statuses
from slurmkit.store import CollectionStore, FrozenRuns, Store


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one attempt stands now."""

    state: State
    reason: Reason | None = None
    evidence: str = ""
    outcome: Outcome | None = None


@dataclass
class Snapshot:
    """A collection at one moment.

    Attributes:
        records: where it was read from.
        recorded: its runs and their attempts, as far as they are known from before.
        frozen: its runs as they are in the file, parsed when they are asked for.
        ledger: what the journal says.
        live: run id to where it stands, for attempts under way.
        waiting: run id to (blocked or planned, why), for runs that wait for another run.
        problem: why a scheduler could not be asked, and since when what is shown of its runs is so; empty: all could.
    """

    records: CollectionStore
    recorded: Recorded
    frozen: FrozenRuns
    ledger: Ledger
    live: dict[str, Standing] = field(default_factory=dict[str, Standing])
    waiting: dict[str, tuple[State, str]] = field(default_factory=dict[str, tuple[State, str]])
    problem: str = ""

    @cached_property
    def rows(self) -> list[Row]:
        """Its runs, the retired ones left out."""
        return [row for row in self.frozen.rows if not row.retired]

    @property
    def retired(self) -> list[Row]:
        """The retired runs."""
        return self.recorded.retired

    def names_of(self, runs: Iterable[str]) -> dict[str, str]:
        """Return run id to name, of those runs that there are, also the retired ones."""
        retired = {row.id: row.name for row in self.retired}
        names = {run: self.recorded.name(run) or retired.get(run) for run in runs}
        return {run: name for run, name in names.items() if name is not None}

    def statuses(self, rows: Iterable[Row] | None = None) -> list[RunStatus]:
        """Return every run, or some, and where it stands, in the definition's order."""
        if rows is None:
            return list(self.table())
        commit: str = self.records.header["commit"]
        folder = str(self.records.folder)
        return [self._status(row, commit, folder) for row in rows]

    def table(self) -> Statuses:
        """Return every run and where it stands, in the definition's order, in columns."""
        moved = {*self.ledger.moved(), *self.waiting}
        rows = [row for run in moved if (row := self.recorded.row(run)) is not None]
        news = {status.id: status for status in self.statuses(rows)}
        return self.recorded.statuses(self.records.header["commit"], str(self.records.folder), news)

    def _status(self, row: Row, commit: str, folder: str) -> RunStatus:
        attempt = self.ledger.attempts.get(row.id)
        state, reason, evidence = State.PLANNED, None, ""
        number, job, sha, duration_s, peak_mb = 0, "", None, None, None
        if attempt is not None:
            number, job = attempt.number, attempt.job_id
            if attempt.end is not None:
                _, state, reason, evidence, duration_s, peak_mb, sha = attempt.end
            elif (standing := self.live.get(row.id)) is not None:
                state, reason, evidence = standing.state, standing.reason, standing.evidence
            else:
                state, evidence = State.QUEUED, "being submitted"
        if state is State.PLANNED and row.id in self.waiting:
            state, evidence = self.waiting[row.id]
        return RunStatus(
            row.id,
            row.name,
            row.axes,
            state,
            reason,
            evidence,
            number,
            job,
            row.commit or commit,
            row.config_sha256,
            f"{folder}/{row.name}",
            sha,
            duration_s,
            peak_mb,
            changed_keys(attempt.changes if attempt else None),
        )


def read(records: CollectionStore) -> Snapshot:
    """Read what the records say, without asking any scheduler."""
    recorded, ledger, frozen = runs_index.read(records)
    return Snapshot(records, recorded, frozen, ledger)


def poll(store: Store, records: CollectionStore, *, locked: bool = False) -> Snapshot:
    """Find out where every run stands now; adopt what a killed command left, record what has ended.

    Args:
        store: the project's records.
        records: the collection.
        locked: whether the caller holds the collection's lock.

    Raises:
        SchedulerError: a scheduler that holds attempts is out of reach, and the caller is about to change something
            (without the lock, the last states seen are shown, and `Snapshot.problem` says so).
    """
    snapshot = read(records)
    if snapshot.ledger.open_intents:
        snapshot = _settle_intents(store, records, snapshot, locked=locked)
    _ask(store, snapshot, last_seen_will_do=not locked)
    _look_at_canaries(snapshot)
    _record(snapshot, locked=locked)
    _look_at_needs(store, snapshot)
    return snapshot


def _settle_intents(store: Store, records: CollectionStore, snapshot: Snapshot, *, locked: bool) -> Snapshot:
    """Adopt or clear submissions of which the journal does not say whether they arrived.

    Only under the lock: while another command holds it, that command may be in the midst of submitting.
    """
    if locked:
        settle(store, snapshot)
        return snapshot
    try:
        with records.lock(timeout_s=0):
            fresh = read(records)
            settle(store, fresh)
            return fresh
    except (LockTimeoutError, SchedulerError):  # the next command settles them
        return snapshot


def settle(store: Store, snapshot: Snapshot) -> None:
    """Ask the schedulers for the tokens of open intents. The caller holds the lock."""
    events: list[dict[str, object]] = []
    for token, runs in snapshot.ledger.open_intents.items():
        backend = snapshot.ledger.attempts[runs[0]].backend
        jobs = scheduler(backend, store).find(token, snapshot.records.jobs)
        if jobs is None:
            events.append({"event": "abandoned", "token": token, "why": "never reached the scheduler"})
        else:
            events.append({"event": "submitted", "token": token, "jobs": jobs})
    snapshot.records.append(*events)
    snapshot.recorded, snapshot.ledger, snapshot.frozen = runs_index.read(snapshot.records)


def _ask(store: Store, snapshot: Snapshot, *, last_seen_will_do: bool) -> None:
    """Ask each scheduler once about the attempts that it holds."""
    under_way = snapshot.ledger.under_way
    if not under_way:
        return
    names = snapshot.names_of(under_way)
    by_backend: dict[str, dict[str, Attempt]] = {}
    for run, attempt in under_way.items():
        if attempt.job_id and run in names:
            by_backend.setdefault(attempt.backend, {})[run] = attempt
    for backend, attempts in by_backend.items():
        asked = scheduler(backend, store)
        asked.wake()
        try:
            reports = asked.query({attempt.job_id: attempt.token for attempt in attempts.values()})
        except SchedulerError as error:
            if not last_seen_will_do:
                raise
            snapshot.problem = str(error)
            _show_last_seen(snapshot, attempts, error.last if isinstance(error, OutOfReachError) else {})
            continue
        for run, attempt in attempts.items():
            report = reports.get(attempt.job_id)
            snapshot.live[run] = _standing(snapshot.records, names[run], attempt, report)


def _show_last_seen(snapshot: Snapshot, attempts: dict[str, Attempt], last: Mapping[str, JobReport]) -> None:
    """Say where attempts stood when their scheduler was last in reach.

    Of a job that it had not told of, only a recorded completion counts: how others ended, it may know better.
    """
    names = snapshot.names_of(attempts)
    for run, attempt in attempts.items():
        report = last.get(attempt.job_id)
        standing = _standing(snapshot.records, names[run], attempt, report)
        if report is None and standing.state is not State.COMPLETED:
            standing = Standing(State.UNKNOWN, None, "its scheduler is out of reach, and had not told of it before")
        snapshot.live[run] = standing


def _look_at_canaries(snapshot: Snapshot) -> None:
    """Say of runs whose jobs never started whether that was because one that went first on trial did not complete."""
    for run, standing in snapshot.live.items():
        canaries = snapshot.ledger.attempts[run].canaries
        if standing.state is not State.BLOCKED or not canaries:
            continue
        ends = {canary: _state_of(snapshot, canary) for canary in canaries}
        fallen = next((c for c, (state, _) in ends.items() if state in {State.FAILED, State.CANCELLED}), None)
        if fallen is not None:
            state, evidence = ends[fallen]
            name = snapshot.names_of([fallen])[fallen]
            why = f"cancelled: {name}, which went first on trial, {_ENDED_SO[state]}: {evidence}"
            snapshot.live[run] = Standing(State.CANCELLED, None, why)
        elif any(state is not State.COMPLETED for state, _ in ends.values()):
            snapshot.live[run] = Standing(State.QUEUED, None, "a run that went first on trial is just ending")


_ENDED_SO = {State.FAILED: "failed", State.CANCELLED: "was cancelled"}


def _state_of(snapshot: Snapshot, run: str) -> tuple[State, str]:
    """Return state and evidence of a run's latest attempt as far as this snapshot goes."""
    attempt = snapshot.ledger.attempts.get(run)
    if attempt is not None and attempt.end is not None:
        return attempt.end.state, attempt.end.evidence
    standing = snapshot.live.get(run)
    return (standing.state, standing.evidence) if standing else (State.QUEUED, "")


def _standing(records: CollectionStore, name: str, attempt: Attempt, report: JobReport | None) -> Standing:
    """Weigh the evidence for one attempt; a job that the scheduler calls pending has no news in its files."""
    outcome: Outcome | None = None
    if report is None or report.state.ended or report.restarts:
        try:
            outcome = files.read_json(records.attempt_dir(name, attempt.number) / "outcome.json")
        except FileNotFoundError:
            outcome = None
        except StoreError as error:
            return Standing(State.UNKNOWN, None, str(error))
    state, reason, evidence = conclude(report, outcome, attempt=attempt.number)
    return Standing(state, reason, evidence, outcome)


def _record(snapshot: Snapshot, *, locked: bool) -> None:
    """Write newly observed ends into the journal, if its lock can be had soon; else the next poll does."""
    ended: dict[str, Observation] = {}
    for run, standing in snapshot.live.items():
        attempt = snapshot.ledger.attempts[run]
        if standing.state.terminal:
            ended[run] = _observation(attempt, standing)
        elif standing.state is State.BLOCKED:  # its job ended without having started: it can be submitted again
            ended[run] = Observation(attempt.number, State.PLANNED, None, standing.evidence, None, None, None)
    if not ended:
        return
    if locked:
        _append_observed(snapshot.records, snapshot.ledger, ended)
    else:
        try:
            with snapshot.records.lock(timeout_s=0.5):
                _append_observed(snapshot.records, read(snapshot.records).ledger, ended)
        except StoreError:  # busy, full or read-only: what was seen is shown all the same
            pass
    for run, end in ended.items():
        snapshot.ledger.attempts[run].end = end


def _append_observed(records: CollectionStore, ledger: Ledger, ended: dict[str, Observation]) -> None:
    """Append the observations that the journal, read under its lock, does not have yet."""
    news = {
        run: list(end)
        for run, end in ended.items()
        if (attempt := ledger.attempts.get(run)) and attempt.number == end.attempt and attempt.end is None
    }
    if news:
        records.append({"event": "observed", "runs": news})


def _observation(attempt: Attempt, standing: Standing) -> Observation:
    outcome = standing.outcome
    return Observation(
        attempt.number,
        standing.state,
        standing.reason,
        standing.evidence,
        outcome["duration_s"] if outcome else None,
        outcome["peak_rss_mb"] if outcome else None,
        outcome["metrics_sha256"] if outcome else None,
    )


def _look_at_needs(store: Store, snapshot: Snapshot) -> None:
    """Say of runs that could be submitted whether a run that they need stands in their way."""
    if not snapshot.recorded.need_others:
        return
    own = snapshot.records.name
    known: dict[str, dict[str, RunStatus]] = {}
    candidates = [row for row in snapshot.rows if row.needs and _could_be_submitted(snapshot, row)]
    for row in candidates:
        for collection, _, _ in row.needs.values():
            if collection not in known:
                known[collection] = _states_of(store, snapshot if collection == own else None, collection)
    for row in needed_first(candidates):
        verdict = _verdict(row, known)
        if verdict is not None:
            snapshot.waiting[row.id] = verdict
            if row.id in known.get(own, {}):
                known[own][row.id] = snapshot.statuses([row])[0]


def _could_be_submitted(snapshot: Snapshot, row: Row) -> bool:
    attempt = snapshot.ledger.attempts.get(row.id)
    return attempt is None or attempt.state is State.PLANNED


def _states_of(store: Store, snapshot: Snapshot | None, collection: str) -> dict[str, RunStatus]:
    if snapshot is None:
        records = store.collection(collection)
        if not records.exists():
            return {}
        snapshot = poll(store, records)
    return {status.id: status for status in snapshot.statuses((*snapshot.rows, *snapshot.retired))}


def _verdict(row: Row, known: dict[str, dict[str, RunStatus]]) -> tuple[State, str] | None:
    """Say what keeps a run from being submitted: (blocked or planned, why), or None."""
    for collection, run, name in row.needs.values():
        needed = known[collection].get(run)
        where = f"{collection}/{name}"
        if needed is None:
            return State.BLOCKED, f"needs {where}, which is gone"
        if needed.state in {State.FAILED, State.CANCELLED, State.BLOCKED}:
            why = f": {needed.reason}" if needed.reason else ""
            return State.BLOCKED, f"needs {where}, which is {needed.state}{why}"
        if needed.state is State.PLANNED:
            return State.PLANNED, f"needs {where}, which is not submitted yet"
    return None

"""Pure: the journal's events, replayed into the latest attempt of every run.

Events (each with ``at``):

    created
    intent      token, backend, attempts {run id: number}, changes {run id: changes}, canaries {run id: [run id]}
    submitted   token, jobs [job id, in the order of the intent's attempts]
    abandoned   token, why                 the submission never reached the scheduler
    observed    runs {run id: Observation}  an attempt ended
    held        runs [run id]              asked for, but a run that they need is not under way: submit them with it
    cancelled   runs [run id]              runs without a job that shall not be submitted, or whose job nobody knows
    then        backend, token, job, words  a command that starts when all jobs have ended; without a job: taken back
    extended    commit, added [run id], changed {old run id: new}, removed [run id]
"""

from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from slurmkit.errors import StoreError
from slurmkit.records import Json
from slurmkit.states import Reason, State

_STATES = {str(state): state for state in State}
_REASONS: dict[str | None, Reason | None] = {None: None, **{str(reason): reason for reason in Reason}}
"""Looked up in a third of the time that an enumeration takes to find its member."""


class Observation(NamedTuple):
    """The end of an attempt, as it stands in the journal (a JSON list)."""

    attempt: int
    state: State
    """A terminal state, or ``planned``: the job ended without ever having started."""
    reason: Reason | None
    evidence: str
    duration_s: float | None
    peak_rss_mb: float | None
    metrics_sha256: str | None

    @classmethod
    def from_json(cls, values: list[Json]) -> "Observation":
        """Read the list.

        Raises:
            ValueError, TypeError, KeyError: it is not one, or a state or reason is none of ours.
        """
        number, state, reason, evidence, duration_s, peak_rss_mb, metrics_sha256 = values
        return cls(number, _STATES[state], _REASONS[reason], evidence, duration_s, peak_rss_mb, metrics_sha256)


@dataclass(slots=True)
class Attempt:
    """The latest attempt of a run.

    Attributes:
        number: from 1; 0: cancelled before the first.
        token: its submission.
        backend: name of the scheduler that has it.
        job_id: empty while the submission is not known to have arrived.
        changes: what it changes against the definition (see `WorkOrder.changes`).
        end: how it ended, once that was observed.
        canaries: ids of runs that go first on trial: if one does not complete, this one is cancelled.
    """

    number: int
    token: str
    backend: str
    job_id: str = ""
    changes: dict[str, Json] | None = None
    end: Observation | None = None
    canaries: tuple[str, ...] = ()

    @property
    def state(self) -> State | None:
        """The observed state; None while the attempt is under way as far as the journal knows."""
        return self.end.state if self.end else None

    @property
    def reason(self) -> Reason | None:
        """Why it failed."""
        return self.end.reason if self.end else None


class KnownAttempts(Protocol):
    """Latest attempts as they were at some place in the journal."""

    def runs(self) -> Iterable[str]:
        """Return the ids of the runs that have an attempt."""
        ...

    def under_way(self) -> Iterable[str]:
        """Return the ids of those of which no end was observed."""
        ...

    def attempt(self, run: str) -> Attempt | None:
        """Make the attempt of a run; None: it has none."""
        ...


class Attempts(MutableMapping[str, Attempt]):
    """Run id to its latest attempt: known ones are made when they are first asked for, as there may be 100,000."""

    def __init__(self, known: KnownAttempts) -> None:
        self._known = known
        self._made: dict[str, Attempt | None] = {}
        """What was asked for or set; None: there is none, or no more."""

    def __getitem__(self, run: str) -> Attempt:
        if run not in self._made:
            self._made[run] = self._known.attempt(run)
        attempt = self._made[run]
        if attempt is None:
            raise KeyError(run)
        return attempt

    def __setitem__(self, run: str, attempt: Attempt) -> None:
        self._made[run] = attempt

    def __delitem__(self, run: str) -> None:
        if run not in self:
            raise KeyError(run)
        self._made[run] = None

    def __iter__(self) -> Iterator[str]:
        return (run for run in list(dict.fromkeys([*self._known.runs(), *self._made])) if run in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def made(self) -> Iterable[str]:
        """Return the runs whose attempts may not be as they were known."""
        return list(self._made)

    def under_way(self) -> dict[str, Attempt]:
        """Return those of which no end is known."""
        for run in self._known.under_way():
            self.get(run)
        return {run: attempt for run, attempt in self._made.items() if attempt is not None and attempt.end is None}


class FollowUp(NamedTuple):
    """A command that a scheduler starts once all jobs have ended."""

    backend: str
    job_id: str


@dataclass(slots=True)
class Ledger:
    """What the journal says of all runs.

    Attributes:
        attempts: run id to its latest attempt.
        previous: run id to the attempt before the latest, for submissions that are taken back.
        open_intents: token to run ids, for submissions of which the journal does not know whether they arrived.
        held: runs that were asked for and wait until what they need is submitted (again).
        then: what was last submitted to follow them all.
    """

    attempts: MutableMapping[str, Attempt] = field(default_factory=dict[str, Attempt])
    previous: dict[str, Attempt] = field(default_factory=dict[str, Attempt])
    open_intents: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    held: set[str] = field(default_factory=set[str])
    then: FollowUp | None = None

    @property
    def under_way(self) -> dict[str, Attempt]:
        """The attempts that have not been observed to end."""
        if isinstance(self.attempts, Attempts):
            return self.attempts.under_way()
        return {run: attempt for run, attempt in self.attempts.items() if attempt.end is None}

    def moved(self) -> Iterable[str]:
        """Return the runs whose latest attempt is under way, or may not be as it was known beforehand."""
        under_way = self.under_way
        return {*under_way, *self.attempts.made()} if isinstance(self.attempts, Attempts) else self.attempts


def replay(events: Iterable[dict[str, Json]], *, where: str = "journal.jsonl", onto: Ledger | None = None) -> Ledger:
    """Fold the journal's events into a ledger.

    Args:
        events: in their order.
        where: the file they come from, for the error.
        onto: what the events before these have come to, which is changed; None: there are none before.

    Raises:
        StoreError: a line that no command has written.
    """
    ledger = Ledger() if onto is None else onto
    for number, event in enumerate(events, start=1):
        try:
            apply = _APPLY.get(event["event"])
            if apply is not None:
                apply(ledger, event)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError(
                f"{where}:{number}: not an event: {event!r:.200}. Restore the file from a backup."
            ) from error
    return ledger


def _intent(ledger: Ledger, event: dict[str, Json]) -> None:
    token, backend = event["token"], event["backend"]
    changes: dict[str, Json] = event.get("changes") or {}
    canaries: dict[str, list[str]] = event.get("canaries") or {}
    for run, number in event["attempts"].items():
        before = ledger.attempts.get(run)
        if before is not None:
            ledger.previous[run] = before
        ledger.attempts[run] = Attempt(
            number, token, backend, changes=changes.get(run), canaries=tuple(canaries.get(run, ()))
        )
    ledger.open_intents[token] = list(event["attempts"])
    ledger.held.difference_update(event["attempts"])


def _submitted(ledger: Ledger, event: dict[str, Json]) -> None:
    runs = ledger.open_intents.pop(event["token"], [])
    for run, job in zip(runs, event["jobs"], strict=True):
        ledger.attempts[run].job_id = job


def _abandoned(ledger: Ledger, event: dict[str, Json]) -> None:
    for run in ledger.open_intents.pop(event["token"], []):
        if run in ledger.previous:
            ledger.attempts[run] = ledger.previous.pop(run)
        else:
            del ledger.attempts[run]


def _observed(ledger: Ledger, event: dict[str, Json]) -> None:
    for run, values in event["runs"].items():
        attempt = ledger.attempts.get(run)
        if attempt is not None and attempt.number == values[0]:
            attempt.end = Observation.from_json(values)
            if attempt.end.state is State.PLANNED:  # it never started: a run that it needs did not complete
                ledger.held.add(run)


def _held(ledger: Ledger, event: dict[str, Json]) -> None:
    ledger.held.update(event["runs"])


def _cancelled(ledger: Ledger, event: dict[str, Json]) -> None:
    ledger.held.difference_update(event["runs"])
    for run in event["runs"]:
        attempt = ledger.attempts.get(run)
        number = attempt.number if attempt else 0
        if attempt is not None and attempt.end is None:
            evidence = "cancelled; whether its job had ended is not known"
            attempt.end = Observation(number, State.CANCELLED, None, evidence, None, None, None)
            continue
        end = Observation(number, State.CANCELLED, None, "cancelled before it was submitted", None, None, None)
        ledger.attempts[run] = Attempt(number, "", "", end=end)


def _then(ledger: Ledger, event: dict[str, Json]) -> None:
    ledger.then = FollowUp(event["backend"], event["job"]) if event["job"] else None


_APPLY = {
    "intent": _intent,
    "submitted": _submitted,
    "abandoned": _abandoned,
    "observed": _observed,
    "held": _held,
    "cancelled": _cancelled,
    "then": _then,
}

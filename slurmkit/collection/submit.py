"""Plan what a submission does: which runs, with which changes, behind which others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from slurmkit.collection.needs import needed_first
from slurmkit.collection.poll import Snapshot, poll
from slurmkit.collection.retry import Changes, RetryLimitError, changes_for, describe, refuse_swept
from slurmkit.expand import resolve_config
from slurmkit.project import Project
from slurmkit.records import Json, Row, RunStatus
from slurmkit.resources import Resources
from slurmkit.states import State
from slurmkit.store import CollectionStore


@dataclass(frozen=True, slots=True)
class Item:
    """One run to submit.

    Attributes:
        row: the run.
        attempt: number of the new attempt.
        resources: what it asks for, the changes applied.
        changes: against the definition.
        phrases, science: the changes in words, and which of them change the science.
        after: job ids of other submissions to wait for.
        after_runs: run ids of this submission to wait for.
        canaries: run ids of those among them that go first on trial.
    """

    row: Row
    attempt: int
    resources: Resources
    changes: Changes | None
    phrases: list[str]
    science: list[str]
    after: tuple[str, ...] = ()
    after_runs: tuple[str, ...] = ()
    canaries: tuple[str, ...] = ()


@dataclass
class SubmitPlan:
    """What a submission would do.

    Attributes:
        items: runs to submit, each behind those of them that it needs.
        waiting: run name to why it is not submitted (blocked, or it needs a run that is not submitted).
        held: ids of these runs.
        refused: run name to why it is not tried again (limit of retries).
        not_taken: run name to why the scheduler does not take it now; it can be submitted later.
    """

    items: list[Item] = field(default_factory=list[Item])
    waiting: dict[str, str] = field(default_factory=dict[str, str])
    held: list[str] = field(default_factory=list[str])
    refused: dict[str, str] = field(default_factory=dict[str, str])
    not_taken: dict[str, str] = field(default_factory=dict[str, str])

    def with_canaries(self, count: int) -> None:
        """Let the first `count` runs that wait for no other of the plan go first, and the others wait for them."""
        first = tuple(item.row.id for item in self.items if not item.after_runs)[:count]
        self.items = [
            item
            if item.row.id in first
            else replace(item, after_runs=tuple(dict.fromkeys((*item.after_runs, *first))), canaries=first)
            for item in self.items
        ]


def resources_of(row: Row, header: Mapping[str, Json]) -> Resources:
    """Return what a run asks for as the definition has it."""
    return Resources.from_json(row.resources or header["definition"]["resources"])


def config_of(row: Row, header: Mapping[str, Json]) -> dict[str, Json]:
    """Return a run's config as the definition has it, placeholders still open."""
    return resolve_config(header["definition"]["config"], row.set)


def plan(
    project: Project,
    snapshot: Snapshot,
    chosen: Sequence[RunStatus],
    by_hand: Sequence[tuple[str, Json]] = (),
    memory_cap: Callable[[Resources], tuple[int, str] | None] = lambda _: None,
) -> SubmitPlan:
    """Plan the next attempts of the chosen runs.

    Args:
        project: the project.
        snapshot: the collection as polled just now.
        chosen: runs that are not under way.
        by_hand: (target, operation) of ``--set``.
        memory_cap: of the scheduler: above it, memory is not raised.

    Raises:
        UsageError: a change makes no sense for a run.
    """
    header = snapshot.records.header
    if by_hand:
        refuse_swept(by_hand, _swept(snapshot.records))
    rows = {row.id: row for row in snapshot.rows}
    result = SubmitPlan()
    elsewhere = _Elsewhere(project, snapshot)
    by_id = {status.id: status for status in chosen}
    together = set(by_id)
    # A run that is left out takes out those that need it: they are looked at after it.
    for row in needed_first([rows[run] for run in by_id]):
        status = by_id[row.id]
        blocked, after, after_runs = elsewhere.dependencies(row, together)
        if blocked:
            result.waiting[row.name] = blocked
            result.held.append(row.id)
            together.discard(row.id)
            continue
        attempt = snapshot.ledger.attempts.get(row.id)
        config, resources = config_of(row, header), resources_of(row, header)
        cap_mb, cap_why = (memory_cap(resources) if status.reason else None) or (None, "")
        try:
            changes, asked = changes_for(
                status.reason,
                header["definition"]["on_failure"],
                by_hand,
                before=attempt.changes if attempt else None,
                config=config,
                resources=resources,
                cap_mb=cap_mb,
                cap_why=cap_why,
            )
        except RetryLimitError as error:
            result.refused[row.name] = str(error)
            together.discard(row.id)
            continue
        phrases, science = describe(changes, resources, config)
        number = status.attempt + 1
        result.items.append(Item(row, number, asked, changes, phrases, science, after, after_runs))
    return result


def _swept(records: CollectionStore) -> dict[str, str]:
    """Return the dotted config keys that axes set, each with the axis (zipped ones together)."""
    from slurmkit.collection.create import read_definition
    from slurmkit.definition import grid

    definition, _ = read_definition(records.definition_file)
    swept: dict[str, str] = {}
    for axes, points in zip(grid.groups(definition), grid.dimensions(definition), strict=True):
        for key in dict.fromkeys(key for point in points for key in point.sets):
            swept[key] = " and ".join(axes)
    return swept


_ADVICE = {
    State.PLANNED: "slurmkit submit {}",
    State.FAILED: "slurmkit resubmit {} --failed",
    State.CANCELLED: "slurmkit resubmit {} --state cancelled",
}
"""What to do about a run that others need, by its state."""

_IN_THE_WAY = frozenset({*_ADVICE, State.BLOCKED})


class _Elsewhere:
    """Where the runs that others need stand, each collection polled once."""

    def __init__(self, project: Project, snapshot: Snapshot) -> None:
        self._store = project.store
        self._snapshots = {snapshot.records.name: snapshot}
        self._own = snapshot.records.name
        self._statuses: dict[str, dict[str, RunStatus]] = {}
        self._rows: dict[str, dict[str, Row]] = {}

    def _status(self, collection: str, run: str) -> RunStatus | None:
        if collection not in self._statuses:
            snapshot = self._snapshots.get(collection)
            if snapshot is None:
                records = self._store.collection(collection)
                if not records.exists():
                    return None
                snapshot = poll(self._store, records)
            everyone = (*snapshot.rows, *snapshot.retired)
            self._rows[collection] = {row.id: row for row in everyone}
            self._statuses[collection] = {status.id: status for status in snapshot.statuses(everyone)}
        return self._statuses[collection].get(run)

    def dependencies(self, row: Row, together: set[str]) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        """Return why a run cannot be submitted (or an empty string), and what it must wait for."""
        after: list[str] = []
        after_runs: list[str] = []
        for collection, run, name in row.needs.values():
            needed = self._status(collection, run)
            if collection == self._own and run in together:
                after_runs.append(run)
            elif needed is None or needed.state in _IN_THE_WAY:
                return self._obstacle(collection, run, name), (), ()
            elif needed.state is State.COMPLETED:
                continue
            elif needed.job_id:
                after.append(needed.job_id)
            else:
                return f"needs {collection}/{name}, which is just being submitted: try again soon", (), ()
        return "", tuple(after), tuple(after_runs)

    def _obstacle(self, collection: str, run: str, name: str) -> str:
        """Say what is in the way of a needed run, and what to do about the first of the chain behind it."""
        needed = self._status(collection, run)
        why = f"needs {collection}/{name}, which is {_word(needed)}"
        root = collection, run, name
        while needed is not None and needed.state in {State.BLOCKED, State.PLANNED}:
            behind = self._unmet(root[0], root[1])
            if behind is None:
                break
            root = behind
            needed = self._status(root[0], root[1])
        if root[1] != run:
            why += f" by {root[0]}/{root[2]}, which is {_word(needed)}"
        return why + (f": {_ADVICE[needed.state].format(root[0])}" if needed and needed.state in _ADVICE else "")

    def _unmet(self, collection: str, run: str) -> tuple[str, str, str] | None:
        """Return the first run in the way of a blocked or planned one: (collection, id, name)."""
        for need in self._rows[collection][run].needs.values():
            needed = self._status(need[0], need[1])
            if needed is None or needed.state in _IN_THE_WAY:
                return need
        return None


def _word(needed: RunStatus | None) -> str:
    if needed is None:
        return "gone"
    return "not submitted" if needed.state is State.PLANNED else str(needed.state)

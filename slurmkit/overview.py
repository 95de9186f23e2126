"""Pure: from the runs' states to what a status shows: counts, the grid of cells, failures, what to do next."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from slurmkit.names import label_text
from slurmkit.records import Json, Progress, RunStatus
from slurmkit.states import Reason, State, reasons_named

OVERVIEW_SCHEMA = 1
"""Version of ``status --json``."""


@dataclass(slots=True)
class Square:
    """One cell of the grid.

    Attributes:
        total: its runs (one a seed).
        states: how many runs are in which state.
        reasons: why runs of it failed.
        progress: share done, 0 to 1, of each running run that told.
        losses: the loss that each of these last told.
    """

    total: int = 0
    states: Counter[str] = field(default_factory=Counter[str])
    reasons: list[str] = field(default_factory=list[str])
    progress: list[float] = field(default_factory=list[float])
    losses: list[float] = field(default_factory=list[float])


@dataclass(frozen=True, slots=True)
class Grid:
    """Cells in two dimensions.

    Attributes:
        row_axis: what the rows are (``task``).
        column_axes: what the columns are (``pv``, ``rmkl``).
        rows: their labels.
        columns: their labels.
        squares: (row label, column label) to cell; a pair without runs is absent.
    """

    row_axis: str
    column_axes: tuple[str, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    squares: dict[tuple[str, str], Square]


class FailureCase(NamedTuple):
    """Failed runs with the same reason and the same evidence, but for its numbers.

    Attributes:
        size: how many runs.
        evidence: that of the first.
        runs: names of the first few.
    """

    size: int
    evidence: str
    runs: tuple[str, ...]


class FailureGroup(NamedTuple):
    """Failed runs with the same reason.

    Attributes:
        reason: the reason.
        size: how many runs.
        cases: the different ways in which they failed so, most frequent first.
    """

    reason: str
    size: int
    cases: tuple[FailureCase, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """What a status shows of one collection.

    Attributes:
        name, commit: of the collection.
        total: runs that count.
        retired: runs that an extension took out; their records are kept.
        states: runs in each state.
        grid: the cells.
        failures: by reason, most frequent first.
        blocked: what blocks runs, to how many.
        notes: evidence of runs whose state is unknown, to how many.
        stuck: why runs wait for what does not come by itself, to how many.
        cancelled: by whom or why runs were cancelled after they had been submitted, to how many.
        eta_s: estimated seconds until all that is under way has ended; None: nothing to estimate from.
        next_command: what to type next; empty: nothing.
        problem: why a scheduler could not be asked, and since when what is shown is so; empty: all could.
    """

    name: str
    commit: str
    total: int
    retired: int
    states: dict[str, int]
    grid: Grid
    failures: tuple[FailureGroup, ...]
    blocked: dict[str, int]
    notes: dict[str, int]
    eta_s: float | None
    next_command: str
    problem: str = ""
    stuck: dict[str, int] = field(default_factory=dict[str, int])
    cancelled: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def headline(self) -> str:
        """The first line: ``19/24 complete, 3/24 failed, 2/24 running``."""
        words = {State.COMPLETED: "complete"}
        order = [State.COMPLETED, State.FAILED, State.RUNNING, State.QUEUED, State.BLOCKED, State.CANCELLED]
        order += [State.UNKNOWN, State.PLANNED]
        parts = [
            f"{self.states.get(state, 0)}/{self.total} {words.get(state, state)}"
            for state in order
            if self.states.get(state) or state is State.COMPLETED
        ]
        return ", ".join(parts)

    @property
    def at_rest(self) -> bool:
        """Whether nothing moves by itself: only a command or another collection can change it."""
        return not any(self.states.get(state) for state in (State.QUEUED, State.RUNNING, State.UNKNOWN))

    @property
    def settled(self) -> bool:
        """Whether only a change of this collection's own records can change this overview."""
        return not set(self.states) - {State.COMPLETED, State.FAILED, State.CANCELLED}

    def to_json(self) -> dict[str, Json]:
        """Return a record of it."""
        record: dict[str, Json] = {item.name: getattr(self, item.name) for item in fields(self)}
        grid = self.grid
        record["grid"] = {
            "row_axis": grid.row_axis,
            "column_axes": grid.column_axes,
            "rows": grid.rows,
            "columns": grid.columns,
            "squares": [[*place, s.total, dict(s.states), s.reasons] for place, s in grid.squares.items()],
        }
        record["failures"] = [[g.reason, g.size, [list(case) for case in g.cases]] for g in self.failures]
        return record

    @classmethod
    def from_json(cls, record: dict[str, Json]) -> "Overview":
        """Read what `to_json` wrote."""
        failures = tuple(
            FailureGroup(reason, count, tuple(FailureCase(n, text, tuple(runs)) for n, text, runs in cases))
            for reason, count, cases in record["failures"]
        )
        values: dict[str, Any] = {**record, "grid": _grid_from_json(record["grid"]), "failures": failures}
        return cls(**values)


def _grid_from_json(record: dict[str, Json]) -> Grid:
    squares = {
        (row, column): Square(total, Counter(states), reasons)
        for row, column, total, states, reasons in record["squares"]
    }
    return Grid(
        record["row_axis"],
        tuple(record["column_axes"]),
        tuple(record["rows"]),
        tuple(record["columns"]),
        squares,
    )


def overview(
    name: str,
    commit: str,
    statuses: Sequence[RunStatus],
    axes: Mapping[str, Sequence[Json]],
    seed_axis: str,
    *,
    retired: int = 0,
    progress: Mapping[str, Progress] | None = None,
    on_failure: Collection[str] = (),
) -> Overview:
    """Sum up a collection.

    Args:
        name: of the collection.
        commit: its pin.
        statuses: its runs.
        axes: axis names to values, in the definition's order.
        seed_axis: the axis that makes several runs of one cell.
        retired: how many runs an extension took out.
        progress: run id to the progress of running runs.
        on_failure: reasons for which the definition says what a retry changes.
    """
    states = Counter(str(status.state) for status in statuses)
    return Overview(
        name=name,
        commit=commit,
        total=len(statuses),
        retired=retired,
        states=dict(states),
        grid=_grid(statuses, axes, seed_axis, progress or {}),
        failures=_failures(statuses),
        blocked=dict(Counter(s.evidence for s in statuses if s.state is State.BLOCKED).most_common()),
        notes=dict(Counter(s.evidence for s in statuses if s.state is State.UNKNOWN).most_common(5)),
        eta_s=_eta_s(statuses, axes, seed_axis, progress or {}),
        next_command=_next_command(name, statuses, states, on_failure),
        stuck=_why(statuses, State.QUEUED),
        cancelled=_why(statuses, State.CANCELLED),
    )


def _why(statuses: Sequence[RunStatus], state: State) -> dict[str, int]:
    """Count the evidence of runs in a state, alike but for its numbers; of queued ones where it says what to do."""
    members = [one for one in statuses if one.state is state and (state is not State.QUEUED or ": " in one.evidence)]
    return {case.evidence: case.size for case in _cases([one for one in members if one.attempt and one.evidence])}


def _grid(
    statuses: Sequence[RunStatus],
    axes: Mapping[str, Sequence[Json]],
    seed_axis: str,
    progress: Mapping[str, Progress],
) -> Grid:
    """Lay the cells out: the first axis down, all others but the seed across."""
    free = [axis for axis in axes if axis != seed_axis]
    shown = [axis for axis in free if len(axes[axis]) > 1] or free[:1]
    row_axis = shown[0] if shown else ""
    column_axes = tuple(shown[1:])
    rows: dict[str, None] = {label_text(value): None for value in axes.get(row_axis, ["all"])}
    columns: dict[str, None] = {}
    squares: dict[tuple[str, str], Square] = {}
    # Counted first and labelled after: there are many runs, and fewer cells.
    counted = Counter([(*map(status.axes.get, shown), status.state, status.reason) for status in statuses])
    for (*values, state, reason), count in counted.items():
        row, column = _place(shown, values)
        rows.setdefault(row)
        columns.setdefault(column)
        square = squares.setdefault((row, column), Square())
        square.total += count
        square.states[state] += count
        if reason is not None and reason not in square.reasons:
            square.reasons.append(reason)
    for status in statuses if progress else ():
        if status.id in progress:
            place = _place(shown, [status.axes.get(axis) for axis in shown])
            _add_progress(squares[place], progress[status.id])
    return Grid(row_axis, column_axes, tuple(rows), tuple(columns), squares)


def _place(shown: Sequence[str], values: Sequence[Json]) -> tuple[str, str]:
    """Return the labels of the row and the column of a cell, given its values on the axes that the grid shows."""
    if not shown:
        return "all", ""
    pairs = zip(shown[1:], values[1:], strict=True)
    return label_text(values[0]), " ".join([_label(axis, value) for axis, value in pairs])


def _label(axis: str, value: Json) -> str:
    """Write a value so that one knows what it is: numbers need their axis (``pv0.1``), words do not."""
    if isinstance(value, str):
        return value
    return f"{axis}={label_text(value)}" if value is None or isinstance(value, bool) else f"{axis}{value}"


def _add_progress(square: Square, news: Progress) -> None:
    square.progress.append(share_done(news))
    losses = [value for key, value in news["metrics"].items() if key.rpartition("/")[2] in {"loss", "total"}]
    square.losses += losses[:1]


def share_done(news: Progress) -> float:
    """Return the share of its steps that a run has done, 0 to 1."""
    return min(1.0, news["step"] / news["of"]) if news["of"] > 0 else 0.0


def _failures(statuses: Sequence[RunStatus]) -> tuple[FailureGroup, ...]:
    groups: dict[str, list[RunStatus]] = {}
    for status in statuses:
        if status.state is State.FAILED:
            groups.setdefault(str(status.reason or "error"), []).append(status)
    return tuple(
        FailureGroup(reason, len(members), _cases(members))
        for reason, members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    )


def _cases(members: Sequence[RunStatus]) -> tuple[FailureCase, ...]:
    """Put together what failed in the same way: evidence that differs in its numbers only."""
    alike: dict[str, list[RunStatus]] = {}
    for member in members:
        alike.setdefault(re.sub(r"\d[\d.,]*", "#", member.evidence), []).append(member)
    return tuple(
        FailureCase(len(runs), runs[0].evidence, tuple(run.name for run in runs[:3]))
        for runs in sorted(alike.values(), key=len, reverse=True)
    )


def _eta_s(
    statuses: Sequence[RunStatus],
    axes: Mapping[str, Sequence[Json]],
    seed_axis: str,
    progress: Mapping[str, Progress],
) -> float | None:
    """Estimate from finished siblings: runs that share the first axis if there are any, else all."""
    under_way = [status for status in statuses if status.state in {State.RUNNING, State.QUEUED}]
    if not under_way:
        return None
    first = next((axis for axis in axes if axis != seed_axis), "")
    by_value: dict[str, list[float]] = {}
    for status in statuses:
        if status.state is State.COMPLETED and status.duration_s:
            by_value.setdefault(str(status.axes.get(first)), []).append(status.duration_s)
    everyone = [duration for durations in by_value.values() for duration in durations]
    if not everyone:
        return None
    left: list[float] = []
    for status in under_way:
        siblings = by_value.get(str(status.axes.get(first))) or everyone
        expected = sum(siblings) / len(siblings)
        news = progress.get(status.id)
        left.append(expected * (1 - share_done(news)) if news else expected)
    running = sum(1 for status in under_way if status.state is State.RUNNING)
    return max(max(left), sum(left) / max(1, running))


def _next_command(name: str, statuses: Sequence[RunStatus], states: Counter[str], on_failure: Collection[str]) -> str:
    """Say what a person would most likely type next."""
    if states[State.PLANNED] and any(s.state is State.PLANNED and not s.evidence for s in statuses):
        return f"slurmkit submit {name}"
    if states[State.FAILED]:
        failed = [status for status in statuses if status.state is State.FAILED]
        return _after_failure(name, failed, on_failure)
    if states[State.RUNNING] or states[State.QUEUED]:
        return f"slurmkit status {name} --watch"
    if states[State.CANCELLED]:
        return f"slurmkit resubmit {name} --state cancelled"
    if states[State.BLOCKED]:
        blocked = next(s.evidence for s in statuses if s.state is State.BLOCKED)
        needed = blocked.removeprefix("needs ").partition(", which")[0].rpartition("/")[0]
        return f"slurmkit status {needed}"
    return f"slurmkit aggregate {name}" if states[State.COMPLETED] else ""


def _after_failure(name: str, failed: Sequence[RunStatus], on_failure: Collection[str]) -> str:
    """Say what to do about failures: retry what a retry can mend, else look at the first log."""
    reasons = Counter(str(status.reason) for status in failed)
    ruled = {str(reason) for word in on_failure for reason in reasons_named(word)}
    mended = {str(Reason.OOM_HOST): " --set resources.mem=x2", str(Reason.TIMEOUT): " --set resources.time=x2"}
    again = {str(Reason.PREEMPTED): "", str(Reason.NODE_FAIL): "", **mended, **dict.fromkeys(ruled, "")}
    for reason, _ in reasons.most_common():
        if reason in again:
            return f"slurmkit resubmit {name} --reason {reason}{again[reason]}"
    return f"slurmkit logs {name} --run {failed[0].id[:6]}"

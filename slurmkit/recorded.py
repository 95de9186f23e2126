"""What the frozen runs and the journal come to, in columns; runs and attempts are made of them when asked for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from slurmkit.ledger import Attempt, Attempts, FollowUp, Ledger, Observation
from slurmkit.names import label_text
from slurmkit.packed import Coded, Column, Digests, Texts, Values, packed
from slurmkit.records import Json, Row, RunStatus
from slurmkit.states import Reason, State
from slurmkit.statuses import Statuses

_NO_ATTEMPT = Attempt(-1, "", "")
_NO_END = Observation(-1, State.UNKNOWN, None, "", None, None, None)
_ROW = {"id": Texts, "name": Texts, "config_sha256": Digests, "commit": Coded, "axis_names": Coded}
"""Columns of `Row`."""
_ATTEMPT = {"number": Coded, "token": Coded, "backend": Coded, "job_id": Texts, "changes": Coded, "canaries": Coded}
"""Columns of the latest `Attempt`; number -1: there is none."""
_END = {
    "state": Coded,
    "reason": Coded,
    "evidence": Coded,
    "duration_s": Values,
    "peak_rss_mb": Values,
    "metrics_sha256": Digests,
}
"""Columns of its `Observation`; state None: no end was observed."""
_KINDS: dict[str, type[Column]] = {**_ROW, **_ATTEMPT, **_END}


@dataclass(frozen=True)
class Recorded:
    """The runs that count, and their latest attempts (it is a `KnownAttempts`).

    Attributes:
        columns: name in `_KINDS` to values, a row each run, in the definition's order.
        axes: axis name to its values; None where a run has not got the axis.
        need_others: whether some run needs another.
        retired: the runs that an extension has retired.
        others: run id to the latest attempt, of runs that are not in the columns.
        held, then: see `Ledger`.
    """

    columns: Mapping[str, Column]
    axes: Mapping[str, Coded]
    need_others: bool
    retired: list[Row]
    others: dict[str, Attempt]
    held: frozenset[str]
    then: FollowUp | None

    @classmethod
    def of(cls, rows: Sequence[Row], ledger: Ledger) -> "Recorded":
        """Put rows and attempts into columns."""
        kept = [row for row in rows if not row.retired]
        ids = {row.id for row in kept}
        axis_names = [tuple(row.axes) for row in kept]
        names = dict.fromkeys(name for own in dict.fromkeys(axis_names) for name in own)
        attempts = [ledger.attempts.get(row.id, _NO_ATTEMPT) for row in kept]
        ends = [attempt.end or _NO_END for attempt in attempts]
        values: dict[str, list[Json]] = {
            "id": [row.id for row in kept],
            "name": [row.name for row in kept],
            "config_sha256": [row.config_sha256 for row in kept],
            "commit": [row.commit for row in kept],
            "axis_names": axis_names,
            "number": [attempt.number for attempt in attempts],
            "token": [attempt.token for attempt in attempts],
            "backend": [attempt.backend for attempt in attempts],
            "job_id": [attempt.job_id for attempt in attempts],
            "changes": [attempt.changes for attempt in attempts],
            "canaries": [attempt.canaries for attempt in attempts],
            "state": [None if end is _NO_END else str(end.state) for end in ends],
            "reason": [None if end.reason is None else str(end.reason) for end in ends],
            "evidence": [end.evidence for end in ends],
            "duration_s": [end.duration_s for end in ends],
            "peak_rss_mb": [end.peak_rss_mb for end in ends],
            "metrics_sha256": [end.metrics_sha256 for end in ends],
        }
        return cls(
            columns={name: packed(kind, values[name]) for name, kind in _KINDS.items()},
            axes={name: Coded.of([row.axes.get(name) for row in kept]) for name in names},
            need_others=any(row.needs for row in kept),
            retired=[row for row in rows if row.retired],
            others={run: attempt for run, attempt in ledger.attempts.items() if run not in ids},
            held=frozenset(ledger.held),
            then=ledger.then,
        )

    @cached_property
    def place(self) -> dict[str, int]:
        """Run id to row."""
        ids = self.columns["id"].listed()
        return dict(zip(ids, range(len(ids)), strict=True))

    def _coded(self, name: str) -> Coded:
        column = self.columns[name]
        assert isinstance(column, Coded)  # which holds values of any kind
        return column

    def ledger(self) -> Ledger:
        """Return what the journal came to when no submission was open."""
        return Ledger(Attempts(self), held=set(self.held), then=self.then)

    def runs(self) -> Iterable[str]:
        """Return the ids of the runs that have an attempt."""
        numbers = self.columns["number"].listed()
        return [run for run, number in zip(self.columns["id"], numbers, strict=True) if number >= 0] + list(self.others)

    def under_way(self) -> Iterable[str]:
        """Return the ids of those of which no end was observed."""
        number, ids = self.columns["number"], self.columns["id"]
        own = [ids[row] for row in self._coded("state").rows_with(None) if number[row] >= 0]
        return own + [run for run, attempt in self.others.items() if attempt.end is None]

    def attempt(self, run: str) -> Attempt | None:
        """Make the attempt of a run; None: it has none."""
        row = self.place.get(run)
        if row is None:
            return self.others.get(run)
        number, token, backend, job_id, changes, canaries = [column[row] for column in self._attempts]
        if number < 0:
            return None
        end = None
        if self.columns["state"][row] is not None:
            end = Observation.from_json([number, *(self.columns[name][row] for name in _END)])
        return Attempt(number, token, backend, job_id, changes, end, tuple(canaries))

    @cached_property
    def _attempts(self) -> list[list[Json]]:
        """Columns as lists, which are looked up faster: there may be many attempts under way."""
        return [self.columns[name].listed() for name in _ATTEMPT]

    def name(self, run: str) -> str | None:
        """Return the name of a run; None: it is not in the columns."""
        row = self.place.get(run)
        return None if row is None else self.columns["name"][row]

    def row(self, run: str) -> Row | None:
        """Return what a status needs of a run, neither its own config nor resources; None: it is not in the columns."""
        row = self.place.get(run)
        if row is None:
            return None
        own = {name: self.columns[name][row] for name in ("id", "name", "config_sha256", "commit")}
        axes = {name: self.axes[name][row] for name in self.columns["axis_names"][row]}
        return Row(axes=axes, set={}, resources={}, needs={}, **own)

    def statuses(self, commit: str, folder: str, news: Mapping[str, RunStatus]) -> Statuses:
        """Return where the runs stand.

        Args:
            commit: the collection's pin.
            folder: in which the runs have theirs.
            news: run id to its status, for runs of which these columns do not know it.
        """
        fields: dict[str, Column] = {
            **self.columns,
            "state": self._coded("state").mapped(lambda word: State.PLANNED if word is None else State(word)),
            "reason": self._coded("reason").mapped(lambda word: None if word is None else Reason(word)),
            "attempt": self._coded("number").mapped(lambda number: max(number, 0)),
            "commit": self._coded("commit").mapped(lambda own: own or commit),
            "changed": self._coded("changes").mapped(changed_keys),
        }
        fields = {name: fields[name] for name in RunStatus._fields if name in fields}
        rows = {self.place[run]: status for run, status in news.items()}
        return Statuses(fields, self.axes, self._coded("axis_names"), folder, rows)


def changed_keys(changes: Mapping[str, Json] | None) -> tuple[str, ...]:
    """Write what an attempt changes in the config as ``key=value`` each."""
    return tuple(f"{key}={label_text(value)}" for key, value in changes["set"].items()) if changes else ()

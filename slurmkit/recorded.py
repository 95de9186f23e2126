"""What the frozen runs and the journal come to, in columns, kept in a file: only what was written since is read.

The file is a cache. It is known by the bytes that it was made from, all of the frozen runs and the beginning of the
journal, by their number and their CRC: if those are no more what they were, it is made anew.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from slurmkit import cache_file, files
from slurmkit.ledger import Attempt, Attempts, FollowUp, Ledger, Observation, replay
from slurmkit.names import label_text
from slurmkit.packed import Coded, Column, Digests, Texts, Values, packed
from slurmkit.records import Json, RunStatus
from slurmkit.states import Reason, State
from slurmkit.statuses import Statuses
from slurmkit.store import CollectionStore, FrozenRuns, Row

SCHEMA = 1
"""Version of the file and of how the journal is folded. Raised when either changes: all is then read anew."""
_WORTH_BYTES = 1 << 20
"""Smaller records are read in a few hundredths of a second."""
_TAIL_SHARE = 1 / 16
"""Of the journal: when it has gained more than that since, the file is made anew."""

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
_COLUMNS: dict[str, type[Column]] = {kind.__name__: kind for kind in (Coded, Digests, Texts, Values)}


@dataclass(frozen=True)
class Recorded:
    """The runs that count, as their records say.

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

    def ledger(self) -> Ledger:
        """Return what the journal came to when no submission was open."""
        return Ledger(Attempts(self), held=set(self.held), then=self.then)

    def runs(self) -> Iterable[str]:
        """Return the ids of the runs that have an attempt."""
        numbers = self.columns["number"].listed()
        return [run for run, number in zip(self.columns["id"], numbers, strict=True) if number >= 0] + list(self.others)

    def under_way(self) -> Iterable[str]:
        """Return the ids of those of which no end was observed."""
        state, number, ids = self.columns["state"], self.columns["number"], self.columns["id"]
        open_rows = state.rows_with(None) if isinstance(state, Coded) else []
        own = [ids[row] for row in open_rows if number[row] >= 0]
        return own + [run for run, attempt in self.others.items() if attempt.end is None]

    def attempt(self, run: str) -> Attempt | None:
        """Make the attempt of a run; None: it has none."""
        row = self.place.get(run)
        if row is None:
            return self.others.get(run)
        number, token, backend, job_id, changes, canaries, *end = [column[row] for column in self._attempts]
        if number < 0:
            return None
        observed = None if end[0] is None else Observation.from_json([number, *end])
        return Attempt(number, token, backend, job_id, changes, observed, tuple(canaries))

    @cached_property
    def _attempts(self) -> list[list[Json]]:
        return [self.columns[name].listed() for name in (*_ATTEMPT, *_END)]

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
        coded = {name: column for name, column in self.columns.items() if isinstance(column, Coded)}
        fields: dict[str, Column] = {
            **self.columns,
            "state": coded["state"].mapped(lambda word: State.PLANNED if word is None else State(word)),
            "reason": coded["reason"].mapped(lambda word: None if word is None else Reason(word)),
            "attempt": coded["number"].mapped(lambda number: max(number, 0)),
            "commit": coded["commit"].mapped(lambda own: own or commit),
            "changed": coded["changes"].mapped(changed_keys),
        }
        fields = {name: fields[name] for name in RunStatus._fields if name in fields}
        rows = {self.place[run]: status for run, status in news.items()}
        return Statuses(fields, self.axes, coded["axis_names"], folder, rows)


def changed_keys(changes: Mapping[str, Json] | None) -> tuple[str, ...]:
    """Write what an attempt changes in the config as ``key=value`` each."""
    return tuple(f"{key}={label_text(value)}" for key, value in changes["set"].items()) if changes else ()


def read(records: CollectionStore) -> tuple[Recorded, Ledger, FrozenRuns]:
    """Read what the records of a collection say: of the journal only what the file does not know, if it will do.

    Raises:
        StoreError: they are gone, or hold what no command has written.
    """
    runs, journal = records.frozen_runs(), records.journal_content()
    where = str(records.journal)
    found = _load(records.runs_index, runs, journal)
    if found is None:
        events, end = files.parse_lines(journal, where)
        ledger = replay(events, where=where)
        recorded = Recorded.of(runs.rows, ledger)
        if len(runs.content) + end >= _WORTH_BYTES and not ledger.open_intents:
            _save(records.runs_index, recorded, runs, journal[:end])
        return recorded, replace(ledger, attempts=Attempts(recorded)), runs
    recorded, start = found
    events, _ = files.parse_lines(journal[start:], where, start=start)
    return recorded, replay(events, where=f"{where} after byte {start}", onto=recorded.ledger()), runs


def _load(path: Path, runs: FrozenRuns, journal: bytes) -> tuple[Recorded, int] | None:
    """Read the file, if it was made from these runs and the beginning of this journal.

    Returns:
        what it holds, and the offset in the journal behind what it was made from; None: it will not do.
    """
    read = cache_file.read(path)
    if read is None:
        return None
    told, pieces = read
    try:
        if told["schema"] != SCHEMA or told["runs"] != _mark(runs.content):
            return None
        start: int = told["journal"][0]
        if told["journal"] != _mark(memoryview(journal)[:start]) or len(journal) > (1 + _TAIL_SHARE) * start:
            return None
        return _unpacked(told, iter(pieces)), start
    except (KeyError, TypeError, ValueError):
        return None


def _mark(content: bytes | memoryview) -> list[int]:
    """Return what tells some bytes from others: how many they are, and their CRC."""
    return [len(content), zlib.crc32(content)]


def _unpacked(told: dict[str, Json], pieces: Iterator[memoryview]) -> Recorded:
    return Recorded(
        columns={name: _COLUMNS[kind].read(own, bytes(next(pieces))) for name, kind, own in told["columns"]},
        axes={name: Coded.read(own, bytes(next(pieces))) for name, own in told["axes"]},
        need_others=told["need_others"],
        retired=[Row.from_json(row) for row in told["retired"]],
        others={run: _attempt(values) for run, values in told["others"].items()},
        held=frozenset(told["held"]),
        then=None if told["then"] is None else FollowUp(*told["then"]),
    )


def _save(path: Path, recorded: Recorded, runs: FrozenRuns, journal: bytes) -> None:
    """Write the file.

    Args:
        path: the file.
        recorded: what it is to hold.
        runs: what that was made from.
        journal: likewise, whole lines.
    """
    told = {
        "schema": SCHEMA,
        "runs": _mark(runs.content),
        "journal": _mark(journal),
        "columns": [(name, type(column).__name__, column.told()) for name, column in recorded.columns.items()],
        "axes": [(name, column.told()) for name, column in recorded.axes.items()],
        "need_others": recorded.need_others,
        "retired": [row.to_json() for row in recorded.retired],
        "others": {run: _attempt_values(attempt) for run, attempt in recorded.others.items()},
        "held": sorted(recorded.held),
        "then": recorded.then and list(recorded.then),
    }
    cache_file.write(path, told, [column.content() for column in (*recorded.columns.values(), *recorded.axes.values())])


def _attempt_values(attempt: Attempt) -> list[Json]:
    a = attempt
    return [a.number, a.token, a.backend, a.job_id, a.changes, a.end and list(a.end), a.canaries]


def _attempt(values: list[Json]) -> Attempt:
    number, token, backend, job_id, changes, end, canaries = values
    observed = None if end is None else Observation.from_json(end)
    return Attempt(number, token, backend, job_id, changes, observed, tuple(canaries))

"""``runs.index``: what the frozen runs and the journal come to, kept: of these only what was written since is parsed.

The file is a cache. It is known by the bytes that it was made from, all of the frozen runs and the beginning of the
journal, by their number and their CRC: if those are no more what they were, it is made anew.
"""

import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from slurmkit import cache_file, files
from slurmkit.ledger import Attempt, Attempts, FollowUp, Ledger, Observation, replay
from slurmkit.packed import Coded, Column, Digests, Texts, Values
from slurmkit.recorded import Recorded
from slurmkit.records import Json, Row
from slurmkit.store import CollectionStore, FrozenRuns

INDEX_SCHEMA = 1
"""Version of the file and of how the journal is folded. Raised when either changes: all is then read anew."""
_WORTH_BYTES = 1 << 20
"""Smaller records are read in a few hundredths of a second."""
_TAIL_SHARE = 1 / 16
"""Of the journal: when it has gained more than that since, the file is made anew."""

_COLUMNS: dict[str, type[Column]] = {kind.__name__: kind for kind in (Coded, Digests, Texts, Values)}


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
        if told["schema"] != INDEX_SCHEMA or told["runs"] != _mark(runs.content):
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
        "schema": INDEX_SCHEMA,
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

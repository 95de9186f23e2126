"""``metrics.json`` of completed runs into columns: what is good is kept, what is wrong is named."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from slurmkit.aggregate import index
from slurmkit.aggregate.columns import Columns, Positions, rows_with
from slurmkit.aggregate.metrics_file import METRICS_FILE, Flaw, FlawError, Problem, kind_of, values_of
from slurmkit.packed import Texts
from slurmkit.records import Json, RunStatus
from slurmkit.states import State
from slurmkit.statuses import RunColumns, chosen

REASON_SUFFIX = "__reason"
"""``<key>__reason`` says why ``<key>`` is null."""
COMPARABLE_SUFFIX = "__comparable"
"""``<key>__comparable: false`` says that ``<key>`` means something else in each setting."""

_SAID = (REASON_SUFFIX, COMPARABLE_SUFFIX)
_FILES_A_GROUP = 512
"""So few that their values are still in the processor's cache when they become columns (a third of the time)."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of some runs, by column; position i belongs to the i-th run asked for.

    Attributes:
        numbers: key to (runs,) float64; NaN where the run has no value.
        others: key to a list of bools, texts and lists; None where the run has no value.
        flaws: position of a completed run to why it has no metrics at all.
        problems: what is wrong, in the order of the runs.
        marked: keys of which runs say (``<key>__comparable: false``) that they mean something else in each setting.
        null_reasons: key to how often which reason was given for a null.
    """

    numbers: dict[str, np.ndarray[Any, np.dtype[np.float64]]]
    others: dict[str, list[Json]]
    flaws: dict[int, Flaw]
    problems: tuple[Problem, ...]
    marked: frozenset[str]
    null_reasons: dict[str, Counter[str]]


NO_METRICS = Metrics({}, {}, {}, (), frozenset(), {})
"""For a frame of runs alone."""


@dataclass(slots=True)
class _Group:
    """Some files with the same keys in the same order: one list of all their values, file after file.

    No container a file is kept, which would make the garbage collector walk them all again and again.
    """

    positions: list[int] = field(default_factory=list[int])
    values: list[Json] = field(default_factory=list[Json])


def read_metrics(
    statuses: Sequence[RunStatus],
    index_file: Path | None = None,
    *,
    reread: bool = False,
    runs: RunColumns | None = None,
) -> Metrics:
    """Read the metrics of the completed runs among some runs.

    Files of runs that are not completed are not looked at: such a file is a partial one, or an earlier attempt's.
    A file counts as the run's if it is a JSON object of finite numbers, nulls, bools, texts and lists (nested
    objects are flattened with ``/``), has the SHA-256 that was observed at completion, and does not name another
    run or config as its origin. Never raises for what a file holds.

    Args:
        statuses: the runs, completed or not.
        index_file: where good files are remembered (`index`): what was read of a file with the SHA-256 that was
            observed is not read again, whatever has become of the file since. None: all are read.
        reread: read all files, and remember nothing but these.
        runs: the columns of `statuses`, where they are at hand.
    """
    runs = runs or RunColumns.of(statuses)
    completed = rows_with(runs.state, State.COMPLETED)
    ids = runs.id
    if index_file is None or not isinstance(ids, Texts):
        columns = Columns(len(statuses))
        return _interpreted(columns, statuses, _read_files(columns, statuses, np.flatnonzero(completed)))
    observed = index.hashes_of(runs.metrics_sha256)
    known = index.Index() if reread else index.load(index_file)
    in_base = np.where(completed, known.base.rows_of(ids, observed), -1)
    in_recent = np.where(completed, known.recent.rows_of(ids, observed), -1)
    columns = known.base.columns_of(ids, in_base)
    later = np.flatnonzero((in_base < 0) & (in_recent >= 0))
    columns.take(known.recent.columns, later, in_recent[later])
    good = (in_base >= 0) | (in_recent >= 0)
    unread = np.flatnonzero(completed & ~good)
    flawed = _read_files(columns, statuses, unread)
    can_be_known = (observed != index.NO_HASH).any(axis=1)
    fresh = unread[[can_be_known[position] and position not in flawed for position in unread.tolist()]]
    if len(fresh) or reread:
        good[fresh] = True
        index.save(index_file, known, index.Part(ids, observed, columns), np.flatnonzero(good), fresh)
    return _interpreted(columns, statuses, flawed)


def _read_files(columns: Columns, statuses: Sequence[RunStatus], positions: Positions) -> dict[int, Problem]:
    """Read the files of some runs into columns, and return by position what is wrong with the others."""
    groups: dict[tuple[str, ...], _Group] = {}
    flawed: dict[int, Problem] = {}
    places = positions.tolist()
    for position, status in zip(places, chosen(statuses, places), strict=True):
        path = f"{status.folder}/{METRICS_FILE}"
        try:
            values = values_of(path, status)
        except FlawError as error:
            flawed[position] = Problem(status.name, path, error.flaw, error.what)
            continue
        keys = tuple(values)
        group = groups.get(keys)
        if group is None:
            group = groups[keys] = _Group()
        group.positions.append(position)
        group.values.extend(values.values())
        if len(group.positions) == _FILES_A_GROUP:
            columns.add_files(keys, group.positions, group.values)
            del groups[keys]
    for keys, group in groups.items():
        columns.add_files(keys, group.positions, group.values)
    return flawed


def _interpreted(columns: Columns, statuses: Sequence[RunStatus], flawed: dict[int, Problem]) -> Metrics:
    """Tell metrics from what is said about them, and numbers from texts in the same column."""
    numbers = {key: columns.numbers[key] for key in columns.number_keys() if not key.endswith(_SAID)}
    others = {key: columns.listed(key) for key in columns.value_keys() if not key.endswith(_SAID)}
    mixed: list[tuple[int, Problem]] = []
    for key in sorted(numbers.keys() & others.keys()):
        if np.isnan(numbers[key]).all():  # nulls, where other runs have a text
            del numbers[key]
            continue
        for position, value in enumerate(others.pop(key)):
            if value is not None:
                status = statuses[position]
                what = f"{key}: {str(value)[:40]!r} is a {kind_of(value)}, other runs have a number; left out"
                path = f"{status.folder}/{METRICS_FILE}"
                mixed.append((position, Problem(status.name, path, Flaw.NOT_A_NUMBER, what)))
    problems = sorted([*flawed.items(), *mixed], key=lambda item: item[0])
    flaws = {position: problem.flaw for position, problem in flawed.items()}
    told = columns.value_keys()
    marked = {key.removesuffix(COMPARABLE_SUFFIX) for key in told if key.endswith(COMPARABLE_SUFFIX)}
    return Metrics(
        numbers,
        others,
        flaws,
        tuple(problem for _, problem in problems),
        frozenset(key for key in marked & numbers.keys() if False in columns.listed(key + COMPARABLE_SUFFIX)),
        {
            key.removesuffix(REASON_SUFFIX): Counter(str(text) for text in columns.listed(key) if text is not None)
            for key in told
            if key.endswith(REASON_SUFFIX)
        },
    )

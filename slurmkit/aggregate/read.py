"""``metrics.json`` of completed runs into columns: what is good is kept, what is wrong is named."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from slurmkit.aggregate.metrics_file import METRICS_FILE, Flaw, FlawError, Problem, kind_of, values_of
from slurmkit.records import Json, RunStatus
from slurmkit.states import State

REASON_SUFFIX = "__reason"
"""``<key>__reason`` says why ``<key>`` is null."""
COMPARABLE_SUFFIX = "__comparable"
"""``<key>__comparable: false`` says that ``<key>`` means something else in each setting."""
PROVENANCE_PREFIX = "provenance/"
"""Keys that say where the numbers come from; no metrics."""

_FILES_A_GROUP = 512
"""So few that their values are still in the processor's cache when they become columns (a third of the time)."""

_Positions = np.ndarray[Any, np.dtype[np.int64]]


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


def read_metrics(statuses: Sequence[RunStatus]) -> Metrics:
    """Read the metrics of the completed runs among some runs.

    Files of runs that are not completed are not looked at: such a file is a partial one, or an earlier attempt's.
    A file counts as the run's if it is a JSON object of finite numbers, nulls, bools, texts and lists (nested
    objects are flattened with ``/``), has the SHA-256 that was observed at completion, and does not name another
    run or config as its origin. Never raises for what a file holds.

    Args:
        statuses: the runs, completed or not.
    """
    groups: dict[tuple[str, ...], _Group] = {}
    columns = _Columns(statuses)
    flawed: dict[int, Problem] = {}
    for position, status in enumerate(statuses):
        if status.state is not State.COMPLETED:
            continue
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
            columns.add_group(keys, groups.pop(keys))
    for keys, group in groups.items():
        columns.add_group(keys, group)
    numbers, others, mixed = columns.finish()
    problems = sorted([*flawed.items(), *mixed], key=lambda item: item[0])
    flaws = {position: problem.flaw for position, problem in flawed.items()}
    return Metrics(
        numbers,
        others,
        flaws,
        tuple(problem for _, problem in problems),
        columns.marked(),
        columns.null_reasons,
    )


class _Columns:
    """Columns under construction."""

    def __init__(self, statuses: Sequence[RunStatus]) -> None:
        self._statuses = statuses
        self._numbers: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
        self._others: dict[str, list[Json]] = {}
        self._marked: set[str] = set()
        self.null_reasons: dict[str, Counter[str]] = {}

    def add_group(self, keys: tuple[str, ...], group: _Group) -> None:
        """Take the values of some files with the same keys."""
        positions = np.array(group.positions)
        for offset, key in enumerate(keys):
            self._add(key, positions, group.values[offset :: len(keys)])

    def _add(self, key: str, positions: _Positions, values: list[Json]) -> None:
        """Take the values of one key for some runs."""
        if key.startswith(PROVENANCE_PREFIX):
            return
        if key.endswith(REASON_SUFFIX):
            reasons = self.null_reasons.setdefault(key.removesuffix(REASON_SUFFIX), Counter())
            reasons.update(str(value) for value in values if value is not None)
            return
        if key.endswith(COMPARABLE_SUFFIX):
            if False in values:
                self._marked.add(key.removesuffix(COMPARABLE_SUFFIX))
            return
        types = set(map(type, values))
        if types <= {float, int, type(None)}:
            self._add_numbers(key, positions, values)
            return
        if types & {float, int}:
            for wanted in (True, False):
                chosen = [i for i, value in enumerate(values) if (type(value) in (float, int)) is wanted]
                self._add(key, positions[chosen], [values[i] for i in chosen])
            return
        column = self._others.setdefault(key, [None] * len(self._statuses))
        for position, value in zip(positions.tolist(), values, strict=True):
            column[position] = value

    def _add_numbers(self, key: str, positions: _Positions, values: list[Json]) -> None:
        column = self._numbers.get(key)
        if column is None:
            column = self._numbers[key] = np.full(len(self._statuses), np.nan)
        column[positions] = np.array(values, dtype=np.float64)  # None becomes NaN

    def finish(
        self,
    ) -> tuple[dict[str, np.ndarray[Any, np.dtype[np.float64]]], dict[str, list[Json]], list[tuple[int, Problem]]]:
        """Return the numbers, the others, and a problem for each value that is text where other runs have a number."""
        mixed: list[tuple[int, Problem]] = []
        for key in self._numbers.keys() & self._others.keys():
            if np.isnan(self._numbers[key]).all():  # nulls, where other runs have a text
                del self._numbers[key]
                continue
            for position, value in enumerate(self._others.pop(key)):
                if value is not None:
                    status = self._statuses[position]
                    what = f"{key}: {str(value)[:40]!r} is a {kind_of(value)}, other runs have a number; left out"
                    path = f"{status.folder}/{METRICS_FILE}"
                    mixed.append((position, Problem(status.name, path, Flaw.NOT_A_NUMBER, what)))
        return self._numbers, self._others, mixed

    def marked(self) -> frozenset[str]:
        """Return the keys of which a run says, by a sibling, that they are not comparable."""
        return frozenset(self._marked & self._numbers.keys())

"""Runs that differ in a swept value and have the same results to the last digit: a value that may do nothing."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from slurmkit.aggregate.frame import Bools, Floats, axis_columns, metric_columns, usable
from slurmkit.aggregate.groups import group_rows
from slurmkit.aggregate.series_file import series_digest, varies_by_chance
from slurmkit.names import label_text
from slurmkit.records import Json, RunStatus

LEAST_NUMBERS = 4
"""So many different values that are no whole numbers have to agree: a few round ones (accuracy 1.0) do so by chance."""

_ODD = np.uint64(0x9E3779B97F4A7C15)
"""2 to the 64 over the golden ratio: the multiplier of Fibonacci hashing (Knuth, TAOCP 3, 6.4)."""
NOOP_COLUMNS = ("axes", "values", "same", "of", "with_series", "runs")


class _Values(NamedTuple):
    """Axes, and some combinations of their values as text."""

    axes: tuple[str, ...]
    texts: tuple[str, ...]


def suspected_noops(
    frame: pd.DataFrame, statuses: Sequence[RunStatus], axes: Mapping[str, Sequence[Json]]
) -> pd.DataFrame:
    """Find swept values that changed nothing: runs that differ in them, and agree in all results to the last digit.

    Compared are all metrics with numbers, times and the like left out, of usable runs; where these agree, what the
    runs logged (``history.jsonl``), too. The seed is a swept value like others: equal results of two seeds are one
    sample, not two.

    Columns: ``axes`` in which the runs differ, joined by ``,``; their ``values``, joined by `` = ``; ``same``: how
    many sets of runs, equal in all other axes, agree; ``of``: how many such sets there are; ``with_series``: how many
    of those that agree also logged series; ``runs``: names of the first that agree, a list.

    Args:
        frame: from `to_frame`, or some of its rows.
        statuses: the runs behind these rows, one each.
        axes: axis name to its values: the order of values.
    """
    names = axis_columns(frame)
    good = usable(frame)
    found: dict[_Values, list[list[int]]] = {}
    logged: Counter[_Values] = Counter()
    for equal in _equal_metrics(frame, good, names):
        for rows, has_series in _equal_series(equal, statuses, names):
            key = _differing(frame, rows, names)
            if key.axes:
                found.setdefault(key, []).append(rows)
                logged[key] += has_series
    table = [
        {
            "axes": ",".join(key.axes),
            "values": " = ".join(key.texts),
            "same": len(sets),
            "of": _comparable_sets(frame, good, key, axes),
            "with_series": logged[key],
            "runs": [str(frame["name"].iloc[row]) for row in sets[0]],
        }
        for key, sets in found.items()
    ]
    return pd.DataFrame(table, columns=list(NOOP_COLUMNS))


def _equal_metrics(frame: pd.DataFrame, good: Bools, names: Sequence[str]) -> Iterator[list[int]]:
    """Yield positions of usable rows whose compared metrics are equal, two or more each."""
    columns = [key for key in metric_columns(frame) if not varies_by_chance(key)]
    columns = [key for key in columns if key.rpartition("/")[2] not in names]
    rows = np.flatnonzero(good)
    mixed = np.zeros(len(rows), dtype=np.uint64)
    for key in columns:  # bits of a row into one number: equal rows have equal ones, and nearly no others do
        bits = frame[key].to_numpy(dtype=np.float64)[rows].view(np.uint64)
        mixed = (mixed ^ (mixed >> np.uint64(29)) ^ bits) * _ODD
    _, codes, counts = np.unique(mixed, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(counts[codes] > 1)
    by_code: dict[int, list[int]] = {}
    for row, code in zip(rows[repeated].tolist(), codes[repeated].tolist(), strict=True):
        by_code.setdefault(code, []).append(row)
    for members in by_code.values():
        exact: dict[bytes, list[int]] = {}
        for row, values in zip(members, frame[columns].iloc[members].to_numpy(dtype=np.float64), strict=True):
            if _tells(values):
                exact.setdefault(values.tobytes(), []).append(row)
        yield from (equal for equal in exact.values() if len(equal) > 1)


def _tells(values: Floats) -> bool:
    """Whether equal values can be no coincidence: enough of them are different and no whole numbers."""
    fractions = values[np.isfinite(values) & (values != np.round(values))]
    return len(np.unique(fractions)) >= LEAST_NUMBERS


def _equal_series(
    rows: Sequence[int], statuses: Sequence[RunStatus], names: Sequence[str]
) -> Iterator[tuple[list[int], bool]]:
    """Yield those of some rows that logged the same, two or more each, and whether they logged anything."""
    by_digest: dict[str, list[int]] = {}
    for row in rows:
        by_digest.setdefault(series_digest(statuses[row], names), []).append(row)
    for digest, equal in by_digest.items():
        if len(equal) > 1:
            yield equal, bool(digest)


def _differing(frame: pd.DataFrame, rows: Sequence[int], names: Sequence[str]) -> _Values:
    """Return the axes in which some rows differ, and the values that they have there."""
    texts = {name: [label_text(value) for value in frame[name].iloc[list(rows)].tolist()] for name in names}
    axes = tuple(name for name in names if len(set(texts[name])) > 1)
    return _Values(axes, tuple(dict.fromkeys("/".join(each) for each in zip(*(texts[a] for a in axes), strict=True))))


def _comparable_sets(frame: pd.DataFrame, good: Bools, key: _Values, axes: Mapping[str, Sequence[Json]]) -> int:
    """Count the sets of usable runs, equal in all other axes, that have all of some values."""
    values = group_rows(frame, key.axes, axes)
    first = frame[list(key.axes)].iloc[values.first]
    texts = ["/".join(map(label_text, row)) for row in first.itertuples(index=False, name=None)]
    wanted = np.array([text in key.texts for text in texts])[values.codes] & good
    others = group_rows(frame, [name for name in axis_columns(frame) if name not in key.axes])
    pairs = np.unique(others.codes[wanted] * len(values) + values.codes[wanted])
    return int((np.bincount(pairs // len(values), minlength=1) == len(key.texts)).sum())

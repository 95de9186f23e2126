"""Rows of a frame in groups, and the mean of each group with its interval."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from slurmkit.aggregate.frame import Floats, Ints, axis_column, axis_columns
from slurmkit.aggregate.student import t_half_width_factor
from slurmkit.errors import UsageError
from slurmkit.records import Json

_MOST_GAPS = 16
"""So many times the rows: more possible groups than that are sorted, as counting them would take too much memory."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Rows of a frame grouped by columns.

    Attributes:
        codes: (rows,) number of each row's group, from 0, in the order of the axes' values.
        first: (groups,) position of a group's first row.
    """

    codes: Ints
    first: Ints

    def __len__(self) -> int:
        return len(self.first)


def group_rows(frame: pd.DataFrame, columns: Sequence[str], axes: Mapping[str, Sequence[Json]] | None = None) -> Groups:
    """Group the rows of a frame by columns.

    Args:
        frame: from `to_frame`, or some of its rows.
        columns: what to group by; none makes one group of all.
        axes: axis name to its values: their order. None: the order in which they first appear.

    Raises:
        UsageError: the frame has no such column.
    """
    codes: Ints = np.zeros(len(frame), dtype=np.int64)
    size = min(len(frame), 1)
    order = {axis_column(name): values for name, values in (axes or {}).items()}
    for name in columns:
        if name not in frame.columns:
            raise UsageError(f"axis {name!r}: there is none of that name. There are: {', '.join(axis_columns(frame))}.")
        own, values = pd.factorize(frame[name], use_na_sentinel=False)
        if name in order:
            own = _places(values, order[name])[own]
        codes, size = _without_gaps(codes * len(values) + own, size * len(values))
    first: Ints = np.empty(size, dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return Groups(codes, first)


def _places(values: Iterable[Json], order: Sequence[Json]) -> Ints:
    """Return (values,): the place of each when they are in some order; those that it does not know come last."""
    rank = {value: position for position, value in enumerate(order)}
    ranks = [rank.get(None if _is_missing(value) else value, len(rank)) for value in values]
    places = np.empty(len(ranks), dtype=np.int64)
    places[np.argsort(np.array(ranks, dtype=np.int64), kind="stable")] = np.arange(len(ranks))
    return places


def _without_gaps(codes: Ints, size: int) -> tuple[Ints, int]:
    """Return codes from 0 on without gaps, in the same order, and how many different ones there are.

    Args:
        codes: (rows,) below `size`.
        size: how many there may be.
    """
    if size > _MOST_GAPS * len(codes):
        found, dense = np.unique(codes, return_inverse=True)
        return dense.astype(np.int64), len(found)
    present = np.bincount(codes, minlength=size) > 0  # a count is quicker than a sort
    return (np.cumsum(present) - 1)[codes], int(present.sum())


def _is_missing(value: Json) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def group_means(values: Floats, codes: Ints, size: int) -> tuple[Ints, Floats]:
    """Return number and mean of each group.

    Args:
        values: (rows,) finite.
        codes: (rows,) the group of each.
        size: number of groups.

    Returns:
        (size,) n; (size,) mean, NaN where n is 0.
    """
    n: Ints = np.bincount(codes, minlength=size)
    first = np.full(size, np.nan)
    first[codes[::-1]] = values[::-1]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        # From a group's first value on: equal values have exactly that mean and no spread.
        return n, first + np.bincount(codes, values - first[codes], size) / n


def mean_interval(values: Floats, codes: Ints, size: int) -> tuple[Ints, Floats, Floats]:
    """Return number, mean and half-width of the mean's 95 % t-interval of each group.

    Args:
        values: (rows,) finite.
        codes: (rows,) the group of each.
        size: number of groups.

    Returns:
        (size,) n; (size,) mean, NaN where n is 0; (size,) half-width t(n - 1) s / sqrt(n), NaN where n is below 2.
    """
    n, mean = group_means(values, codes, size)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        variance = np.bincount(codes, (values - mean[codes]) ** 2, size) / (n - 1)
        factor = np.full(size, np.nan)
        for count in np.unique(n[n > 1]).tolist():
            factor[n == count] = t_half_width_factor(count - 1)
        half_width = factor * np.sqrt(variance / n)
    return n, mean, half_width


def row_each(labels: pd.DataFrame, metrics: Sequence[str], figures: Sequence[Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """Return a table with a row for each row of some labels and each metric: the metrics of one after the other.

    Args:
        labels: what each row is about.
        metrics: names, for the column ``metric``.
        figures: of each metric: column to (labels,) values.
    """
    rows = np.repeat(np.arange(len(labels)), len(metrics))
    columns = {name: np.stack([own[name] for own in figures], axis=1).ravel() for name in figures[0]}
    about = {str(name): labels[name].take(rows).array for name in labels.columns}
    return pd.DataFrame({**about, "metric": list(metrics) * len(labels), **columns})

"""Runs as a DataFrame, and cells of it as means over seeds with their intervals and their completeness."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from slurmkit.aggregate.read import Metrics, read_metrics
from slurmkit.aggregate.student import t_half_width_factor
from slurmkit.errors import UsageError
from slurmkit.records import Json, RunStatus
from slurmkit.states import State

RUN_COLUMNS = ("id", "name", "state", "reason", "attempt", "commit")
"""Columns of a run's own, between its axes and its metrics."""

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


def to_frame(
    statuses: Sequence[RunStatus], axes: Mapping[str, Sequence[Json]], *, metrics: Metrics | None = None
) -> pd.DataFrame:
    """Return one row a run: its axis values, where it stands, its metrics.

    Columns: the axes in the definition's order; `RUN_COLUMNS`; the metrics by name. Numbers are float64, NaN where a
    run has none (it is not completed, or its metrics file cannot be used: then ``reason`` says which, such as
    ``metrics_truncated``). An axis with the name of one of `RUN_COLUMNS` becomes ``axis/<name>``, a metric with the
    name of any other column ``metric/<name>``.

    Args:
        statuses: the runs, in the definition's order.
        axes: axis name to its values, in the definition's order.
        metrics: what `read_metrics` gave for the same runs; None reads the files now.
    """
    if metrics is None:
        metrics = read_metrics(statuses)
    names = list(dict.fromkeys([*axes, *(name for keys in {tuple(s.axes) for s in statuses} for name in keys)]))
    columns: dict[str, Any] = {axis_column(name): _axis_values([s.axes.get(name) for s in statuses]) for name in names}
    reasons = [None if s.reason is None else s.reason.value for s in statuses]
    for position, flaw in metrics.flaws.items():
        reasons[position] = flaw.value
    columns["id"] = pd.array([s.id for s in statuses], dtype="str")
    columns["name"] = pd.array([s.name for s in statuses], dtype="str")
    columns["state"] = pd.array([s.state.value for s in statuses], dtype="str")
    columns["reason"] = pd.array(reasons, dtype="str")
    columns["attempt"] = np.array([s.attempt for s in statuses], dtype=np.int64)
    columns["commit"] = pd.array([s.commit for s in statuses], dtype="str")
    taken = set(columns)
    for key in sorted(metrics.numbers.keys() | metrics.others.keys()):
        column = metrics.numbers[key] if key in metrics.numbers else _other_values(metrics.others[key])
        columns[f"metric/{key}" if key in taken else key] = column
    return pd.DataFrame(columns)


def axis_column(axis: str) -> str:
    """Return the name of an axis's column."""
    return f"axis/{axis}" if axis in RUN_COLUMNS else axis


def axis_columns(frame: pd.DataFrame) -> list[str]:
    """Return the axis columns of a frame, in the definition's order."""
    names = [str(name) for name in frame.columns]
    return names[: names.index(RUN_COLUMNS[0])]


def metric_columns(frame: pd.DataFrame) -> list[str]:
    """Return the columns of a frame that hold metrics with numbers, in order."""
    names = [str(name) for name in frame.columns]
    return [name for name in names[names.index(RUN_COLUMNS[-1]) + 1 :] if frame[name].dtype == np.float64]


def _axis_values(values: list[Json]) -> Any:
    """Return a column: numbers, bools or texts as such, and as objects where kinds are mixed or missing."""
    types = set(map(type, values))
    if types and (types <= {int, float} or types in ({bool}, {str})):
        return pd.Series(values)
    return pd.Series(values, dtype=object)


def _other_values(values: list[Json]) -> Any:
    types = set(map(type, values)) - {type(None)}
    dtype = "boolean" if types == {bool} else "str" if types == {str} else object
    return pd.Series(values, dtype=dtype)


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
    order = {axis_column(name): values for name, values in (axes or {}).items()}
    for name in columns:
        if name not in frame.columns:
            raise UsageError(f"axis {name!r}: there is none of that name. There are: {', '.join(axis_columns(frame))}.")
        own, values = pd.factorize(frame[name], use_na_sentinel=False)
        rank = {value: position for position, value in enumerate(order.get(name, ()))}
        places = [rank.get(None if _is_missing(value) else value, len(rank)) for value in values]
        position = np.empty(len(places), dtype=np.int64)
        position[np.argsort(np.array(places, dtype=np.int64), kind="stable")] = np.arange(len(places))
        codes = np.unique(codes * max(len(places), 1) + position[own], return_inverse=True)[1]
    _, first, codes = np.unique(codes, return_index=True, return_inverse=True)
    return Groups(codes.astype(np.int64), first.astype(np.int64))


def _is_missing(value: Json) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def usable(frame: pd.DataFrame) -> Bools:
    """Return (rows,): which runs completed and left metrics that can be used."""
    return ((frame["state"] == State.COMPLETED.value) & frame["reason"].isna()).to_numpy(dtype=np.bool_)


def completeness(
    frame: pd.DataFrame, by: Sequence[str], axes: Mapping[str, Sequence[Json]] | None = None
) -> pd.DataFrame:
    """Return one row a cell: the columns of `by`, ``completed`` runs with metrics, and ``planned`` runs."""
    groups = group_rows(frame, by, axes)
    cells = frame[list(by)].iloc[groups.first].reset_index(drop=True)
    cells["completed"] = np.bincount(groups.codes[usable(frame)], minlength=len(groups))
    cells["planned"] = np.bincount(groups.codes, minlength=len(groups))
    return cells


def missing_runs(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return the runs without metrics: the columns of `by`, ``state``, ``reason``, and how many ``runs``."""
    columns = [*by, "state", "reason"]
    rows = frame.loc[~usable(frame), columns]
    groups = group_rows(rows, columns)
    missing = rows.iloc[groups.first].reset_index(drop=True)
    missing["runs"] = np.bincount(groups.codes, minlength=len(groups))
    return missing


def left_out_axes(frame: pd.DataFrame, by: Sequence[str], seed_axis: str | None) -> list[str]:
    """Return the axes that a mean by some columns runs over, the seed excepted: those with more than one value."""
    kept = {*by, *([axis_column(seed_axis)] if seed_axis else [])}
    return [name for name in axis_columns(frame) if name not in kept and frame[name].nunique(dropna=False) > 1]


def summarise(
    frame: pd.DataFrame,
    by: Sequence[str],
    metrics: Sequence[str],
    seed_axis: str | None,
    *,
    axes: Mapping[str, Sequence[Json]] | None = None,
) -> pd.DataFrame:
    """Return means: one row for each cell and metric.

    Where `by` names all axes but the seed, a mean is over a cell's seeds and comes with its 95 % t-interval. Where it
    leaves out others (tasks, say), each full cell counts once, there is no interval (the spread over tasks is no
    uncertainty), and as soon as the groups' means are over different cells, the mean over the cells that all groups
    have stands beside: only those means can be compared.

    Columns: those of `by`; ``metric``; ``mean``; ``half_width`` of the interval (NaN: n is 1, or no seeds); ``n`` runs;
    ``cells`` that the mean is over; ``uneven``: whether groups are over different cells in this metric;
    ``common_mean`` and ``common_cells``: over those that all have; ``completed`` and ``planned`` runs of the cell.

    Args:
        frame: from `to_frame`, or some of its rows.
        by: axis columns.
        metrics: metric columns.
        seed_axis: the axis whose values only repeat; None: there is none.
        axes: axis name to its values: the order of the rows.
    """
    groups = group_rows(frame, by, axes)
    left_out = left_out_axes(frame, by, seed_axis)
    units = group_rows(frame, left_out)
    cells = completeness(frame, by, axes)
    usable_rows = usable(frame)
    parts: list[pd.DataFrame] = []
    for metric in metrics:
        values: Floats = frame[metric].to_numpy(dtype=np.float64)
        good = usable_rows & np.isfinite(values)
        part = cells[list(by)].copy()
        part["metric"] = metric
        if left_out:
            _mean_over_cells(part, values[good], groups.codes[good], units.codes[good])
        else:
            n, mean, half_width = mean_interval(values[good], groups.codes[good], len(groups))
            part = part.assign(mean=mean, half_width=half_width, n=n, cells=np.minimum(n, 1))
            part = part.assign(uneven=False, common_mean=mean, common_cells=part["cells"])
        parts.append(part.assign(completed=cells["completed"], planned=cells["planned"]))
    columns = ["metric", "mean", "half_width", "n", "cells", "uneven", "common_mean", "common_cells"]
    columns += ["completed", "planned"]
    if not parts:
        return pd.DataFrame(columns=[*by, *columns])
    tidy = pd.concat(parts, ignore_index=True)
    by_cell = np.argsort(np.tile(np.arange(len(groups)), len(parts)), kind="stable")
    return tidy.iloc[by_cell].reset_index(drop=True)[[*by, *columns]]


def _mean_over_cells(part: pd.DataFrame, values: Floats, groups: Ints, units: Ints) -> None:
    """Add the columns of a mean over left-out axes to one row a group.

    Args:
        part: (groups,) rows to add to.
        values: (runs,) the metric.
        groups: (runs,) the group of each run.
        units: (runs,) the combination of left-out axis values of each run.
    """
    size = len(part)
    width = int(units.max(initial=0)) + 1
    pairs, cell_of_run = np.unique(groups * width + units, return_inverse=True)
    _, cell_means, _ = mean_interval(values, cell_of_run, len(pairs))
    cell_group, cell_unit = pairs // width, pairs % width
    cells, means, _ = mean_interval(cell_means, cell_group, size)
    common = np.bincount(cell_unit, minlength=width) == np.count_nonzero(cells)
    shared = common[cell_unit]
    common_n, common_mean, _ = mean_interval(cell_means[shared], cell_group[shared], size)
    uneven = bool((cells[cells > 0] != common.sum()).any())
    part["mean"], part["half_width"] = means, np.nan
    part["n"], part["cells"] = np.bincount(groups, minlength=size), cells
    part["uneven"] = uneven
    part["common_mean"], part["common_cells"] = common_mean, common_n


def mean_interval(values: Floats, codes: Ints, size: int) -> tuple[Ints, Floats, Floats]:
    """Return number, mean and half-width of the mean's 95 % t-interval of each group.

    Args:
        values: (rows,) finite.
        codes: (rows,) the group of each.
        size: number of groups.

    Returns:
        (size,) n; (size,) mean, NaN where n is 0; (size,) half-width t(n - 1) s / sqrt(n), NaN where n is below 2.
    """
    n: Ints = np.bincount(codes, minlength=size)
    first = np.full(size, np.nan)
    first[codes[::-1]] = values[::-1]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        # From a group's first value on: equal values have exactly that mean and no spread.
        mean = first + np.bincount(codes, values - first[codes], size) / n
        variance = np.bincount(codes, (values - mean[codes]) ** 2, size) / (n - 1)
        factor = np.full(size, np.nan)
        for count in np.unique(n[n > 1]).tolist():
            factor[n == count] = t_half_width_factor(count - 1)
        half_width = factor * np.sqrt(variance / n)
    return n, mean, half_width


def mixed_commits(frame: pd.DataFrame) -> dict[str, int]:
    """Return commit to number of usable runs, most first, if there is more than one; empty otherwise."""
    counts = frame.loc[usable(frame), "commit"].value_counts()
    return {str(commit): int(count) for commit, count in counts.items()} if len(counts) > 1 else {}

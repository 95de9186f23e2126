"""Cells of a frame: means over seeds with their intervals, completeness, and one axis against another."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from slurmkit.aggregate.frame import Bools, Floats, Ints, axis_column, axis_columns, usable
from slurmkit.aggregate.groups import Groups, group_means, group_rows, mean_interval, row_each
from slurmkit.names import label_text
from slurmkit.records import Json


def completeness(
    frame: pd.DataFrame, by: Sequence[str], axes: Mapping[str, Sequence[Json]] | None = None
) -> pd.DataFrame:
    """Return one row a cell: the columns of `by`, ``completed`` runs with metrics, and ``planned`` runs."""
    return _counted(frame, by, group_rows(frame, by, axes))


def _counted(frame: pd.DataFrame, by: Sequence[str], groups: Groups) -> pd.DataFrame:
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
    """Return the axes that a mean by some columns runs over, the seed excepted: those with several values in a group.

    An axis that follows from the columns (the block from its setting, a zipped axis from the other) is none of them.
    """
    kept = {*by, *([axis_column(seed_axis)] if seed_axis else [])}
    groups = len(group_rows(frame, by))
    others = [name for name in axis_columns(frame) if name not in kept]
    return [name for name in others if len(group_rows(frame, [*by, name])) > groups]


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
    cells = _counted(frame, by, groups)
    usable_rows = usable(frame)
    columns = ["metric", "mean", "half_width", "n", "cells", "uneven", "common_mean", "common_cells"]
    columns += ["completed", "planned"]
    if not metrics:
        return pd.DataFrame(columns=[*by, *columns])
    runs = {name: cells[name].to_numpy() for name in ("completed", "planned")}
    figures: list[dict[str, Floats | Ints | Bools]] = []
    for metric in metrics:
        values: Floats = frame[metric].to_numpy(dtype=np.float64)
        good = usable_rows & np.isfinite(values)
        if left_out:
            means = _mean_over_cells(values[good], groups.codes[good], units.codes[good], len(groups))
        else:
            means = _mean_over_seeds(values[good], groups.codes[good], len(groups))
        figures.append(means | runs)
    return row_each(cells[list(by)], metrics, figures)[[*by, *columns]]


def _mean_over_seeds(values: Floats, groups: Ints, size: int) -> dict[str, Floats | Ints | Bools]:
    """Return the columns of a mean over the seeds of a cell, (size,) each.

    Args:
        values: (runs,) the metric.
        groups: (runs,) the group of each run.
        size: number of groups.
    """
    n, mean, half_width = mean_interval(values, groups, size)
    cells = np.minimum(n, 1)
    return {
        "mean": mean,
        "half_width": half_width,
        "n": n,
        "cells": cells,
        "uneven": np.zeros(size, dtype=np.bool_),
        "common_mean": mean,
        "common_cells": cells,
    }


def _mean_over_cells(values: Floats, groups: Ints, units: Ints, size: int) -> dict[str, Floats | Ints | Bools]:
    """Return the columns of a mean over left-out axes, (size,) each.

    Args:
        values: (runs,) the metric.
        groups: (runs,) the group of each run.
        units: (runs,) the combination of left-out axis values of each run.
        size: number of groups.
    """
    width = int(units.max(initial=0)) + 1
    pairs, cell_of_run = np.unique(groups * width + units, return_inverse=True)
    _, cell_means = group_means(values, cell_of_run, len(pairs))
    cell_group, cell_unit = pairs // width, pairs % width
    cells, means = group_means(cell_means, cell_group, size)
    common = np.bincount(cell_unit, minlength=width) == np.count_nonzero(cells)
    shared = common[cell_unit]
    common_n, common_mean = group_means(cell_means[shared], cell_group[shared], size)
    return {
        "mean": means,
        "half_width": np.full(size, np.nan),
        "n": np.bincount(groups, minlength=size),
        "cells": cells,
        "uneven": np.full(size, bool((cells[cells > 0] != common.sum()).any())),
        "common_mean": common_mean,
        "common_cells": common_n,
    }


def pivot(summary: pd.DataFrame, rows: Sequence[str], columns: Sequence[str], metric: str, value: str) -> pd.DataFrame:
    """Return one metric of a summary with some axes down and others across.

    Columns: those of `rows`; then one for each combination of values of `columns`, named by these values joined by
    ``/``, in their order of first appearance. A cell that no run is planned for is NaN.

    Args:
        summary: from `summarise`, by `rows` and `columns`.
        rows: axis columns that make the rows; none: one row.
        columns: axis columns that make the columns.
        metric: which of its metrics.
        value: which of its columns, such as ``mean``.
    """
    part = summary[summary["metric"] == metric]
    down, across = group_rows(part, rows), group_rows(part, columns)
    labels = part[list(columns)].iloc[across.first].itertuples(index=False, name=None)
    names: list[str] = ["/".join(map(label_text, row)) for row in labels]
    order = np.argsort(across.first, kind="stable")
    cells = np.full((len(down), len(across)), np.nan)
    cells[down.codes, across.codes] = part[value].to_numpy(dtype=np.float64)
    table = part[list(rows)].iloc[np.sort(down.first)].reset_index(drop=True)
    by_first = np.argsort(down.first, kind="stable")
    ordered: list[str] = [names[int(place)] for place in order]
    return pd.concat([table, pd.DataFrame(cells[by_first][:, order], columns=ordered)], axis=1)

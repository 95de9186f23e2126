"""The best settings of each group, and of each block: what a ranking may say, and what it may not."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from slurmkit.aggregate.choose import match_metrics
from slurmkit.aggregate.frame import Floats, Ints, axis_column, axis_columns, usable
from slurmkit.aggregate.groups import group_rows, mean_interval
from slurmkit.aggregate.metric_info import Direction, MetricInfo
from slurmkit.aggregate.table import left_out_axes
from slurmkit.definition.grid import BLOCK, SETTING
from slurmkit.errors import UsageError
from slurmkit.names import did_you_mean
from slurmkit.records import Json


def parse_ranking(text: str, infos: Mapping[str, MetricInfo], *, option: str) -> tuple[MetricInfo, Direction]:
    """Read ``alignment_one_to_one:max`` into one metric and which of its values are better.

    Without ``:max`` or ``:min`` the metric's own direction counts.

    Args:
        text: what was asked.
        infos: column to what is known, of all metrics.
        option: how messages call what was asked.

    Raises:
        UsageError: no metric or several have that name, or nothing says which values are better.
    """
    name, colon, word = text.rpartition(":")
    if not colon or word not in list(Direction):
        name, word = text, ""
    found = match_metrics([name], list(infos), option=option)
    found = [key for key in found if key == name] or found
    if len(found) > 1:
        raise UsageError(f"{option} {text}: {len(found)} metrics match: {', '.join(found[:4])}. Name one.")
    info = infos[found[0]]
    direction = Direction(word) if word else info.direction
    if direction is None:
        raise UsageError(f"{option} {text}: which values are better is not known. Write {name}:max or {name}:min.")
    return info, direction


def refuse_ranking(info: MetricInfo, frame: pd.DataFrame, per: Sequence[str], seed_axis: str | None) -> None:
    """Refuse to rank settings by a metric that means something else in each of them.

    Within one setting, its seeds can be ranked by any metric.

    Args:
        info: the metric.
        frame: from `to_frame`, or some of its rows.
        per: axis columns that make a group of the ranking.
        seed_axis: the axis whose values only repeat; None: there is none.

    Raises:
        UsageError: the metric is not comparable, and a group holds several settings; gives the reason.
    """
    over = [] if info.comparable else left_out_axes(frame, per, seed_axis)
    if over:
        raise UsageError(
            f"{info.key}: cannot rank values of {', '.join(over)}: {info.because}. "
            "Rank by a metric that means the same in all of them, or add --anyway."
        )


def best_per_group(
    frame: pd.DataFrame,
    metric: str,
    direction: Direction,
    per: Sequence[str],
    seed_axis: str | None,
    *,
    axes: Mapping[str, Sequence[Json]] | None = None,
    top: int = 1,
) -> pd.DataFrame:
    """Return the best cells of each group, by the mean over their seeds.

    Columns: those of `per`; ``rank`` from 1 (equal means have the same one); the other axes but the seed; ``metric``;
    ``value`` (mean over the cell's seeds), ``half_width`` of its 95 % t-interval (NaN: n is 1) and ``n`` seeds;
    ``cells`` with a value in the group; ``id`` and ``name`` of the cell's best run and its ``run_value``. A group
    without any value has no row. Equal cells stand in the definition's order.

    Args:
        frame: from `to_frame`, or some of its rows.
        metric: metric column.
        direction: which values are better.
        per: axis columns that make a group; none: one group of all.
        seed_axis: the axis whose values only repeat; None: there is none.
        axes: axis name to its values: the order of the groups.
        top: how many cells of each group; those that are equal to the last of them come, too.
    """
    seed = None if seed_axis is None else axis_column(seed_axis)
    others = [name for name in axis_columns(frame) if name not in per and name != seed]
    columns = [*per, "rank", *others, "metric", "value", "half_width", "n", "cells", "id", "name", "run_value"]
    rows = frame.iloc[np.flatnonzero(usable(frame) & np.isfinite(frame[metric].to_numpy(dtype=np.float64)))]
    if rows.empty:
        return pd.DataFrame(columns=columns)
    sign = 1.0 if direction is Direction.MIN else -1.0
    values: Floats = rows[metric].to_numpy(dtype=np.float64)
    cells = group_rows(rows, [*per, *others], axes)
    n, mean, half_width = mean_interval(values, cells.codes, len(cells))
    by_value = np.lexsort((np.arange(len(rows)), sign * values, cells.codes))
    best_run = by_value[np.searchsorted(cells.codes[by_value], np.arange(len(cells)))]
    table = rows[[*per, *others, "id", "name"]].iloc[best_run].reset_index(drop=True)
    table = table.assign(metric=metric, value=mean, half_width=half_width, n=n, run_value=values[best_run])
    groups = group_rows(table, per, axes)
    table["cells"] = np.bincount(groups.codes, minlength=len(groups))[groups.codes]
    order = np.lexsort((np.arange(len(table)), sign * mean, groups.codes))
    rank = _ranks(groups.codes[order], mean[order])
    table = table.iloc[order].assign(rank=rank)[columns]
    return table.iloc[np.flatnonzero(rank <= top)].reset_index(drop=True)


def _ranks(groups: Ints, values: Floats) -> Ints:
    """Return the rank of each value in its group, from 1; equal values have the same, and the next ones are skipped.

    Args:
        groups: (rows,) the group of each, sorted.
        values: (rows,) sorted within each group, best first.
    """
    places = np.arange(len(groups))
    new_group = np.diff(groups, prepend=-1) != 0
    new_value = new_group | (np.diff(values, prepend=np.nan) != 0)
    first_of_group = np.maximum.accumulate(np.where(new_group, places, 0))
    first_of_value = np.maximum.accumulate(np.where(new_value, places, 0))
    return (first_of_value - first_of_group + 1).astype(np.int64)


def without_block(frame: pd.DataFrame, blocks: Sequence[str]) -> pd.DataFrame:
    """Return the rows of the other blocks.

    Raises:
        UsageError: the sweep has no blocks, or none of that name.
    """
    if BLOCK not in axis_columns(frame):
        raise UsageError("--without-block: the sweep has no blocks (settings make them). Use --where.")
    known = [str(block) for block in frame[BLOCK].unique()]
    for block in blocks:
        if block not in known:
            raise UsageError(f"--without-block {block}: no such block. {did_you_mean(block, known)}")
    return frame[~frame[BLOCK].isin(list(blocks))]


def block_maxima(
    frame: pd.DataFrame,
    metric: str,
    direction: Direction,
    per: Sequence[str],
    seed_axis: str | None,
    *,
    axes: Mapping[str, Sequence[Json]] | None = None,
) -> pd.DataFrame:
    """Return the best setting of each block in each group, by the mean over its seeds.

    Columns: those of `best_per_group` by `per` and the block, without ``rank``; of settings that are equal the first.
    A block without any value in a group has no row there.

    Args:
        frame: from `to_frame`, or some of its rows; it has blocks.
        metric: metric column.
        direction: which values are better.
        per: axis columns that make a group, beside the block.
        seed_axis: the axis whose values only repeat; None: there is none.
        axes: axis name to its values: the order of groups and blocks.

    Raises:
        UsageError: the sweep has no blocks.
    """
    if BLOCK not in axis_columns(frame):
        raise UsageError("--block-maxima: the sweep has no blocks (settings make them). Use --best METRIC --per AXIS.")
    by = [*(name for name in per if name not in {BLOCK, SETTING}), BLOCK]
    best = best_per_group(frame, metric, direction, by, seed_axis, axes=axes)
    return best.drop_duplicates(by).drop(columns="rank").reset_index(drop=True)


def leading_blocks(maxima: pd.DataFrame, direction: Direction) -> pd.DataFrame:
    """Return, for each group of `block_maxima`, the best block and the range of the others.

    Columns: those that make a group; ``block``, ``setting`` and ``value`` of the best; ``others`` (how many blocks);
    ``others_low`` and ``others_high`` of their maxima and ``lead``: how much the best is better than the next of them
    (NaN: there is no other).

    Args:
        maxima: from `block_maxima`.
        direction: which values are better.
    """
    per = [str(name) for name in maxima.columns[: list(maxima.columns).index(BLOCK)]]
    sign = 1.0 if direction is Direction.MIN else -1.0
    groups = group_rows(maxima, per)
    values: Floats = maxima["value"].to_numpy(dtype=np.float64)
    order = np.lexsort((np.arange(len(maxima)), sign * values, groups.codes))
    sizes = np.bincount(groups.codes, minlength=len(groups))
    starts = np.cumsum(sizes) - sizes
    table = maxima[[*per, BLOCK, SETTING, "value"]].iloc[order[starts]].reset_index(drop=True)
    next_best, worst = (np.full(len(groups), np.nan) for _ in range(2))
    several = sizes > 1
    next_best[several] = values[order[starts[several] + 1]]
    worst[several] = values[order[starts[several] + sizes[several] - 1]]
    table["others"] = sizes - 1
    table["others_low"], table["others_high"] = np.minimum(next_best, worst), np.maximum(next_best, worst)
    table["lead"] = np.abs(table["value"] - next_best)
    return table

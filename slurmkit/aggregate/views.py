"""What can be asked of an aggregation beside its means: rankings, block maxima, fold changes, one axis by another."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from slurmkit.aggregate.aggregation import Aggregation
from slurmkit.aggregate.best import (
    best_per_group,
    block_maxima,
    leading_blocks,
    parse_ranking,
    refuse_ranking,
    without_block,
)
from slurmkit.aggregate.folds import fold_changes
from slurmkit.aggregate.format import NO_VALUE, clean, format_number
from slurmkit.aggregate.frame import axis_column, axis_columns
from slurmkit.aggregate.metric_info import Direction, MetricInfo
from slurmkit.aggregate.table import left_out_axes, pivot, summarise
from slurmkit.aggregate.text import TextTable, axis_texts, baseline_text, mean_texts
from slurmkit.definition.grid import BLOCK, SETTING
from slurmkit.errors import UsageError
from slurmkit.names import did_you_mean


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asked to see.

    Attributes:
        best: ``METRIC:max`` to rank settings by; None: no ranking.
        per: axes that make a group of the ranking; None: those that the baseline does not name.
        top: how many settings of each group.
        without_blocks: blocks to leave out of a second ranking beside the first.
        block_maxima: ``METRIC:max`` of which to show each block's best; None: not asked.
        pivots: ``ROWS:COLUMNS``, axes joined by commas.
        folds: whether to show fold changes against the baseline.
        anyway: rank also by a metric that is not comparable.
    """

    best: str | None = None
    per: tuple[str, ...] | None = None
    top: int = 1
    without_blocks: tuple[str, ...] = ()
    block_maxima: str | None = None
    pivots: tuple[str, ...] = ()
    folds: bool = False
    anyway: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """One answer.

    Attributes:
        name: what it is, as the JSON document calls it.
        table: the numbers.
        text: the same for readers.
    """

    name: str
    table: pd.DataFrame
    text: TextTable


def make_views(aggregation: Aggregation, request: Request) -> list[View]:
    """Answer a request.

    Raises:
        UsageError: an axis, metric or block that does not exist, or a ranking by a metric that is not comparable.
    """
    views: list[View] = []
    if request.best is not None:
        views += _rankings(aggregation, request, request.best)
    elif request.without_blocks:
        raise UsageError("--without-block: leaves blocks out of a ranking. Add --best METRIC:max.")
    if request.block_maxima is not None:
        views += _maxima(aggregation, request, request.block_maxima)
    for text in request.pivots:
        views += _pivots(aggregation, text)
    if request.folds:
        views.append(_folds(aggregation))
    return views


def group_axes(aggregation: Aggregation, per: Sequence[str] | None) -> list[str]:
    """Return the axes that make a group of a ranking: those given, or those that settings are matched on.

    Raises:
        UsageError: an axis that does not exist.
    """
    known = axis_columns(aggregation.frame)
    if per is None:
        settings = {*aggregation.baseline, aggregation.seed_axis, BLOCK, SETTING}
        return [name for name in known if name not in settings] if aggregation.baseline or BLOCK in known else []
    return _axes(known, per, "--per")


def _axes(known: Sequence[str], names: Sequence[str], option: str) -> list[str]:
    chosen = list(dict.fromkeys(axis_column(name.strip()) for name in names if name.strip()))
    for name in chosen:
        if name not in known:
            raise UsageError(f"{option}: no axis {name!r}. {did_you_mean(name, known)}")
    return chosen


def _ranked(
    aggregation: Aggregation, request: Request, text: str, option: str
) -> tuple[MetricInfo, Direction, list[str], list[str]]:
    """Return metric, direction, the axes of a group, and what a reader has to know."""
    info, direction = parse_ranking(text, aggregation.infos, option=option)
    per = group_axes(aggregation, request.per)
    if not request.anyway:
        refuse_ranking(info, aggregation.frame, per, aggregation.seed_axis)
    notes = [] if info.comparable else [f"Ranked although {info.label} is not comparable: {info.because}."]
    return info, direction, per, notes


def _rankings(aggregation: Aggregation, request: Request, text: str) -> list[View]:
    info, direction, per, notes = _ranked(aggregation, request, text, "--best")
    best = best_per_group(
        aggregation.frame, info.key, direction, per, aggregation.seed_axis, axes=aggregation.axes, top=request.top
    )
    views = [_ranking("best", f"Best {info.label} ({direction})", aggregation, best, per, info, notes)]
    if request.without_blocks:
        rest = without_block(aggregation.frame, request.without_blocks)
        best = best_per_group(
            rest, info.key, direction, per, aggregation.seed_axis, axes=aggregation.axes, top=request.top
        )
        left_out = ", ".join(request.without_blocks)
        title = f"Best {info.label} ({direction}) without {left_out}"
        views = [replace(view, table=view.table.assign(without="")) for view in views]
        views.append(_ranking("best", title, aggregation, best.assign(without=left_out), per, info, notes))
    return views


def _ranking(
    name: str,
    title: str,
    aggregation: Aggregation,
    best: pd.DataFrame,
    per: Sequence[str],
    info: MetricInfo,
    notes: Sequence[str],
) -> View:
    """Return cells with their mean, from `best_per_group` or `block_maxima`, as a table to read."""
    first = [*per, *(axis for axis in axis_columns(aggregation.frame) if axis in best.columns and axis not in per)]
    labels = axis_texts(aggregation, best, first)
    columns = zip(*(best[column].tolist() for column in ("value", "half_width", "n", "cells", "name")), strict=True)
    rows = [
        [*own, f"{info.estimate(value, half)} (n={n})", str(cells), clean(run)]
        for own, (value, half, n, cells, run) in zip(labels, columns, strict=True)
    ]
    headers = [*map(clean, first), clean(info.label), "of", "run"]
    about = "Mean over a setting's n seeds; of: settings with a value; run: the best one of the setting."
    return View(name, best, TextTable(clean(title), headers, rows, len(first), [about, *notes]))


def _maxima(aggregation: Aggregation, request: Request, text: str) -> list[View]:
    info, direction, per, notes = _ranked(aggregation, request, text, "--block-maxima")
    maxima = block_maxima(aggregation.frame, info.key, direction, per, aggregation.seed_axis, axes=aggregation.axes)
    per = [name for name in per if name not in {BLOCK, SETTING}]
    title = f"Best {info.label} ({direction}) of each block"
    views = [_ranking("block_maxima", title, aggregation, maxima, [*per, BLOCK], info, notes)]
    leading = leading_blocks(maxima, direction)
    labels = axis_texts(aggregation, leading, [*per, BLOCK, SETTING])
    columns = (leading[column].tolist() for column in ("value", "others", "others_low", "others_high", "lead"))
    rows = [
        [
            *own,
            info.text(value),
            str(others),
            _between(info, low, high),
            info.text(lead),
        ]
        for own, (value, others, low, high, lead) in zip(labels, zip(*columns, strict=True), strict=True)
    ]
    headers = [*map(clean, [*per, BLOCK, SETTING]), clean(info.label), "other blocks", "their best", "lead"]
    text_table = TextTable("Leading block, and the range of the others", headers, rows, len(per) + 2, list(notes))
    return [*views, View("leading_blocks", leading, text_table)]


def _between(info: MetricInfo, low: float, high: float) -> str:
    return NO_VALUE if low != low else f"{info.text(low)} to {info.text(high)}"


def _pivots(aggregation: Aggregation, text: str) -> list[View]:
    """Return a table for each metric shown, with some axes down and others across."""
    down, colon, across = text.partition(":")
    known = axis_columns(aggregation.frame)
    rows, columns = (_axes(known, part.split(","), f"--pivot {text}") for part in (down, across))
    if not colon or not columns or set(rows) & set(columns):
        raise UsageError(f"--pivot {text}: expected rows:columns, different axes. Write --pivot task:setting")
    by, seed = [*rows, *columns], aggregation.seed_axis
    left_out = left_out_axes(aggregation.frame, by, seed)
    summary = summarise(aggregation.frame, by, aggregation.metrics, seed, axes=aggregation.axes)
    views: list[View] = []
    for key in aggregation.metrics:
        info = aggregation.infos[key]
        part = summary[summary["metric"] == key].reset_index(drop=True)
        places = pivot(part.assign(place=range(len(part))), rows, columns, key, "place")
        texts = mean_texts(part, aggregation.infos, over_cells=bool(left_out))
        cells = places.iloc[:, len(rows) :]
        lines = [
            [*own, *("" if place != place else texts[int(place)] for place in places_of_row)]
            for own, places_of_row in zip(axis_texts(aggregation, places, rows), cells.to_numpy().tolist(), strict=True)
        ]
        headers = [*map(clean, rows), *(clean(str(name)) for name in cells.columns)]
        notes = [f"Mean over cells ({', '.join(left_out)}), each counted once."] if left_out else []
        title = clean(f"{info.label} by {', '.join(columns)}")
        table = pivot(part, rows, columns, key, "mean").assign(metric=key)
        views.append(View("pivot", table, TextTable(title, headers, lines, len(rows), notes)))
    return views


def _folds(aggregation: Aggregation) -> View:
    if not aggregation.baseline:
        raise UsageError("--fold: no baseline is named or can be guessed. Add --baseline AXIS=VALUE.")
    metrics = [key for key in aggregation.metrics if aggregation.infos[key].comparable]
    table = fold_changes(aggregation.frame, aggregation.baseline, metrics, axes=aggregation.axes)
    labels = axis_texts(aggregation, table, list(aggregation.baseline))
    columns = ("metric", "fold", "low", "high", "n", "n_not_positive", "naive_fold")
    rows = [
        [*own, clean(aggregation.infos[metric].label), _fold_text(*rest)]
        for own, (metric, *rest) in zip(
            labels, zip(*(table[column].tolist() for column in columns), strict=True), strict=True
        )
    ]
    headers = [*map(clean, aggregation.baseline), "metric", "times the baseline"]
    notes = [
        "Geometric mean of setting over baseline over the n pairs of runs that both have, and its 95 % t-interval."
    ]
    if table["naive_fold"].notna().any():
        notes.append("naive: ratio of the means over whatever each has. Different sets of runs: do not trust it.")
    title = f"Fold changes from {baseline_text(aggregation)}"
    return View("folds", table, TextTable(title, headers, rows, len(headers) - 1, notes))


def _fold_text(fold: float, low: float, high: float, n: int, not_positive: int, naive: float) -> str:
    about = [f"n={n}"]
    about += [f"{not_positive} without a ratio"] if not_positive else []
    about += [f"naive {format_number(naive)}"] if naive == naive else []
    between = f" [{format_number(low)}, {format_number(high)}]" if low == low else ""
    return f"{format_number(fold)}{between} ({'; '.join(about)})"

"""An aggregation as tables of text: the same cells for a terminal, Markdown and LaTeX."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from slurmkit.aggregate.aggregation import Aggregation
from slurmkit.aggregate.format import NO_VALUE, clean, short_names
from slurmkit.aggregate.metric_info import MetricInfo
from slurmkit.records import Json

NOT_COMPARABLE_MARK = "†"


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table to print.

    Attributes:
        title: what it shows.
        headers: names of the columns.
        rows: as many texts each.
        labels: how many columns, from the left, name the row; the others hold values.
        notes: what has to be known to read it.
    """

    title: str
    headers: list[str]
    rows: list[list[str]]
    labels: int
    notes: list[str]


def summary_table(aggregation: Aggregation) -> TextTable:
    """Return cells by metrics: ``0.449 ± 0.012 (n=3)``, ``0.449 (n=1)``; over left-out axes ``0.449 (5 cells)``."""
    metrics = aggregation.metrics
    headers = [*map(clean, aggregation.by), "done", *_metric_headers(aggregation)]
    texts = mean_texts(aggregation.summary, aggregation.infos, over_cells=bool(aggregation.left_out))
    done = [f"{c}/{p}" for c, p in zip(aggregation.cells["completed"], aggregation.cells["planned"], strict=True)]
    width = len(metrics)
    rows = [
        [*labels, done[row], *texts[row * width : (row + 1) * width]]
        for row, labels in enumerate(axis_texts(aggregation, aggregation.cells, aggregation.by))
    ]
    notes: list[str] = []
    if any(metric in aggregation.not_comparable for metric in metrics):
        notes.append(f"{NOT_COMPARABLE_MARK} not comparable across settings: what it sums up changes with them.")
    if not aggregation.left_out and aggregation.seed_axis is not None:
        notes.append(f"Mean ± half-width of its 95 % t-interval over n values of {aggregation.seed_axis}.")
    if aggregation.left_out:
        over = ", ".join(aggregation.left_out)
        notes.append(f"Mean over cells ({over}), each counted once; no interval, since cells are no repetitions.")
    if aggregation.uneven:
        notes.append("Rows are over different cells: compare the means over the common cells, which come first.")
    return TextTable("Metrics", headers, rows, len(aggregation.by) + 1, notes)


def _metric_headers(aggregation: Aggregation) -> list[str]:
    short, unambiguous = short_names(aggregation.metrics), short_names(list(aggregation.infos))
    headers: list[str] = []
    for key in aggregation.metrics:
        info = aggregation.infos[key]
        name = short[key] if info.label == unambiguous[key] else info.label
        headers.append(clean(name) + ("" if info.comparable else f" {NOT_COMPARABLE_MARK}"))
    return headers


def axis_texts(aggregation: Aggregation, table: pd.DataFrame, columns: Sequence[str]) -> list[list[str]]:
    """Return the texts of the axis values of each row of a table.

    Args:
        aggregation: whose axes.
        table: with these axis columns.
        columns: which of its columns.
    """
    texts: list[list[str]] = []
    for axis in columns:
        values: list[Json] = table[axis].tolist()
        known = {value: clean(aggregation.label(axis, value)) for value in dict.fromkeys(values)}
        texts.append([known[value] for value in values])
    return [list(row) for row in zip(*texts, strict=True)] if texts else [[] for _ in range(len(table))]


def mean_texts(summary: pd.DataFrame, infos: Mapping[str, MetricInfo], *, over_cells: bool) -> list[str]:
    """Return the text of each mean of a summary.

    Args:
        summary: from `summarise`.
        infos: what is known of its metrics.
        over_cells: whether its means run over other axes than the seed.
    """
    columns = ("metric", "mean", "half_width", "n", "cells", "uneven", "common_mean", "common_cells")
    texts: list[str] = []
    for metric, mean, half_width, n, *over in zip(*(summary[column].tolist() for column in columns), strict=True):
        if not n:
            texts.append(NO_VALUE)
        elif over_cells:
            texts.append(_mean_over_cells(infos[metric], mean, *over))
        else:
            texts.append(f"{infos[metric].estimate(mean, half_width)} (n={n})")
    return texts


def _mean_over_cells(
    info: MetricInfo, mean: float, cells: int, uneven: bool, common_mean: float, common_cells: int
) -> str:
    counted = f"{cells} cell" if cells == 1 else f"{cells} cells"
    if not uneven or common_cells == cells:
        return f"{info.text(mean)} ({counted})"
    if common_cells == 0:
        return f"{info.text(mean)} ({counted}, none common)"
    return f"{info.text(common_mean)} ({common_cells} common; own {counted}: {info.text(mean)})"


def deltas_table(aggregation: Aggregation) -> TextTable:
    """Return settings by metrics: ``-0.008 ± 0.021 (n=4)``, and the naive difference where it is over other runs."""
    metrics, deltas = aggregation.metrics, aggregation.deltas
    axes = list(aggregation.baseline)
    columns = ("metric", "difference", "half_width", "n", "common_cells", "naive_difference")
    values = zip(*(deltas[column].tolist() for column in columns), strict=True)
    texts = [
        _difference(aggregation.infos[metric], *rest) if metric not in aggregation.not_comparable else "not comparable"
        for metric, *rest in values
    ]
    labels = axis_texts(aggregation, deltas, axes)[:: max(len(metrics), 1)]
    width = len(metrics)
    rows = [[*own, *texts[row * width : (row + 1) * width]] for row, own in enumerate(labels)]
    notes = ["Mean difference over the n pairs of runs that both have ± half-width of its 95 % t-interval."]
    if deltas["naive_difference"].notna().any():
        notes.append("naive: difference of the means over whatever each has. Different sets of runs: do not trust it.")
    title = f"Matched differences from {baseline_text(aggregation)}"
    return TextTable(title, [*map(clean, axes), *_metric_headers(aggregation)], rows, len(axes), notes)


def baseline_text(aggregation: Aggregation) -> str:
    """Write the baseline as ``pv=0.0,rmkl=0.0``."""
    return clean(",".join(f"{axis}={aggregation.label(axis, v)}" for axis, v in aggregation.baseline.items()))


def _difference(info: MetricInfo, difference: float, half_width: float, n: int, cells: int, naive: float) -> str:
    apart = "" if math.isnan(naive) else f"naive {_signed(info.text(naive))}"
    if n == 0:
        return f"no pairs; {apart}" if apart else NO_VALUE
    counted = f"{cells} cell" if cells == 1 else f"{cells} cells"
    counts = [f"n={n}", *([counted] if cells != n else []), *([apart] if apart else [])]
    return f"{_signed(info.estimate(difference, half_width))} ({'; '.join(counts)})"


def _signed(number: str) -> str:
    return number if number.startswith(("-", "+")) else f"+{number}"


def missing_table(aggregation: Aggregation) -> TextTable:
    """Return the runs without metrics, cell by cell: state, reason, cell, how many."""
    missing = aggregation.missing
    labels = axis_texts(aggregation, missing, aggregation.by)
    reasons = [NO_VALUE if reason is None or reason != reason else str(reason) for reason in missing["reason"].tolist()]
    rows = [
        [state, reason, *own, str(runs)]
        for state, reason, own, runs in zip(missing["state"], reasons, labels, missing["runs"].tolist(), strict=True)
    ]
    rows.sort(key=lambda row: row[:2])  # stable: cells stay in the definition's order
    headers = ["state", "reason", *map(clean, aggregation.by), "runs"]
    return TextTable("Missing", headers, rows, len(headers) - 1, [])


def warnings(aggregation: Aggregation) -> list[str]:
    """Return what a reader of the numbers has to know, one line each."""
    lines: list[str] = []
    if aggregation.commits:
        counts = ", ".join(f"{commit[:10]} ({count})" for commit, count in aggregation.commits.items())
        lines.append(f"mixed commits: the runs come from {len(aggregation.commits)} commits: {counts}")
    for what, runs in aggregation.changed.items():
        named = ", ".join(runs[:3]) + (f" and {len(runs) - 3} more" if len(runs) > 3 else "")
        lines.append(f"retried with another config than their cell's ({what}): {named}")
    if aggregation.uneven:
        over = ", ".join(aggregation.left_out)
        lines.append(f"rows are means over different sets of {over}; only the means over common cells compare")
    noops = (aggregation.noops[column].tolist() for column in aggregation.noops.columns)
    lines += [_noop_line(*noop) for noop in zip(*noops, strict=True)]
    lines += [f"{key}: null in {count} runs: {reason}" for key, reason, count in aggregation.nulls]
    lines += [unmatched_line("metrics", glob) for glob in aggregation.unmatched]
    return [clean(line) for line in lines]


def unmatched_line(key: str, glob: str) -> str:
    """Say that a glob under some key of the definition names nothing."""
    return f"{key}: {glob!r} in the definition names no metric with numbers of any completed run"


def _noop_line(axes: str, values: str, same: int, of: int, with_series: int, runs: list[str]) -> str:
    what = "metrics and series" if with_series == same else "metrics"
    sets = f"{same} of {of} sets of runs" if of > 1 else "the runs"
    return (
        f"suspected no-op: {axes} {values}: the same {what} to the last digit in {sets}, "
        f"such as {' and '.join(runs[:2])}; does {axes} reach the command?"
    )


def problem_lines(aggregation: Aggregation) -> list[str]:
    """Return one line for each metrics file, or value, that was left out."""
    return [clean(f"{problem.path}: {problem.what} [{problem.run}]") for problem in aggregation.problems]

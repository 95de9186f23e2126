"""An aggregation as tables of text: the same cells for a terminal, Markdown and LaTeX."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from slurmkit.aggregate.aggregation import Aggregation
from slurmkit.aggregate.format import NO_VALUE, clean, format_estimate, format_number, short_names
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
    texts = _summary_texts(aggregation)
    done = [f"{c}/{p}" for c, p in zip(aggregation.cells["completed"], aggregation.cells["planned"], strict=True)]
    width = len(metrics)
    rows = [
        [*labels, done[row], *texts[row * width : (row + 1) * width]]
        for row, labels in enumerate(_labels(aggregation, aggregation.cells, aggregation.by))
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
    short = short_names(aggregation.metrics)
    marked = aggregation.not_comparable
    return [clean(short[key]) + (f" {NOT_COMPARABLE_MARK}" if key in marked else "") for key in aggregation.metrics]


def _labels(aggregation: Aggregation, table: pd.DataFrame, columns: Sequence[str]) -> list[list[str]]:
    """Return the texts of the axis values of each row."""
    texts: list[list[str]] = []
    for axis in columns:
        values: list[Json] = table[axis].tolist()
        known = {value: clean(aggregation.label(axis, value)) for value in dict.fromkeys(values)}
        texts.append([known[value] for value in values])
    return [list(row) for row in zip(*texts, strict=True)] if texts else [[] for _ in range(len(table))]


def _summary_texts(aggregation: Aggregation) -> list[str]:
    """Return the texts of all means, those of a row beside each other."""
    columns = ("mean", "half_width", "n", "cells", "uneven", "common_mean", "common_cells")
    values = zip(*(aggregation.summary[column].tolist() for column in columns), strict=True)
    if not aggregation.left_out:
        return [f"{format_estimate(mean, half)} (n={n})" if n else NO_VALUE for mean, half, n, *_ in values]
    return [_mean_over_cells(mean, *rest) if n else NO_VALUE for mean, _, n, *rest in values]


def _mean_over_cells(mean: float, cells: int, uneven: bool, common_mean: float, common_cells: int) -> str:
    counted = f"{cells} cell" if cells == 1 else f"{cells} cells"
    if not uneven or common_cells == cells:
        return f"{format_number(mean)} ({counted})"
    if common_cells == 0:
        return f"{format_number(mean)} ({counted}, none common)"
    return f"{format_number(common_mean)} ({common_cells} common; own {counted}: {format_number(mean)})"


def deltas_table(aggregation: Aggregation) -> TextTable:
    """Return settings by metrics: ``-0.008 ± 0.021 (n=4)``, and the naive difference where it is over other runs."""
    metrics, deltas = aggregation.metrics, aggregation.deltas
    axes = list(aggregation.baseline)
    columns = ("metric", "difference", "half_width", "n", "naive_difference")
    values = zip(*(deltas[column].tolist() for column in columns), strict=True)
    texts = [
        "not comparable" if metric in aggregation.not_comparable else _difference(*rest) for metric, *rest in values
    ]
    labels = _labels(aggregation, deltas, axes)[:: max(len(metrics), 1)]
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


def _difference(difference: float, half_width: float, n: int, naive: float) -> str:
    apart = "" if math.isnan(naive) else f"naive {_signed(format_number(naive))}"
    if n == 0:
        return f"no pairs; {apart}" if apart else NO_VALUE
    return f"{_signed(format_estimate(difference, half_width))} (n={n}{'; ' if apart else ''}{apart})"


def _signed(number: str) -> str:
    return number if number.startswith("-") else f"+{number}"


def missing_table(aggregation: Aggregation) -> TextTable:
    """Return the runs without metrics, cell by cell: state, reason, cell, how many."""
    missing = aggregation.missing
    labels = _labels(aggregation, missing, aggregation.by)
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
    lines += [f"{key}: null in {count} runs: {reason}" for key, reason, count in aggregation.nulls]
    return [clean(line) for line in lines]


def problem_lines(aggregation: Aggregation) -> list[str]:
    """Return one line for each metrics file, or value, that was left out."""
    return [clean(f"{problem.path}: {problem.what} [{problem.run}]") for problem in aggregation.problems]

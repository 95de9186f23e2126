"""The series that runs log (``history.jsonl``) as one long table, their means over seeds, and thinner ones to draw."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from slurmkit.aggregate.choose import matches
from slurmkit.aggregate.frame import Floats, axis_columns, to_frame
from slurmkit.aggregate.groups import group_rows, mean_interval
from slurmkit.aggregate.metrics_file import Problem, leaves
from slurmkit.aggregate.read import NO_METRICS
from slurmkit.aggregate.series_file import STEP, read_series
from slurmkit.records import Json, RunStatus

SERIES_COLUMNS = ("id", "name", "state", "step", "metric", "value")
"""Columns of a history behind the axes."""
DRAWN_POINTS = 400
"""More points than this in one line are closer together than the dots of a figure."""


@dataclass(slots=True)
class _Points:
    """All points of all runs: one entry each for run, step, metric and value."""

    runs: list[int] = field(default_factory=list[int])
    steps: list[int] = field(default_factory=list[int])
    metrics: list[int] = field(default_factory=list[int])
    values: list[float] = field(default_factory=list[float])


class _Names:
    """Metrics that were met, numbered in that order."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        self._numbers: dict[str, int] = {}
        self.kept: list[str] = []

    def number(self, key: str) -> int:
        """Return the number of a metric; -1: nobody asked for it."""
        found = self._numbers.get(key)
        if found is None:
            wanted = key != STEP and (not self._patterns or any(matches(key, pattern) for pattern in self._patterns))
            found = self._numbers[key] = len(self.kept) if wanted else -1
            if wanted:
                self.kept.append(key)
        return found


def read_history(
    statuses: Sequence[RunStatus], axes: Mapping[str, Sequence[Json]], metrics: Sequence[str] = ()
) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Read the series of some runs, completed or not, as a long table: one row a run, step and metric.

    Columns: the axes in the definition's order; ``id``, ``name`` and ``state`` of the run; ``step`` (int64);
    ``metric``; ``value`` (float64, finite). ``id``, ``name``, ``state`` and ``metric`` are categories. The rows of a
    run stand together, by step, and those of a step in the alphabetical order of the metrics. Of a step that was
    logged twice (by a run that went back to a checkpoint) the later value of each metric counts. What is no finite
    number is no point.

    Args:
        statuses: the runs, in the definition's order.
        axes: axis name to its values, in the definition's order.
        metrics: globs of the metrics to keep; none: all.

    Returns:
        the table, and lines of files that could not be used.
    """
    points, names, problems = _Points(), _Names(metrics), list[Problem]()
    for position, status in enumerate(statuses):
        lines, problem = read_series(status)
        if problem is not None:
            problems.append(problem)
        for (step, metric), value in _latest(lines, names).items():
            points.runs.append(position)
            points.steps.append(step)
            points.metrics.append(metric)
            points.values.append(value)
    return _long(to_frame(statuses, axes, metrics=NO_METRICS), points, names.kept), tuple(problems)


def _latest(lines: Sequence[Mapping[str, Json]], names: _Names) -> dict[tuple[int, int], float]:
    """Return the points of one run: step and number of the metric, to the value that was logged last."""
    points: dict[tuple[int, int], float] = {}
    for line in lines:
        step: int = line[STEP]
        for key, value in leaves(dict(line)):
            if type(value) in (int, float) and math.isfinite(value) and (metric := names.number(key)) >= 0:
                points[step, metric] = float(value)
    return points


def _long(runs: pd.DataFrame, points: _Points, metrics: Sequence[str]) -> pd.DataFrame:
    """Return the points as a table.

    Args:
        runs: one row a run.
        points: what was logged.
        metrics: names of the metrics, by number.
    """
    alphabetical = sorted(metrics)
    place = np.array([alphabetical.index(name) for name in metrics], dtype=np.int64)
    run = np.array(points.runs, dtype=np.int64)
    step = np.array(points.steps, dtype=np.int64)
    metric = place[np.array(points.metrics, dtype=np.int64)]
    order = np.lexsort((metric, step, run))
    run = run[order]
    table = runs[axis_columns(runs)].take(run).reset_index(drop=True)
    for column in ("id", "name", "state"):
        table[column] = pd.Categorical(runs[column]).take(run)
    table["step"] = step[order]
    table["metric"] = pd.Categorical.from_codes(metric[order], dtype=pd.CategoricalDtype(alphabetical))
    table["value"] = np.array(points.values, dtype=np.float64)[order]
    return table


def mean_series(
    history: pd.DataFrame, by: Sequence[str], axes: Mapping[str, Sequence[Json]] | None = None
) -> pd.DataFrame:
    """Return the mean of each metric at each step over the runs of a group: its seeds, if `by` are the other axes.

    Columns: those of `by`; ``metric``; ``step``; ``mean``; ``half_width`` of its 95 % t-interval over runs (NaN: n is
    1); ``n`` runs that logged it at that step. Rows by group in the definition's order, metric and step.

    Args:
        history: from `read_history`, or some of its rows.
        by: axis columns that make a group.
        axes: axis name to its values: the order of the groups.
    """
    groups = group_rows(history, by, axes).codes
    steps, step_codes = np.unique(history["step"].to_numpy(dtype=np.int64), return_inverse=True)
    metrics = history["metric"].cat.codes.to_numpy(dtype=np.int64)
    width = max(len(history["metric"].cat.categories), 1)
    points = (groups * width + metrics) * max(len(steps), 1) + step_codes
    _, first, codes = np.unique(points, return_index=True, return_inverse=True)
    values: Floats = history["value"].to_numpy(dtype=np.float64)
    n, mean, half_width = mean_interval(values, codes.astype(np.int64), len(first))
    table = history[[*by, "metric", "step"]].iloc[first].reset_index(drop=True)
    return table.assign(mean=mean, half_width=half_width, n=n)


def downsample(
    table: pd.DataFrame, series: Sequence[str] = ("name", "metric"), value: str = "value", *, points: int = DRAWN_POINTS
) -> pd.DataFrame:
    """Thin out long series for drawing: a line through what is left looks the same.

    Each series is cut into stretches of equally many points, of each of which the first, the last, the smallest and
    the largest stay (M4: Jugel et al., VLDB 2014): real points, in which no spike is lost. Series of at most `points`
    points stay whole. Make means before, from all points: which ones stay differs between series.

    Args:
        table: rows of a series in the order of their steps, such as from `read_history` and `mean_series`.
        series: columns that tell the series apart.
        value: column whose extremes stay.
        points: how many points of a series stay at most.
    """
    codes = group_rows(table, series).codes
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    sorted_codes = codes[order]
    within = np.arange(len(table)) - starts[sorted_codes]
    stretches = np.where(sizes <= points, sizes, max(points // 4, 1))
    apart = int(stretches.max(initial=0)) + 1
    stretch = sorted_codes * apart + within * stretches[sorted_codes] // sizes[sorted_codes]
    values: Floats = table[value].to_numpy(dtype=np.float64)[order]
    by_value = np.lexsort((values, stretch))
    edges = np.flatnonzero(np.diff(stretch, prepend=-1))
    ends = np.append(edges[1:], len(stretch)) - 1
    kept = np.unique(np.concatenate((edges, ends, by_value[edges], by_value[ends]))) if len(stretch) else edges
    return table.iloc[np.sort(order[kept])].reset_index(drop=True)

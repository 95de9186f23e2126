"""All that one aggregation finds out, put together once for every form of output."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from slurmkit.aggregate.choose import match_metrics, telling_metrics
from slurmkit.aggregate.columns import rows_with
from slurmkit.aggregate.deltas import complete_baseline, guess_baseline, matched_deltas
from slurmkit.aggregate.frame import axis_column, axis_columns, metric_columns, mixed_commits, to_frame
from slurmkit.aggregate.metric_info import MetricInfo, describe_metrics, unmatched_globs
from slurmkit.aggregate.metrics_file import Problem
from slurmkit.aggregate.noops import suspected_noops
from slurmkit.aggregate.read import read_metrics
from slurmkit.aggregate.table import completeness, left_out_axes, missing_runs, summarise
from slurmkit.errors import UsageError
from slurmkit.names import did_you_mean, label_text
from slurmkit.records import Json, RunStatus
from slurmkit.states import State
from slurmkit.statuses import RunColumns


@dataclass(frozen=True, slots=True)
class Aggregation:
    """The tables of a collection, or of some of its runs.

    Attributes:
        collection: name of the collection.
        axes: axis column to its values, in the definition's order.
        seed_axis: the column whose values only repeat; None: there is none.
        frame: one row a run (`to_frame`).
        by: axis columns that make a cell of the table.
        left_out: axis columns that its means run over, the seed excepted.
        metrics: metric columns shown.
        metrics_chosen: whether somebody asked for them.
        other_metrics: metric columns with numbers that are not shown.
        infos: metric column to what is known of it, all with numbers.
        not_comparable: metric columns that mean something else in each setting.
        cells: completeness (`completeness`).
        summary: means and intervals (`summarise`).
        missing: runs without metrics (`missing_runs`).
        baseline: axis column to the value that settings are compared with; empty: no comparison.
        baseline_is_guessed: nobody named it.
        deltas: matched comparison (`matched_deltas`); without rows where there is no baseline.
        problems: metrics files that could not be used.
        nulls: metric shown, reason, and how many runs gave it for a null.
        commits: commit to number of runs, where there are several.
        noops: swept values that changed nothing (`suspected_noops`).
        unmatched: globs of the definition's `metrics` that name no metric of a completed run, where there are such.
        changed: what retries have changed in the config, to the completed runs that it was changed in.
    """

    collection: str
    axes: dict[str, tuple[Json, ...]]
    seed_axis: str | None
    frame: pd.DataFrame
    by: list[str]
    left_out: list[str]
    metrics: list[str]
    metrics_chosen: bool
    other_metrics: list[str]
    infos: dict[str, MetricInfo]
    not_comparable: frozenset[str]
    cells: pd.DataFrame
    summary: pd.DataFrame
    missing: pd.DataFrame
    baseline: dict[str, Json]
    baseline_is_guessed: bool
    deltas: pd.DataFrame
    problems: tuple[Problem, ...]
    nulls: list[tuple[str, str, int]]
    commits: dict[str, int]
    noops: pd.DataFrame
    unmatched: tuple[str, ...]
    changed: dict[str, list[str]]

    def label(self, axis: str, value: Json) -> str:
        """Write an axis value as the definition spells it (a column of numbers makes 0 a float)."""
        if value is None or value != value:
            return label_text(None)
        return label_text(next((known for known in self.axes.get(axis, ()) if known == value), value))

    @property
    def uneven(self) -> bool:
        """Whether some metric's means, by some of the axes, are over different cells in different rows."""
        return bool(self.summary["uneven"].any())


def aggregate(
    collection: str,
    statuses: Sequence[RunStatus],
    axes: Mapping[str, Sequence[Json]],
    seed_axis: str | None,
    *,
    by: Sequence[str] = (),
    metrics: Sequence[str] = (),
    pick: Callable[[Mapping[str, MetricInfo], Sequence[str]], list[str]] | None = None,
    baseline: Mapping[str, Json] | None = None,
    declared: Mapping[str, Mapping[str, Json]] | None = None,
    index_file: Path | None = None,
    reread: bool = False,
) -> Aggregation:
    """Read the metrics of some runs and put all tables together.

    Args:
        collection: its name.
        statuses: the runs, in the definition's order.
        axes: axis name to its values, in the definition's order.
        seed_axis: the axis whose values only repeat; None: there is none.
        by: axes that make a cell of the table; none: all but the seed.
        metrics: globs; none: a few metrics that say most.
        pick: chooses among all metrics, given also those few; in the place of `metrics`.
        baseline: axis to value of the setting to compare with; None: guess one; empty: compare nothing.
        declared: the definition's `metrics`.
        index_file: where good files are remembered (`read_metrics`); None: all are read.
        reread: read all files, and remember nothing but these.

    Raises:
        UsageError: an axis, metric or baseline that does not exist.
    """
    runs = RunColumns.of(statuses)
    read = read_metrics(statuses, index_file, reread=reread, runs=runs)
    frame = to_frame(statuses, axes, metrics=read, runs=runs)
    columns = {axis_column(name): tuple(values) for name, values in axes.items()}
    seed = axis_column(seed_axis) if seed_axis is not None and seed_axis in axes else None
    rows_by = _rows_by(frame, by, seed)
    available = metric_columns(frame)
    infos = describe_metrics(available, declared, read.marked)
    not_comparable = frozenset(key for key, info in infos.items() if not info.comparable)
    telling = telling_metrics(available, not_comparable)
    shown = match_metrics(metrics, available) if metrics and available else telling
    shown = pick(infos, telling) if pick is not None else shown
    guessed = baseline is None
    if baseline is None:
        against = guess_baseline(frame, axes, seed_axis)
    else:
        against = complete_baseline(frame, {axis_column(axis): value for axis, value in baseline.items()})
    return Aggregation(
        collection=collection,
        axes=columns,
        seed_axis=seed,
        frame=frame,
        by=rows_by,
        left_out=left_out_axes(frame, rows_by, seed),
        metrics=shown,
        metrics_chosen=bool(metrics) or shown != telling,
        other_metrics=[key for key in available if key not in shown],
        infos=infos,
        not_comparable=not_comparable,
        cells=completeness(frame, rows_by, columns),
        summary=summarise(frame, rows_by, shown, seed, axes=columns),
        missing=missing_runs(frame, rows_by),
        baseline=against,
        baseline_is_guessed=guessed and bool(against),
        deltas=matched_deltas(frame, against, shown if against else [], axes=columns, seed_axis=seed),
        problems=read.problems,
        nulls=_nulls(shown, read.null_reasons),
        commits=mixed_commits(frame),
        noops=suspected_noops(frame, statuses, columns),
        unmatched=unmatched_globs(available, declared or ()),
        changed=_changed(runs),
    )


def _changed(runs: RunColumns) -> dict[str, list[str]]:
    """Return the completed runs whose config is no longer the definition's, by what was changed."""
    found: dict[str, list[str]] = {}
    for row in np.flatnonzero(~rows_with(runs.changed, "") & rows_with(runs.state, State.COMPLETED)).tolist():
        found.setdefault(runs.changed[row], []).append(runs.name[row])
    return found


def _rows_by(frame: pd.DataFrame, by: Sequence[str], seed: str | None) -> list[str]:
    known = axis_columns(frame)
    if not by:
        return [name for name in known if name != seed]
    chosen = list(dict.fromkeys(axis_column(name) for name in by))
    for name in chosen:
        if name not in known:
            raise UsageError(f"--by: no axis {name!r}. {did_you_mean(name, known)}")
    return chosen


def _nulls(shown: Sequence[str], reasons: Mapping[str, Counter[str]]) -> list[tuple[str, str, int]]:
    found: list[tuple[str, str, int]] = []
    for key in shown:
        counts = reasons.get(key.removeprefix("metric/"))
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0])) if counts else []
        found += [(key, reason, count) for reason, count in ranked]
    return found

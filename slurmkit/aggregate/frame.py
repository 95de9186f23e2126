"""Runs as a DataFrame: one row a run, and what its columns are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as untyped_arrow  # pyright: ignore[reportMissingTypeStubs]
import pyarrow.compute as untyped_compute  # pyright: ignore[reportMissingTypeStubs]

from slurmkit.aggregate.columns import codes_of
from slurmkit.aggregate.read import Metrics, read_metrics
from slurmkit.packed import Coded, Column, Texts
from slurmkit.records import Json, RunStatus
from slurmkit.states import State
from slurmkit.statuses import RunColumns

arrow: Any = untyped_arrow
compute: Any = untyped_compute

RUN_COLUMNS = ("id", "name", "state", "reason", "attempt", "commit")
"""Columns of a run's own, between its axes and its metrics."""

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


def to_frame(
    statuses: Sequence[RunStatus],
    axes: Mapping[str, Sequence[Json]],
    *,
    metrics: Metrics | None = None,
    runs: RunColumns | None = None,
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
        runs: the columns of `statuses`, where they are at hand.
    """
    runs = runs or RunColumns.of(statuses)
    if metrics is None:
        metrics = read_metrics(statuses, runs=runs)
    missing = Coded.of([None] * len(statuses))
    columns: dict[str, Any] = {
        axis_column(name): _axis_values(runs.axes.get(name, missing)) for name in dict.fromkeys([*axes, *runs.axes])
    }
    reasons = runs.reason.changed({position: flaw.value for position, flaw in metrics.flaws.items()})
    columns["id"] = _texts(runs.id)
    columns["name"] = _texts(runs.name)
    columns["state"] = _few_texts(runs.state)
    columns["reason"] = _few_texts(reasons)
    columns["attempt"] = np.array(runs.attempt.values, dtype=np.int64)[codes_of(runs.attempt)]
    columns["commit"] = _few_texts(runs.commit)
    taken = set(columns)
    for key in sorted(metrics.numbers.keys() | metrics.others.keys()):
        column = metrics.numbers[key] if key in metrics.numbers else _other_values(metrics.others[key])
        columns[f"metric/{key}" if key in taken else key] = column
    return pd.DataFrame(columns, copy=False)  # the columns are this frame's own: together they may be large


def _texts(column: Column) -> Any:
    if isinstance(column, Texts) and len(column):  # a text each would be made only to be packed again
        lines = arrow.array([column.packed.decode()], arrow.large_string())
        return pd.array(compute.split_pattern(lines, "\n").values, dtype="str")
    return pd.array(column.listed(), dtype="str")


def _few_texts(column: Coded) -> Any:
    """Return a column of texts of which most are repeated: each is converted once."""
    texts = [None if value is None else str(value) for value in column.values]
    return pd.array(texts, dtype="str").take(codes_of(column))


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


def _axis_values(column: Coded) -> Any:
    """Return a column: numbers, bools or texts as such, and as objects where kinds are mixed or missing."""
    types = set(map(type, column.values))
    if types == {str}:
        return _few_texts(column)
    alike = bool(types) and (types <= {int, float} or types == {bool})
    return pd.Series(column.values, dtype=None if alike else object).take(codes_of(column)).reset_index(drop=True)


def _other_values(values: list[Json]) -> Any:
    types = set(map(type, values)) - {type(None)}
    dtype = "boolean" if types == {bool} else "str" if types == {str} else object
    return pd.Series(values, dtype=dtype)


def usable(frame: pd.DataFrame) -> Bools:
    """Return (rows,): which runs completed and left metrics that can be used."""
    return ((frame["state"] == State.COMPLETED.value) & frame["reason"].isna()).to_numpy(dtype=np.bool_)


def mixed_commits(frame: pd.DataFrame) -> dict[str, int]:
    """Return commit to number of usable runs, most first, if there is more than one; empty otherwise."""
    counts = frame.loc[usable(frame), "commit"].value_counts()
    return {str(commit): int(count) for commit, count in counts.items()} if len(counts) > 1 else {}

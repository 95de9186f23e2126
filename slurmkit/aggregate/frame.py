"""Runs as a DataFrame: one row a run, and what its columns are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from slurmkit.aggregate.read import Metrics, read_metrics
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
    cells = [status.axes for status in statuses]
    keys = dict.fromkeys(map(tuple, cells))
    names = list(dict.fromkeys([*axes, *(name for cell in keys for name in cell)]))
    if list(keys) == [tuple(names)]:  # each dict looked at once: with 100,000 of them the time is the memory's
        flat = [value for cell in cells for value in cell.values()]
        values = [flat[place :: len(names)] for place in range(len(names))]
    else:
        values = [[cell.get(name) for cell in cells] for name in names]
    columns: dict[str, Any] = {axis_column(name): _axis_values(own) for name, own in zip(names, values, strict=True)}
    reasons = [None if status.reason is None else str(status.reason) for status in statuses]
    for position, flaw in metrics.flaws.items():
        reasons[position] = flaw.value
    columns["id"] = _texts([status.id for status in statuses])
    columns["name"] = _texts([status.name for status in statuses])
    columns["state"] = _few_texts([str(status.state) for status in statuses])
    columns["reason"] = _few_texts(reasons)
    columns["attempt"] = np.array([status.attempt for status in statuses], dtype=np.int64)
    columns["commit"] = _few_texts([status.commit for status in statuses])
    taken = set(columns)
    for key in sorted(metrics.numbers.keys() | metrics.others.keys()):
        column = metrics.numbers[key] if key in metrics.numbers else _other_values(metrics.others[key])
        columns[f"metric/{key}" if key in taken else key] = column
    return pd.DataFrame(columns, copy=False)  # the columns are this frame's own: together they may be large


def _texts(values: Sequence[str | None]) -> Any:
    return pd.array(list(values), dtype="str")


def _few_texts(values: Sequence[str | None]) -> Any:
    """Return a column of texts of which most are repeated: each is converted once."""
    places: dict[str | None, int] = {}
    codes = [places.setdefault(value, len(places)) for value in values]
    return pd.array(list(places), dtype="str").take(np.array(codes, dtype=np.intp))


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
    if types == {str}:
        return _few_texts(values)
    if types and (types <= {int, float} or types == {bool}):
        return pd.Series(values)
    return pd.Series(values, dtype=object)


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

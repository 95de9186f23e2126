"""Cells of a sweep as figures need them: means over seeds, and why a cell has none."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from slurmkit.aggregate.aggregation import Aggregation
from slurmkit.aggregate.frame import usable
from slurmkit.aggregate.groups import mean_interval
from slurmkit.records import Json
from slurmkit.report.layout import Layout

STANDARD_ERROR = "_standard_error"
"""What the name of a metric's own standard error over its test problems ends with, behind the metric's."""
MAJORITY = "_majority"
"""Likewise of what always naming the commonest answer would reach."""
SEEDS, TEST = "seeds", "test"
NORMAL_95 = 1.96
"""Standard errors in half of a 95 % interval of a normal distribution."""
_OF_TEST = f"{NORMAL_95} standard errors of the run's own test"
CELL_COLUMNS = ["panel", "setting", "completed", "planned", "others"]


def planned_cells(aggregation: Aggregation, layout: Layout) -> pd.DataFrame:
    """Return one row a planned cell, by panel and setting.

    Columns: numbers of ``panel`` and ``setting``; ``completed`` runs with metrics, and ``planned`` runs; ``others``:
    what became of the rest, such as ``failed: oom_host``.
    """
    frame = aggregation.frame
    good = usable(frame)
    told = [
        str(state) if reason is None or reason != reason else f"{state}: {reason}"
        for state, reason in zip(frame["state"].tolist(), frame["reason"].tolist(), strict=True)
    ]
    by_cell: dict[tuple[int, int], list[int]] = {}
    for position, cell in enumerate(zip(layout.panel_of.tolist(), layout.setting_of.tolist(), strict=True)):
        by_cell.setdefault(cell, []).append(position)
    rows = [
        (
            *cell,
            sum(bool(good[run]) for run in runs),
            len(runs),
            "; ".join(dict.fromkeys(told[run] for run in runs if not good[run])),
        )
        for cell, runs in sorted(by_cell.items())
    ]
    return pd.DataFrame(rows, columns=CELL_COLUMNS)


def cell_means(aggregation: Aggregation, layout: Layout, metric: str) -> pd.DataFrame:
    """Return the mean of a metric over the seeds of each planned cell.

    Columns: those of `planned_cells`; ``mean``; ``half_width`` of a 95 % interval and what it is ``interval_over``:
    ``seeds`` (t-interval, from two on), ``test`` (one seed, and the run gives ``<metric>_standard_error``), or nothing
    (NaN and empty); ``n`` runs; ``values`` of these, as a tuple.
    """
    cells = planned_cells(aggregation, layout)
    frame = aggregation.frame
    values = frame[metric].to_numpy(dtype=np.float64)
    good = usable(frame) & np.isfinite(values)
    width = len(layout.settings)
    codes = layout.panel_of * width + layout.setting_of
    n, mean, half_width = mean_interval(values[good], codes[good], len(layout.panels) * width)
    over = np.where(n > 1, SEEDS, "").astype(object)
    error = metric + STANDARD_ERROR
    if error in frame.columns:
        errors = np.full(len(n), np.nan)
        errors[codes[good]] = frame[error].to_numpy(dtype=np.float64)[good]
        told = (n == 1) & np.isfinite(errors)
        half_width[told], over[told] = NORMAL_95 * errors[told], TEST
    places = (cells["panel"] * width + cells["setting"]).to_numpy(dtype=np.int64)
    table = cells.assign(mean=mean[places], half_width=half_width[places], interval_over=over[places], n=n[places])
    table["values"] = pd.Series([tuple(values[good & (codes == place)].tolist()) for place in places], dtype=object)
    return table


def interval_note(tables: Sequence[pd.DataFrame]) -> str:
    """Say what the bars of a figure are; empty: it has none."""
    kinds = {kind for table in tables for kind in table["interval_over"].tolist()}
    if kinds >= {SEEDS, TEST}:
        return f" Bars: 95 % t-intervals over seeds; {_OF_TEST} where n=1."
    if SEEDS in kinds:
        return " Bars: 95 % t-intervals over seeds."
    return f" Bars: {_OF_TEST}. Another seed may differ by more." if TEST in kinds else ""


def counted_cells(cells: pd.DataFrame) -> str:
    """Write how many cells have a value, over how many seeds: ``19/24 cells, n=1 seed``.

    Args:
        cells: one row a planned cell, with ``n``.
    """
    with_value = cells.loc[cells["n"] > 0, "n"]
    if with_value.empty:
        return cells_of(0, len(cells))
    low, high = int(with_value.min()), int(with_value.max())
    seeds = f"n={low} seed{'' if low == 1 else 's'}" if low == high else f"n={low} to {high} seeds"
    return f"{cells_of(len(with_value), len(cells))}, {seeds}"


def cells_of(some: int, planned: int) -> str:
    """Write how many of the planned cells are meant: ``19/24 cells``."""
    return f"{some}/{planned} cell{'' if planned == 1 else 's'}"


def named(table: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Replace the numbers of panels and settings by their labels, for the data beside a figure."""
    labels = [setting.label for setting in layout.settings]
    panels: list[int] = table["panel"].tolist()
    settings: list[int] = table["setting"].tolist()
    return table.assign(panel=[layout.panels[i] for i in panels], setting=[labels[i] for i in settings])


def records(table: pd.DataFrame) -> list[dict[str, Json]]:
    """Return the rows of a table as objects of column name to value."""
    return cast("list[dict[str, Any]]", table.to_dict("records"))

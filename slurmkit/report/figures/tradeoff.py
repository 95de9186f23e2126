"""Accuracy against alignment, with the cells that no other cell beats in both."""

import numpy as np
import pandas as pd

from slurmkit.aggregate.frame import Bools, Floats
from slurmkit.aggregate.metric_info import Direction, MetricInfo
from slurmkit.report.cells import cell_means, counted_cells, interval_note, named
from slurmkit.report.choice import Choice
from slurmkit.report.figures import style
from slurmkit.report.figures.grids import panel_note, shown_panels, wrapped_grid
from slurmkit.report.layout import ONE_SETTING, Layout
from slurmkit.report.material import Material
from slurmkit.report.model import Figure
from slurmkit.report.standing import counted

NAME = "trade-off"
_MEANS = ("accuracy", "accuracy_half_width", "alignment", "alignment_half_width")
_COLUMNS = ["panel", "setting", *_MEANS, "n", "on_front"]


def tradeoff_figure(material: Material, layout: Layout, choice: Choice) -> Figure | str:
    """Return the figure, or why there is none."""
    if choice.accuracy is None or choice.alignment is None:
        lacking = "accuracy" if choice.accuracy is None else "alignment"
        return f"no metric is known as the {lacking}: name it under `report:` in the definition"
    if layout.too_many or len(layout.settings) < 2:
        return layout.too_many or ONE_SETTING
    infos = material.aggregation.infos
    across, up = infos[choice.accuracy], infos[choice.alignment]
    x = cell_means(material.aggregation, layout, across.key)
    y = cell_means(material.aggregation, layout, up.key)
    data = tradeoff_data(x, y, across, up)
    fronts = int(data["on_front"].sum())
    return Figure(
        name=NAME,
        title=f"Trade-off: {up.label} against {across.label}",
        caption=f"{counted_cells(data)}. Line: the Pareto front{layout.each_panel(' of each')}, "
        f"{counted(fronts, 'cell')} that no other cell matches in both and beats in one "
        f"({_better(across)}; {_better(up)}).{interval_note([x, y])}"
        f"{' Panels have one scale, each around its own values.' if len(layout.panels) > 1 else ''}"
        f"{' Of marks with equal values the first lies beneath and is larger.' if later_equals(data).any() else ''}"
        f"{panel_note(layout)}",
        alt=f"Scatter of {up.label} against {across.label}{layout.each_panel(', a panel for each')}, a mark for each "
        f"setting: {counted_cells(data)}.",
        data=named(data, layout)[_COLUMNS],
        draw=lambda: _draw(data, layout, across, up),
        beside=(layout, across.label, up.label),
    )


def _better(info: MetricInfo) -> str:
    return f"{'less' if info.direction is Direction.MIN else 'more'} {info.label} is better"


def tradeoff_data(x: pd.DataFrame, y: pd.DataFrame, across: MetricInfo, up: MetricInfo) -> pd.DataFrame:
    """Put two metrics side by side.

    Args:
        x: means of cells (`cell_means`).
        y: likewise, of the other metric.
        across: what `x` are means of.
        up: what `y` are means of.

    Returns:
        one row a planned cell: ``accuracy`` and ``alignment`` (means over seeds), the half-widths of their intervals
        as ``accuracy_half_width`` and ``alignment_half_width``, ``n``, ``on_front``.
    """
    data = x[["panel", "setting"]].assign(
        accuracy=x["mean"],
        accuracy_half_width=x["half_width"],
        alignment=y["mean"],
        alignment_half_width=y["half_width"],
        n=np.minimum(x["n"], y["n"]),
    )
    on_front = np.zeros(len(data), dtype=np.bool_)
    for panel in data["panel"].unique().tolist():
        rows = np.flatnonzero((data["panel"] == panel) & (data["n"] > 0))
        points = data[["accuracy", "alignment"]].to_numpy(dtype=np.float64)[rows]
        signs = [-1.0 if info.direction is Direction.MIN else 1.0 for info in (across, up)]
        on_front[rows] = pareto_front(points * signs)
    return data.assign(on_front=on_front)


def pareto_front(points: Floats) -> Bools:
    """Return (points,): which are dominated by no other: none is at least as large in both and larger in one.

    Args:
        points: (points, 2); more is better.
    """
    x, y = points[:, 0], points[:, 1]
    as_large = (x[:, None] <= x) & (y[:, None] <= y)
    larger = (x[:, None] < x) | (y[:, None] < y)
    beaten: Bools = np.logical_or.reduce(as_large & larger, axis=1)
    return ~beaten


def later_equals(data: pd.DataFrame) -> "pd.Series[int]":
    """Return for each cell how many later ones of its panel have the same two values: what would hide its mark."""
    return data[data["n"] > 0].groupby(["panel", "accuracy", "alignment"]).cumcount(ascending=False)


def _draw(data: pd.DataFrame, layout: Layout, across: MetricInfo, up: MetricInfo) -> style.Drawing:
    drawing, flat, rows = wrapped_grid(layout, height_in=2.1)
    data = data.assign(size=5.5 + 3.5 * later_equals(data))
    of_panel = [data[(data["panel"] == panel) & (data["n"] > 0)] for panel, _ in enumerate(shown_panels(layout))]
    for axes, own in zip(flat, of_panel, strict=True):
        front = own[own["on_front"]].sort_values("accuracy")
        axes.plot(front["accuracy"], front["alignment"], color=style.MUTED, linewidth=0.9, zorder=1)
        for number, cell in own.groupby("setting"):
            look = style.stroke(layout.settings[int(str(number))].look)
            bars = {"across": cell["accuracy_half_width"], "up": cell["alignment_half_width"]}
            style.mark(axes, cell["accuracy"], cell["alignment"], look, **bars, size=float(cell["size"].iloc[0]))
        if own.empty:
            axes.text(0.5, 0.5, "no results yet", transform=axes.transAxes, ha="center", color=style.INK)
        axes.locator_params(axis="x", nbins=4)
        axes.locator_params(axis="y", nbins=5)
    for name in ("accuracy", "alignment"):
        half = name + "_half_width"
        ends = [np.concatenate([own[name], own[name] - own[half], own[name] + own[half]]) for own in of_panel]
        style.same_scale(flat, ends, across=name == "accuracy")
    for row in rows:
        row[0].set_ylabel(style.wrapped(up.label, 22))
    for axes in flat[-len(rows[0]) :]:
        axes.set_xlabel(style.wrapped(across.label, 34))
    drawn = set(data.loc[data["n"] > 0, "setting"].tolist())
    style.add_legend(drawing, [s for number, s in enumerate(layout.settings) if number in drawn], lines=False)
    return drawing

"""Accuracy against alignment, with the cells that no other cell beats in both."""

import numpy as np
import pandas as pd

from slurmkit.aggregate.frame import Bools, Floats
from slurmkit.aggregate.metric_info import Direction, MetricInfo
from slurmkit.report.cells import cell_means, counted_cells, named, records
from slurmkit.report.choice import Choice
from slurmkit.report.figures import style
from slurmkit.report.figures.grids import panel_note, shown_panels, wrapped_grid
from slurmkit.report.layout import Layout
from slurmkit.report.material import Material
from slurmkit.report.model import Figure

NAME = "trade-off"


def tradeoff_figure(material: Material, layout: Layout, choice: Choice) -> Figure | str:
    """Return the figure, or why there is none."""
    if choice.accuracy is None or choice.alignment is None:
        lacking = "accuracy" if choice.accuracy is None else "alignment"
        return f"no metric is known as the {lacking}: name it under `report:` in the definition"
    if layout.too_many:
        return layout.too_many
    infos = material.aggregation.infos
    across, up = infos[choice.accuracy], infos[choice.alignment]
    data = tradeoff_data(material, layout, across, up)
    fronts = int(data["on_front"].sum())
    return Figure(
        name=NAME,
        title=f"Trade-off: {up.label} against {across.label}",
        caption=f"{counted_cells(data)}. Line: the Pareto front of each {layout.panel_title}, {fronts} cells "
        f"that no other cell matches in both and beats in one ({_better(across)}; {_better(up)})."
        f"{panel_note(layout)}",
        alt=f"Scatter of {up.label} against {across.label}, a panel for each {layout.panel_title}, a mark for each "
        f"setting: {counted_cells(data)}.",
        data=named(data, layout)[["panel", "setting", "accuracy", "alignment", "n", "on_front"]],
        draw=lambda: _draw(data, layout, across, up),
    )


def _better(info: MetricInfo) -> str:
    return f"{'less' if info.direction is Direction.MIN else 'more'} {info.label} is better"


def tradeoff_data(material: Material, layout: Layout, across: MetricInfo, up: MetricInfo) -> pd.DataFrame:
    """Return one row a planned cell: ``accuracy`` and ``alignment`` (means over seeds), ``n``, ``on_front``."""
    x = cell_means(material.aggregation, layout, across.key)
    y = cell_means(material.aggregation, layout, up.key)
    data = x[["panel", "setting"]].assign(accuracy=x["mean"], alignment=y["mean"], n=np.minimum(x["n"], y["n"]))
    on_front = np.zeros(len(data), dtype=np.bool_)
    for panel in range(len(layout.panels)):
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


def _draw(data: pd.DataFrame, layout: Layout, across: MetricInfo, up: MetricInfo) -> style.Drawing:
    drawing, flat, rows = wrapped_grid(layout, height_in=2.1)
    for panel, _ in enumerate(shown_panels(layout)):
        axes = flat[panel]
        own = data[(data["panel"] == panel) & (data["n"] > 0)]
        front = own[own["on_front"]].sort_values("accuracy")
        axes.plot(front["accuracy"], front["alignment"], color=style.MUTED, linewidth=0.9, zorder=1)
        for row in records(own):
            look = style.stroke(layout.settings[int(row["setting"])].look)
            axes.plot(
                [row["accuracy"]],
                [row["alignment"]],
                look.marker,
                color=look.colour,
                markersize=5.5,
                zorder=2,
                markeredgewidth=0,
            )
        style.give_room(axes, own["accuracy"], across=True)
        style.give_room(axes, own["alignment"])
        if own.empty:
            axes.text(0.5, 0.5, "no results yet", transform=axes.transAxes, ha="center", color=style.INK)
        axes.locator_params(axis="x", nbins=4)
        axes.locator_params(axis="y", nbins=5)
    for row in rows:
        row[0].set_ylabel(style.wrapped(up.label, 22))
    for axes in flat[-len(rows[0]) :]:
        axes.set_xlabel(style.wrapped(across.label, 34))
    style.add_legend(drawing, layout.settings, lines=False)
    return drawing

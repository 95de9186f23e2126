"""Two swept weights: what one does at each value of the other."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from slurmkit.report.cells import cell_means, counted_cells, interval_note, named
from slurmkit.report.choice import Choice
from slurmkit.report.figures import style
from slurmkit.report.figures.grids import label_below, panel_note, shown_panels, term_grid
from slurmkit.report.layout import ONE_SETTING, Layout
from slurmkit.report.material import Material
from slurmkit.report.model import Figure

NAME = "interaction"
_ASIDE = 0.08
"""Between lines, of the distance between two values."""


def interaction_figure(material: Material, layout: Layout, choice: Choice) -> Figure | str:
    """Return the figure, or why there is none."""
    aggregation = material.aggregation
    numbers = [
        axis
        for axis in layout.setting_axes
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in aggregation.axes[axis])
    ]
    if len(numbers) != 2 or len(layout.setting_axes) != 2:
        if len(layout.settings) < 2:
            return ONE_SETTING
        swept = ", ".join(layout.setting_axes)
        return f"it needs settings of exactly two swept numbers, and here they are made of {swept}"
    metrics = [key for key in (choice.accuracy, choice.alignment) if key is not None] or list(choice.final[:1])
    if not metrics:
        return "no completed run has metrics with numbers yet"
    if layout.too_many:
        return layout.too_many
    tables = {key: cell_means(aggregation, layout, key) for key in metrics}
    data = pd.concat([named(table, layout).assign(metric=key) for key, table in tables.items()], ignore_index=True)
    counts = "; ".join(sorted({counted_cells(table) for table in tables.values()}))
    labels = [aggregation.infos[key].label for key in metrics]
    x_axis, line_axis = numbers
    bars = interval_note(list(tables.values()))
    missing = any(bool((table["n"] == 0).any()) for table in tables.values())
    broken = " A line is broken where a cell is missing." if missing else ""
    return Figure(
        name=NAME,
        title=f"Interaction of {x_axis} and {line_axis}",
        caption=f"{counts}. Each line is one value of {line_axis}; where lines are not parallel, the effect of "
        f"{x_axis} differs between values of {line_axis}, as far as the bars tell.{bars}"
        f"{' Panels of a row have one scale, each around its own values.' if len(layout.panels) > 1 else ''}"
        f"{broken}{panel_note(layout)}",
        alt=f"{' and '.join(labels)} over {x_axis}, a line for each value of {line_axis}"
        f"{layout.each_panel(', a panel for each')}: {counts}.",
        data=data[["metric", "panel", "setting", "mean", "half_width", "interval_over", "n"]],
        draw=lambda: _draw(list(tables.values()), labels, layout, x_axis, line_axis),
        beside=(layout, labels, numbers),
    )


def _draw(
    tables: Sequence[pd.DataFrame], labels: Sequence[str], layout: Layout, x_axis: str, line_axis: str
) -> style.Drawing:
    from matplotlib.lines import Line2D

    lines = sorted({setting.values[line_axis] for setting in layout.settings})
    drawing, grid = term_grid(layout, labels, sharey=False)
    shown = range(len(shown_panels(layout)))
    for term, table in enumerate(tables):
        of_panel = [table[table["panel"] == panel].set_index("setting") for panel in shown]
        for panel, cells in enumerate(of_panel):
            _draw_panel(grid[term, panel], cells, layout, x_axis, line_axis)
        ends = [np.concatenate([c["mean"], c["mean"] - c["half_width"], c["mean"] + c["half_width"]]) for c in of_panel]
        style.same_scale([grid[term, panel] for panel in shown], ends)
    label_below(layout, grid, x_axis)
    dashes = [
        Line2D([], [], color=style.MUTED, linestyle=style.DASHES[i % len(style.DASHES)], label=f"{line_axis}={line:g}")
        for i, line in enumerate(lines)
    ]
    style.add_legend(drawing, layout.settings, lines=False, extra=dashes)
    return drawing


def _draw_panel(axes: style.Axes, cells: pd.DataFrame, layout: Layout, x_axis: str, line_axis: str) -> None:
    """Draw the lines of one panel, a little beside each other so that bars of equal values stay apart.

    Args:
        axes: where.
        cells: ``mean`` and ``half_width`` by number of the setting.
        layout: of the sweep.
        x_axis: the swept number across.
        line_axis: the other one.
    """
    xs = sorted({setting.values[x_axis] for setting in layout.settings})
    lines = sorted({setting.values[line_axis] for setting in layout.settings})
    for number, line in enumerate(lines):
        of_line = [i for i, setting in enumerate(layout.settings) if setting.values[line_axis] == line]
        of_line.sort(key=lambda i: xs.index(layout.settings[i].values[x_axis]))
        own = cells.reindex(of_line)
        at = np.array([xs.index(layout.settings[i].values[x_axis]) for i in of_line])
        at = at + _ASIDE * (number - (len(lines) - 1) / 2)
        dash = style.DASHES[number % len(style.DASHES)]
        axes.plot(at, own["mean"], color=style.MUTED, linestyle=dash, linewidth=1.1, zorder=1)
        for place, i in enumerate(of_line):
            cell = own.iloc[[place]]
            style.mark(axes, at[[place]], cell["mean"], style.stroke(layout.settings[i].look), up=cell["half_width"])
    axes.set_xticks(range(len(xs)), [f"{x:g}" for x in xs])
    axes.set_xlim(-0.3, len(xs) - 0.7)
    axes.locator_params(axis="y", nbins=5)

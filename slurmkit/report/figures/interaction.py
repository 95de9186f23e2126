"""Two swept weights: what one does at each value of the other."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from slurmkit.report.cells import cell_means, counted_cells, named, records
from slurmkit.report.choice import Choice
from slurmkit.report.figures import style
from slurmkit.report.figures.grids import label_below, panel_note, shown_panels, term_grid
from slurmkit.report.layout import Layout
from slurmkit.report.material import Material
from slurmkit.report.model import Figure

NAME = "interaction"


def interaction_figure(material: Material, layout: Layout, choice: Choice) -> Figure | str:
    """Return the figure, or why there is none."""
    aggregation = material.aggregation
    numbers = [
        axis
        for axis in layout.setting_axes
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in aggregation.axes[axis])
    ]
    if len(numbers) != 2 or len(layout.setting_axes) != 2:
        swept = ", ".join(layout.setting_axes) or "nothing"
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
    return Figure(
        name=NAME,
        title=f"Interaction of {x_axis} and {line_axis}",
        caption=f"{counts}. Each line is one value of {line_axis}; lines that are not parallel mean that the effect of "
        f"{x_axis} differs between values of {line_axis}, within what n seeds can tell. A line is broken where a cell "
        f"is missing.{panel_note(layout)}",
        alt=f"{' and '.join(labels)} over {x_axis}, a line for each value of {line_axis}, a panel for each "
        f"{layout.panel_title}: {counts}.",
        data=data[["metric", "panel", "setting", "mean", "half_width", "n"]],
        draw=lambda: _draw(list(tables.values()), labels, layout, x_axis, line_axis),
    )


def _draw(
    tables: Sequence[pd.DataFrame], labels: Sequence[str], layout: Layout, x_axis: str, line_axis: str
) -> style.Drawing:
    from matplotlib.lines import Line2D

    xs = sorted({setting.values[x_axis] for setting in layout.settings})
    lines = sorted({setting.values[line_axis] for setting in layout.settings})
    drawing, grid = term_grid(layout, labels, sharey=False)
    for term, table in enumerate(tables):
        means = {(row["panel"], row["setting"]): (row["mean"], row["half_width"]) for row in records(table)}
        for panel, _ in enumerate(shown_panels(layout)):
            axes = grid[term, panel]
            for number, line in enumerate(lines):
                own = [i for i, setting in enumerate(layout.settings) if setting.values[line_axis] == line]
                places = sorted((xs.index(layout.settings[i].values[x_axis]), i) for i in own)
                y = [means.get((panel, i), (np.nan, np.nan))[0] for _, i in places]
                dash = style.DASHES[number % len(style.DASHES)]
                axes.plot([x for x, _ in places], y, color=style.MUTED, linestyle=dash, linewidth=1.1, zorder=1)
                for x, i in places:
                    mean, half_width = means.get((panel, i), (np.nan, np.nan))
                    look = style.stroke(layout.settings[i].look)
                    axes.errorbar(x, mean, yerr=half_width, fmt=look.marker, color=look.colour, capsize=2, zorder=2)
            axes.set_xticks(range(len(xs)), [f"{x:g}" for x in xs])
            axes.set_xlim(-0.3, len(xs) - 0.7)
            style.give_room(axes, [own[0] for (at, _), own in means.items() if at == panel])
            axes.locator_params(axis="y", nbins=5)
    label_below(layout, grid, x_axis)
    dashes = [
        Line2D([], [], color=style.MUTED, linestyle=style.DASHES[i % len(style.DASHES)], label=f"{line_axis}={line:g}")
        for i, line in enumerate(lines)
    ]
    style.add_legend(drawing, layout.settings, lines=False, extra=dashes)
    return drawing

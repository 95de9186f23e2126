"""Final metrics by panel and setting; a missing cell is hatched, with its reason."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from slurmkit.report.cells import MAJORITY, cell_means, counted_cells, interval_note, named, records
from slurmkit.report.choice import Choice
from slurmkit.report.figures import style
from slurmkit.report.layout import Layout
from slurmkit.report.material import Material
from slurmkit.report.model import Figure

NAME = "final"
_MOST_SLOTS = 300
_LEAST_SLOTS = 8
"""A single mark stands beside its seeds, not at the other end of the figure."""
_LOG_FROM_RATIO = 100


def final_figure(material: Material, layout: Layout, choice: Choice) -> Figure | str:
    """Return the figure, or why there is none."""
    aggregation = material.aggregation
    if not choice.final:
        return "no completed run has metrics with numbers yet"
    if layout.too_many or len(layout.panels) * len(layout.settings) > _MOST_SLOTS:
        return layout.too_many or f"{len(layout.panels)} x {len(layout.settings)} cells are too many to draw"
    tables = {key: cell_means(aggregation, layout, key) for key in choice.final}
    known = [key for key in choice.final if key + MAJORITY in aggregation.infos]
    commonest = {key: cell_means(aggregation, layout, key + MAJORITY) for key in known}
    data = pd.concat([table.assign(metric=key) for key, table in tables.items()], ignore_index=True)
    labels = [aggregation.infos[key].label for key in choice.final]
    counts = {counted_cells(table) for table in tables.values()}
    seeds = max(int(table["n"].max()) for table in tables.values()) > 1
    missing = any(bool((table["n"] == 0).any()) for table in tables.values())
    uneven = any(log_suits(table["mean"]) for table in tables.values())
    return Figure(
        name=NAME,
        title="Final metrics",
        caption=f"{'; '.join(sorted(counts))}."
        + (" Dots: seeds; marks: their means." if seeds else "")
        + interval_note(list(tables.values()))
        + (" Grey lines: what always naming the commonest strategy would reach." if commonest else "")
        + (" Hatched: cells without results, and why." if missing else "")
        + (f" Axes whose values are more than {_LOG_FROM_RATIO} times apart are logarithmic." if uneven else ""),
        alt=f"{', '.join(labels)} at the end of training, for each setting{layout.each_panel(' of each')}: "
        f"{'; '.join(sorted(counts))}.",
        data=_written(data, layout),
        draw=lambda: _draw(tables, commonest, labels, layout),
        beside=(layout, labels, *commonest.values()),
    )


def _written(data: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    columns = ["metric", "panel", "setting", "mean", "half_width", "interval_over", "n", "planned", "values", "others"]
    values = [" ".join(map(repr, values)) for values in data["values"].tolist()]
    return named(data, layout).assign(values=values)[columns]


def _draw(
    tables: Mapping[str, pd.DataFrame], commonest: Mapping[str, pd.DataFrame], labels: Sequence[str], layout: Layout
) -> style.Drawing:
    slots = len(layout.settings) + 1
    width = min(13.0, max(5.2, 1.0 + len(layout.panels) * slots * 0.21))
    drawing = style.new_drawing(width, 1.5 * len(tables) + 0.3)
    rows = style.panels(drawing, len(tables), 1, sharex=True)
    for (axes,), (key, table), label in zip(rows, tables.items(), labels, strict=True):
        _draw_metric(axes, table, layout, slots)
        if key in commonest:
            own = commonest[key][commonest[key]["n"] > 0]
            at = own["panel"] * slots + own["setting"]
            axes.hlines(own["mean"], at - 0.42, at + 0.42, color=style.MUTED, linewidth=1.1, zorder=1)
        axes.set_ylabel(style.wrapped(label, 20))
    bottom = rows[-1][0]
    middles = [panel * slots + (slots - 2) / 2 for panel in range(len(layout.panels))]
    room = int(width / len(layout.panels) * 72 / (style.FONT_PT * 0.62))
    bottom.set_xticks(middles, [style.wrapped(name, max(8, room)) for name in layout.panels])
    beside = max(0.0, (_LEAST_SLOTS - len(layout.panels) * slots) / 2)
    bottom.set_xlim(-1 - beside, len(layout.panels) * slots - 1 + beside)
    style.add_legend(drawing, layout.settings, lines=False)
    return drawing


def _draw_metric(axes: style.Axes, table: pd.DataFrame, layout: Layout, slots: int) -> None:
    if log_suits(table["mean"]):
        style.make_log(axes, table["mean"])
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    for panel in range(1, len(layout.panels)):
        axes.axvline(panel * slots - 1, color=style.RULE, linewidth=0.8)
    table = table.assign(x=table["panel"] * slots + table["setting"])
    for row in records(table[table["n"] == 0]):
        hatch_missing(axes, row["x"], row["others"])
    for number, setting in enumerate(layout.settings):
        own = table[(table["setting"] == number) & (table["n"] > 0)]
        look = style.stroke(setting.look)
        several = [(x + 0.28, value) for x, values in zip(own["x"], own["values"], strict=True) for value in values]
        if len(several) > len(own):
            axes.plot(*zip(*several, strict=True), ".", color=look.colour, alpha=0.6, markersize=3)
        style.mark(axes, own["x"], own["mean"], look, up=own["half_width"])


def hatch_missing(axes: style.Axes, x: float, others: str) -> None:
    """Hatch a slot of one unit around x over the whole height, and say why nothing stands there."""
    from matplotlib.patches import Rectangle

    whole = axes.get_xaxis_transform()
    axes.add_patch(
        Rectangle(
            (x - 0.5, 0),
            1,
            1,
            transform=whole,
            facecolor="none",
            edgecolor="#a0a0a0",
            hatch="////",
            linewidth=0,
            zorder=0,
        )
    )
    first = others.partition(";")[0]
    axes.text(
        x,
        0.5,
        first.partition(": ")[2] or first or "no value",
        transform=whole,
        rotation=90,
        ha="center",
        va="center",
        fontsize=6,
        color=style.INK,
        bbox={"facecolor": style.PAPER, "edgecolor": "none", "pad": 0.8},
    )


def log_suits(values: "pd.Series[float]") -> bool:
    """Whether values are all positive and far apart."""
    numbers = values.to_numpy(dtype=np.float64)
    numbers = numbers[np.isfinite(numbers)]
    return len(numbers) > 0 and bool((numbers > 0).all()) and float(numbers.max() / numbers.min()) > _LOG_FROM_RATIO

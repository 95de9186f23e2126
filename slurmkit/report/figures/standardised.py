"""The objective against auxiliary terms, each on its own scale, from the first step to the last."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from slurmkit.aggregate.history import downsample
from slurmkit.report.cells import cells_of, named
from slurmkit.report.figures import style
from slurmkit.report.figures.grids import label_below, panel_note, shown_panels, term_grid
from slurmkit.report.figures.series import Series
from slurmkit.report.layout import Layout
from slurmkit.report.model import Figure

NAME = "standardised"
_POINTS = 40


def standardised_figure(series: Series, objective: str | None, terms: Sequence[str]) -> Figure | str:
    """Return the figure, or why there is none.

    Args:
        series: what runs logged.
        objective: the series across.
        terms: the series up, a row of panels each.
    """
    if objective is None or not terms:
        return f"no run has logged {'an auxiliary term' if objective else 'an objective'}"
    data = standardised_data(series, objective, terms)
    if data.empty:
        return "no run has logged the objective and an auxiliary term at the same steps"
    shown = [term for term in terms if term in set(data["metric"])]
    layout = series.layout
    short = series.labels([objective, *shown])
    cells = len(data[["panel", "setting"]].drop_duplicates())
    counts = cells_of(cells, series.planned)
    return Figure(
        name=NAME,
        title=f"Standardised {short[objective]} against auxiliary terms",
        caption=f"{counts}. Each series of a cell (mean over its seeds) has mean 0 and standard deviation 1 over its "
        f"own steps; a path ends at its mark. A constant series has no path.{panel_note(layout)}",
        alt=f"Paths of {', '.join(short[term] for term in shown)} over {short[objective]} during training, both "
        f"standardised{layout.each_panel(', a panel for each')}: {counts}.",
        data=named(data, layout),
        draw=lambda: _draw(layout, data, shown, short, objective),
        beside=(layout, short),
    )


def standardised_data(series: Series, objective: str, terms: Sequence[str]) -> pd.DataFrame:
    """Return one row a cell, term and step: standardised ``objective`` and ``auxiliary`` where both were logged."""
    means = series.means
    across = means[means["metric"] == objective]
    parts: list[pd.DataFrame] = []
    for term in terms:
        both = across.merge(means[means["metric"] == term], on=["panel", "setting", "step"], suffixes=("", "_aux"))
        for (panel, setting), cell in both.groupby(["panel", "setting"]):
            own = pd.DataFrame({"metric": term, "panel": panel, "setting": setting, "step": cell["step"]})
            own["objective"], own["auxiliary"] = standardise(cell["mean"]), standardise(cell["mean_aux"])
            parts.append(own.dropna())
    kept = [part for part in parts if len(part)]
    columns = ["metric", "panel", "setting", "step", "objective", "auxiliary"]
    if not kept:
        return pd.DataFrame(columns=columns)
    return downsample(pd.concat(kept, ignore_index=True), ["metric", "panel", "setting"], "auxiliary", points=_POINTS)


def standardise(values: "pd.Series[float]") -> "pd.Series[float]":
    """Return values with mean 0 and standard deviation 1 (divided by n, not n - 1); NaN where all are equal."""
    spread = float(values.std(ddof=0))
    tiny = np.finfo(np.float64).eps * max(abs(float(values.mean())), 1e-300) * 8
    return (values - values.mean()) / spread if spread > tiny else values * np.nan


def _draw(
    layout: Layout, data: pd.DataFrame, terms: Sequence[str], short: dict[str, str], objective: str
) -> style.Drawing:
    drawing, grid = term_grid(layout, [short[term] for term in terms])
    for term, key in enumerate(terms):
        for panel, _ in enumerate(shown_panels(layout)):
            axes = grid[term, panel]
            own = data[(data["metric"] == key) & (data["panel"] == panel)]
            for number, path in own.groupby("setting"):
                look = style.stroke(layout.settings[int(str(number))].look)
                axes.plot(path["objective"], path["auxiliary"], color=look.colour, linestyle=look.dash, linewidth=0.9)
                last = path.iloc[-1]
                axes.plot([last["objective"]], [last["auxiliary"]], look.marker, color=look.colour, markersize=5)
            if own.empty:
                axes.text(0.5, 0.5, "no series", transform=axes.transAxes, ha="center", fontsize=6.5, color=style.INK)
    label_below(layout, grid, f"{short[objective]} (z)")
    drawn = set(data["setting"].tolist())
    style.add_legend(drawing, [s for number, s in enumerate(layout.settings) if number in drawn], lines=True)
    return drawing

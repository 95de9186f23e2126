"""What runs logged over their steps: validation, the objective's terms, weighted auxiliary terms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from slurmkit.aggregate.format import short_names
from slurmkit.aggregate.history import downsample, mean_series
from slurmkit.records import Json
from slurmkit.report.cells import cells_of, named
from slurmkit.report.figures import style
from slurmkit.report.figures.grids import label_below, panel_note, shown_panels, term_grid
from slurmkit.report.layout import Layout
from slurmkit.report.model import Figure

_BAND_FROM_N = 3
_MOST_BANDS = 6
_POINTS_OF_A_SEED = 100


@dataclass(frozen=True, slots=True)
class Series:
    """What runs logged, laid out.

    Attributes:
        layout: of the sweep.
        runs: one row a run, step and metric: ``panel`` and ``setting`` (numbers), ``id``, ``metric``, ``step``,
            ``value``.
        means: what `means_over_seeds` says of them.
        planned: how many cells there are.
        names: last part of a series' key to what the definition calls such a metric.
    """

    layout: Layout
    runs: pd.DataFrame
    means: pd.DataFrame
    planned: int
    names: Mapping[str, str]

    def labels(self, keys: Sequence[str]) -> dict[str, str]:
        """Return what figures call some series: the definition's label, or as much of a key as tells it from others."""
        short = short_names(keys)
        given = {key: self.names.get(key.rpartition("/")[2], short[key]) for key in keys}
        return given if len(set(given.values())) == len(keys) else short

    @property
    def metrics(self) -> list[str]:
        """The series that there are."""
        return [str(name) for name in self.runs["metric"].unique()]


def lay_out_series(
    history: pd.DataFrame, layout: Layout, run_ids: Sequence[str], declared: Mapping[str, Mapping[str, Json]]
) -> Series:
    """Give each point its panel and setting, and take means over seeds.

    Args:
        history: from `aggregate.history.read_history`.
        layout: of the sweep.
        run_ids: (runs,) in the layout's order.
        declared: the definition's `metrics`: what has a label there has it as a series, too.
    """
    place = {run: number for number, run in enumerate(run_ids)}
    rows = np.array([place[run] for run in history["id"].astype(str).tolist()], dtype=np.int64)
    runs = history[["id", "metric", "step", "value"]].assign(
        panel=layout.panel_of[rows], setting=layout.setting_of[rows]
    )
    means = means_over_seeds(runs, log=False)
    planned = len(set(zip(layout.panel_of.tolist(), layout.setting_of.tolist(), strict=True)))
    names = {key.rpartition("/")[2]: entry["label"] for key, entry in declared.items() if entry.get("label")}
    return Series(layout, runs, means, planned, names)


def means_over_seeds(runs: pd.DataFrame, *, log: bool) -> pd.DataFrame:
    """Return the mean of each cell at each step, and its 95 % t-interval.

    A mean over ever fewer seeds would jump where one ends: it goes only as far as all of a cell's seeds do.

    Columns: ``panel``, ``setting``, ``metric``, ``step``, ``mean``, ``low``, ``high`` (NaN: n is 1), ``n``.

    Args:
        runs: see `Series`.
        log: whether they are of the logarithms of what is above 0: a geometric mean, and bounds above 0.
    """
    if log:
        above = runs[runs["value"] > 0]
        runs = above.assign(value=np.log(above["value"]))
    means = mean_series(runs, ["panel", "setting"])
    if len(means):
        whole = means.groupby(["panel", "setting", "metric"], observed=True)["n"].transform("max")
        means = means[means["n"] == whole].reset_index(drop=True)
    middle, half_width = means["mean"], means["half_width"]
    ends = {"mean": middle, "low": middle - half_width, "high": middle + half_width}
    means = means.assign(**({name: np.exp(end) for name, end in ends.items()} if log else ends))
    return means[["panel", "setting", "metric", "step", "mean", "low", "high", "n"]]


def series_figure(series: Series, name: str, title: str, keys: Sequence[str], note: str, *, log: bool) -> Figure | str:
    """Return a figure of some series, a row of panels each, or why there is none.

    Args:
        series: what runs logged.
        name: of the figure.
        title: of the figure.
        keys: which series.
        note: what else has to be known to read it.
        log: whether values are drawn on a logarithmic scale; those that are not positive are then left out.
    """
    layout = series.layout
    means = means_over_seeds(series.runs, log=True) if log else series.means
    means = means[means["metric"].isin(list(keys))]
    if means.empty:
        return "no run has logged such a series" + (" with a value above 0" if log and keys else "")
    drawn = downsample(means, ["panel", "setting", "metric"], "mean")
    drawn_keys = [key for key in keys if key in set(drawn["metric"])]
    short = series.labels(drawn_keys)
    thin = _seeds(series, drawn_keys)
    cells = len(drawn[["panel", "setting"]].drop_duplicates())
    seeds = sorted(set(drawn.groupby(["panel", "setting"])["n"].max().tolist()))
    counts = f"{cells_of(cells, series.planned)}, n={_range(seeds)} seed{'' if seeds == [1] else 's'}"
    banded = seeds[-1] >= _BAND_FROM_N and drawn["setting"].nunique() <= _MOST_BANDS
    over_seeds = ""
    if seeds[-1] > 1:
        over_seeds = f" Thin: seeds; bold: their {'geometric ' if log else ''}mean" + (
            f", with its 95 % t-interval{' (of the logarithms)' if log else ''}."
            if banded
            else f"; no bands{_why_no_bands(seeds[-1])}."
        )
    return Figure(
        name=name,
        title=title,
        caption=f"{counts}.{over_seeds}{' ' + note if note else ''}{panel_note(layout)}",
        alt=f"{', '.join(short.values())} over training steps{layout.each_panel(', a panel for each')}"
        f"{layout.each_setting(', a line for each setting')}: {counts}.",
        data=_written(drawn, layout),
        draw=lambda: _draw(layout, drawn, thin, short, log=log, banded=banded),
        beside=(layout, short, thin, log, banded),
    )


def _why_no_bands(seeds: int) -> str:
    return f" below n={_BAND_FROM_N}" if seeds < _BAND_FROM_N else f": more than {_MOST_BANDS} would hide the lines"


def _range(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _written(drawn: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    return named(drawn, layout)[["metric", "panel", "setting", "step", "mean", "low", "high", "n"]]


def _seeds(series: Series, keys: Sequence[str]) -> pd.DataFrame:
    """Return the series of single runs, of cells with several."""
    runs = series.runs[series.runs["metric"].isin(list(keys))]
    several = runs.groupby(["panel", "setting", "metric"], observed=True)["id"].transform("nunique") > 1
    return downsample(runs[several], ["id", "metric"], "value", points=_POINTS_OF_A_SEED)


def _draw(
    layout: Layout, drawn: pd.DataFrame, thin: pd.DataFrame, short: Mapping[str, str], *, log: bool, banded: bool
) -> style.Drawing:
    drawing, grid = term_grid(layout, list(short.values()))
    for term, key in enumerate(short):
        of_term, seeds_of_term = drawn[drawn["metric"] == key], thin[thin["metric"] == key]
        if log:
            style.make_log(grid[term, 0], np.concatenate([of_term["mean"], seeds_of_term["value"]]))
        for panel, _ in enumerate(shown_panels(layout)):
            axes = grid[term, panel]
            own = of_term[of_term["panel"] == panel]
            seeds = seeds_of_term[seeds_of_term["panel"] == panel]
            numbers: list[int] = own["setting"].unique().tolist()
            for number in numbers:
                cell, of_cell = own[own["setting"] == number], seeds[seeds["setting"] == number]
                _draw_cell(axes, cell, of_cell, style.stroke(layout.settings[number].look), banded=banded)
            if own.empty:
                axes.text(0.5, 0.5, "no series", transform=axes.transAxes, ha="center", fontsize=6.5, color=style.INK)
            axes.locator_params(axis="x", nbins=4)
    label_below(layout, grid, "step")
    with_lines = set(drawn["setting"].tolist())
    style.add_legend(drawing, [s for number, s in enumerate(layout.settings) if number in with_lines], lines=True)
    return drawing


def _draw_cell(axes: style.Axes, mean: pd.DataFrame, seeds: pd.DataFrame, look: style.Stroke, *, banded: bool) -> None:
    """Draw one cell: its seeds thin, their mean bold, and a band from three seeds on."""
    if len(seeds):
        for _, one in seeds.groupby("id", observed=True):
            axes.plot(one["step"], one["value"], color=look.colour, linewidth=0.5, alpha=0.5, zorder=1)
    band = mean[mean["n"] >= _BAND_FROM_N]
    if banded and len(band):
        axes.fill_between(band["step"], band["low"], band["high"], color=look.colour, alpha=0.18, linewidth=0, zorder=1)
    axes.plot(
        mean["step"],
        mean["mean"],
        color=look.colour,
        linestyle=look.dash,
        marker=look.marker,
        markevery=_mark_places(len(mean)),
        markersize=3.5,
        zorder=2,
    )


def _mark_places(points: int) -> list[int]:
    """Return the points that carry a marker: the last one, and some before it."""
    return sorted({points - 1, *range(points // 6, points - 1, max(1, points // 3))})

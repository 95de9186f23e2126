"""How many times as large metrics are as in the baseline, over the runs that both have."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from slurmkit.aggregate.folds import fold_changes
from slurmkit.aggregate.format import clean
from slurmkit.records import Json
from slurmkit.report.choice import MOST_TERMS, Choice
from slurmkit.report.figures import style
from slurmkit.report.layout import ONE_SETTING, Layout
from slurmkit.report.material import Material
from slurmkit.report.model import Figure

NAME = "folds"
_ALL = "all matched"


def folds_figure(material: Material, layout: Layout, choice: Choice, terms: tuple[str, ...]) -> Figure | str:
    """Return the figure, or why there is none.

    Args:
        material: the collection.
        layout: of the sweep.
        choice: what is shown.
        terms: names of auxiliary terms: final metrics of that name are shown; none: positive ones of `choice`.
    """
    aggregation = material.aggregation
    if len(layout.settings) < 2:
        return ONE_SETTING
    baseline = {axis: value for axis, value in aggregation.baseline.items() if axis in layout.setting_axes}
    if not baseline:
        return "no baseline is named or guessed: `report: {baseline: ...}` in the definition names one"
    if layout.too_many:
        return layout.too_many
    metrics = _metrics(material, choice, terms)
    data = _data(material, layout, baseline, metrics) if metrics else pd.DataFrame()
    if data.empty or not data["n"].sum():
        return "no metric is positive both in the baseline and in another setting with the same task and seed"
    pairs = data.loc[data["panel"] == _ALL, "n"]
    labels = [aggregation.infos[key].label for key in metrics]
    low, high = int(pairs.min()), int(pairs.max())
    counts = f"n={low} matched pairs of runs" if low == high else f"n={low} to {high} matched pairs of runs"
    return Figure(
        name=NAME,
        title=f"Fold changes against {clean(','.join(f'{a}={aggregation.label(a, v)}' for a, v in baseline.items()))}",
        caption=f"{counts} a setting (the same in all but the setting). Large marks: geometric means of setting over "
        f"baseline, with 95 % t-intervals on the logarithms from n=2{layout.each_panel('; small marks: each')}.",
        alt=f"{', '.join(labels)} of each setting as multiples of the baseline's: {counts}.",
        data=data,
        draw=lambda: _draw(data, metrics, labels, layout),
        beside=(layout, labels),
    )


def _metrics(material: Material, choice: Choice, terms: tuple[str, ...]) -> list[str]:
    """Return final metrics of the auxiliary terms; where there are none, the results that are positive."""
    frame = material.aggregation.frame
    of_terms = [key for key in material.aggregation.infos if key.rpartition("/")[2] in terms and "weighted" not in key]
    of_terms = [key for key in of_terms if "fraction" not in key and "applied" not in key]
    results = [key for key in choice.final if key not in (choice.accuracy, choice.alignment)]
    found = of_terms or [key for key in results if bool((frame[key].dropna() > 0).all())]
    return found[:MOST_TERMS]


def _data(material: Material, layout: Layout, baseline: Mapping[str, Json], metrics: list[str]) -> pd.DataFrame:
    """Return one row a metric, setting and panel, and one over all panels."""
    aggregation = material.aggregation
    labels = {tuple(setting.values.values()): setting.label for setting in layout.settings}
    parts: list[pd.DataFrame] = []
    for within in ([], [layout.panel_axis] if layout.panel_axis else None):
        if within is None:
            continue
        table = fold_changes(aggregation.frame, baseline, metrics, within=within, axes=aggregation.axes)
        keys = zip(*(table[axis].tolist() for axis in layout.setting_axes), strict=True)
        table["setting"] = [labels.get(key, "") for key in keys]
        panel = within[0] if within else ""
        table["panel"] = [aggregation.label(panel, v) for v in table[panel].tolist()] if panel else _ALL
        parts.append(table)
    columns = ["metric", "setting", "panel", "n", "fold", "low", "high"]
    return pd.concat(parts, ignore_index=True)[columns]


def _draw(data: pd.DataFrame, metrics: list[str], labels: list[str], layout: Layout) -> style.Drawing:
    settings = [setting for setting in layout.settings if not setting.is_baseline]
    across = min(len(metrics), 2 if len(settings) > 8 else 3)
    down = -(-len(metrics) // across)
    height = 0.7 + 0.26 * len(settings)
    longest = max(len(setting.label) for setting in settings)
    width = min(style.FULL_WIDTH_IN, longest * 0.075 + 3.2 * across)
    drawing = style.new_drawing(width, height * down)
    rows = style.panels(drawing, down, across, sharey=True)
    flat = [axes for row in rows for axes in row]
    for axes in flat[len(metrics) :]:
        axes.set_visible(False)
    for axes, metric, label in zip(flat, metrics, labels, strict=False):
        axes.set_title(style.wrapped(label, 40))
        own = data[data["metric"] == metric]
        style.make_log(axes, [*own["fold"], *own["low"], *own["high"], 1.0], across=True)
        axes.axvline(1.0, color=style.MUTED, linewidth=0.9, zorder=0)
        for place, setting in enumerate(settings):
            _draw_row(axes, place, own[own["setting"] == setting.label], style.stroke(setting.look))
        axes.set_yticks(range(len(settings)), [style.plain(setting.label) for setting in settings])
        axes.set_ylim(len(settings) - 0.4, -0.6)
        axes.margins(x=0.18)
    return drawing


def _draw_row(axes: style.Axes, place: int, own: pd.DataFrame, look: style.Stroke) -> None:
    """Draw one setting: each panel small and open, all of them large, with the number beside it."""
    single = own.loc[own["panel"] != _ALL, "fold"].to_numpy(dtype=np.float64)
    axes.plot(single, [place + 0.22] * len(single), look.marker, color=look.colour, fillstyle="none", markersize=3.5)
    for fold, low, high, n in own.loc[own["panel"] == _ALL, ["fold", "low", "high", "n"]].itertuples(index=False):
        if not np.isfinite(fold):
            continue
        reach = [[fold - low], [high - fold]] if np.isfinite(low) else None
        axes.errorbar(fold, place, xerr=reach, fmt=look.marker, color=look.colour, markersize=6, capsize=2)
        axes.annotate(
            f"\u00d7{fold:.3g} (n={n})",
            (fold, place),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=6,
            color=style.INK,
        )

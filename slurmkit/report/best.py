"""The best run of each panel, and the best one to compare it with."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from slurmkit.aggregate.best import best_per_group, without_block
from slurmkit.aggregate.format import NO_VALUE
from slurmkit.aggregate.metric_info import Direction, MetricInfo
from slurmkit.definition.grid import BLOCK
from slurmkit.records import Json
from slurmkit.report.cells import MAJORITY, STANDARD_ERROR, records
from slurmkit.report.choice import Choice
from slurmkit.report.layout import Layout
from slurmkit.report.material import Material
from slurmkit.report.model import Block, Fact, Facts, Section, Sentence, Tone

TITLE = "Best results"
_MOST_PANELS = 24


def best_results(material: Material, layout: Layout, choice: Choice) -> Section:
    """List the best run of each panel, its setting and metrics, and the best one to compare it with."""
    if choice.best is None:
        why = "nothing says which metric decides: `report: {best: METRIC:max}` in the definition does."
        return Section(TITLE, (Sentence(f"Left out: {why}", Tone.NOTE),))
    metric, direction = choice.best
    order = "largest" if direction is Direction.MAX else "smallest"
    by = _named(material, metric)
    blocks: list[Block] = [Sentence(f"By {by}: the {order} mean over seeds{layout.each_panel(' in each')}.")]
    rows = [row for row in records(_best(material, layout, material.aggregation.frame, choice)) if row["rank"] == 1]
    if not rows:
        return Section(TITLE, (*blocks, Sentence("No cell has a value yet.", Tone.NOTE)))
    blocks.append(_ranges(material, choice))
    panels: dict[Json, list[Mapping[str, Json]]] = {}
    for row in rows:
        panels.setdefault(row[layout.panel_axis] if layout.panel_axis else "", []).append(row)
    for value, tied in list(panels.items())[:_MOST_PANELS]:
        title = material.aggregation.label(layout.panel_axis, value) if layout.panel_axis else "Best"
        blocks.append(_run_facts(material, layout, choice, tied[0], title))
        if len(tied) > 1:
            blocks.append(Sentence(f"{len(tied)} settings have this same value; here is the first.", Tone.NOTE))
        blocks += _comparison(material, layout, choice, tied[0])
    return Section(TITLE, tuple(blocks))


def _ranges(material: Material, choice: Choice) -> Facts:
    """Say how far each metric reaches over all runs with results."""
    facts: list[Fact] = []
    for key in choice.final:
        values = material.aggregation.frame[key].dropna()
        info = material.aggregation.infos[key]
        if len(values):
            facts.append(Fact(info.label, f"{info.text(float(values.min()))} to {info.text(float(values.max()))}"))
    return Facts(tuple(facts), "Range over all runs with results")


def _best(material: Material, layout: Layout, frame: pd.DataFrame, choice: Choice) -> pd.DataFrame:
    assert choice.best is not None  # else nothing is ranked
    metric, direction = choice.best
    aggregation = material.aggregation
    per = [layout.panel_axis] if layout.panel_axis else []
    return best_per_group(frame, metric, direction, per, aggregation.seed_axis, axes=aggregation.axes)


def _run_facts(material: Material, layout: Layout, choice: Choice, row: Mapping[str, Json], title: str) -> Facts:
    """Return path, setting and metrics of the best run of a cell."""
    aggregation = material.aggregation
    frame = aggregation.frame
    position = frame["id"].tolist().index(row["id"])
    setting = layout.settings[int(layout.setting_of[position])]
    shown: dict[str, None] = dict.fromkeys([*([choice.best[0]] if choice.best else []), *choice.final])
    metrics = [_metric_fact(material, aggregation.infos[key], position) for key in shown]
    over = f"best of n={row['n']} seeds; their mean decides" if row["n"] > 1 else "n=1 seed"
    block = f" (block {row[BLOCK]})" if BLOCK in row else ""
    return Facts(
        (
            Fact("run", material.shown_path(material.folder / row["name"]), literal=True),
            Fact("setting", f"{setting.label}{block}; {over}"),
            *metrics,
        ),
        title,
    )


def _metric_fact(material: Material, info: MetricInfo, position: int) -> Fact:
    """Write a metric of one run, with its own standard error and what it has to be held against, where it has them."""
    frame, infos = material.aggregation.frame, material.aggregation.infos
    value = float(frame[info.key].iloc[position])
    if not np.isfinite(value):
        return Fact(info.label, NO_VALUE)
    text = info.text(value)
    if (error := info.key + STANDARD_ERROR) in frame.columns and np.isfinite(frame[error].iloc[position]):
        text += f" (standard error {frame[error].iloc[position]:.2g})"
    if (commonest := info.key + MAJORITY) in infos and np.isfinite(frame[commonest].iloc[position]):
        text += f"; always naming the commonest: {info.text(float(frame[commonest].iloc[position]))}"
    return Fact(info.label, text)


def _named(material: Material, key: str) -> str:
    """Write a metric's label, and its key where that says more."""
    label = material.aggregation.infos[key].label
    return label if label == key else f"{label} ({key})"


def _comparison(material: Material, layout: Layout, choice: Choice, row: Mapping[str, Json]) -> list[Block]:
    """Return the best run of another block in the same panel; without blocks, of another setting."""
    frame = material.aggregation.frame
    same = _where(frame, {layout.panel_axis: row[layout.panel_axis]}) if layout.panel_axis else frame
    if BLOCK in layout.setting_axes:
        others, title = without_block(same, [str(row[BLOCK])]), f"Best outside of {row[BLOCK]}"
    elif layout.setting_axes:
        own = _where(same, {axis: row[axis] for axis in layout.setting_axes})
        others, title = same.drop(index=own.index), "Best of the other settings"
    else:
        return []
    best = records(_best(material, layout, others, choice))
    if not best:
        return [Sentence(f"{title}: there is none with a value.", Tone.NOTE)]
    return [_run_facts(material, layout, choice, best[0], title)]


def _where(frame: pd.DataFrame, values: Mapping[str, Json]) -> pd.DataFrame:
    """Return the rows with some axis values."""
    fits = np.ones(len(frame), dtype=np.bool_)
    for axis, value in values.items():
        column = frame[axis]
        fits &= (column.isna() if value is None else column == value).to_numpy(dtype=np.bool_, na_value=False)
    return frame.loc[fits]

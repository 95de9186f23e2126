"""Blocks of a sparse sweep against each other: the best that each has reached."""

from collections import Counter
from collections.abc import Mapping, Sequence

from slurmkit.aggregate.best import block_maxima, leading_blocks
from slurmkit.aggregate.format import NO_VALUE
from slurmkit.aggregate.metric_info import Direction, MetricInfo
from slurmkit.aggregate.text import TextTable
from slurmkit.definition.grid import BLOCK, SETTING
from slurmkit.records import Json
from slurmkit.report.cells import records
from slurmkit.report.choice import Choice
from slurmkit.report.layout import Layout
from slurmkit.report.material import Material
from slurmkit.report.model import Section, Sentence, Tone

TITLE = "Block maxima"


def maxima_of_blocks(material: Material, layout: Layout, choice: Choice) -> Section:
    """Compare the best setting of each block, and say where the block that leads elsewhere does not."""
    if BLOCK not in layout.setting_axes or choice.best is None:
        return Section(TITLE, ())
    metric, direction = choice.best
    aggregation = material.aggregation
    per = [layout.panel_axis] if layout.panel_axis else []
    maxima = block_maxima(aggregation.frame, metric, direction, per, aggregation.seed_axis, axes=aggregation.axes)
    leaders = records(leading_blocks(maxima, direction))
    if not leaders:
        return Section(TITLE, (Sentence("No cell has a value yet.", Tone.NOTE),))
    info = aggregation.infos[metric]
    panels = [aggregation.label(layout.panel_axis, row[layout.panel_axis]) if per else "" for row in leaders]
    found = {(row[layout.panel_axis] if per else "", row[BLOCK]): row for row in records(maxima)}
    values = [row[layout.panel_axis] if per else "" for row in leaders]
    blocks = list(dict.fromkeys(block for _, block in found))
    table = TextTable(
        f"{'Largest' if direction is Direction.MAX else 'Smallest'} {info.label} of each block",
        [BLOCK, *(panels if per else ["best"])],
        [[block, *(_cell(info, found.get((value, block))) for value in values)] for block in blocks],
        1,
        ["The setting that has it in parentheses, of equal ones the first. Blocks of more settings had more chances."],
    )
    ranges = [Sentence(_range_of_others(info, panel, row)) for panel, row in zip(panels, leaders, strict=True)]
    return Section(TITLE, (table, *ranges, *_controls(info, layout.panel_axis, panels, values, leaders, found)))


def _cell(info: MetricInfo, row: Mapping[str, Json] | None) -> str:
    return NO_VALUE if row is None else f"{info.text(row['value'])} ({row[SETTING]})"


def _range_of_others(info: MetricInfo, panel: str, row: Mapping[str, Json]) -> str:
    best = f"{panel}: {row[BLOCK]} has {_cell(info, row)}" if panel else f"{row[BLOCK]} has {_cell(info, row)}"
    if not row["others"]:
        return f"{best}; no other block has a value."
    low, high = info.text(row["others_low"]), info.text(row["others_high"])
    between = f"at {low}" if low == high else f"from {low} to {high}"
    return f"{best}; the maxima of the other {row['others']} blocks lie {between}."


def _controls(
    info: MetricInfo,
    axis: str,
    panels: Sequence[str],
    values: Sequence[Json],
    leaders: Sequence[Mapping[str, Json]],
    found: Mapping[tuple[Json, Json], Mapping[str, Json]],
) -> list[Sentence]:
    """Name the panels in which the block that leads in most of them does not: controls for what it does elsewhere."""
    first, leads = Counter(row[BLOCK] for row in leaders).most_common(1)[0]
    if not len(leaders) / 2 < leads < len(leaders):
        return []
    return [
        Sentence(
            f"Negative control: {first} leads in {leads} of {len(leaders)} values of {axis}, but not in {panel}: "
            f"{_cell(info, found[value, first])} against {_cell(info, row)} of {row[BLOCK]}."
        )
        for panel, value, row in zip(panels, values, leaders, strict=True)
        if row[BLOCK] != first and (value, first) in found
    ]

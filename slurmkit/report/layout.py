"""How a sweep is laid out in figures: which axis makes the panels, what a setting is, and how each setting looks.

A setting is a combination of the values of all axes but the panels' and the seed's. It has one look in all figures.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from slurmkit.aggregate.aggregation import Aggregation
from slurmkit.aggregate.format import clean
from slurmkit.aggregate.frame import Ints, axis_column
from slurmkit.aggregate.groups import group_rows
from slurmkit.definition.grid import BLOCK, SETTING
from slurmkit.records import Json

MOST_PANELS = 12
MOST_SETTINGS = 24
"""More lines than this cannot be told apart, whatever their colours and markers."""
ONE_SETTING = "there is only one setting"
"""Why there is nothing to compare."""
COLOURS = 7
"""Colours beside the baseline's."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a setting is drawn, as numbers: `figures.style` knows what they stand for.

    Attributes:
        colour, marker, dash: positions in the lists of colours, markers and dashes.
    """

    colour: int
    marker: int
    dash: int


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        label: what figures call it.
        values: axis column to value.
        is_baseline: it is what the others are compared with.
        look: how it is drawn.
    """

    label: str
    values: Mapping[str, Json]
    is_baseline: bool
    look: Look


@dataclass(frozen=True, slots=True)
class Layout:
    """How a sweep is laid out.

    Attributes:
        panel_axis: axis column whose values are the panels; empty: one panel.
        panels: their labels.
        setting_axes: axis columns that make a setting.
        settings: in the definition's order.
        panel_of: (runs,) number of each run's panel.
        setting_of: (runs,) number of each run's setting.
    """

    panel_axis: str
    panels: tuple[str, ...]
    setting_axes: tuple[str, ...]
    settings: tuple[Setting, ...]
    panel_of: Ints
    setting_of: Ints

    def each_panel(self, before: str) -> str:
        """Return words and what the panels are: ``in each task``; empty: there is only one."""
        return f"{before} {self.panel_axis}" if len(self.panels) > 1 else ""

    def each_setting(self, text: str) -> str:
        """Return what is only said of several settings; empty: there is one."""
        return text if len(self.settings) > 1 else ""

    @property
    def too_many(self) -> str:
        """Why settings cannot be drawn as lines; empty: they can."""
        if len(self.settings) <= MOST_SETTINGS:
            return ""
        return f"{len(self.settings)} settings are more than {MOST_SETTINGS}, which is as many as can be told apart"


def lay_out(aggregation: Aggregation, panel_axis: str | None = None) -> Layout:
    """Lay out a sweep.

    Args:
        aggregation: its tables.
        panel_axis: the axis whose values are the panels; None: the first of several values that are words. Settings of
            swept numbers alone have panels only if there are too many of them for one.
    """
    frame, axes = aggregation.frame, aggregation.axes
    free = [name for name in axes if name != aggregation.seed_axis]
    panel = axis_column(panel_axis) if panel_axis else _panel_axis(axes, free)
    setting_axes = tuple(name for name in free if name != panel and len(axes[name]) > 1)
    panels = group_rows(frame, [panel] if panel else [], axes)
    settings = group_rows(frame, list(setting_axes), axes)
    panel_labels = [clean(aggregation.label(panel, v)) for v in frame[panel].iloc[panels.first]] if panel else [""]
    return Layout(
        panel_axis=panel,
        panels=tuple(panel_labels),
        setting_axes=setting_axes,
        settings=tuple(_settings(aggregation, frame.iloc[settings.first], setting_axes)),
        panel_of=panels.codes,
        setting_of=settings.codes,
    )


def _panel_axis(axes: Mapping[str, Sequence[Json]], free: Sequence[str]) -> str:
    swept = [name for name in free if len(axes[name]) > 1 and name not in {BLOCK, SETTING}]
    words = [name for name in swept if all(isinstance(value, str) for value in axes[name])]
    if words:
        return words[0]
    settings = math.prod(len(axes[name]) for name in free)
    return swept[0] if swept and settings > MOST_SETTINGS else ""


def _settings(aggregation: Aggregation, firsts: pd.DataFrame, setting_axes: Sequence[str]) -> list[Setting]:
    """Make the settings, each from its first run."""
    rows: list[dict[str, Json]] = [
        dict(zip(setting_axes, values, strict=True)) for values in firsts[list(setting_axes)].itertuples(index=False)
    ]
    baseline = {name: value for name, value in aggregation.baseline.items() if name in setting_axes}
    is_baseline = [bool(baseline) and all(row[name] == value for name, value in baseline.items()) for row in rows]
    looks = _looks([str(row.get(BLOCK, "")) for row in rows], is_baseline)
    repeated = {row.get(SETTING) for row in rows if sum(r.get(SETTING) == row.get(SETTING) for r in rows) > 1}
    hidden = {BLOCK} if SETTING in setting_axes and not repeated else set[str]()
    return [
        Setting(_label(aggregation, row, hidden), row, own, look)
        for row, own, look in zip(rows, is_baseline, looks, strict=True)
    ]


def _label(aggregation: Aggregation, row: Mapping[str, Json], hidden: set[str]) -> str:
    """Name a setting: words speak for themselves, numbers need their axis."""
    parts = [
        clean(value) if isinstance(value, str) else clean(f"{axis}={aggregation.label(axis, value)}")
        for axis, value in row.items()
        if axis not in hidden
    ]
    return ", ".join(parts) or "all runs"


def _looks(blocks: Sequence[str], is_baseline: Sequence[bool]) -> list[Look]:
    """Give each setting its look. Colour 0 is the baseline's alone.

    Where settings stand in blocks, a block has one colour and its settings differ in marker and dash; else colours
    come first, and markers change with them.
    """
    named = list(dict.fromkeys(block for block in blocks if block))
    if len(named) > 1 and len(blocks) > COLOURS:
        within: dict[str, int] = {}
        looks: list[Look] = []
        for block, baseline in zip(blocks, is_baseline, strict=True):
            place = within[block] = within.get(block, -1) + 1
            colour = 0 if baseline else 1 + named.index(block) % COLOURS
            looks.append(Look(colour, place, place))
        return looks
    looks, others = [], 0
    for baseline in is_baseline:
        if baseline:
            looks.append(Look(0, 0, 0))
            continue
        looks.append(Look(1 + others % COLOURS, 1 + others, others // COLOURS))
        others += 1
    return looks

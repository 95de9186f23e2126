"""Panels in a grid: the values of the panel axis side by side, wrapped where there are many."""

import math
from collections.abc import Sequence

from slurmkit.report.figures import style
from slurmkit.report.layout import MOST_PANELS, Layout

_MOST_ACROSS = 6
"""Panels in one row; more of them go into rows of four."""


def shown_panels(layout: Layout) -> tuple[str, ...]:
    """Return the panels that are drawn: the first few of many."""
    return layout.panels[:MOST_PANELS]


def panel_note(layout: Layout) -> str:
    """Say which panels are not drawn; empty: all are."""
    if len(layout.panels) <= MOST_PANELS:
        return ""
    return f" The first {MOST_PANELS} of {len(layout.panels)} values of {layout.panel_axis} are drawn."


def wrapped_grid(
    layout: Layout, *, height_in: float = 1.9, sharey: bool = False
) -> tuple[style.Drawing, list[style.Axes], list[list[style.Axes]]]:
    """Make one set of axes for each panel, in rows of up to four.

    Returns:
        the drawing, the axes in the panels' order, and the rows of the grid.
    """
    names = shown_panels(layout)
    across = {1: 1, 2: 2, 3: 3, 4: 4, 5: 3, 6: 3, 9: 3}.get(len(names), 4)
    down = math.ceil(len(names) / across)
    width = {1: 5.2, 2: 8.0}.get(across, style.FULL_WIDTH_IN)
    drawing = style.new_drawing(width, height_in * down + 0.25)
    rows = style.panels(drawing, down, across, sharey=sharey)
    flat = [axes for row in rows for axes in row]
    for axes in flat[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(flat, names, strict=False):
        axes.set_title(style.wrapped(name, 30))
    return drawing, flat[: len(names)], rows


def term_grid(
    layout: Layout, terms: Sequence[str], *, sharey: bool = True
) -> tuple[style.Drawing, dict[tuple[int, int], style.Axes]]:
    """Make axes for each term and panel: panels across, in several rows where there are many, and terms down.

    Returns:
        the drawing, and (term, panel) to axes.
    """
    names = shown_panels(layout)
    across = len(names) if len(names) <= _MOST_ACROSS else 4
    rows_a_term = math.ceil(len(names) / across)
    width = min(style.FULL_WIDTH_IN, max(5.2, 1.4 + 1.75 * across))
    height = 1.65 if rows_a_term == 1 else 1.45
    drawing = style.new_drawing(width, 0.45 + height * len(terms) * rows_a_term)
    rows = style.panels(drawing, len(terms) * rows_a_term, across, sharex=True)
    grid: dict[tuple[int, int], style.Axes] = {}
    for term, label in enumerate(terms):
        for place in range(rows_a_term * across):
            axes = rows[term * rows_a_term + place // across][place % across]
            if place >= len(names):
                axes.set_visible(False)
                continue
            grid[term, place] = axes
            if sharey and place:
                axes.sharey(grid[term, 0])
                axes.tick_params(labelleft=place % across == 0)
            if term == 0 or rows_a_term > 1:
                axes.set_title(style.wrapped(names[place], 24))
            if place % across == 0:
                axes.set_ylabel(style.wrapped(label, 18))
    return drawing, grid


def label_below(layout: Layout, grid: dict[tuple[int, int], style.Axes], label: str) -> None:
    """Write ticks and a label below the lowest axes of each column."""
    panels = len(shown_panels(layout))
    across = panels if panels <= _MOST_ACROSS else 4
    last = max(term for term, _ in grid)
    for panel in range(max(0, panels - across), panels):
        grid[last, panel].tick_params(labelbottom=True)
        grid[last, panel].set_xlabel(label)

"""Panels in a grid: the values of the panel axis side by side, wrapped where there are many."""

import math
from collections.abc import Iterator, Sequence

from slurmkit.report.figures import style
from slurmkit.report.layout import MOST_PANELS, Layout

_MOST_ACROSS = 6


def shown_panels(layout: Layout) -> tuple[str, ...]:
    """Return the panels that are drawn: the first few of many."""
    return layout.panels[:MOST_PANELS]


def panel_note(layout: Layout) -> str:
    """Say which panels are not drawn; empty: all are."""
    hidden = len(layout.panels) - MOST_PANELS
    return f" The first {MOST_PANELS} of {len(layout.panels)} {layout.panel_title} are drawn." if hidden > 0 else ""


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
        axes.set_title(name)
    return drawing, flat[: len(names)], rows


def term_grid(
    layout: Layout, terms: Sequence[str], *, sharey: bool = True
) -> tuple[style.Drawing, dict[tuple[int, int], style.Axes]]:
    """Make axes for each term and panel: terms down and panels across, or the other way round for many panels.

    Returns:
        the drawing, and (term, panel) to axes.
    """
    names = shown_panels(layout)
    terms_down = len(names) <= _MOST_ACROSS
    down, across = (len(terms), len(names)) if terms_down else (len(names), len(terms))
    width = min(style.FULL_WIDTH_IN, max(5.2, 0.5 + (1.75 if terms_down else 2.6) * across + 0.9))
    drawing = style.new_drawing(width, 0.45 + (1.65 if terms_down else 1.25) * down)
    rows = style.panels(
        drawing, down, across, sharex=True, sharey=("row" if terms_down else "col") if sharey else False
    )
    grid = {(t, p): rows[t][p] if terms_down else rows[p][t] for t in range(len(terms)) for p in range(len(names))}
    for (term, panel), axes in grid.items():
        if terms_down:
            _entitle(axes, names[panel] if term == 0 else "", terms[term] if panel == 0 else "")
        else:
            _entitle(axes, terms[term] if panel == 0 else "", names[panel] if term == 0 else "")
    return drawing, grid


def _entitle(axes: style.Axes, title: str, side: str) -> None:
    if title:
        axes.set_title(style.wrapped(title, 24))
    if side:
        axes.set_ylabel(style.wrapped(side, 18))


def bottom_axes(layout: Layout, grid: dict[tuple[int, int], style.Axes], terms: int) -> Iterator[style.Axes]:
    """Yield the lowest axes of each column, which carry the label of the steps."""
    panels = len(shown_panels(layout))
    if panels <= _MOST_ACROSS:
        yield from (grid[terms - 1, panel] for panel in range(panels))
    else:
        yield from (grid[term, panels - 1] for term in range(terms))

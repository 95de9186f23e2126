"""The completion grid: which cells are done, which are missing, and why."""

import pandas as pd

from slurmkit.report.cells import cells_of, named, planned_cells, records
from slurmkit.report.figures import style
from slurmkit.report.layout import Layout
from slurmkit.report.material import Material
from slurmkit.report.model import Figure
from slurmkit.report.standing import counted
from slurmkit.states import State

NAME = "completion"
_MOST_CELLS = 1200
_FILLS = {
    "done": ("#66c2a5", ""),
    "part": ("#cdeae0", ""),
    State.FAILED: ("#f4b183", "////"),
    State.RUNNING: ("#b5dcf5", ""),
    State.QUEUED: ("#e3eef5", ""),
    State.BLOCKED: ("#eee3c8", "...."),
    State.CANCELLED: ("#e6d3df", "\\\\\\\\"),
    State.UNKNOWN: ("#eee3c8", "xxxx"),
    State.PLANNED: ("#f4f4f4", ""),
}
"""What a cell is to its colour and hatching; the words in it say the same."""


def completion_figure(material: Material, layout: Layout) -> Figure | str:
    """Return the figure, or why there is none."""
    if len(layout.panels) * len(layout.settings) > _MOST_CELLS:
        return f"{len(layout.panels)} x {len(layout.settings)} cells are too many to draw"
    data = named(planned_cells(material.aggregation, layout), layout)
    cells = len(data)
    done = int((data["completed"] == data["planned"]).sum())
    runs = f"{int(data['completed'].sum())}/{int(data['planned'].sum())} runs"
    return Figure(
        name=NAME,
        title="Completion",
        caption=f"{cells_of(done, cells)} complete ({runs})."
        + (" A cell that is not says what became of it." if done < cells else ""),
        alt=f"Grid of {_size(layout)}: {done} of {counted(cells, 'cell')} {'is' if cells == 1 else 'are'} complete.",
        data=data,
        draw=lambda: _draw(data, layout),
        beside=(layout,),
    )


def _size(layout: Layout) -> str:
    settings = counted(len(layout.settings), "setting")
    return f"{counted(len(layout.panels), layout.panel_axis)} by {settings}" if layout.panel_axis else settings


def _draw(data: pd.DataFrame, layout: Layout) -> style.Drawing:
    """Draw the grid: tasks down and settings across, or the other way round where there are many settings."""
    from matplotlib.patches import Rectangle

    settings = [setting.label for setting in layout.settings]
    down, across = list(layout.panels), settings
    first, second = "panel", "setting"
    if len(across) > 8:
        down, across, first, second = across, down, second, first
    cell_in = min(1.5, max(0.75, (style.FULL_WIDTH_IN - 2.2) / len(across)))
    longest = max(len(label) for label in down)
    width = 0.3 + longest * 0.075 + cell_in * len(across)
    drawing = style.new_drawing(width, 0.6 + 0.3 * len(down))
    axes = style.panels(drawing, 1, 1)[0][0]
    for row in records(data):
        x, y = across.index(row[second]), down.index(row[first])
        text, (fill, hatch) = _cell(row["completed"], row["planned"], row["others"])
        axes.add_patch(
            Rectangle((x + 0.03, y + 0.06), 0.94, 0.88, facecolor=fill, edgecolor="#8a8a8a", hatch=hatch, linewidth=0.6)
        )
        box = {"facecolor": fill, "edgecolor": "none", "pad": 1.0} if hatch else None
        axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=6.5, color="#111111", bbox=box)
    axes.set(xlim=(0, len(across)), ylim=(len(down), 0))
    axes.set_xticks([i + 0.5 for i in range(len(across))], [style.wrapped(label, 16) for label in across])
    axes.set_yticks([i + 0.5 for i in range(len(down))], [style.plain(label) for label in down])
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return drawing


def _cell(completed: int, planned: int, others: str) -> tuple[str, tuple[str, str]]:
    """Return a cell's words, and its fill."""
    if completed == planned:
        return ("done" if planned == 1 else f"{completed}/{planned}"), _FILLS["done"]
    first, _, reason = others.partition(";")[0].partition(": ")
    more = f"{completed}/{planned} " if planned > 1 else ""
    fill = _FILLS["part"] if completed else _FILLS.get(State(first), _FILLS["part"])
    return f"{more}{reason or first}", fill

"""How figures look: colours, markers, type, sizes; and how they become SVG, PDF and PNG.

The colours are Okabe and Ito's for all kinds of colour vision, without the yellow, which is lost on white; each goes
with a marker of its own, so that none has to be told by its colour alone.
"""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from slurmkit.report.layout import COLOURS, Look, Setting

Drawing = Any
Axes = Any
"""matplotlib's own. Its type stubs leave keyword arguments unknown, which would make each call an error."""

INK, RULE, PAPER, MUTED = "#1b1b1b", "#dcdcdc", "#ffffff", "#5c5c5c"
"""Text and axes; grid lines; background; what stands back. A page turns them into its own (`html`)."""
PALETTE = ("#1c1c1c", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8b6f3e")
"""The baseline's, then those of other settings."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
DASHES: tuple[Any, ...] = ("solid", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
assert len(PALETTE) == COLOURS + 1

FULL_WIDTH_IN = 10.0
FONT_PT, SMALL_PT = 8.0, 7.0
PNG_DPI = 160

_RC: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": FONT_PT,
    "axes.titlesize": FONT_PT,
    "axes.labelsize": FONT_PT,
    "xtick.labelsize": SMALL_PT,
    "ytick.labelsize": SMALL_PT,
    "legend.fontsize": SMALL_PT,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlepad": 5.0,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "axes.formatter.useoffset": False,
}


@dataclass(frozen=True, slots=True)
class Stroke:
    """A setting's look in matplotlib's words."""

    colour: str
    marker: str
    dash: Any


def stroke(look: Look) -> Stroke:
    """Return how a setting is drawn."""
    return Stroke(PALETTE[look.colour], MARKERS[look.marker % len(MARKERS)], DASHES[look.dash % len(DASHES)])


def new_drawing(width_in: float, height_in: float) -> Drawing:
    """Make an empty drawing; no display is asked for, and no list of open figures keeps it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing: Drawing = Figure(figsize=(width_in, height_in), layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(drawing)
    return drawing


def panels(drawing: Drawing, rows: int, columns: int, **options: Any) -> list[list[Axes]]:
    """Return a grid of axes, row by row."""
    return drawing.subplots(rows, columns, squeeze=False, **options).tolist()


def make_log(axes: Axes, *, across: bool = False) -> None:
    """Make y logarithmic (or x), with a few powers of ten for ticks."""
    from matplotlib.ticker import LogLocator, NullLocator

    (axes.set_xscale if across else axes.set_yscale)("log")
    axis = axes.xaxis if across else axes.yaxis
    axis.set_major_locator(LogLocator(numticks=6))
    axis.set_minor_locator(NullLocator())


def give_room(axes: Axes, values: Any, *, across: bool = False) -> None:
    """Set the limits around values, also where all are equal: a hundredth of them is then the whole axis.

    Args:
        axes: what to set.
        values: what is drawn, not finite ones among them.
        across: set those of x, not of y.
    """
    import numpy as np

    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return
    low, high = float(numbers.min()), float(numbers.max())
    pad = max(0.14 * (high - low), 0.005 * max(abs(low), abs(high)), 1e-12)
    (axes.set_xlim if across else axes.set_ylim)(low - pad, high + pad)


def add_legend(drawing: Drawing, settings: Sequence[Setting], *, lines: bool, extra: Sequence[Any] = ()) -> None:
    """Put the settings below a drawing, in as many columns as fit its width.

    Args:
        drawing: grows by the legend's height.
        settings: in their order.
        lines: whether they are lines or single marks.
        extra: further handles, with labels of their own.
    """
    from matplotlib.lines import Line2D

    handles: list[Any] = []
    for setting in settings:
        look = stroke(setting.look)
        dash = look.dash if lines else "none"
        handles.append(
            Line2D([], [], color=look.colour, marker=look.marker, linestyle=dash, label=_legend_label(setting))
        )
    handles += extra
    if len(handles) < 2 and not extra:
        return
    longest = max(len(str(handle.get_label())) for handle in handles)
    width_in, height_in = drawing.get_size_inches()
    columns = max(1, min(len(handles), int(width_in / (0.55 + longest * SMALL_PT * 0.60 / 72))))
    rows = -(-len(handles) // columns)
    drawing.set_size_inches(width_in, height_in + 0.12 + rows * SMALL_PT * 1.55 / 72)
    drawing.legend(
        handles=handles, loc="outside lower center", ncols=columns, fontsize=SMALL_PT, frameon=False, labelcolor=INK
    )


def _legend_label(setting: Setting) -> str:
    return plain(f"{setting.label} (baseline)" if setting.is_baseline else setting.label)


def plain(label: str) -> str:
    """Return a label as matplotlib shows it unchanged: a dollar sign begins a formula."""
    return label.replace("$", r"\$")


def wrapped(label: str, width: int) -> str:
    """Break a label behind underscores and blanks, so that no line is longer than need be."""
    lines = [""]
    for part in re.split(r"(?<=[_ ])", label):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return plain("\n".join(line.strip() for line in lines))


def files_of(draw: Callable[[], Drawing], name: str) -> dict[str, bytes]:
    """Make a drawing and return it as ending to bytes: svg, pdf, png; the same data give the same bytes.

    Args:
        draw: makes it.
        name: makes the ids inside the SVG its own, so that several can stand in one page.
    """
    import matplotlib as mpl

    library: Any = mpl  # see `Axes`
    files: dict[str, bytes] = {}
    with library.rc_context({**_RC, "svg.hashsalt": name}):
        drawing = draw()
        drawing.align_ylabels()
        drawing.draw_without_rendering()
        drawing.set_layout_engine(None)  # laid out once, and not again for each format
        whole = drawing.get_tightbbox().padded(0.06)
        for ending, metadata in _METADATA.items():
            content = io.BytesIO()
            drawing.savefig(content, format=ending, dpi=PNG_DPI, bbox_inches=whole, metadata=metadata)
            files[ending] = content.getvalue()
    return files


_METADATA: dict[str, dict[str, None]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
"""What would differ from one version or second to the next is left out."""

"""How figures look: colours, markers, type, sizes; and how they become SVG, PDF and PNG.

The colours are Okabe and Ito's for all kinds of colour vision, without the yellow, which is lost on white; each goes
with a marker of its own, so that none has to be told by its colour alone.
"""

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
PNG_DPI = 150
_MOST_LEGEND_ROWS = 6
_MOST_BINS = 6
"""Between ticks. Each tick is costly, too: a line, two marks and two texts."""

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
    "axes.titley": 1.0,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "text.hinting": "none",
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
    from matplotlib.figure import Figure

    from slurmkit.report.figures.recording import POINTS_PER_INCH, RecordingCanvas

    drawing: Drawing = Figure(figsize=(width_in, height_in), dpi=POINTS_PER_INCH, layout="constrained", frameon=False)
    RecordingCanvas(drawing)
    return drawing


def panels(drawing: Drawing, rows: int, columns: int, **options: Any) -> list[list[Axes]]:
    """Return a grid of axes, row by row; none has more ticks than a small panel needs."""
    grid: list[list[Axes]] = drawing.subplots(rows, columns, squeeze=False, **options).tolist()
    for axes in (axes for row in grid for axes in row):
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_major_locator().set_params(nbins=_MOST_BINS)
    return grid


def make_log(axes: Axes, values: Any, *, across: bool = False) -> None:
    """Make y logarithmic (or x), with a few ticks, fewer a decade where values reach over many.

    Args:
        axes: what to set, with all axes that share this scale.
        values: what is drawn; those that are not above 0 do not count.
        across: set x, not y.
    """
    import numpy as np
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    (axes.set_xscale if across else axes.set_yscale)("log")
    axis = axes.xaxis if across else axes.yaxis
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[np.isfinite(numbers) & (numbers > 0)]
    decades = float(np.log10(numbers.max() / numbers.min())) if len(numbers) else 0.0
    steps = next((steps for most, steps in _LOG_STEPS if decades < most), (1.0,))
    axis.set_major_locator(MaxNLocator(4) if decades < _LEAST_DECADES else LogLocator(subs=steps, numticks=6))
    axis.set_major_formatter(FuncFormatter(_tick_text))
    axis.set_minor_locator(NullLocator())


_LEAST_DECADES = 0.25
"""Below this all such ticks may lie outside."""
_LOG_STEPS = ((0.75, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)), (1.3, (1.0, 2.0, 5.0)), (2.5, (1.0, 3.0)))
"""Up to how many decades an axis has these ticks in each."""
_PLAIN_FROM, _PLAIN_TO = 0.99e-3, 0.99e4
_SUPERSCRIPTS = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


def _tick_text(value: float, _position: int | None = None) -> str:
    return power_text(value)


def power_text(value: float) -> str:
    """Write a tick of a logarithmic axis: ``0.02``, ``100``, ``3\u00d710\u207b\u2075``."""
    if _PLAIN_FROM <= value < _PLAIN_TO:
        return f"{value:.6g}"
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPTS)
    return power if mantissa == "1" else f"{mantissa}\u00d7{power}"


def mark(axes: Axes, x: Any, y: Any, look: Stroke, *, across: Any = None, up: Any = None, size: float = 4.5) -> None:
    """Draw one setting's marks, each with the half-widths of its intervals along x and y, where they are known."""
    import numpy as np

    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    for half, draw, at, along in ((up, axes.vlines, xs, ys), (across, axes.hlines, ys, xs)):
        if half is not None:
            halves = np.asarray(half, dtype=np.float64)
            known = np.isfinite(halves) & np.isfinite(along)
            low, high = (along - halves)[known], (along + halves)[known]
            draw(at[known], low, high, color=look.colour, linewidth=0.9, alpha=0.75)
    axes.plot(xs, ys, look.marker, color=look.colour, markersize=size, markeredgewidth=0, zorder=3)


def same_scale(panels_of_axes: Sequence[Axes], values: Sequence[Any], *, across: bool = False) -> None:
    """Give axes limits around what each shows, all of one width: equal distances are equal differences in all.

    Args:
        panels_of_axes: what to set.
        values: for each, what is drawn, ends of bars among it; not finite ones do not count.
        across: set the limits of x, not of y.
    """
    import numpy as np

    arrays = [np.asarray(own, dtype=np.float64) for own in values]
    kept = [own[np.isfinite(own)] for own in arrays]
    whole = np.concatenate([*kept, np.zeros(0)])
    if not len(whole):
        return
    widest = max(float(own.max() - own.min()) for own in kept if len(own))
    width = 1.16 * max(widest, 0.01 * float(np.abs(whole).max()), 1e-12)
    slack = 0.1 * width  # a bar may reach a little beyond what can be
    is_share = bool((whole >= -slack).all() and (whole <= 1 + slack).all())
    for axes, own in zip(panels_of_axes, kept, strict=True):
        middle = float(own.max() + own.min()) / 2 if len(own) else float(np.median(whole))
        low = middle - width / 2
        if is_share and width <= 1:  # no room is wasted on what cannot be
            low = min(max(low, -slack), 1 - width + slack)
        (axes.set_xlim if across else axes.set_ylim)(low, low + width)


def add_legend(drawing: Drawing, settings: Sequence[Setting], *, lines: bool, extra: Sequence[Any] = ()) -> None:
    """Put the settings below a drawing, in as many columns as fit its width, or beside a narrow one if they are many.

    Args:
        drawing: grows by the legend's size.
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
    entry_in, line_in = 0.55 + longest * SMALL_PT * 0.60 / 72, SMALL_PT * 1.55 / 72
    width_in, height_in = drawing.get_size_inches()
    rows = -(-len(handles) // max(1, min(len(handles), int(width_in / entry_in))))
    where, columns = "outside lower center", -(-len(handles) // rows)
    if rows > _MOST_LEGEND_ROWS and width_in + entry_in <= FULL_WIDTH_IN:
        where, columns = "outside right upper", 1
        drawing.set_size_inches(width_in + entry_in, max(height_in, 0.25 + len(handles) * line_in))
    else:
        drawing.set_size_inches(width_in, height_in + 0.12 + rows * line_in)
    drawing.legend(handles=handles, loc=where, ncols=columns, fontsize=SMALL_PT, frameon=False, labelcolor=INK)


def _legend_label(setting: Setting) -> str:
    return plain(f"{setting.label} (baseline)" if setting.is_baseline else setting.label)


def plain(label: str) -> str:
    """Return a label as matplotlib shows it unchanged: a dollar sign begins a formula."""
    return label.replace("$", r"\$")


def wrapped(label: str, width: int) -> str:
    """Break a label behind underscores and blanks, into as few lines as fit a width, all about as long.

    Args:
        label: what is written.
        width: characters in a line; a word that is longer stays whole.
    """
    fewest = len(_lines(label, width))
    narrowest = next(most for most in range(1, width + 1) if len(_lines(label, most)) <= fewest)
    return plain("\n".join(line.strip() for line in _lines(label, narrowest)))


def _lines(label: str, width: int) -> list[str]:
    lines = [""]
    for part in re.split(r"(?<=[_ ])", label):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return lines


class Drawn:
    """A drawing, laid out once, that becomes one format after the other; the same data give the same bytes."""

    def __init__(self, draw: Callable[[], Drawing], name: str) -> None:
        """Make the drawing.

        Args:
            draw: makes it.
            name: makes the ids inside the SVG its own, so that several can stand in one page.
        """
        from slurmkit.report.figures.recording import Recording

        self._rc = {**_RC, "svg.hashsalt": name}
        with _style(self._rc):
            self._recording = Recording(draw(), PAPER)

    def written(self, ending: str) -> bytes:
        """Return the drawing as a file: ``svg``, ``pdf`` or ``png``."""
        with _style(self._rc):
            return self._recording.written(ending, PNG_DPI, _METADATA[ending])


def _style(settings: dict[str, Any]) -> Any:
    import matplotlib as mpl

    library: Any = mpl  # see `Axes`
    return library.rc_context(settings)


_METADATA: dict[str, dict[str, None]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
"""What would differ from one version or second to the next is left out."""

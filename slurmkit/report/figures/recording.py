"""A drawing that is laid out and walked through once, and then played into one file format after the other.

matplotlib's own way, `Figure.savefig`, seeks ticks, texts and their places anew for each format, which is most of what
a figure costs. Here a renderer takes down in points what is to be drawn. matplotlib's renderers for SVG, PDF and PNG
then draw it from that.
"""

import io
from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.artist import Artist
from matplotlib.backend_bases import FigureCanvasBase, GraphicsContextBase, RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Affine2D, Bbox, TransformedBbox, TransformedPath

from slurmkit.report.figures.font import light_font

POINTS_PER_INCH = 72.0
_MARGIN_PT = 4.5
_PNG_EFFORT = 3
"""Of 9: more takes twice the time and saves 3 %."""

_Step = Callable[[Any, Any], None]
"""Draws one thing, with a renderer and the transform from points to the renderer's dots."""


class RecordingCanvas(FigureCanvasBase):
    """What a figure stands on: it is measured and drawn by a `Recorder`."""

    def __init__(self, figure: Any) -> None:
        super().__init__(figure)
        self._recorder = Recorder()

    def get_renderer(self) -> "Recorder":
        """Return what texts are measured with, for the layout, and what takes down the drawing."""
        return self._recorder


class Recorder(RendererBase):
    """Takes down what it is asked to draw; all lengths are in points.

    Attributes:
        steps: what was drawn, in its order.
        reach: boxes around it. What is cut off at a rectangle is not in it: the axes behind are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[_Step] = []
        self.reach: list[Bbox] = []

    def flipy(self) -> bool:
        """Say that y grows upwards."""
        return False

    def draw_path(self, gc: Any, path: Any, transform: Any, rgbFace: Any = None) -> None:  # noqa: N803 (its name there)
        """Take down a path."""
        style, where = _copied(gc), transform.frozen()
        if style.get_clip_rectangle() is None:
            self.reach.append(path.get_extents(where))

        def step(renderer: Any, to_dots: Any) -> None:
            renderer.draw_path(_styled(renderer, style, to_dots), path, where + to_dots, rgbFace)

        self.steps.append(step)

    def draw_markers(
        self,
        gc: Any,
        marker_path: Any,
        marker_trans: Any,
        path: Any,
        trans: Any,
        rgbFace: Any = None,  # noqa: N803
    ) -> None:
        """Take down a marker at each point of a path."""
        style, look, where = _copied(gc), marker_trans.frozen(), trans.frozen()
        if style.get_clip_rectangle() is None:
            self.reach.append(path.get_extents(where))

        def step(renderer: Any, to_dots: Any) -> None:
            own = _styled(renderer, style, to_dots)
            scale = Affine2D().scale(to_dots.get_matrix()[0, 0])
            renderer.draw_markers(own, marker_path, look + scale, path, where + to_dots, rgbFace)

        self.steps.append(step)

    def draw_text(
        self, gc: Any, x: Any, y: Any, s: Any, prop: Any, angle: Any, ismath: Any = False, mtext: Any = None
    ) -> None:
        """Take down a line of text, and where it is anchored: other fonts than ours are of other widths."""
        style, font = _copied(gc), light_font(prop, s)
        width, height, descent = self.get_text_width_height_descent(s, prop, ismath)
        turned = Affine2D().rotate_deg(angle).translate(x, y)
        box = Bbox.from_extents(0, -descent, width, height - descent)
        self.reach.append(TransformedBbox(box, turned).frozen())
        anchor = (x, y) if mtext is None else mtext.get_transform().transform(mtext.get_unitless_position())
        anchored = None if mtext is None else _stand_in(mtext)

        def step(renderer: Any, to_dots: Any) -> None:
            own = _styled(renderer, style, to_dots)
            dots_x, dots_y = to_dots.transform((x, y))
            if renderer.flipy():
                dots_y = renderer.get_canvas_width_height()[1] - dots_y
            if anchored is not None:
                anchored.set_position(to_dots.transform(anchor))
            renderer.draw_text(own, dots_x, dots_y, s, font, angle, ismath, anchored)

        self.steps.append(step)


def _stand_in(text: Any) -> Text:
    """Return what tells a renderer how a text is anchored, without the drawing that the text is part of."""
    return Text(ha=text.get_ha(), rotation=text.get_rotation(), rotation_mode=text.get_rotation_mode())


def _copied(gc: Any) -> GraphicsContextBase:
    """Return a graphics context as it is now: its owner may use it for what comes next."""
    own = GraphicsContextBase()
    own.copy_properties(gc)
    return own


def _styled(renderer: Any, style: Any, to_dots: Any) -> Any:
    """Return a renderer's own graphics context with a recorded one's style, cut where that cuts."""
    own = renderer.new_gc()
    own.copy_properties(style)
    if (rectangle := style.get_clip_rectangle()) is not None:
        own.set_clip_rectangle(TransformedBbox(rectangle, to_dots))
    path, transform = style.get_clip_path()
    if path is not None:
        own.set_clip_path(TransformedPath(path, transform + to_dots))
    return own


class _Played(Artist):
    """A figure's only artist: what was recorded, with its lower left corner at the figure's."""

    def __init__(self, steps: list[_Step], left: float, bottom: float) -> None:
        super().__init__()
        self._steps, self._left, self._bottom = steps, left, bottom

    def draw(self, renderer: Any) -> None:
        """Play it into a renderer."""
        dots = renderer.points_to_pixels(1.0)
        to_dots = Affine2D().translate(-self._left, -self._bottom).scale(dots)
        for step in self._steps:
            step(renderer, to_dots)


def _spare_layout(axes: Any) -> None:
    """Keep the layout from measuring what has no size of its own: lines around axes, and labels without text."""
    for spine in axes.spines.values():
        spine.set_in_layout(False)
    for axis in (axes.xaxis, axes.yaxis):
        if not axis.label.get_text():
            axis.set_label_coords(0, 0)


class Recording:
    """What a figure draws, cropped to what it consists of."""

    def __init__(self, figure: Any, paper: str) -> None:
        """Lay a figure out and take down what it draws.

        Args:
            figure: stands on a `RecordingCanvas`, has 72 dots an inch and no frame of its own.
            paper: the colour behind it.
        """
        for axes in figure.axes:
            _spare_layout(axes)
        figure.align_ylabels([axes for axes in figure.axes if axes.get_ylabel()])
        recorder: Recorder = figure.canvas.get_renderer()
        figure.draw(recorder)
        whole = Bbox.union(recorder.reach).padded(_MARGIN_PT)
        size_in = (whole.width / POINTS_PER_INCH, whole.height / POINTS_PER_INCH)
        self._figure: Any = Figure(figsize=size_in, facecolor=paper)
        self._figure.add_artist(_Played(recorder.steps, whole.x0, whole.y0))

    def written(self, ending: str, dpi: int, metadata: Mapping[str, None]) -> bytes:
        """Return it as a file: ``svg``, ``pdf`` or ``png``.

        Args:
            ending: which.
            dpi: dots an inch of a PNG.
            metadata: what not to write into it.
        """
        content = io.BytesIO()
        options = {"pil_kwargs": {"compress_level": _PNG_EFFORT}} if ending == "png" else {}
        self._figure.savefig(content, format=ending, dpi=dpi, metadata=metadata, **options)
        return content.getvalue()

"""A font without what figures do not use, so that putting it into a PDF takes little.

matplotlib embeds only the glyphs that a figure has, but works through all of a font's tables of ligatures and kerning
for that: with DejaVu Sans 0.2 s a figure. Without these tables, and with some hundred glyphs, it is 0.02 s.
"""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from fontTools import subset as subset_module  # pyright: ignore[reportMissingTypeStubs]
from matplotlib import font_manager

subset: Any = subset_module
fonts: Any = font_manager
"""Neither is typed throughout."""

_CHARACTERS = frozenset(map(chr, [*range(0x20, 0x17F), *range(0x370, 0x400), *range(0x2010, 0x22FF)]))
"""Latin, Greek, punctuation, superscripts, arrows and signs of mathematics."""
_UNUSED = ("GSUB", "GPOS", "GDEF", "FFTM")


class _Light(NamedTuple):
    """A reduced font: its file, the characters that it has, and its folder, which goes with the process."""

    path: str
    characters: frozenset[str]
    folder: TemporaryDirectory[str] | None = None


def light_font(font: Any, text: str) -> Any:
    """Return a font that shows a text as the given one does, and is quickly embedded; the same one if need be.

    Args:
        font: matplotlib's `FontProperties`.
        text: what it shows.
    """
    light = _reduced(str(fonts.findfont(font)))
    if not light.characters.issuperset(text):
        return font
    own = font.copy()
    own.set_file(light.path)
    return own


@cache
def _reduced(path: str) -> _Light:
    """Write a font file with less in it; where it cannot be written, it has no characters."""
    options = subset.Options(glyph_names=True, notdef_outline=True)
    options.drop_tables += _UNUSED
    font = subset.load_font(path, options)
    characters = frozenset(map(chr, font.getBestCmap())) & _CHARACTERS
    reducing = subset.Subsetter(options)
    reducing.populate(unicodes=sorted(map(ord, characters)))
    reducing.subset(font)
    try:
        folder = TemporaryDirectory(prefix="slurmkit-font-")
        light = Path(folder.name) / Path(path).name
        font.save(light)
    except OSError:  # no room: the whole font does as well, if slowly
        return _Light(path, frozenset())
    return _Light(str(light), characters, folder)

"""A report as one HTML page that needs nothing else: styles, script and drawings are in it."""

import re
from functools import cache
from importlib.resources import files as package_files
from typing import TYPE_CHECKING

from slurmkit.aggregate.text import TextTable
from slurmkit.report.figures.style import INK, MUTED, PALETTE, PAPER, RULE
from slurmkit.report.model import Block, Report, Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Template

_FILTER_FROM_ROWS = 8
_VARIABLES = {
    INK: "var(--ink)",
    PALETTE[0]: "var(--ink)",
    RULE: "var(--rule)",
    PAPER: "var(--paper)",
    MUTED: "var(--muted)",
    **{colour: f"var(--s{number})" for number, colour in enumerate(PALETTE) if number},
}
"""Colours of drawings, to those of the page, which has lighter ones for dark."""
_COLOUR = re.compile("|".join(_VARIABLES))
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_SEPARATOR = re.compile(r"(?<=\w)[_/](?=\w)")
_TAG = re.compile(r"<[^>]*>")
_PROLOGUE = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_OWN_STYLE = re.compile(r"\s*<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)
_GROUP_ID = re.compile(r'<g id="[^"]*"')
_COMMENT = re.compile(r"\s*<!--.*?-->", re.DOTALL)
_ROOT = re.compile(r'<svg [^>]*?viewBox="(?P<box>[^"]*)"[^>]*>')


def html(report: Report, drawings: "Mapping[str, bytes]") -> str:
    """Return a report as one page.

    Args:
        report: what it says.
        drawings: name of each figure to its SVG.
    """
    from markupsafe import Markup, escape

    def breakable(text: str) -> Markup:
        """Let a browser break a name behind its separators, not anywhere within its words."""
        return Markup(_SEPARATOR.sub(r"\g<0><wbr>", str(escape(text))))

    def drawing(name: str, alt: str) -> Markup:
        return Markup(inline_svg(drawings[name].decode(), str(escape(alt))))

    return _template().render(
        report=report,
        kind=_kind,
        drawing=drawing,
        breakable=breakable,
        filtered=_filtered,
        anchor=_anchor,
        css=_part("css"),
        js=_part("js"),
    )


@cache
def _template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("slurmkit.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )
    return environment.get_template("report.html.j2")


def _part(ending: str) -> object:
    """Return the page's own style or script, as it is."""
    from markupsafe import Markup

    return Markup(package_files("slurmkit.report").joinpath(f"templates/report.{ending}").read_text(encoding="utf-8"))


def _kind(block: Block) -> str:
    return type(block).__name__


def _anchor(section: Section) -> str:
    return section.anchor


def _filtered(table: TextTable) -> bool:
    """Whether a table is long enough to be filtered."""
    return len(table.rows) >= _FILTER_FROM_ROWS


def inline_svg(svg: str, alt: str) -> str:
    """Make a drawing part of a page: its colours follow the page's, and it is scaled to its column.

    Args:
        svg: as matplotlib writes it.
        alt: what it shows, escaped for an attribute.
    """
    body = _OWN_STYLE.sub("", _METADATA.sub("", _COMMENT.sub("", _PROLOGUE.sub("", svg))))
    body = _GROUP_ID.sub("<g", body)  # group ids repeat from drawing to drawing; those that are referred to do not
    body = _TAG.sub(lambda tag: _NUMBER.sub(_short, tag[0]), body)  # not in texts: they are what the axes say
    body = _COLOUR.sub(lambda colour: _VARIABLES[colour[0]], body)
    root = _ROOT.search(body)
    assert root is not None, svg[:200]
    width = float(root["box"].split()[2])
    start = f'<svg viewBox="{root["box"]}" role="img" aria-label="{alt}" style="--natural:{width * 4 / 3:.0f}px">'
    return start + body[root.end() :].strip()


def _short(number: "re.Match[str]") -> str:
    """Write a coordinate to a hundredth of a point."""
    return f"{float(number[0]):.2f}"

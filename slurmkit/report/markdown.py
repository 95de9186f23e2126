"""A report as Markdown (GitHub's: with tables)."""

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from slurmkit.report.model import Block, Report

if TYPE_CHECKING:
    from jinja2 import Template

_SPECIAL = re.compile(r"([\\`*\[\]<>|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
_AT_THE_START = re.compile(r"^(\d*)([#+\-]|(?<=\d)[.)])(?=\s)")


def markdown(report: Report) -> str:
    """Return a report as Markdown."""
    return _template().render(report=report, kind=_kind, text=text, code=code, cells=_cells)


@cache
def _template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(  # no automatic escapes: those of Markdown are its own, `text` and `code` below
        loader=PackageLoader("slurmkit.report"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.md.j2")


def _kind(block: Block) -> str:
    return type(block).__name__


def _cells(row: Sequence[str]) -> str:
    return f"| {' | '.join(map(text, row))} |"


def text(value: str) -> str:
    """Escape a line so that Markdown shows it as it is."""
    return _AT_THE_START.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", " ".join(value.split())))


def code(value: str) -> str:
    """Write a line as a code span, whatever it holds."""
    longest = max((len(run) for run in re.findall("`+", value)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{value}{pad}{fence}"

"""What a report says, whatever it is written as: sections of facts, tables, figures and sentences."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import pandas as pd

from slurmkit.aggregate.text import TextTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


class Tone(StrEnum):
    """How a sentence is meant."""

    PLAIN = "plain"
    NOTE = "note"
    """What has to be known to read the numbers beside it."""
    WARNING = "warning"
    """What makes numbers doubtful, or is missing."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A line of text.

    Attributes:
        text: the line, as it is: no markup.
        tone: how it is meant.
    """

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Fact:
    """One named value of a list.

    Attributes:
        name: what it is; empty: the value speaks for itself.
        value: the value.
        literal: it is a path, a commit or a command, to be copied as it stands.
    """

    name: str
    value: str
    literal: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """A list of named values.

    Attributes:
        facts: in their order.
        title: what they are about; empty: the section's title says it.
    """

    facts: tuple[Fact, ...]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """What to type in a shell, one command a line."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure, with the data that it is drawn from.

    Attributes:
        name: its files' name below ``figures/``, without an ending.
        title: what it shows.
        caption: what has to be known to read it, with the counts of what it is drawn from.
        alt: what a person who cannot see it should know that it shows.
        data: exactly what is drawn, one row a mark: the CSV beside it.
        draw: makes the drawing.
        beside: what else it is made from, such as labels and looks: while this and `data` stay as they are, so does
            the drawing.
    """

    name: str
    title: str
    caption: str
    alt: str
    data: pd.DataFrame
    draw: "Callable[[], Drawing]"
    beside: tuple[object, ...] = ()

    def csv(self) -> bytes:
        """Return `data` as the file beside the figure."""
        return self.data.to_csv(index=False, lineterminator="\n").encode()


Block = Sentence | Facts | Command | Figure | TextTable


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report under a title of its own."""

    title: str
    blocks: tuple[Block, ...]

    @property
    def anchor(self) -> str:
        """The title as the end of a link."""
        return self.title.lower().replace(" ", "-")


@dataclass(frozen=True, slots=True)
class Report:
    """A whole report.

    Attributes:
        collection: name of the collection.
        description: what it is for, as its definition says; may be empty.
        summary: the first line: what was observed.
        partial: what is still missing, in one line; empty: the collection is complete.
        sections: in their order.
    """

    collection: str
    description: str
    summary: str
    partial: str
    sections: tuple[Section, ...]

    @property
    def figures(self) -> list[Figure]:
        """All figures, in their order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Figure)]

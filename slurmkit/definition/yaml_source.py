"""YAML 1.2 text to plain values that know their line and column; hostile files are refused early.

Scalars follow YAML 1.2's core schema (``1e-4`` is a number, ``no`` and ``12:30:00`` are strings). Left out on purpose:
tags, merge keys, several documents, and numbers that JSON cannot carry.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, NamedTuple

import yaml

from slurmkit.errors import DefinitionError
from slurmkit.records import Json

MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_NODES = 120_000
MAX_CHARACTERS = 4_000_000
"""Both counted with every alias written out, which is what an alias bomb blows up."""

Path = Sequence[str | int]
"""Keys and list positions from the top of the file."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL_OR_HEX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(["", "~", "null", "Null", "NULL"]),
    **dict.fromkeys(["true", "True", "TRUE"], True),
    **dict.fromkeys(["false", "False", "FALSE"], False),
}


class Node(NamedTuple):
    """Where a value and its key stand, and the same of what is inside. Lines and columns count from 1."""

    key: tuple[int, int]
    value: tuple[int, int]
    inside: "dict[str, Node] | list[Node] | None"


class Problem(NamedTuple):
    """One thing wrong with a file."""

    place: tuple[int, int]
    path: str
    what: str


@dataclass(frozen=True, slots=True)
class Source:
    """A file's content as plain values, and where each of them stands.

    Attributes:
        name: how messages call the file.
        value: dicts, lists, str, int, float, bool and None.
        root: the place of everything in `value`.
        problems: what is wrong with it as YAML, so far as one could read on.
        signed: places of plain numbers that are written with a sign.
    """

    name: str
    value: Json
    root: Node
    problems: tuple[Problem, ...]
    signed: frozenset[tuple[int, int]] = frozenset()

    def problem(self, path: Path, what: str, *, at: Literal["key", "value"] = "key") -> Problem:
        """Place a problem at a key or its value. What the file lacks is placed at what should contain it."""
        node = self.root
        for part in path:
            inside = node.inside
            if isinstance(inside, dict) and part in inside:
                node = inside[str(part)]
            elif isinstance(inside, list) and isinstance(part, int) and part < len(inside):
                node = inside[part]
            else:
                break
        return Problem(node.key if at == "key" else node.value, path_text(path), what)

    def refuse(self, problems: Sequence[Problem]) -> DefinitionError:
        """Return the error that lists all problems of the file in the order of its lines."""
        return refuse(self.name, problems)


def refuse(name: str, problems: Sequence[Problem]) -> DefinitionError:
    """Return the error that lists all problems of a file in the order of its lines."""
    shown = sorted(set(problems))[:50]
    lines = [f"{name}:{line}:{column}: {path}{': ' if path else ''}{what}" for (line, column), path, what in shown]
    if len(set(problems)) > len(shown):
        lines.append(f"{name}: and {len(set(problems)) - len(shown)} more problems. Mend these first.")
    return DefinitionError(lines)


def path_text(path: Path) -> str:
    """Write a path as people read it: ``overrides[0].where.task``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{shown(part, quote=False)}"
    return text


def shown(value: Json, *, quote: bool = True) -> str:
    """Write a value for a message: one line, not too long."""
    if isinstance(value, str):
        text = value if not quote and value.isprintable() else repr(value[:60] + value[60:][:1])
    else:
        text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def read_yaml(content: bytes, name: str) -> Source:
    """Read one YAML document.

    Args:
        content: the file's bytes, UTF-8.
        name: how messages call the file.

    Raises:
        DefinitionError: it is no YAML, or too large, deep or bushy to be a definition.
    """
    if len(content) > MAX_BYTES:
        what = f"the file has {len(content):,} bytes; a definition has at most {MAX_BYTES:,}. Move data out of it."
        raise refuse(name, [Problem((1, 1), "", what)])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        what = f"byte {content[error.start]:#04x} is not UTF-8. Save the file as UTF-8."
        raise refuse(name, [Problem((line, column), "", what)]) from error
    if match := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, match.start()) + 1
        column = match.start() - text.rfind("\n", 0, match.start())
        what = f"character {match[0]!r} cannot stand in YAML. Delete it."
        raise refuse(name, [Problem((line, column), "", what)])
    reader = _Reader(text)
    try:
        value, root = reader.document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        what = f"not YAML: {' '.join(filter(None, [error.context, error.problem]))}. Mend the line, or quote the text."
        raise refuse(name, [*reader.problems, Problem(place, "", what)]) from error
    except _StopError as error:
        raise refuse(name, [*reader.problems, Problem(error.place, "", str(error))]) from error
    return Source(name, value, root, tuple(reader.problems), frozenset(reader.signed))


class _StopError(Exception):
    """Reading on would be useless or too costly."""

    def __init__(self, place: tuple[int, int], what: str) -> None:
        super().__init__(what)
        self.place = place


class _Anchor(NamedTuple):
    value: Json
    node: Node
    nodes: int
    characters: int


class _Reader:
    """Builds values and places from libyaml's events in one pass."""

    def __init__(self, text: str) -> None:
        self.problems: list[Problem] = []
        self.signed: set[tuple[int, int]] = set()
        self._loader = _LOADER(text)
        self._path: list[str | int] = []
        self._anchors: dict[str, _Anchor] = {}
        self._nodes = 0
        self._characters = 0

    def document(self) -> tuple[Json, Node]:
        """Read the one document of the stream."""
        get_event = self._loader.get_event
        get_event()  # the stream starts
        event = get_event()
        if isinstance(event, yaml.StreamEndEvent):
            raise _StopError((1, 1), "the file is empty. Start with `name:` and `command:`.")
        value, node = self._value(get_event())
        get_event()  # the document ends
        event = get_event()
        if not isinstance(event, yaml.StreamEndEvent):
            self._say(_place(event), "a second document starts here. Put it into a file of its own.")
        return value, node

    def _say(self, place: tuple[int, int], what: str) -> None:
        self.problems.append(Problem(place, path_text(self._path), what))

    def _count(self, place: tuple[int, int], nodes: int, characters: int) -> None:
        self._nodes += nodes
        self._characters += characters
        if self._nodes > MAX_NODES or self._characters > MAX_CHARACTERS:
            limits = f"{MAX_NODES:,} values or {MAX_CHARACTERS:,} characters"
            what = f"more than {limits} with all aliases written out. Make the file smaller."
            raise _StopError(place, what)

    def _value(self, event: Any, key_place: tuple[int, int] | None = None) -> tuple[Json, Node]:
        """Read the value that starts with an event."""
        place = _place(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event.anchor, place, key_place or place)
        nodes, characters = self._nodes, self._characters
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._say(
                place, f"tag {shown(tag, quote=False)} is not allowed. Delete it; quote text that looks like a number."
            )
        if isinstance(event, yaml.ScalarEvent):
            self._count(place, 1, len(event.value))
            value, inside = self._scalar(event, place), None
        else:
            self._count(place, 1, 0)
            if len(self._path) >= MAX_DEPTH:
                raise _StopError(place, f"nested more than {MAX_DEPTH} levels deep. Flatten it.")
            value, inside = self._mapping() if isinstance(event, yaml.MappingStartEvent) else self._sequence()
        node = Node(key_place or place, place, inside)
        if event.anchor is not None:
            size = (self._nodes - nodes, self._characters - characters)
            self._anchors[event.anchor] = _Anchor(value, node, *size)
        return value, node

    def _alias(self, name: str, place: tuple[int, int], key_place: tuple[int, int]) -> tuple[Json, Node]:
        anchor = self._anchors.get(name)
        if anchor is None:
            word = shown(name, quote=False)
            self._say(place, f"alias *{word} names no anchor above it. Define &{word} first.")
            return None, Node(key_place, place, None)
        self._count(place, anchor.nodes, anchor.characters)
        return anchor.value, Node(key_place, place, anchor.node.inside)

    def _sequence(self) -> tuple[list[Json], list[Node]]:
        values: list[Json] = []
        nodes: list[Node] = []
        get_event, path = self._loader.get_event, self._path
        path.append(0)
        while not isinstance(event := get_event(), yaml.SequenceEndEvent):
            value, node = self._value(event)
            values.append(value)
            nodes.append(node)
            path[-1] = len(values)
        path.pop()
        return values, nodes

    def _mapping(self) -> tuple[dict[str, Json], dict[str, Node]]:
        values: dict[str, Json] = {}
        nodes: dict[str, Node] = {}
        get_event, path = self._loader.get_event, self._path
        while not isinstance(event := get_event(), yaml.MappingEndEvent):
            place = _place(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise _StopError(place, "a list, mapping or alias as a key. Write `word: value`.")
            key: str = event.value
            self._count(place, 1, len(key))
            path.append(key)
            if key in values:
                line, column = nodes[key].key
                self._say(place, f"the key is written twice, first at {line}:{column}. Keep one.")
            elif key == "<<":
                self._say(place, "merge keys are not part of YAML 1.2. Write the keys out.")
            elif not key or "\0" in key or event.tag is not None:
                self._say(place, f"{shown(key)} cannot be a key. Write `word: value`.")
            value, node = self._value(get_event(), place)
            values.setdefault(key, value)
            nodes.setdefault(key, node)
            path.pop()
        return values, nodes

    def _scalar(self, event: Any, place: tuple[int, int]) -> Json:
        text: str = event.value
        if event.style:  # quoted or a block: text, whatever it looks like
            if "\0" in text:
                self._say(place, f"NUL in {shown(text)}. Nothing that runs can be told it; delete it.")
            return text
        if text in _WORDS:
            return _WORDS[text]
        if text[0] not in "+-.0123456789":
            return text
        if _NOT_FINITE.fullmatch(text):
            self._say(place, f"{text} is no number that JSON can carry. Quote it, or leave the key out.")
            return None
        return self._number(text, place)

    def _number(self, text: str, place: tuple[int, int]) -> Json:
        if text[0] in "+-":
            self.signed.add(place)
        whole = bool(_INT.fullmatch(text))
        if whole or _OCTAL_OR_HEX.fullmatch(text):
            number = (int(text) if whole else int(text, 0)) if len(text) <= 30 else 2**64
            if not -(2**63) <= number < 2**63:
                self._say(
                    place, f"{shown(text, quote=False)} does not fit into 64 bits. Quote it, or write it as 1e30."
                )
                return 0
            return number
        if _FLOAT.fullmatch(text):
            number = float(text)
            if not isfinite(number):
                self._say(
                    place, f"{shown(text, quote=False)} is too large for a float. Quote it, or write a smaller one."
                )
                return 0.0
            return number
        return text


def _place(event: Any) -> tuple[int, int]:
    mark = event.start_mark
    return mark.line + 1, mark.column + 1

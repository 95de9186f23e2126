"""The grid of a definition: its dimensions, the labels on its axes, and which cells a ``where`` means."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from slurmkit.names import Label, label_in_name, label_key
from slurmkit.records import Json, is_list

if TYPE_CHECKING:  # reading commands come here without pydantic
    from slurmkit.definition.model import Definition
    from slurmkit.definition.parts import Axis

BLOCK, SETTING = "block", "setting"
"""The two axes that `settings` make."""


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a dimension, or of several at once.

    Attributes:
        labels: its label on each axis.
        texts: these labels as they stand in run names.
        sets: the dotted config keys that it sets.
    """

    labels: dict[str, Label]
    texts: dict[str, str]
    sets: dict[str, Json]


def point(labels: dict[str, Label], sets: dict[str, Json]) -> Point:
    """Make a point."""
    return Point(labels, {axis: label_in_name(label) for axis, label in labels.items()}, sets)


def joined(points: Iterable[Point]) -> Point:
    """Return the point that is all of these at once."""
    labels: dict[str, Label] = {}
    texts: dict[str, str] = {}
    sets: dict[str, Json] = {}
    for each in points:
        labels |= each.labels
        texts |= each.texts
        sets |= each.sets
    return Point(labels, texts, sets)


def axis_key(axis: "Axis", name: str, config: Mapping[str, Json]) -> str | None:
    """Return the config key that an axis sets.

    A plain list sets the key of the axis' own name where the shared config has one. None: the axis sets nothing, or
    each label brings keys of its own.
    """
    if axis.key is not None or isinstance(axis.values, dict):
        return axis.key
    return name if name in config and not isinstance(config[name], dict) else None


def axis_points(axis: "Axis", name: str, config: Mapping[str, Json]) -> list[Point]:
    """Return the points of one axis, in order."""
    key = axis_key(axis, name, config)
    if isinstance(axis.values, dict):
        return [point({name: label}, value if key is None else {key: value}) for label, value in axis.values.items()]
    return [point({name: label}, {} if key is None else {key: label}) for label in axis.values]


def groups(definition: "Definition") -> list[list[str]]:
    """Return the names of the axes of each dimension, in order.

    Zipped axes are one dimension, where the first of them stands. Block and setting are one dimension, before the
    seed, so that the repetitions of a cell stand side by side.
    """
    zipped = {axis: group for group in definition.zip for axis in group}
    found: list[list[str]] = []
    for name in definition.axes:
        group = [axis for axis in definition.axes if axis in zipped.get(name, [name])]
        if group[0] == name:
            found.append(group)
    if definition.settings:
        seed_at = [index for index, group in enumerate(found) if definition.seed_axis in group]
        found.insert(seed_at[0] if seed_at else len(found), [BLOCK, SETTING])
    return found


def dimensions(definition: "Definition") -> list[list[Point]]:
    """Return the points of each dimension. Crossed with each other they are the cells of the grid."""
    return [_points(definition, group) for group in groups(definition)]


def _points(definition: "Definition", group: list[str]) -> list[Point]:
    if group == [BLOCK, SETTING]:
        return [
            point({BLOCK: block, SETTING: setting}, sets)
            for block, settings in definition.settings.items()
            for setting, sets in settings.items()
        ]
    columns = [axis_points(definition.axes[axis], axis, definition.config) for axis in group]
    return columns[0] if len(columns) == 1 else [joined(points) for points in zip(*columns, strict=True)]


def labels(definition: "Definition") -> dict[str, list[Label]]:
    """Return the labels of each axis, block and setting among them, in order; new ones of `include` come last."""
    known: dict[str, dict[str, Label]] = {}
    for group, points in zip(groups(definition), dimensions(definition), strict=True):
        for axis in group:
            known[axis] = {}
            for each in points:
                known[axis].setdefault(label_key(each.labels[axis]), each.labels[axis])
    for cell in definition.include:
        for axis, wanted in cell.items():
            for label in as_list(wanted):
                known[axis].setdefault(label_key(label), label)
    return {axis: list(found.values()) for axis, found in known.items()}


def own_labels(definition: "Definition", where: Mapping[str, Label]) -> dict[str, Label]:
    """Spell the labels of a ``where`` as the axes spell them."""
    known = labels(definition)
    return {
        axis: next(label for label in known[axis] if label_key(label) == label_key(wanted))
        for axis, wanted in where.items()
    }


def as_list(wanted: Json) -> list[Label]:
    """Return the labels that one entry of a cell allows: a list as it is, a single label alone."""
    return wanted if is_list(wanted) else [wanted]


class Where:
    """A condition on cells: for each axis that it names, one of some labels."""

    def __init__(self, where: Mapping[str, Json]) -> None:
        self._allowed = [(axis, {label_key(label) for label in as_list(wanted)}) for axis, wanted in where.items()]

    def holds(self, cell: Mapping[str, Label]) -> bool:
        """Whether a cell meets the condition."""
        return all(label_key(cell[axis]) in allowed for axis, allowed in self._allowed)


def included(definition: "Definition", cell: Mapping[str, Json]) -> list[tuple[Point, ...]]:
    """Return the cells that one entry of `include` adds, each as one point a dimension.

    Axes that the entry leaves out take all their values. Of zipped axes, naming some of them picks the rows that fit,
    naming all of them may pair anew.
    """
    choices: list[list[Point]] = []
    for group, points in zip(groups(definition), dimensions(definition), strict=True):
        given = {axis: cell[axis] for axis in group if axis in cell}
        condition = Where(given)
        if len(given) < len(group) or BLOCK in group:
            choices.append([each for each in points if condition.holds(each.labels)])
        else:
            columns = [_named(definition, axis, as_list(given[axis])) for axis in group]
            choices.append([joined(points) for points in product(*columns)])
    return list(product(*choices))


def _named(definition: "Definition", name: str, wanted: list[Label]) -> list[Point]:
    """Return the points of an axis with the wanted labels; a list's may be new."""
    axis = definition.axes[name]
    known = {label_key(each.labels[name]): each for each in axis_points(axis, name, definition.config)}
    key = axis_key(axis, name, definition.config)
    return [
        known.get(label_key(label)) or point({name: label}, {} if key is None else {key: label}) for label in wanted
    ]


def default_run_name(definition: "Definition") -> str:
    """Return the pattern of run names where a definition gives none.

    The axes stand in alphabetical order, the seed last, so that the order of keys in the file changes no name.
    """
    axes = sorted(axis for group in groups(definition) for axis in group)
    if definition.seed_axis in axes:
        axes.remove(definition.seed_axis)
        axes.append(definition.seed_axis)
    return "_".join(f"{axis}-{{{axis}}}" for axis in axes) or "run"

"""How the parts of a definition fit together: the grid, its cells and the config keys that they set."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from slurmkit.definition import grid, references
from slurmkit.definition.references import values_path
from slurmkit.definition.yaml_source import Problem, path_text, shown
from slurmkit.names import Label, did_you_mean, label_key
from slurmkit.records import Json, is_list, is_mapping

if TYPE_CHECKING:
    from slurmkit.definition.model import Definition

Problems = Iterator[Problem]

RESERVED_AXES = frozenset({"config", "run_dir", "python", "run_id", "needs"})


class _Check(NamedTuple):
    """A check, the top-level keys that must be sound for it to make sense, and the key that it finds unsound."""

    check: "Callable[[Definition], Problems]"
    reads: str
    judges: str


def cross_check(definition: "Definition", broken: set[str]) -> list[Problem]:
    """Find all that is wrong between the parts of a definition.

    Args:
        definition: the parts, each sound by itself.
        broken: top-level keys that were not, and have defaults now; what builds on them is not checked.
    """
    problems: list[Problem] = []
    unsound = set(broken)
    for check, reads, judges in _CHECKS:
        if unsound.isdisjoint(reads.split()):
            found = list(check(definition))
            problems += found
            if found:
                unsound.add(judges)
    return problems


def _config(definition: "Definition") -> Problems:
    yield from _plain_keys(definition, definition.config, ["config"])


def _plain_keys(definition: "Definition", value: Json, path: list[str | int]) -> Problems:
    if is_mapping(value):
        for key, item in value.items():
            if "." in key:
                nested = ": {".join(key.split(".")) + ": ..." + "}" * key.count(".")
                what = f"a config key with a dot could not be told from a path. Nest it: {{{nested}}}."
                yield definition.source.problem([*path, key], what)
            yield from _plain_keys(definition, item, [*path, key])
    elif is_list(value):
        for index, item in enumerate(value):
            yield from _plain_keys(definition, item, [*path, index])


def _axes(definition: "Definition") -> Problems:
    at = definition.source.problem
    for name, axis in definition.axes.items():
        path = ["axes", name]
        if name in RESERVED_AXES or (definition.settings and name in {grid.BLOCK, grid.SETTING}):
            yield at(path, f"{name!r} has a meaning of its own in placeholders or settings. Rename the axis.")
        if axis.key is not None and (problem := _bad_key(axis.key)):
            yield at([*path, "key"], problem, at="value")
        if isinstance(axis.values, list):
            yield from _labels(definition, axis.values, values_path(definition, name))
        elif axis.key is None:
            for label, sets in axis.values.items():
                yield from _set_block(definition, sets, [*path, "values", label])
        if isinstance(axis.values, dict):
            for label in filter(_bad_label, axis.values):
                yield at([*path, "values", label], _bad_label(label))


def _labels(definition: "Definition", values: Sequence[Json], path: list[str | int]) -> Problems:
    at = definition.source.problem
    seen: dict[str, int] = {}
    for index, value in enumerate(values):
        if isinstance(value, list | dict):
            what = f"{shown(value)} cannot be a label. Give it one: {{values: {{label: {{dotted.key: ...}}}}}}."
            yield at([*path, index], what)
        elif isinstance(value, str) and (problem := _bad_label(value)):
            yield at([*path, index], problem)
        elif (first := seen.setdefault(label_key(value), index)) != index:
            yield at([*path, index], f"{shown(value)} is the same label as value {first + 1}. Delete one.")


def _bad_label(text: str) -> str:
    if text.isprintable() and 0 < len(text) <= 200:
        return ""
    return f"{shown(text)} cannot be a label. Use one line of at most 200 characters."


def _set_block(definition: "Definition", sets: Json, path: list[str | int]) -> Problems:
    """Check a mapping of dotted config keys to values."""
    at = definition.source.problem
    if not is_mapping(sets):
        what = (
            f"expected {{dotted.config.key: value}}, got {shown(sets)}. Write the keys that it sets, or {{}} for none."
        )
        yield at(path, what, at="value")
        return
    for key, value in sets.items():
        if problem := _bad_key(key):
            yield at([*path, key], problem)
        for other in sets:
            if key.startswith(f"{other}."):
                yield at([*path, key], f"lies inside {other}, which is set as well. Put it there, or split {other}.")
        yield from _plain_keys(definition, value, [*path, key])


def _bad_key(key: str) -> str:
    if all(key.split(".")) and key.isprintable() and len(key) <= 300:
        return ""
    return f"{shown(key)} is no dotted config key. Write names joined by dots, such as train.lr."


def _zip(definition: "Definition") -> Problems:
    at = definition.source.problem
    seen: set[str] = set()
    for index, group in enumerate(definition.zip):
        sizes: dict[str, int] = {}
        for position, axis in enumerate(group):
            path = ["zip", index, position]
            if axis not in definition.axes:
                yield at(path, f"unknown axis {shown(axis)}. {did_you_mean(axis, definition.axes, what='Axes')}")
            elif axis in seen:
                yield at(path, f"axis {axis} is zipped already. An axis can be in one group.")
            else:
                sizes[axis] = len(definition.axes[axis].values)
            seen.add(axis)
        if len(set(sizes.values())) > 1:
            counts = ", ".join(f"{axis} has {size}" for axis, size in sizes.items())
            yield at(["zip", index], f"axes of different lengths: {counts} values. Make them equal.")
        if len(group) < 2:
            yield at(["zip", index], f"expected two axes or more, got {shown(group)}. Add one, or delete the group.")


def _settings(definition: "Definition") -> Problems:
    at = definition.source.problem
    for block, settings in definition.settings.items():
        for path in (["settings", block], *(["settings", block, setting] for setting in settings)):
            if problem := _bad_label(path[-1]):
                yield at(path, problem)
        if not settings:
            yield at(["settings", block], "the block has no settings. Fill it in, or delete it.")
        for setting, sets in settings.items():
            yield from _set_block(definition, sets, ["settings", block, setting])


def _include(definition: "Definition") -> Problems:
    at = definition.source.problem
    for index, cell in enumerate(definition.include):
        path: list[str | int] = ["include", index]
        if not cell:
            yield at(path, "an empty cell. Name its axes, or delete it.")
        yield from _cell(definition, cell, path, may_be_new=True)
        for group in grid.groups(definition):
            new = [axis for axis in group if axis in cell and not _all_known(definition, axis, cell[axis])]
            if missing := [axis for axis in group if new and axis not in cell]:
                what = f"{new[0]} has a new value here and is zipped with {missing[0]}. Give {missing[0]} too."
                yield at(path, what)


def _all_known(definition: "Definition", axis: str, wanted: Json) -> bool:
    if axis not in definition.axes:
        return True  # settings, which have nothing new, or a problem that is told elsewhere
    known = {label_key(label) for label in definition.axes[axis].values}
    return all(isinstance(label, list | dict) or label_key(label) in known for label in grid.as_list(wanted))


def _exclude(definition: "Definition") -> Problems:
    for index, cell in enumerate(definition.exclude):
        if not cell:
            yield definition.source.problem(["exclude", index], "would leave out all. Name the axes of the cells.")
        yield from _cell(definition, cell, ["exclude", index])


def _overrides(definition: "Definition") -> Problems:
    at = definition.source.problem
    for index, override in enumerate(definition.overrides):
        path: list[str | int] = ["overrides", index]
        yield from _cell(definition, override.where, [*path, "where"])
        yield from _set_block(definition, override.set, [*path, "set"])
        if not override.set and override.resources is None:
            yield at(path, "changes nothing. Add `set:` or `resources:`, or delete it.")


def _needs_when(definition: "Definition") -> Problems:
    for alias, need in definition.needs.items():
        yield from _cell(definition, need.when, ["needs", alias, "when"], lists=False)


def _cell(
    definition: "Definition",
    cell: Mapping[str, Json],
    path: list[str | int],
    *,
    may_be_new: bool = False,
    lists: bool = True,
) -> Problems:
    """Check that a cell names axes and labels that exist.

    Args:
        definition: whose axes.
        cell: axis to label, or to a list of labels.
        path: of the cell in the file.
        may_be_new: whether labels of list axes may be new.
        lists: whether an axis may have several labels.
    """
    at = definition.source.problem
    known = _known_labels(definition, with_include=not may_be_new)
    for axis, wanted in cell.items():
        here = [*path, axis]
        if axis not in known:
            yield at(here, f"unknown axis {shown(axis)}. {did_you_mean(axis, known, what='Axes')}")
            continue
        if isinstance(wanted, list) and not (lists and wanted):
            yield at(
                here,
                f"expected {'one value' if not lists else 'values'}, got {shown(wanted)}. Name a value of the axis.",
                at="value",
            )
            continue
        new = may_be_new and axis in definition.axes and isinstance(definition.axes[axis].values, list)
        for label in grid.as_list(wanted):
            if isinstance(label, list | dict):
                yield at(here, f"expected a value of the axis, got {shown(label)}. Name one.", at="value")
            elif label_key(label) not in known[axis] and not new:
                what = (
                    f"{axis} has no value {shown(label)}. {did_you_mean(label_key(label), known[axis], what='Values')}"
                )
                yield at(here, what, at="value")


def _known_labels(definition: "Definition", *, with_include: bool) -> dict[str, dict[str, Label]]:
    """Return the labels of each axis by `label_key`."""
    known: dict[str, dict[str, Label]] = {
        axis: {label_key(label): label for label in definition.axes[axis].values} for axis in definition.axes
    }
    if definition.settings:
        known[grid.BLOCK] = {block: block for block in definition.settings}
        known[grid.SETTING] = {name: name for settings in definition.settings.values() for name in settings}
    if with_include:
        for cell in definition.include:
            for axis, wanted in cell.items():
                known[axis] |= {label_key(label): label for label in grid.as_list(wanted)}
    return known


def _targets(definition: "Definition") -> Problems:
    """Check that dotted keys can be set, and that no two dimensions set the same."""
    at = definition.source.problem
    owners: dict[str, str] = {}
    for group, points in zip(grid.groups(definition), grid.dimensions(definition), strict=True):
        keys = dict.fromkeys(key for point in points for key in point.sets)
        owner = "settings" if group == [grid.BLOCK, grid.SETTING] else f"axes.{group[0]}"
        for key in keys:
            path = _path_of_key(definition, group, key)
            if clash := next((other for other in owners if overlap(key, other)), None):
                yield at(
                    path, f"sets {key}, and {owners[clash]} sets {clash}. Only one of them can; remove it from one."
                )
            if problem := through(definition.config, key):
                yield at(path, problem)
        owners |= dict.fromkeys(keys, owner)
    for index, override in enumerate(definition.overrides):
        for key in override.set:
            path = ["overrides", index, "set", key]
            if problem := through(definition.config, key):
                yield at(path, problem)
            for name, axis in definition.axes.items():
                swept = None if isinstance(axis.values, dict) else grid.axis_key(axis, name, definition.config)
                if swept is not None and overlap(key, swept):
                    yield at(
                        path, f"would make the value of axis {name} untrue. Use exclude and include for other cells."
                    )


def _path_of_key(definition: "Definition", group: list[str], key: str) -> list[str | int]:
    """Return where in the file a dimension says that it sets a key."""
    if group == [grid.BLOCK, grid.SETTING]:
        return next(
            ["settings", block, setting, key]
            for block, settings in definition.settings.items()
            for setting, sets in settings.items()
            if key in sets
        )
    for name in group:
        axis = definition.axes[name]
        if grid.axis_key(axis, name, definition.config) == key:
            return ["axes", name]
        if isinstance(axis.values, dict) and axis.key is None:
            for label, sets in axis.values.items():
                if key in sets:
                    return ["axes", name, "values", label, key]
    raise AssertionError(key)


def overlap(key: str, other: str) -> bool:
    """Whether two dotted keys are the same, or one lies inside the other."""
    return key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.")


def through(config: Mapping[str, Json], key: str) -> str:
    """Say why a dotted key cannot be set in a config; empty if it can."""
    value: Json = config
    parts = key.split(".")
    for depth, part in enumerate(parts[:-1]):
        if part not in value:
            return ""
        value = value[part]
        if not is_mapping(value):
            way = path_text(["config", *parts[: depth + 1]])
            return f"{key} cannot be set: {way} is {shown(value)}, not a mapping. Name a key inside mappings."
    return ""


def _seed_axis(definition: "Definition") -> Problems:
    if "seed_axis" in definition.model_fields_set and definition.seed_axis not in definition.axes:
        advice = did_you_mean(definition.seed_axis, definition.axes, what="Axes")
        what = f"unknown axis {shown(definition.seed_axis)}. {advice}"
        yield definition.source.problem(["seed_axis"], what, at="value")


def _metrics(definition: "Definition") -> Problems:
    for pattern, metric in definition.metrics.items():
        if all(value is None for value in metric.to_json().values()):
            yield definition.source.problem(
                ["metrics", pattern], "says nothing of the metric. Add label, direction, format or comparable."
            )


def _report(definition: "Definition") -> Problems:
    report = definition.report
    known = [axis for axis in grid.labels(definition) if axis != definition.seed_axis]
    if report.panels is not None and report.panels not in known:
        what = f"no axis of cells {shown(report.panels)}. {did_you_mean(report.panels, known, what='Axes')}"
        yield definition.source.problem(["report", "panels"], what, at="value")
    yield from _cell(definition, report.baseline, ["report", "baseline"], lists=False)


_CHECKS = [
    _Check(_config, "config", "config"),
    _Check(_axes, "axes settings", "axes"),
    _Check(_zip, "axes zip", "zip"),
    _Check(_settings, "settings", "settings"),
    _Check(_include, "axes zip settings include", "include"),
    _Check(_exclude, "axes settings include exclude", "exclude"),
    _Check(_overrides, "axes settings include overrides", "overrides"),
    _Check(_needs_when, "axes settings include needs", "needs"),
    _Check(_targets, "axes zip settings config overrides", "targets"),
    _Check(_seed_axis, "axes seed_axis", "seed_axis"),
    _Check(_metrics, "metrics", "metrics"),
    _Check(_report, "axes zip settings include seed_axis report", "report"),
    _Check(references.placeholders_known, "axes zip settings needs", "placeholders"),
    _Check(references.axes_used, "axes settings config command env needs placeholders", "used"),
    _Check(references.needs_sound, "axes settings needs", "needs"),
    _Check(references.on_failure_sound, "axes zip settings config overrides resources", "on_failure"),
]

"""What a definition refers to: placeholders, axes in use, needed runs, targets of retries, names of variables."""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from slurmkit.definition import grid
from slurmkit.definition.yaml_source import Problem, shown
from slurmkit.errors import UsageError
from slurmkit.names import did_you_mean
from slurmkit.records import Json, is_list, is_mapping
from slurmkit.states import REASON_GROUPS, REQUEUES, Reason, reasons_named
from slurmkit.template import placeholders, unknown_placeholder

if TYPE_CHECKING:
    from slurmkit.definition.model import Definition

Problems = Iterator[Problem]

COMMAND_PLACEHOLDERS = frozenset({"config", "run_dir", "python", "run_id"})
_OPERATION = re.compile(r"(?!/0+(?:\.0+)?$)[x/+-]\d+(?:\.\d+)?")
_LOOKS_LIKE_OPERATION = re.compile(r"[x*/+-]\s*[\d.].*|[\d.]+\s*[x*]")
_RESOURCE_FIELDS = ("cpus", "gpus", "mem", "time", "nodes", "partition", "account", "qos", "constraint")
_COUNTS = frozenset({"cpus", "gpus", "mem", "time", "nodes"})
COUNTS_OF_RULE = ("limit", "requeue")
"""Keys of a rule in ``on_failure`` that are no targets: how often it is applied, and what comes before it."""


def axis_names(definition: "Definition") -> list[str]:
    """Return the names of all axes, block and setting among them."""
    return [axis for group in grid.groups(definition) for axis in group]


def templates(definition: "Definition") -> Iterator[tuple[list[str | int], str, str]]:
    """Yield all strings in which placeholders are filled.

    Yields:
        the path in the file; the string; ``command``, ``check``, ``config`` or ``run_name``: what may stand in it.
    """
    for key in ("command", "check", "env"):
        for path, text in _strings(getattr(definition, key), [key]):
            yield path, text, "check" if key == "check" else "command"
    for path, text in _strings(definition.run_name, ["run_name"]):
        yield path, text, "run_name"
    for path, value in _config_values(definition):
        for inner, text in _strings(value, path):
            yield inner, text, "config"


def _config_values(definition: "Definition") -> Iterator[tuple[list[str | int], Json]]:
    """Yield all that can become a part of a config, with its path in the file."""
    yield ["config"], definition.config
    yield ["settings"], definition.settings
    for name, axis in definition.axes.items():
        if isinstance(axis.values, dict) or grid.axis_key(axis, name, definition.config) is not None:
            yield values_path(definition, name), axis.values
    for index, override in enumerate(definition.overrides):
        yield ["overrides", index, "set"], override.set


def values_path(definition: "Definition", axis: str) -> list[str | int]:
    """Return where an axis' values stand: below ``values``, or directly in a plain list."""
    written = definition.source.value["axes"][axis]
    return ["axes", axis, "values"] if is_mapping(written) else ["axes", axis]


def _strings(value: Json, path: list[str | int]) -> Iterator[tuple[list[str | int], str]]:
    if isinstance(value, str):
        if "{" in value or "}" in value:
            yield path, value
    elif is_mapping(value):
        for key, item in value.items():
            yield from _strings(item, [*path, key])
    elif is_list(value):
        for index, item in enumerate(value):
            yield from _strings(item, [*path, index])


def placeholders_known(definition: "Definition") -> Problems:
    """Check every placeholder of the file, and that run names can be made from the pattern."""
    axes = axis_names(definition)
    needs = [f"needs.{alias}.run_dir" for alias in definition.needs]
    known: Mapping[str, set[str]] = {
        "command": {*COMMAND_PLACEHOLDERS, *axes, *needs},
        "check": {"python"},
        "config": {"run_dir", *axes, *needs},
        "run_name": {"run_id", *axes},
    }
    conditional = {f"needs.{alias}.run_dir" for alias, need in definition.needs.items() if need.when}
    at = definition.source.problem
    for path, text, kind in templates(definition):
        try:
            names = placeholders(text)
        except UsageError as error:
            yield at(path, str(error), at="value")
            continue
        for name in sorted(names - known[kind]):
            yield at(path, unknown_placeholder(name, known[kind]), at="value")
        for name in sorted(names & conditional if kind == "command" else ()):
            what = (
                f"{{{name}}} is not there in all runs, because needs.{name.split('.')[1]} has `when`. Use it in config."
            )
            yield at(path, what, at="value")


def axes_used(definition: "Definition") -> Problems:
    """Check that each axis sets something, or stands in the command, or picks the needed run."""
    used = {name for _, text, kind in templates(definition) if kind != "run_name" for name in placeholders(text)}
    for need in definition.needs.values():
        used |= set(definition.axes if need.match is None else need.match) | need.when.keys()
    for name, axis in definition.axes.items():
        if name in used or any(point.sets for point in grid.axis_points(axis, name, definition.config)):
            continue
        path = ["axes", name]
        leaves = [
            key for key in dotted_keys(definition.config) if key.rpartition(".")[2] == name or key.split(".")[0] == name
        ]
        key = leaves[0] if leaves else f"some.{name}"
        why = f"config.{name} is a mapping" if name in definition.config else f"config has no key {name}"
        advice = f"Name the key: {{key: {key}, values: [...]}}."
        what = f"sets nothing: {why}, and the command does not use {{{name}}}. {advice}"
        yield definition.source.problem(path, what)


def dotted_keys(config: Mapping[str, Json], prefix: str = "") -> list[str]:
    """Return the dotted keys of all values in a config that are not mappings."""
    found: list[str] = []
    for key, value in config.items():
        found += dotted_keys(value, f"{prefix}{key}.") if is_mapping(value) and value else [f"{prefix}{key}"]
    return found


def needs_sound(definition: "Definition") -> Problems:
    """Check all that can be known of needed runs without looking at their collection."""
    at = definition.source.problem
    axes = axis_names(definition)
    for alias, need in definition.needs.items():
        path = ["needs", alias]
        own = need.collection in {None, definition.name}
        asked = [([*path, "match", index], axis) for index, axis in enumerate(need.match or [])]
        asked += [([*path, "where", axis], axis) for axis in need.where if own]
        for here, axis in asked:
            if axis not in axes:
                yield at(here, f"unknown axis {shown(axis)}. {did_you_mean(axis, axes, what='Axes')}")
        if own and not need.where:
            yield at(path, "a run would need itself. Name the needed run by `where:`, or another `collection:`.")
        for axis, label in need.where.items():
            if isinstance(label, list | dict):
                yield at([*path, "where", axis], f"expected one value, got {shown(label)}. Name one.", at="value")
            if axis in (need.match or []):
                yield at([*path, "where", axis], "is matched as well. Take it out of `match:` or of `where:`.")


def on_failure_sound(definition: "Definition") -> Problems:
    """Check reasons, targets and operations of retries."""
    at = definition.source.problem
    words = [*Reason, *REASON_GROUPS]
    for word, rule in definition.on_failure.items():
        path = ["on_failure", word]
        try:
            reasons_named(word)
        except ValueError:
            yield at(path, f"unknown reason {shown(word)}. {did_you_mean(word, words, what='Reasons')}")
        for target, operation in rule.items():
            here = [*path, target]
            kind, _, key = target.partition(".")
            if target in COUNTS_OF_RULE:
                yield from _count_of_rule(definition, word, target, operation)
            elif at(here, "", at="value").place in definition.source.signed:
                what = f'{operation} without quotes is a number and no operation. Write "+1" or "-1" in quotes.'
                yield at(here, what, at="value")
            elif kind == "resources":
                yield from _resource_change(definition, here, key, operation)
            elif kind == "config" and key:
                yield from _config_change(definition, here, key, operation)
            else:
                advice = "Write resources.<field>, config.<dotted key>, limit or requeue."
                if target in _RESOURCE_FIELDS:
                    advice = f"Write resources.{target}."
                yield at(here, f"unknown target. {advice}")


def _count_of_rule(definition: "Definition", word: str, key: str, value: Json) -> Problems:
    """Check a rule's ``limit`` or ``requeue``."""
    at = definition.source.problem
    path = ["on_failure", word, key]
    if key == "requeue" and word not in REQUEUES:
        hint = " Slurm queues the runs of a failed node again by itself." if word == Reason.NODE_FAIL else ""
        what = f"runs go back to the queue by themselves for {' and '.join(REQUEUES)} only.{hint} Delete it."
        yield at(path, what)
        return
    least = 0 if key == "requeue" else 1
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        what = f"expected how often, at least {least}, got {shown(value)}. Write a whole number."
        yield at(path, what, at="value")


def _operation(operation: Json) -> str:
    """Return what is wrong with an operation; empty for a sound one and for a plain value."""
    if not isinstance(operation, str) or _OPERATION.fullmatch(operation):
        return (
            f"{operation}: cannot divide by zero."
            if isinstance(operation, str) and re.fullmatch(r"/0+(\.0+)?", operation)
            else ""
        )
    if _LOOKS_LIKE_OPERATION.fullmatch(operation):
        return f"{shown(operation)} is no operation. Write x2, /2, +1, -1 or a plain value."
    return ""


def _is_step(operation: Json) -> bool:
    return isinstance(operation, str) and _OPERATION.fullmatch(operation) is not None


def _resource_change(definition: "Definition", path: list[str], field: str, operation: Json) -> Problems:
    at = definition.source.problem
    if field not in _RESOURCE_FIELDS:
        yield at(path, f"unknown resource {shown(field)}. {did_you_mean(field, _RESOURCE_FIELDS, what='Resources')}")
    elif problem := _operation(operation):
        yield at(path, problem, at="value")
    elif not _is_step(operation):
        if not _is_resource(field, operation):
            yield at(path, f"{shown(operation)} is no value of {field}. Write it as in resources.", at="value")
    else:
        given = [definition.resources, *(o.resources for o in definition.overrides if o.resources is not None)]
        if field not in _COUNTS:
            yield at(path, f"{operation} of {field}, which is no number. Write the new value.", at="value")
        elif field in {"mem", "time"} and all(getattr(part, field) is None for part in given):
            yield at(path, f"{operation} of nothing: no run sets {field}. Add resources.{field}.", at="value")


def _is_resource(field: str, value: Json) -> bool:
    from pydantic import ValidationError

    from slurmkit.definition.parts import ResourcesPart

    try:
        ResourcesPart.model_validate({field: value})
    except ValidationError:
        return False
    return True


def _config_change(definition: "Definition", path: list[str], key: str, operation: Json) -> Problems:
    at = definition.source.problem
    if problem := _operation(operation):
        yield at(path, problem, at="value")
        return
    swept = {key for points in grid.dimensions(definition) for point in points for key in point.sets}
    swept |= {key for override in definition.overrides for key in override.set}
    if key in swept:
        return
    value: Json = definition.config
    for part in key.split("."):
        if not is_mapping(value) or part not in value:
            known = [*dotted_keys(definition.config), *sorted(swept)]
            yield at(path, f"config has no key {shown(key, quote=False)}. {did_you_mean(key, known, what='Keys')}")
            return
        value = value[part]
    if _is_step(operation) and (isinstance(value, bool) or not isinstance(value, int | float)):
        yield at(path, f"{operation} of {shown(value)}, which is no number. Write the new value.", at="value")

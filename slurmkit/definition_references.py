"""What a definition refers to: placeholders, axes in use, needed runs, targets of retries, names of variables."""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from slurmkit import grid
from slurmkit.errors import UsageError
from slurmkit.names import check_collection_name, check_word, did_you_mean
from slurmkit.records import Json
from slurmkit.states import REASON_GROUPS, Reason, reasons_named
from slurmkit.template import placeholders, unknown_placeholder
from slurmkit.yaml_source import Problem, shown

if TYPE_CHECKING:
    from slurmkit.definition import Definition

Problems = Iterator[Problem]

COMMAND_PLACEHOLDERS = frozenset({"config", "run_dir", "python", "run_id"})
_OPERATION = re.compile(r"[x/+-]\d+(?:\.\d+)?")
_LOOKS_LIKE_OPERATION = re.compile(r"[x*/+-]\s*[\d.].*|[\d.]+\s*[x*]")
_RESOURCE_FIELDS = ("cpus", "gpus", "mem", "time", "nodes", "partition", "account", "qos", "constraint")
_COUNTS = frozenset({"cpus", "gpus", "mem", "time", "nodes"})
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def axis_names(definition: "Definition") -> list[str]:
    """Return the names of all axes, block and setting among them."""
    return [axis for group in grid.groups(definition) for axis in group]


def templates(definition: "Definition") -> Iterator[tuple[list[str | int], str, str]]:
    """Yield all strings in which placeholders are filled.

    Yields:
        the path in the file; the string; ``command``, ``check``, ``config`` or ``run_name``: what may stand in it.
    """
    for index, argument in enumerate(definition.command):
        yield ["command", index], argument, "command"
    for index, argument in enumerate(definition.check or []):
        yield ["check", index], argument, "check"
    for name, value in definition.env.items():
        yield ["env", name], value, "command"
    if definition.run_name is not None:
        yield ["run_name"], definition.run_name, "run_name"
    for path, text in _strings(definition.config, ["config"]):
        yield path, text, "config"
    for path, text in _strings(definition.settings, ["settings"]):
        yield path, text, "config"
    for name, axis in definition.axes.items():
        if grid.axis_key(axis, name, definition.config) is not None or isinstance(axis.values, dict):
            written = definition.source.value["axes"][name]
            path: list[str | int] = ["axes", name, "values"] if isinstance(written, dict) else ["axes", name]
            for inner, text in _strings(axis.values, path):
                yield inner, text, "config"
    for index, override in enumerate(definition.overrides):
        for path, text in _strings(override.set, ["overrides", index, "set"]):
            yield path, text, "config"


def _strings(value: Json, path: list[str | int]) -> Iterator[tuple[list[str | int], str]]:
    if isinstance(value, str):
        if "{" in value or "}" in value:
            yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(item, [*path, key])
    elif isinstance(value, list):
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
        why = f"config has no key {name}" if name not in definition.config else f"config.{name} is a mapping"
        what = f"sets nothing: {why}, and the command does not use {{{name}}}. Name the key: {{key: {key}, values: [...]}}."
        yield definition.source.problem(path, what)


def dotted_keys(config: Mapping[str, Json], prefix: str = "") -> list[str]:
    """Return the dotted keys of all values in a config that are not mappings."""
    found: list[str] = []
    for key, value in config.items():
        found += dotted_keys(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [f"{prefix}{key}"]
    return found


def needs_sound(definition: "Definition") -> Problems:
    """Check aliases, and all that can be known of the other side from here."""
    at = definition.source.problem
    axes = axis_names(definition)
    for alias, need in definition.needs.items():
        path = ["needs", alias]
        try:
            check_word(alias)
        except ValueError as error:
            yield at(path, f"{error}.")
        if need.collection is not None:
            try:
                check_collection_name(need.collection)
            except ValueError as error:
                yield at([*path, "collection"], f"{error}.", at="value")
        for index, axis in enumerate(need.match or []):
            if axis not in axes:
                yield at(
                    [*path, "match", index], f"unknown axis {shown(axis)}. {did_you_mean(axis, axes, what='Axes')}"
                )
        own = need.collection in {None, definition.name}
        if own and not need.where:
            yield at(
                path,
                "a run of this collection would need itself. Name the needed one by `where:`, or another `collection:`.",
            )
        for axis, label in need.where.items():
            if own and axis not in axes:
                yield at([*path, "where", axis], f"unknown axis {shown(axis)}. {did_you_mean(axis, axes, what='Axes')}")
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
            if target == "limit":
                if isinstance(operation, bool) or not isinstance(operation, int) or operation < 1:
                    yield at(
                        here,
                        f"expected how often, at least 1, got {shown(operation)}. Write a whole number.",
                        at="value",
                    )
            elif kind == "resources":
                yield from _resource_change(definition, here, key, operation)
            elif kind == "config" and key:
                yield from _config_change(definition, here, key, operation)
            else:
                near = did_you_mean(target, ["limit", *(f"resources.{field}" for field in _RESOURCE_FIELDS)])
                yield at(here, f"unknown target. Write resources.<field>, config.<dotted key> or limit. {near}")


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
    elif _is_step(operation):
        given = [definition.resources, *(o.resources for o in definition.overrides if o.resources is not None)]
        if field not in _COUNTS:
            yield at(path, f"{operation} of a {field}, which is no number. Write the new value.", at="value")
        elif field in {"mem", "time"} and all(getattr(part, field) is None for part in given):
            yield at(path, f"{operation} of nothing: no run asks for a {field}. Add resources.{field}.", at="value")


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
        if not isinstance(value, dict) or part not in value:
            known = [*dotted_keys(definition.config), *sorted(swept)]
            yield at(path, f"config has no key {shown(key, quote=False)}. {did_you_mean(key, known, what='Keys')}")
            return
        value = value[part]
    if _is_step(operation) and (isinstance(value, bool) or not isinstance(value, int | float)):
        yield at(path, f"{operation} of {shown(value)}, which is no number. Write the new value.", at="value")


def env_names(definition: "Definition") -> Problems:
    """Check the names of environment variables."""
    for name in definition.env:
        if not _VARIABLE.fullmatch(name):
            what = "is no name of a variable. Write letters, digits and _, not starting with a digit."
            yield definition.source.problem(["env", name], what)

"""Pure: what a new attempt changes against the last, by ``on_failure`` or by hand, and what that means."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from typing import cast

from slurmkit.errors import UsageError
from slurmkit.records import Json
from slurmkit.resources import Resources, format_duration, format_memory, parse_memory_mb, parse_time_s
from slurmkit.states import Reason, reasons_named

Changes = dict[str, Json]
"""``{"set": {dotted config key: value}, "resources": {field: value}, "why": ..., "tries": {reason word: n}}``:
values are absolute and hold for this attempt and, unless changed again, for later ones."""

_FIELDS = {"mem": "mem_mb", "time": "time_s"}
_PARSERS = {"mem_mb": parse_memory_mb, "time_s": parse_time_s}


class RetryLimitError(UsageError):
    """The definition's limit of retries for a reason is used up."""


def changes_for(
    reason: Reason | None,
    on_failure: Mapping[str, dict[str, Json]],
    by_hand: Sequence[tuple[str, str | Json]],
    *,
    before: Changes | None,
    config: dict[str, Json],
    resources: Resources,
) -> tuple[Changes | None, Resources]:
    """Work out the changes of the next attempt.

    Args:
        reason: why the last attempt failed; None if it did not.
        on_failure: the definition's: reason word to ``{"changes": {target: operation}, "limit": n or None}``.
        by_hand: (target, operation) from ``--set``; they come after, and override the limit.
        before: changes of the last attempt.
        config: the run's resolved config as the definition has it.
        resources: likewise.

    Returns:
        the changes (None: nothing is changed against the definition), and the resources with them applied.

    Raises:
        RetryLimitError: the reason's limit is reached and nothing is changed by hand.
        UsageError: a target or an operation makes no sense for this run.
    """
    changed_config: dict[str, Json] = dict((before or {}).get("set", {}))
    changed_resources: dict[str, Json] = dict((before or {}).get("resources", {}))
    tries: dict[str, int] = dict((before or {}).get("tries", {}))
    operations: list[tuple[str, Json]] = []
    word = _rule_for(reason, on_failure)
    if word is not None:
        rule = on_failure[word]
        limit: int | None = rule["limit"]
        tries[word] = tries.get(word, 0) + 1
        if limit is not None and tries[word] > limit:
            if not by_hand:
                raise RetryLimitError(
                    f"on_failure.{word}.limit: {limit} retries are used up. Change something with --set, "
                    f"or raise the limit.",
                )
        else:
            operations += rule["changes"].items()
    operations += by_hand
    current = asdict(resources) | changed_resources
    for target, operation in operations:
        kind, key = split_target(target, config)
        if kind == "resources":
            changed_resources[key] = _new_resource(key, current.get(key), operation)
            current[key] = changed_resources[key]
        else:
            value = changed_config[key] if key in changed_config else _lookup(config, key)
            changed_config[key] = _operate(f"config.{key}", value, operation)
    if not (changed_config or changed_resources or tries):
        return None, resources
    changes: Changes = {
        "set": changed_config,
        "resources": changed_resources,
        "why": str(reason) if reason else "asked for",
        "tries": tries,
    }
    return changes, Resources(**(asdict(resources) | changed_resources))


def _rule_for(reason: Reason | None, on_failure: Mapping[str, dict[str, Json]]) -> str | None:
    """Return the word under which the definition treats a reason: its own, else its group's."""
    if reason is None:
        return None
    if reason in on_failure:
        return str(reason)
    return next((word for word in on_failure if reason in reasons_named(word)), None)


def split_target(target: str, config: Mapping[str, Json]) -> tuple[str, str]:
    """Split ``resources.mem`` or ``config.train.lr`` (the prefix ``config.`` may be left out) into kind and key.

    Raises:
        UsageError: there is no such resource or config key.
    """
    kind, _, key = target.partition(".")
    if kind == "resources":
        key = _FIELDS.get(key, key)
        fields = list(asdict(Resources()))
        if key not in fields:
            raise UsageError(f"{target}: no such resource. There are: {', '.join([*_FIELDS, *fields])}.")
        return kind, key
    key = key if kind == "config" else target
    if _lookup(config, key) is _MISSING:
        near = get_close_matches(key, list(_leaves(config)), 1, 0.5)
        hint = (
            f"Did you mean config.{near[0]}?" if near else "Name a key of the run's config (slurmkit collection show)."
        )
        raise UsageError(f"{target}: not in the config of this run. {hint}")
    return "config", key


_MISSING = object()


def _lookup(config: Mapping[str, Json], key: str) -> Json:
    value: Json = config
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return _MISSING
        value = cast("dict[str, Json]", value)[part]
    return value


def _leaves(config: Mapping[str, Json], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key, value in config.items():
        nested = cast("dict[str, Json]", value) if isinstance(value, dict) else None
        found += [f"{prefix}{key}"] if nested is None else _leaves(nested, f"{prefix}{key}.")
    return found


def _new_resource(key: str, value: Json, operation: Json) -> Json:
    if _step(operation) is None:
        parse = _PARSERS.get(key)
        try:
            return parse(operation) if parse else type(value)(operation) if value is not None else operation
        except (TypeError, ValueError) as error:
            raise UsageError(f"resources.{key}: {error}, got {operation!r}.") from error
    if value is None:
        raise UsageError(f"resources.{key}: {operation} of nothing: the definition sets no {key}. Give a value.")
    changed = _operate(f"resources.{key}", value, operation)
    return max(1, round(changed))


def _step(operation: Json) -> tuple[str, float] | None:
    match = re.fullmatch(r"([x/+-])(\d+(?:\.\d+)?)", operation) if isinstance(operation, str) else None
    return (match[1], float(match[2])) if match else None


def _operate(where: str, value: Json, operation: Json) -> Json:
    """Apply ``x2``, ``/2``, ``+1``, ``-1`` or a plain value; an integer stays one if it can."""
    step = _step(operation)
    if step is None:
        return operation
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{where}: {operation} needs a number, and the config has {value!r}. Give a value.")
    sign, amount = step
    if sign == "/" and amount == 0:
        raise UsageError(f"{where}: /0 makes no sense. Give another divisor.")
    result = {"x": value * amount, "/": value / (amount or 1), "+": value + amount, "-": value - amount}[sign]
    if isinstance(value, int):
        if sign == "/" and result < 1 <= value:
            raise UsageError(f"{where}: {value} cannot be divided by {amount:g} any further.")
        return int(result) if result == int(result) else int(result) if sign == "/" else result
    return result


def describe(changes: Changes | None, resources: Resources, config: Mapping[str, Json]) -> tuple[list[str], list[str]]:
    """Say in words what an attempt changes.

    Args:
        changes: of the attempt.
        resources: of the run as defined.
        config: likewise.

    Returns:
        the changes, one phrase each; and those among them that change the science, with why.
    """
    if changes is None:
        return [], []
    old = asdict(resources)
    words = {field: word for word, field in _FIELDS.items()}
    phrases = [
        f"{words.get(key, key)} {_shown(key, old[key])} -> {_shown(key, value)}"
        for key, value in changes["resources"].items()
    ]
    changed: dict[str, Json] = changes["set"]
    science: list[str] = []
    balanced = _batch_is_kept(changed, config)
    for key, value in changed.items():
        phrase = f"{key} {_lookup(config, key)} -> {value}"
        phrases.append(phrase)
        if key not in balanced:
            without = " without accumulation: the effective batch changes" if key.endswith("batch_size") else ""
            science.append(phrase + without)
    return phrases, science


def _batch_is_kept(changed: Mapping[str, Json], config: Mapping[str, Json]) -> set[str]:
    """Return the changed keys that together keep the effective batch (batch size x accumulation)."""
    sizes = [key for key in changed if key.endswith("batch_size")]
    steps = [key for key in changed if "accumulation" in key.rpartition(".")[2]]
    if len(sizes) != 1 or len(steps) != 1:
        return set()
    before = _lookup(config, sizes[0]) * _lookup(config, steps[0])
    return {sizes[0], steps[0]} if changed[sizes[0]] * changed[steps[0]] == before else set()


def _shown(key: str, value: Json) -> str:
    if value is None:
        return "unset"
    if key == "mem_mb":
        return format_memory(value)
    return format_duration(value) if key == "time_s" else str(value)

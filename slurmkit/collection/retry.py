"""Pure: what a new attempt changes against the last, by ``on_failure`` or by hand, and what that means."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from difflib import get_close_matches
from typing import cast

from slurmkit.errors import UsageError
from slurmkit.records import Json
from slurmkit.resources import Resources, format_duration, format_memory
from slurmkit.states import Reason, reasons_named

Changes = dict[str, Json]
"""``{"set": {dotted config key: value}, "resources": {field: value}, "why": ..., "tries": {reason word: n}}``:
values are absolute and hold for this attempt and, unless changed again, for later ones."""

_FIELDS = {"mem": "mem_mb", "time": "time_s"}
_WORDS = {field: word for word, field in _FIELDS.items()}
"""Fields of `Resources` that a definition calls otherwise."""


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
    cap_mb: int | None = None,
    cap_why: str = "",
) -> tuple[Changes | None, Resources]:
    """Work out the changes of the next attempt.

    Args:
        reason: why the last attempt failed; None if it did not.
        on_failure: the definition's: reason word to ``{"changes": {target: operation}, "limit": n or None, ...}``.
        by_hand: (target, operation) from ``--set``; they come after, and override the limit.
        before: changes of the last attempt.
        config: the run's resolved config as the definition has it.
        resources: likewise.
        cap_mb: the most memory that a run can have; a retry asks for no more. None: not known.
        cap_why: what sets it.

    Returns:
        the changes (None: nothing is changed against the definition), and the resources with them applied.

    Raises:
        RetryLimitError: the reason's limit is reached and nothing is changed by hand; or all memory was not enough.
        UsageError: a target or an operation makes no sense for this run.
    """
    before = before or {}
    tries: dict[str, int] = dict(before.get("tries", {}))
    changes: Changes = {
        "set": dict(before.get("set", {})),
        "resources": dict(before.get("resources", {})),
        "why": str(reason) if reason else "asked for",
        "tries": tries,
    }
    for target, operation in _operations_of_rule(reason, on_failure, tries, refuse=not by_hand):
        _apply(changes, target, operation, config, resources)
    for target, operation in by_hand:
        _refuse_other_kind(target, operation, config)
        _apply(changes, target, operation, config, resources)
    if cap_mb is not None:
        _hold_to(cap_mb, cap_why, changes, before, resources, out_of_memory=reason is Reason.OOM_HOST)
    if not (changes["set"] or changes["resources"] or tries):
        return None, resources
    return changes, Resources(**(asdict(resources) | changes["resources"]))


def _hold_to(
    cap_mb: int, cap_why: str, changes: Changes, before: Changes, resources: Resources, *, out_of_memory: bool
) -> None:
    """Cut memory that a retry raises to what can be had; what the definition asks for is left as it is.

    Raises:
        RetryLimitError: the run was out of memory with all of that, and would be so again.
    """
    raised: int | None = changes["resources"].get("mem_mb")
    moved = changes["resources"].get("partition") != before.get("resources", {}).get("partition")
    if raised is not None and raised > cap_mb and not moved:  # another partition has other nodes
        changes["resources"]["mem_mb"] = max(cap_mb, resources.mem_mb or 0)
    had_mb = _memory(before, resources)
    if out_of_memory and had_mb >= cap_mb and _is_same(changes, before, resources):
        raise RetryLimitError(
            f"out of memory with {format_memory(had_mb)}, and there is no more: "
            f"{cap_why or f'a run can have {format_memory(cap_mb)}'}. Let it use less, or name another partition.",
        )


def _memory(changes: Changes, resources: Resources) -> int:
    """Return what an attempt asks for, in MiB; 0: nothing."""
    return changes.get("resources", {}).get("mem_mb", resources.mem_mb) or 0


def _is_same(changes: Changes, before: Changes, resources: Resources) -> bool:
    """Say whether an attempt would be run as the last one was."""
    defined = asdict(resources)
    asked, had = (defined | one.get("resources", {}) for one in (changes, before))
    return asked == had and changes["set"] == before.get("set", {})


def _operations_of_rule(
    reason: Reason | None, on_failure: Mapping[str, dict[str, Json]], tries: dict[str, int], *, refuse: bool
) -> list[tuple[str, Json]]:
    """Count one more try for a reason in `tries`, and return the operations of its rule; none past its limit.

    Raises:
        RetryLimitError: the limit is reached (if `refuse`).
    """
    word = _rule_for(reason, on_failure)
    if word is None:
        return []
    rule = on_failure[word]
    limit: int | None = rule["limit"]
    if not rule["changes"] and limit is None:  # it speaks of something else, such as how often a run is queued again
        return []
    tries[word] = tries.get(word, 0) + 1
    if limit is None or tries[word] <= limit:
        return list(rule["changes"].items())
    if refuse:
        raise RetryLimitError(
            f"on_failure.{word}.limit: {limit} retries are used up. Change something with --set, or raise the limit.",
        )
    return []


def _apply(changes: Changes, target: str, operation: Json, config: dict[str, Json], resources: Resources) -> None:
    kind, key = _split_target(target, config)
    if kind == "resources":
        field = _FIELDS.get(key, key)
        current = asdict(resources) | changes["resources"]
        changes["resources"][field] = _new_resource(target, key, current[field], operation)
    else:
        value = changes["set"][key] if key in changes["set"] else _lookup(config, key)
        changes["set"][key] = _operate(f"config.{key}", value, operation)


def _rule_for(reason: Reason | None, on_failure: Mapping[str, dict[str, Json]]) -> str | None:
    """Return the word under which the definition treats a reason: its own, else its group's."""
    if reason is None:
        return None
    if reason in on_failure:
        return str(reason)
    return next((word for word in on_failure if reason in reasons_named(word)), None)


def refuse_swept(by_hand: Sequence[tuple[str, Json]], swept: Mapping[str, str]) -> None:
    """Refuse changes by hand that would make a run something else than its cell says.

    Args:
        by_hand: (target, operation) of ``--set``.
        swept: dotted config key to the axis that sets it.

    Raises:
        UsageError: an axis sets the target, a key inside of it, or what it is inside of.
    """
    for target, _ in by_hand:
        if target.startswith("resources."):
            continue
        key = target.removeprefix("config.")
        for other, axis in swept.items():
            if key == other or key.startswith(f"{other}.") or other.startswith(f"{key}."):
                raise UsageError(
                    f"--set {target}: axis {axis!r} of this collection sets {other}: the run would be another than its "
                    f"name says. Add the value to the axis in the definition: slurmkit collection extend FILE",
                )


def _split_target(target: str, config: Mapping[str, Json]) -> tuple[str, str]:
    """Split ``resources.mem`` or ``config.train.lr`` (the prefix ``config.`` may be left out) into kind and key.

    Raises:
        UsageError: there is no such resource or config key.
    """
    kind, _, key = target.partition(".")
    if kind == "resources":
        known = [_WORDS.get(field.name, field.name) for field in fields(Resources)]
        if key not in known:
            raise UsageError(f"{target}: no such resource. There are: {', '.join(known)}.")
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


def _new_resource(target: str, key: str, value: Json, operation: Json) -> Json:
    """Apply an operation to a resource; a plain value is one as the definition has it under `key`."""
    if _step(operation) is not None:
        if value is None:
            raise UsageError(f"{target}: {operation} of nothing: the definition sets no {key}. Give a value.")
        if not isinstance(value, int):
            raise UsageError(f"{target}: {operation} needs a number, and {key} is {value!r}. Give a value.")
        return max(0 if key == "gpus" else 1, round(_operate(target, value, operation)))
    from pydantic import ValidationError

    from slurmkit.definition.findings import first_in_words
    from slurmkit.definition.parts import ResourcesPart

    try:
        part = ResourcesPart.model_validate({key: operation})
    except ValidationError as error:
        raise UsageError(f"{target}: {first_in_words(error, ResourcesPart)}") from error
    if key == "extra":
        return {**value, **part.extra}
    return getattr(part.over(Resources()), _FIELDS.get(key, key))


_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number"),
    (dict, "a mapping"),
    (list, "a list"),
)


def _kind(value: Json) -> str:
    return next((kind for of, kind in _KINDS if isinstance(value, of)), "text")


def _refuse_other_kind(target: str, operation: Json, config: Mapping[str, Json]) -> None:
    """Refuse by hand a plain value of another kind than the config has; text and null may become anything.

    Raises:
        UsageError: a number would become text, a mapping a number, and the like.
    """
    value = _lookup(config, target.removeprefix("config."))
    if value is _MISSING or value is None or isinstance(value, str) or _step(operation) is not None:
        return
    kind = _kind(value)
    if kind == _kind(operation) or (operation is None and kind != "a mapping"):
        return
    inside = _leaves(cast("dict[str, Json]", value), f"{target}.") if isinstance(value, dict) else []
    advice = f"Name a key inside it, such as {inside[0]}." if inside else f"Give {kind}."
    raise UsageError(f"--set {target}: the config has {kind} here ({value!r:.60}), got {operation!r:.60}. {advice}")


def _step(operation: Json) -> tuple[str, float] | None:
    match = re.fullmatch(r"([x/+-])(\d+(?:\.\d+)?)", operation) if isinstance(operation, str) else None
    return (match[1], float(match[2])) if match else None


def _operate(where: str, value: Json, operation: Json) -> Json:
    """Apply ``x2``, ``/2``, ``+1``, ``-1`` or a plain value; an integer stays one if it can."""
    step = _step(operation)
    if step is None or isinstance(value, str):  # x2 in place of a text is a text
        return operation
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{where}: {operation} needs a number, and the config has {value!r}. Give a value.")
    sign, amount = step
    if sign == "/" and amount == 0:
        raise UsageError(f"{where}: /0 makes no sense. Give another divisor.")
    result = {"x": value * amount, "/": value / (amount or 1), "+": value + amount, "-": value - amount}[sign]
    if not math.isfinite(result):
        raise UsageError(f"{where}: {operation} of {value} is too large. Give a value.")
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
    phrases = [
        f"{_WORDS.get(key, key)} {_shown(key, old[key])} -> {_shown(key, value)}"
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
    keys = sizes[0], steps[0]
    old, new = [_lookup(config, key) for key in keys], [changed[key] for key in keys]
    if not all(_kind(value) == "a number" for value in (*old, *new)):
        return set()
    return set(keys) if old[0] * old[1] == new[0] * new[1] else set()


def _shown(key: str, value: Json) -> str:
    if value is None:
        return "unset"
    if key == "mem_mb":
        return format_memory(value)
    return format_duration(value) if key == "time_s" else str(value)

"""pydantic's findings in our words: where, what, with which value, and what to do."""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from slurmkit.definition.yaml_source import Node, Problem, Source, shown
from slurmkit.names import did_you_mean
from slurmkit.records import Json

_EXPECTED = {
    "string_type": ("text", "Quote it"),
    "int_type": ("a whole number", "Write one without quotes"),
    "int_from_float": ("a whole number", "Round it"),
    "list_type": ("a list", "Write [...] or one `- item` a line"),
    "dict_type": ("a mapping", "Write `key: value` lines below it"),
    "model_type": ("a mapping", "Write `key: value` lines below it"),
    "bool_type": ("true or false", "Write it without quotes"),
}
_MOVED: dict[tuple[str | int, ...], str] = {("requeue",): "on_failure: {{timeout: {{requeue: {}}}}}"}
"""Keys that stood elsewhere once: the path there to what is written instead of it."""
_OF_A_KEY = frozenset({"missing", "extra_forbidden"})
"""Findings about a key, not about its value."""


def problems_of(error: ValidationError, source: Source, model: type[BaseModel]) -> Iterator[Problem]:
    """Place pydantic's findings in the file.

    Args:
        error: the findings.
        source: the file.
        model: what was validated.
    """
    for one in error.errors(include_url=False):
        path, found = _path_in_file(one["loc"], source.root, lacking=one["type"] in _OF_A_KEY)
        of_key = one["loc"][-1:] == ("[key]",) or one["type"] in _OF_A_KEY
        at = "key" if of_key else "value"
        yield source.problem(path, _say(one, path, found, model), at=at)


def first_in_words(error: ValidationError, model: type[BaseModel]) -> str:
    """Say the first finding about a value that stands in no file."""
    one = error.errors(include_url=False)[0]
    return _say(one, list(one["loc"]), found=True, model=model)


def _path_in_file(loc: Sequence[str | int], root: Node, *, lacking: bool) -> tuple[list[str | int], bool]:
    """Follow pydantic's location through the file, leaving out steps that only the models know.

    Args:
        loc: pydantic's location.
        root: the places in the file.
        lacking: whether the last step may be a key that the file should have.

    Returns:
        the path, and whether its last step stands in the file.
    """
    path: list[str | int] = []
    node = root
    for index, part in enumerate(loc):
        inside = node.inside
        if isinstance(inside, dict) and part in inside:
            node = inside[str(part)]
        elif isinstance(inside, list) and isinstance(part, int) and part < len(inside):
            node = inside[part]
        elif index == len(loc) - 1 and lacking:
            return [*path, part], False
        else:
            continue
        path.append(part)
    return path, True


def _say(one: Any, path: list[str | int], found: bool, model: type[BaseModel]) -> str:
    kind: str = one["type"]
    value: Json = one["input"]
    context: dict[str, Any] = one.get("ctx", {})
    if kind in _EXPECTED:
        expected, advice = _EXPECTED[kind]
        return f"expected {expected}, got {shown(value)}. {advice}."
    if kind == "extra_forbidden":
        if moved := _MOVED.get(tuple(path)):
            return f"stands with the reason that it is for. Write {moved.format(shown(value, quote=False))}."
        known = _keys_of(model, one["loc"][:-1])
        return f"unknown key. {did_you_mean(str(path[-1]), known, what='Known here')}"
    if kind == "missing":
        return f"is missing. Add `{path[-1]}:`."
    if kind == "greater_than_equal":
        return f"expected at least {context['ge']}, got {shown(value)}. Write {context['ge']} or more."
    if kind == "too_short":
        return "is empty. Fill it in or delete the key."
    if kind == "value_error":
        return f"{context['error']}."
    assert found, one  # every kind that the models can raise is named above
    return f"{one['msg']}, got {shown(value)}. Mend it."


def _keys_of(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """Return the keys that are allowed in the model at a location."""
    for part in loc:
        field = model.model_fields.get(str(part))
        if field is not None:
            model = next(_models_in(field.annotation), model)
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models named anywhere in a type annotation."""
    if isinstance(annotation, type) and not get_args(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)

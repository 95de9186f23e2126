"""Placeholders such as ``{run_dir}`` and ``{needs.base.run_dir}`` in strings; ``{{`` and ``}}`` are literal braces."""

import difflib
import re
from collections.abc import Iterable, Mapping

from slurmkit.errors import UsageError
from slurmkit.records import Json, is_list, is_mapping

_TOKEN = re.compile(r"\{\{|\}\}|\{(?P<name>[A-Za-z_]\w*(?:\.\w+)*)\}|[{}]", re.ASCII)


def fill(value: Json, values: Mapping[str, str]) -> Json:
    """Replace the placeholders in a string, or in all strings inside lists and dicts (keys are left alone).

    What is filled in is not looked at again, so a value with braces in it stays as it is.

    Args:
        value: a string, or JSON with strings in it; returned as it is where it holds no braces.
        values: placeholder to text.

    Raises:
        UsageError: a placeholder that `values` lacks, or a single brace.
    """
    if isinstance(value, str):
        return _fill_text(value, values) if "{" in value or "}" in value else value
    if is_mapping(value):
        return {key: fill(item, values) for key, item in value.items()}
    if is_list(value):
        return [fill(item, values) for item in value]
    return value


def placeholders(value: Json) -> set[str]:
    """Return the names of all placeholders in a string, or in all strings inside lists and dicts.

    Raises:
        UsageError: a single brace.
    """
    if isinstance(value, str):
        if "{" not in value and "}" not in value:
            return set()
        return {name for match in _TOKEN.finditer(value) if (name := _name(match, value)) is not None}
    items = value.values() if is_mapping(value) else value if is_list(value) else []
    return set[str]().union(*map(placeholders, items))


def unknown_placeholder(name: str, known: Iterable[str]) -> str:
    """Say that there is no such placeholder, and which there are."""
    known = sorted(known)
    close = difflib.get_close_matches(name[:100], known, n=1)
    advice = f"Did you mean {{{close[0]}}}?" if close else f"There are {', '.join(f'{{{k}}}' for k in known[:12])}."
    return f"unknown placeholder {{{name[:60]}}}. {advice} For literal braces write {{{{ and }}}}."


def _fill_text(text: str, values: Mapping[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        name = _name(match, text)
        if name is None:
            return match[0][0]
        if name not in values:
            raise UsageError(f"{text[:60]!r}: {unknown_placeholder(name, values)}")
        return values[name]

    return _TOKEN.sub(replace, text)


def _name(match: re.Match[str], text: str) -> str | None:
    """Return a match's placeholder, None for a doubled brace."""
    name = match["name"]
    if name is None and len(match[0]) == 1:
        raise UsageError(
            f"single {match[0]} in {text[:60]!r}. Write {{name}} for a placeholder, {{{{ or }}}} for a literal brace."
        )
    return name

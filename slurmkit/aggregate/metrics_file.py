"""One ``metrics.json``: read, parsed and checked to be this run's, or named as wrong."""

import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import cast

import orjson

from slurmkit.records import Json, RunStatus

METRICS_FILE = "metrics.json"
CONFIG_FILE = "config.json"

_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_FIRST_READ_BYTES = 1 << 14
_LIMIT_BYTES = 1 << 26
"""Far above any file of final metrics: a larger one is something else under that name."""


class Flaw(StrEnum):
    """Why a completed run's metrics, or one of them, could not be used."""

    MISSING = "metrics_missing"
    UNREADABLE = "metrics_unreadable"
    EMPTY = "metrics_empty"
    TRUNCATED = "metrics_truncated"
    NOT_FINITE = "metrics_not_finite"
    NOT_JSON = "metrics_not_json"
    NOT_AN_OBJECT = "metrics_not_an_object"
    AMBIGUOUS = "metrics_ambiguous"
    CHANGED = "metrics_changed"
    FOREIGN = "metrics_foreign"
    NOT_A_NUMBER = "metric_not_a_number"
    """One value only: text where other runs have a number. The run's other metrics are kept."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a metrics file.

    Attributes:
        run: name of the run.
        path: the file.
        flaw: the kind of problem.
        what: one sentence, with the value.
    """

    run: str
    path: str
    flaw: Flaw
    what: str


class FlawError(Exception):
    """A file is not this run's good metrics.

    Attributes:
        flaw: the kind of problem.
        what: one sentence, with the value.
    """

    def __init__(self, flaw: Flaw, what: str) -> None:
        super().__init__(what)
        self.flaw = flaw
        self.what = what


def values_of(path: str, status: RunStatus) -> dict[str, Json]:
    """Read, parse and check one file.

    Raises:
        FlawError: it is not this run's good metrics.
    """
    content = _content_of(path)
    values = _parse(content)
    if content.rfind(b"{") > content.find(
        b"{"
    ):  # a nested object, or a brace in a text: a cheap test, since nearly all are flat
        values = _flatten(values)
    expected = status.metrics_sha256
    if expected is not None:
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise FlawError(
                Flaw.CHANGED,
                f"changed since the run completed: its SHA-256 was {expected[:12]}, now it is {found[:12]}",
            )
    run_id = values.get("provenance/run_id")
    if run_id is not None and run_id != status.id:
        raise FlawError(Flaw.FOREIGN, f"belongs to run {run_id!r} by its provenance/run_id, not to {status.id!r}")
    config = values.get("provenance/config_sha256")
    if config is not None and config != status.config_sha256 and config != _config_sha256(status.run_dir):
        raise FlawError(
            Flaw.FOREIGN,
            f"belongs to another config: its provenance/config_sha256 is {str(config)[:12]!r}, "
            f"this run's config has {status.config_sha256[:12]!r}",
        )
    return values


def _config_sha256(run_dir: Path) -> str:
    """Return the hash of the config file as the command saw it, placeholders filled in; empty if it is gone."""
    try:
        return hashlib.sha256((run_dir / CONFIG_FILE).read_bytes()).hexdigest()
    except OSError:
        return ""


def _content_of(path: str) -> bytes:
    """Return a file's bytes; a pipe or device under the name blocks nobody.

    Raises:
        FlawError: there is no file, or it cannot be read, or it is absurdly large.
    """
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
        try:
            content = os.read(descriptor, _FIRST_READ_BYTES)
            if len(content) == _FIRST_READ_BYTES:
                with os.fdopen(os.dup(descriptor), "rb") as file:
                    content += file.read(_LIMIT_BYTES)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise FlawError(Flaw.MISSING, "the file is missing, though the run completed") from None
    except OSError as error:
        raise FlawError(Flaw.UNREADABLE, f"cannot be read: {error.strerror}") from None
    if len(content) > _LIMIT_BYTES:
        raise FlawError(Flaw.UNREADABLE, f"larger than {_LIMIT_BYTES >> 20} MiB, which no file of final metrics is")
    return content


def _parse(content: bytes) -> dict[str, Json]:
    try:
        values: Json = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise _diagnose(content, error) from None
    if type(values) is not dict:
        raise FlawError(Flaw.NOT_AN_OBJECT, f"holds a {kind_of(values)} where an object of metrics is expected")
    return cast("dict[str, Json]", values)


def _diagnose(content: bytes, error: orjson.JSONDecodeError) -> FlawError:
    """Say what is wrong with bytes that are not JSON."""
    text = content.strip(b" \t\r\n\0")
    if not text:
        return FlawError(
            Flaw.EMPTY, "empty" if not content else f"holds nothing but {len(content)} blank or zero bytes"
        )
    if text.startswith(b"{") and (not text.endswith(b"}") or "end of data" in error.msg):
        return FlawError(Flaw.TRUNCATED, f"cut off after {len(text)} bytes, in line {error.lineno}")
    try:
        lenient: Json = json.loads(content)
    except (ValueError, RecursionError):
        lenient = None
    if isinstance(lenient, dict):
        keys = list(_not_finite(cast("dict[str, Json]", lenient)))
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            return FlawError(Flaw.NOT_FINITE, f"NaN or Infinity in {', '.join(keys[:3])}{more}")
    return FlawError(Flaw.NOT_JSON, f"not JSON: line {error.lineno}, column {error.colno}: {error.msg}")


def leaves(nested: dict[str, Json]) -> Iterator[tuple[str, Json]]:
    """Yield the flat keys and values of nested objects, in the file's order."""
    stack: list[tuple[str, Iterator[tuple[str, Json]]]] = [("", iter(nested.items()))]
    while stack:
        prefix, items = stack[-1]
        for key, value in items:
            if type(value) is dict:
                stack.append((f"{prefix}{key}/", iter(cast("dict[str, Json]", value).items())))
                break
            yield prefix + key, value
        else:
            stack.pop()


def _not_finite(nested: dict[str, Json]) -> Iterator[str]:
    for key, value in leaves(nested):
        members = cast("list[Json]", value) if isinstance(value, list) else [value]
        if any(isinstance(member, float) and not math.isfinite(member) for member in members):
            yield key


def _flatten(nested: dict[str, Json]) -> dict[str, Json]:
    flat: dict[str, Json] = {}
    for key, value in leaves(nested):
        if key in flat:
            raise FlawError(Flaw.AMBIGUOUS, f"gives {key} twice, flat and nested")
        flat[key] = value
    return flat


def kind_of(value: Json) -> str:
    """Name a JSON type in words."""
    names = {
        dict: "object",
        list: "list",
        str: "text",
        bool: "bool",
        int: "number",
        float: "number",
        type(None): "null",
    }
    return names[type(value)]

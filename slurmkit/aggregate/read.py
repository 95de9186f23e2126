"""``metrics.json`` of completed runs into columns: what is good is kept, what is wrong is named."""

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson

from slurmkit.records import Json, RunStatus
from slurmkit.states import State

METRICS_FILE = "metrics.json"
CONFIG_FILE = "config.json"

REASON_SUFFIX = "__reason"
"""``<key>__reason`` says why ``<key>`` is null."""
COMPARABLE_SUFFIX = "__comparable"
"""``<key>__comparable: false`` says that ``<key>`` means something else in each setting."""
PROVENANCE_PREFIX = "provenance/"
"""Keys that say where the numbers come from; no metrics."""

_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_FIRST_READ_BYTES = 1 << 14
_FILES_A_GROUP = 512
"""So few that their values are still in the processor's cache when they become columns (a third of the time)."""
_LIMIT_BYTES = 1 << 26
"""Far above any file of final metrics: a larger one is something else under that name."""


_Positions = np.ndarray[Any, np.dtype[np.int64]]


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


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of some runs, by column; position i belongs to the i-th run asked for.

    Attributes:
        numbers: key to (runs,) float64; NaN where the run has no value.
        others: key to a list of bools, texts and lists; None where the run has no value.
        flaws: position of a completed run to why it has no metrics at all.
        problems: what is wrong, in the order of the runs.
        not_comparable: keys whose values mean something else in each setting.
        null_reasons: key to how often which reason was given for a null.
    """

    numbers: dict[str, np.ndarray[Any, np.dtype[np.float64]]]
    others: dict[str, list[Json]]
    flaws: dict[int, Flaw]
    problems: tuple[Problem, ...]
    not_comparable: frozenset[str]
    null_reasons: dict[str, Counter[str]]


class _FlawError(Exception):
    def __init__(self, flaw: Flaw, what: str) -> None:
        super().__init__(what)
        self.flaw = flaw
        self.what = what


@dataclass(slots=True)
class _Group:
    """Some files with the same keys in the same order: one list of all their values, file after file.

    No container a file is kept, which would make the garbage collector walk them all again and again.
    """

    positions: list[int] = field(default_factory=list[int])
    values: list[Json] = field(default_factory=list[Json])


def read_metrics(statuses: Sequence[RunStatus]) -> Metrics:
    """Read the metrics of the completed runs among some runs.

    Files of runs that are not completed are not looked at: such a file is a partial one, or an earlier attempt's.
    A file counts as the run's if it is a JSON object of finite numbers, nulls, bools, texts and lists (nested
    objects are flattened with ``/``), has the SHA-256 that was observed at completion, and does not name another
    run or config as its origin. Never raises for what a file holds.

    Args:
        statuses: the runs, completed or not.
    """
    groups: dict[tuple[str, ...], _Group] = {}
    columns = _Columns(statuses)
    flawed: dict[int, Problem] = {}
    for position, status in enumerate(statuses):
        if status.state is not State.COMPLETED:
            continue
        path = f"{status.folder}/{METRICS_FILE}"
        try:
            values = _values_of(path, status)
        except _FlawError as error:
            flawed[position] = Problem(status.name, path, error.flaw, error.what)
            continue
        keys = tuple(values)
        group = groups.get(keys)
        if group is None:
            group = groups[keys] = _Group()
        group.positions.append(position)
        group.values.extend(values.values())
        if len(group.positions) == _FILES_A_GROUP:
            columns.add_group(keys, groups.pop(keys))
    for keys, group in groups.items():
        columns.add_group(keys, group)
    numbers, others, mixed = columns.finish()
    problems = sorted([*flawed.items(), *mixed], key=lambda item: item[0])
    flaws = {position: problem.flaw for position, problem in flawed.items()}
    return Metrics(
        numbers,
        others,
        flaws,
        tuple(problem for _, problem in problems),
        columns.not_comparable(),
        columns.null_reasons,
    )


def _values_of(path: str, status: RunStatus) -> dict[str, Json]:
    """Read, parse and check one file.

    Raises:
        _FlawError: it is not this run's good metrics.
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
            raise _FlawError(
                Flaw.CHANGED,
                f"changed since the run completed: its SHA-256 was {expected[:12]}, now it is {found[:12]}",
            )
    run_id = values.get("provenance/run_id")
    if run_id is not None and run_id != status.id:
        raise _FlawError(Flaw.FOREIGN, f"belongs to run {run_id!r} by its provenance/run_id, not to {status.id!r}")
    config = values.get("provenance/config_sha256")
    if config is not None and config != status.config_sha256 and config != _config_sha256(status.run_dir):
        raise _FlawError(
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
        _FlawError: there is no file, or it cannot be read, or it is absurdly large.
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
        raise _FlawError(Flaw.MISSING, "the file is missing, though the run completed") from None
    except OSError as error:
        raise _FlawError(Flaw.UNREADABLE, f"cannot be read: {error.strerror}") from None
    if len(content) > _LIMIT_BYTES:
        raise _FlawError(Flaw.UNREADABLE, f"larger than {_LIMIT_BYTES >> 20} MiB, which no file of final metrics is")
    return content


def _parse(content: bytes) -> dict[str, Json]:
    try:
        values: Json = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise _diagnose(content, error) from None
    if type(values) is not dict:
        raise _FlawError(Flaw.NOT_AN_OBJECT, f"holds a {_kind(values)} where an object of metrics is expected")
    return cast("dict[str, Json]", values)


def _diagnose(content: bytes, error: orjson.JSONDecodeError) -> _FlawError:
    """Say what is wrong with bytes that are not JSON."""
    text = content.strip(b" \t\r\n\0")
    if not text:
        return _FlawError(
            Flaw.EMPTY, "empty" if not content else f"holds nothing but {len(content)} blank or zero bytes"
        )
    if text.startswith(b"{") and (not text.endswith(b"}") or "end of data" in error.msg):
        return _FlawError(Flaw.TRUNCATED, f"cut off after {len(text)} bytes, in line {error.lineno}")
    try:
        lenient: Json = json.loads(content)
    except (ValueError, RecursionError):
        lenient = None
    if isinstance(lenient, dict):
        keys = list(_not_finite(cast("dict[str, Json]", lenient)))
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            return _FlawError(Flaw.NOT_FINITE, f"NaN or Infinity in {', '.join(keys[:3])}{more}")
    return _FlawError(Flaw.NOT_JSON, f"not JSON: line {error.lineno}, column {error.colno}: {error.msg}")


def _leaves(nested: dict[str, Json]) -> Iterator[tuple[str, Json]]:
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
    for key, value in _leaves(nested):
        members = cast("list[Json]", value) if isinstance(value, list) else [value]
        if any(isinstance(member, float) and not math.isfinite(member) for member in members):
            yield key


def _flatten(nested: dict[str, Json]) -> dict[str, Json]:
    flat: dict[str, Json] = {}
    for key, value in _leaves(nested):
        if key in flat:
            raise _FlawError(Flaw.AMBIGUOUS, f"gives {key} twice, flat and nested")
        flat[key] = value
    return flat


def _kind(value: Json) -> str:
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


class _Columns:
    """Columns under construction."""

    def __init__(self, statuses: Sequence[RunStatus]) -> None:
        self._statuses = statuses
        self._numbers: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
        self._others: dict[str, list[Json]] = {}
        self._marked: set[str] = set()
        self.null_reasons: dict[str, Counter[str]] = {}

    def add_group(self, keys: tuple[str, ...], group: _Group) -> None:
        """Take the values of some files with the same keys."""
        positions = np.array(group.positions)
        for offset, key in enumerate(keys):
            self._add(key, positions, group.values[offset :: len(keys)])

    def _add(self, key: str, positions: _Positions, values: list[Json]) -> None:
        """Take the values of one key for some runs."""
        if key.startswith(PROVENANCE_PREFIX):
            return
        if key.endswith(REASON_SUFFIX):
            reasons = self.null_reasons.setdefault(key.removesuffix(REASON_SUFFIX), Counter())
            reasons.update(str(value) for value in values if value is not None)
            return
        if key.endswith(COMPARABLE_SUFFIX):
            if False in values:
                self._marked.add(key.removesuffix(COMPARABLE_SUFFIX))
            return
        types = set(map(type, values))
        if types <= {float, int, type(None)}:
            self._add_numbers(key, positions, values)
            return
        if types & {float, int}:
            for wanted in (True, False):
                chosen = [i for i, value in enumerate(values) if (type(value) in (float, int)) is wanted]
                self._add(key, positions[chosen], [values[i] for i in chosen])
            return
        column = self._others.setdefault(key, [None] * len(self._statuses))
        for position, value in zip(positions.tolist(), values, strict=True):
            column[position] = value

    def _add_numbers(self, key: str, positions: _Positions, values: list[Json]) -> None:
        column = self._numbers.get(key)
        if column is None:
            column = self._numbers[key] = np.full(len(self._statuses), np.nan)
        column[positions] = np.array(values, dtype=np.float64)  # None becomes NaN

    def finish(
        self,
    ) -> tuple[dict[str, np.ndarray[Any, np.dtype[np.float64]]], dict[str, list[Json]], list[tuple[int, Problem]]]:
        """Return the numbers, the others, and a problem for each value that is text where other runs have a number."""
        mixed: list[tuple[int, Problem]] = []
        for key in self._numbers.keys() & self._others.keys():
            if np.isnan(self._numbers[key]).all():  # nulls, where other runs have a text
                del self._numbers[key]
                continue
            for position, value in enumerate(self._others.pop(key)):
                if value is not None:
                    status = self._statuses[position]
                    what = f"{key}: {str(value)[:40]!r} is a {_kind(value)}, other runs have a number; left out"
                    path = f"{status.folder}/{METRICS_FILE}"
                    mixed.append((position, Problem(status.name, path, Flaw.NOT_A_NUMBER, what)))
        return self._numbers, self._others, mixed

    def not_comparable(self) -> frozenset[str]:
        """Return the keys marked by a sibling, and total losses: their sum changes with the terms of a setting."""
        totals = {key for key in self._numbers if _is_total_loss(key)}
        return frozenset(totals | (self._marked & self._numbers.keys()))


def _is_total_loss(key: str) -> bool:
    parts = key.split("/")
    return parts[-1] == "total_loss" or (parts[-1] == "total" and parts[0] == "loss")

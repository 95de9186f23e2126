"""One side of a comparison: a collection as it counts now, or its runs that are pinned to one commit."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from slurmkit.collection import Collection
from slurmkit.collection.look import summarise
from slurmkit.collection.poll import Snapshot
from slurmkit.collection.submit import config_of, resources_of
from slurmkit.definition.grid import BLOCK, SETTING, axis_points
from slurmkit.errors import DefinitionError, UsageError
from slurmkit.expand import resolve_config
from slurmkit.overview import Overview
from slurmkit.records import Json, Row, RunStatus
from slurmkit.store import CollectionStore

_PREFIX = re.compile(r"[0-9a-f]{4,64}")
_SHORT = 10


class Member(NamedTuple):
    """One run of a side.

    Attributes:
        status: where it stands.
        config: as its cell has it, placeholders still open.
        ran: the same with what the latest attempt changed.
        resources: what the latest attempt asked for, as a record.
        retired: an extension took the run out.
    """

    status: RunStatus
    config: dict[str, Json]
    ran: dict[str, Json]
    resources: dict[str, Json]
    retired: bool


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison.

    Attributes:
        name: as it was asked for: a collection, or ``collection@commit``.
        header: ``collection.json``.
        members: its runs, in the definition's order.
        seed_axis: the axis whose values only repeat.
        keys: axis to the dotted config keys that its values set; empty: none.
        overview: counts and failures of these runs.
        notes: what is worth saying of it.
    """

    name: str
    header: Mapping[str, Json]
    members: tuple[Member, ...]
    seed_axis: str
    keys: dict[str, tuple[str, ...]]
    overview: Overview
    notes: tuple[str, ...]

    @property
    def commits(self) -> dict[str, int]:
        """Commit to how many of the runs are pinned to it, most first."""
        return dict(Counter(member.status.commit for member in self.members).most_common())


def read_side(text: str, root: Path | None = None) -> Side:
    """Read a side.

    Args:
        text: ``NAME``, or ``NAME@COMMIT`` with any beginning of the commit's id: the runs pinned to it, those that an
            extension has retired among them.
        root: a folder inside the project; None: the current folder.

    Raises:
        UsageError: there is no such collection, or none of its runs is pinned to such a commit.
    """
    name, at, prefix = text.partition("@")
    if not name:
        raise UsageError(f"{text!r}: names no collection. Write NAME, or NAME@COMMIT.")
    opened = Collection.load(name, root)
    snapshot = opened.snapshot()
    rows = _pinned_to(text, prefix, snapshot) if at else snapshot.rows
    members = tuple(_member(row, status, snapshot) for row, status in zip(rows, snapshot.statuses(rows), strict=True))
    keys, notes = _axis_keys(opened.records)
    if snapshot.problem:
        notes.append(snapshot.problem)
    return Side(
        name=text,
        header=opened.records.header,
        members=members,
        seed_axis=opened.seed_axis,
        keys=keys,
        overview=summarise(opened, snapshot, [member.status for member in members], {}),
        notes=tuple(f"{name}: {note}" for note in notes),
    )


def _pinned_to(text: str, prefix: str, snapshot: Snapshot) -> list[Row]:
    """Return the runs that are pinned to one commit, the retired ones first: what replaced them comes later."""
    own: str = snapshot.records.header["commit"]
    rows = [*snapshot.retired, *snapshot.rows]
    counts = Counter(row.commit or own for row in rows)
    there = ", ".join(f"{commit[:_SHORT]} ({count})" for commit, count in counts.most_common())
    if not _PREFIX.fullmatch(prefix.lower()):
        raise UsageError(
            f"{text}: {prefix!r} is no beginning of a commit's id (4 hex digits or more). Its runs: {there}."
        )
    found = [commit for commit in counts if commit.startswith(prefix.lower())]
    if not found:
        raise UsageError(f"{text}: no run is pinned to a commit that begins with {prefix}. Its runs: {there}.")
    if len(found) > 1:
        raise UsageError(f"{text}: several commits begin with {prefix}. Give more digits of one of these: {there}.")
    return [row for row in rows if (row.commit or own) == found[0]]


def _member(row: Row, status: RunStatus, snapshot: Snapshot) -> Member:
    header = snapshot.records.header
    # A retired run keeps its whole config: what is shared now is the config of the runs that came after it.
    config = resolve_config({}, row.set) if row.retired else config_of(row, header)
    asked = resources_of(row, header).to_json()
    attempt = snapshot.ledger.attempts.get(row.id)
    changes = (attempt.changes if attempt else None) or {}
    ran = resolve_config(config, changes["set"]) if changes.get("set") else config
    return Member(status, config, ran, asked | (changes.get("resources") or {}), bool(row.retired))


def _axis_keys(records: CollectionStore) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Return the config keys of each axis, also of those that only an earlier form of the definition has."""
    from slurmkit.definition.model import parse_definition

    keys: dict[str, tuple[str, ...]] = {}
    notes: list[str] = []
    for path in records.definition_files:
        try:
            definition = parse_definition(path.read_bytes(), str(path))
        except DefinitionError as error:  # written by another version: labels alone are compared then
            notes.append(f"which config keys its axes set is not known: {error.problems[0]}")
            continue
        for axis, values in definition.axes.items():
            points = axis_points(values, axis, definition.config)
            keys[axis] = tuple(sorted({key for point in points for key in point.sets}))
        if definition.settings:
            own = {key for block in definition.settings.values() for sets in block.values() for key in sets}
            keys[BLOCK] = keys[SETTING] = tuple(sorted(own))
    return keys, notes

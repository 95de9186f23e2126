"""Compare a collection with an edited definition, and add what is new; never lose a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from slurmkit import pin
from slurmkit.collection.create import check_configs, freeze_rows, kept, path_text, pin_for, read_definition
from slurmkit.errors import UsageError
from slurmkit.expand import Expansion, expand, resolve_config
from slurmkit.project import Project
from slurmkit.records import Json, Row
from slurmkit.store import CollectionStore, now, sha256

_SAID_OF_RUNS = ("description", "tags", "metrics", "report")
"""Parts of a definition that change no run, and that tables and reports show."""


@dataclass(frozen=True)
class Difference:
    """How an edited definition differs from the collection.

    Attributes:
        added: runs of cells that are new, or that were retired and come back.
        removed: runs whose cell the definition has no more.
        kept: runs that are the same in both.
        changed: (old, new) runs of the same cell with another config, and the config keys that differ.
        updated: kept runs whose own resources, axes or needs the edited definition has otherwise (new form).
    """

    added: list[Row]
    removed: list[Row]
    kept: list[Row]
    changed: list[tuple[Row, Row, dict[str, tuple[Json, Json]]]]
    updated: list[Row]


@dataclass(frozen=True)
class ExtendPlan:
    """What an extension would write.

    Attributes:
        difference: against the collection as it is.
        rows: the new ``runs.jsonl``.
        frozen: the edited definition.
        expansion: its runs.
        content: its bytes.
        source: its file.
        commit: what added and changed runs are pinned to.
        pinned: likewise, if that was asked for; None: the collection's own.
        notes: what is worth saying.
    """

    difference: Difference
    rows: list[Row]
    frozen: dict[str, Json]
    expansion: Expansion
    content: bytes
    source: Path
    commit: str
    pinned: pin.Pin | None
    notes: list[str]


def compare(
    old_rows: Sequence[Row], new_rows: Sequence[Row], old_config: dict[str, Json], new_config: dict[str, Json]
) -> Difference:
    """Compare runs by id (same config) and, where that differs, by cell and seed.

    Args:
        old_rows: runs of the collection, the retired ones left out.
        new_rows: runs of the edited definition.
        old_config: the collection's shared config, to say which keys differ.
        new_config: the edited definition's.
    """
    old_by_id = {row.id: row for row in old_rows}
    new_by_id = {row.id: row for row in new_rows}
    gone = {_cell(row): row for row in old_rows if row.id not in new_by_id}
    added: list[Row] = []
    changed: list[tuple[Row, Row, dict[str, tuple[Json, Json]]]] = []
    updated: list[Row] = []
    for row in new_rows:
        same = old_by_id.get(row.id)
        if same is not None:
            if (same.resources, same.axes, same.needs) != (row.resources, row.axes, row.needs):
                updated.append(row)
        elif (before := gone.pop(_cell(row), None)) is not None:
            keys = differing_keys(resolve_config(old_config, before.set), resolve_config(new_config, row.set))
            changed.append((before, row, keys))
        else:
            added.append(row)
    kept = [row for row in old_rows if row.id in new_by_id]
    return Difference(added, list(gone.values()), kept, changed, updated)


def _cell(row: Row) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((axis, repr(value)) for axis, value in row.axes.items()))


def differing_keys(old: Mapping[str, Json], new: Mapping[str, Json], prefix: str = "") -> dict[str, tuple[Json, Json]]:
    """Return dotted keys whose values differ, with both values (None: not there)."""
    found: dict[str, tuple[Json, Json]] = {}
    for key in {**old, **new}:
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= differing_keys(cast("dict[str, Json]", a), cast("dict[str, Json]", b), f"{prefix}{key}.")
        elif a != b:
            found[prefix + key] = (a, b)
    return found


def plan_extend(
    project: Project,
    records: CollectionStore,
    path: Path,
    *,
    revision: str | None,
    allow_dirty: bool,
    dry_run: bool,
) -> ExtendPlan:
    """Work out an extension. The caller holds the lock unless this is a dry run.

    New runs are pinned to the collection's own commit, so that all can be compared, unless a revision is given.
    """
    definition, content = read_definition(path)
    definition = definition.renamed(records.name)
    frozen, expansion = definition.to_json(), expand(definition)
    header = records.header
    new_rows = freeze_rows(project, records.name, frozen, expansion)
    old_rows = records.rows()
    current = [row for row in old_rows if not row.retired]
    difference = compare(current, new_rows, header["definition"]["config"], frozen["config"])
    notes = list(expansion.notes)
    commit: str = header["commit"]
    pinned = None
    if revision is not None or allow_dirty:
        pinned = pin_for(project, records.name, revision, allow_dirty=allow_dirty, dry_run=dry_run, notes=notes)
        if pinned is not None:
            commit = pinned.commit
    if frozen["command"] != header["definition"]["command"]:
        notes.append("the command changed: every run is new, because a run is its command and config")
    rows = _merge(old_rows, new_rows, difference, header, commit)
    fresh = [*difference.added, *(new for _, new, _ in difference.changed)]
    if fresh:
        notes += check_configs(frozen, fresh, _checked_in(project, Path(header["repository"]), commit, dry_run=dry_run))
    return ExtendPlan(difference, rows, frozen, expansion, content, path, commit, pinned, notes)


def _checked_in(project: Project, repository: Path, commit: str, *, dry_run: bool) -> Path:
    """Return where the check runs: the pinned checkout; in a dry run, if there is none yet, the working tree."""
    if not dry_run:
        return pin.materialise(commit, repository, project.store.checkouts)
    checkout = project.store.checkouts / commit
    return checkout if checkout.is_dir() else pin.find_repository(project.root)


def _merge(
    old_rows: Sequence[Row], new_rows: Sequence[Row], difference: Difference, header: Mapping[str, Json], commit: str
) -> list[Row]:
    """Return all rows: kept ones with the name and pin they have, retired ones marked, new ones behind them."""
    retired = {row.id: "removed" for row in difference.removed}
    retired |= {old.id: "changed" for old, _, _ in difference.changed}
    coming = {row.id: row for row in new_rows}
    rows: list[Row] = []
    for row in old_rows:
        new = coming.pop(row.id, None)
        if new is not None:  # kept, or retired before and now back with what it has already
            rows.append(new._replace(name=row.name, commit=row.commit))
        else:
            rows.append(_as_it_was(row, retired.get(row.id, row.retired), header["definition"]))
    taken = {row.name for row in rows}
    own_commit = "" if commit == header["commit"] else commit
    for row in coming.values():
        name = row.name if row.name not in taken else f"{row.name}~{row.id[:6]}"
        rows.append(row._replace(name=name, commit=own_commit))
    return rows


def _as_it_was(row: Row, retired: str, old: Mapping[str, Json]) -> Row:
    """Retire a row, and keep what it was: the shared config and resources may change under it."""
    if row.retired:
        return row
    whole = differing_keys({}, resolve_config(old["config"], row.set))
    return row._replace(
        retired=retired,
        set={key: value for key, (_, value) in whole.items()},
        resources=row.resources or old["resources"],
    )


def carry_out(records: CollectionStore, plan: ExtendPlan) -> None:
    """Write the extension. The caller holds the lock."""
    refs: list[str] = records.header["refs"]
    if plan.pinned is None:
        _write(records, plan, refs)
        return
    with kept(records, plan.pinned) as ref:
        _write(records, plan, list(dict.fromkeys([*refs, ref])))


def _write(records: CollectionStore, plan: ExtendPlan, refs: list[str]) -> None:
    header = records.header | {
        "definition": plan.frozen,
        "refs": refs,
        "definition_sha256": sha256(plan.content),
        "source": path_text(plan.source),
        "axes": {axis: list(values) for axis, values in plan.expansion.axes.items()},
        "extended_at": now(),
    }
    event: dict[str, Json] = {
        "event": "extended",
        "commit": plan.commit,
        "added": [row.id for row in plan.difference.added],
        "changed": {old.id: new.id for old, new, _ in plan.difference.changed},
        "removed": [row.id for row in plan.difference.removed],
    }
    records.append(event)
    records.replace_rows(plan.rows, header, plan.content)


def refuse_empty(plan: ExtendPlan, before: Mapping[str, Json]) -> None:
    """Raise if an extension would change nothing: neither runs nor what is said of them.

    Args:
        plan: the extension.
        before: the definition as it is frozen now.
    """
    difference = plan.difference
    said = any((plan.frozen.get(key) or None) != (before.get(key) or None) for key in _SAID_OF_RUNS)
    if not (difference.added or difference.removed or difference.changed or difference.updated or said):
        raise UsageError("the definition has the same runs as the collection. Nothing to do.")

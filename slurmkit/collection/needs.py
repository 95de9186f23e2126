"""Match runs with the runs that they need, of this collection or of another."""

from collections.abc import Mapping, Sequence

from slurmkit.errors import DefinitionError, UsageError
from slurmkit.expand import Run
from slurmkit.records import Json, Row
from slurmkit.store import Store

Needs = dict[str, tuple[str, str, str]]
"""Alias to (collection, run id, run name)."""

_Key = tuple[str, ...]


def match_needs(
    store: Store,
    name: str,
    needs: Mapping[str, dict[str, Json]],
    runs: Sequence[Run],
    axes: Sequence[str],
) -> list[Needs]:
    """Find, for each run, the one run behind each alias.

    Args:
        store: the project's records.
        name: of the collection that `runs` belong to.
        needs: alias to ``{collection, match, where, when}`` (see the definition reference).
        runs: the collection's own runs.
        axes: names of its axes.

    Returns:
        for each run its needs, in the order of `runs`.

    Raises:
        DefinitionError: a run finds none or several; all such problems at once.
        UsageError: a needed collection does not exist, or needs this one in turn.
    """
    found: list[Needs] = [{} for _ in runs]
    if not needs:
        return found
    problems: list[str] = []
    for alias, need in needs.items():
        other = need["collection"] or name
        candidates = _own(runs) if other == name else _others(store, name, other)
        match = need["match"]
        if match is None:
            shared = candidates[0].axes if candidates else {}
            match = [axis for axis in axes if axis in shared and not (other == name and axis in need["where"])]
        index = _index(candidates, match, need["where"])
        for run, into in zip(runs, found, strict=True):
            if not _holds(run.axes, need["when"]):
                continue
            hits = [hit for hit in index.get(_key(run.axes, match), []) if hit.id != run.id]
            if len(hits) == 1:
                into[alias] = (other, hits[0].id, hits[0].name)
            else:
                problems.append(_mismatch(alias, other, run, match, need["where"], hits))
    if problems:
        shown = problems[:10]
        rest = len(problems) - len(shown)
        raise DefinitionError(shown + ([f"... and {rest} more runs like these."] if rest else []))
    _refuse_cycles(runs, found, name)
    return found


def needed_first(rows: Sequence[Row]) -> list[Row]:
    """Keep the order, but put a run behind those of this list that it needs (chains may be long: no recursion)."""
    by_id = {row.id: row for row in rows}
    placed: dict[str, Row] = {}
    stack = list(reversed(rows))
    while stack:
        row = stack[-1]
        missing = [by_id[run] for _, run, _ in row.needs.values() if run in by_id and run not in placed]
        if missing and row.id not in placed:
            stack += missing
        else:
            placed.setdefault(row.id, stack.pop())
    return list(placed.values())


def _own(runs: Sequence[Run]) -> list[Row]:
    return [Row(run.id, run.name, run.axes, {}, run.config_sha256, {}, {}) for run in runs]


def _others(store: Store, name: str, other: str) -> list[Row]:
    records = store.existing(other)
    rows = [row for row in records.rows() if not row.retired]
    seen = {other}
    queue = [other]
    while queue:
        for need in store.existing(queue.pop()).header["definition"]["needs"].values():
            further: str | None = need["collection"]
            if further == name:
                raise UsageError(f"needs: collection {other!r} needs runs of {name!r} in turn. Cut the circle.")
            if further is not None and further not in seen and store.collection(further).exists():
                seen.add(further)
                queue.append(further)
    return rows


def _index(rows: Sequence[Row], match: Sequence[str], where: Mapping[str, Json]) -> dict[_Key, list[Row]]:
    index: dict[_Key, list[Row]] = {}
    for row in rows:
        if _holds(row.axes, where):
            index.setdefault(_key(row.axes, match), []).append(row)
    return index


def _key(axes: Mapping[str, Json], match: Sequence[str]) -> _Key:
    return tuple(str(axes.get(axis)) for axis in match)


def _holds(axes: Mapping[str, Json], conditions: Mapping[str, Json]) -> bool:
    """Say whether the axes have the values asked for (a list: one of them)."""
    return all(
        axes.get(axis) in (wanted if isinstance(wanted, list) else [wanted]) for axis, wanted in conditions.items()
    )


def _mismatch(
    alias: str, other: str, run: Run, match: Sequence[str], where: Mapping[str, Json], hits: Sequence[Row]
) -> str:
    wanted = ", ".join([f"{axis}={run.axes.get(axis)}" for axis in match] + [f"{a}={v}" for a, v in where.items()])
    if not hits:
        found, advice = "no run", f"Add it there (slurmkit collection show {other}), or change needs.{alias}."
    else:
        names = ", ".join(hit.name for hit in hits[:3]) + (", ..." if len(hits) > 3 else "")
        found, advice = f"{len(hits)} runs ({names})", f"Name more axes in needs.{alias}.match or needs.{alias}.where."
    return f"needs.{alias}: run {run.name}: {found} of collection {other!r} has {wanted or 'any axes'}. {advice}"


def _refuse_cycles(runs: Sequence[Run], found: Sequence[Needs], name: str) -> None:
    """Refuse runs that need each other in a circle (only within one collection can they)."""
    needed = {
        run.id: [other for collection, other, _ in needs.values() if collection == name]
        for run, needs in zip(runs, found, strict=True)
    }
    names = {run.id: run.name for run in runs}
    settled: set[str] = set()
    for start in needed:
        path: list[str] = []
        run: str | None = start
        # Depth first, by hand: chains of stages may be long.
        stack = [iter([start])]
        while stack:
            run = next(stack[-1], None)
            if run is None:
                stack.pop()
                if path:
                    settled.add(path.pop())
            elif run in path:
                circle = " -> ".join(names[other] for other in [*path[path.index(run) :], run])
                raise DefinitionError([f"needs: runs need each other in a circle: {circle}. Use needs.<alias>.when."])
            elif run not in settled:
                path.append(run)
                stack.append(iter(needed[run]))

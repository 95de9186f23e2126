"""What runs asked for and used, and what that says for those that are tried again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from slurmkit.collection.poll import Snapshot
from slurmkit.collection.submit import Item, resources_of
from slurmkit.names import label_text
from slurmkit.records import Json, RunStatus
from slurmkit.resources import Resources, format_duration, format_memory
from slurmkit.states import Reason, State
from slurmkit.usage import Usage, as_memory, as_time, usage


def main_axis(axes: Mapping[str, Sequence[Json]], seed_axis: str) -> str:
    """Return the axis that most likely decides what a run needs: the first with several values; empty: no axis."""
    free = [axis for axis in axes if axis != seed_axis]
    return next((axis for axis in free if len(axes[axis]) > 1), next(iter(free), ""))


def asked_resources(snapshot: Snapshot, chosen: Sequence[RunStatus]) -> dict[str, Resources]:
    """Return run id to what the latest attempt of each run asked for, changes of retries included."""
    header, attempts = snapshot.records.header, snapshot.ledger.attempts
    rows = {row.id: row for row in (*snapshot.rows, *snapshot.retired)}
    asked: dict[str, Resources] = {}
    for run in chosen:
        attempt = attempts.get(run.id)
        changed: dict[str, Json] = (attempt.changes or {}).get("resources", {}) if attempt else {}
        asked[run.id] = replace(resources_of(rows[run.id], header), **changed)
    return asked


def usage_along(snapshot: Snapshot, chosen: Sequence[RunStatus], axis: str) -> list[Usage]:
    """Sum up what runs asked for and used, for each value of an axis."""
    return usage(chosen, asked_resources(snapshot, chosen), axis)


def advice(snapshot: Snapshot, items: Sequence[Item]) -> list[str]:
    """Say what finished siblings of runs that wanted more memory or time suggest for these, a line for each group.

    Args:
        snapshot: before they are tried again.
        items: what is tried again.
    """
    header = snapshot.records.header
    axis = main_axis(header["axes"], header["definition"]["seed_axis"])
    statuses = {status.id: status for status in snapshot.statuses()}
    lines: list[str] = []
    for reason, kind in ((Reason.OOM_HOST, "memory"), (Reason.TIMEOUT, "time")):
        short = [item for item in items if statuses[item.row.id].reason is reason]
        values = {label_text(item.row.axes.get(axis)): item for item in short}
        siblings = [
            status
            for status in statuses.values()
            if status.state is State.COMPLETED and label_text(status.axes.get(axis)) in values
        ]
        lines += [_line(kind, axis, row, values) for row in usage_along(snapshot, siblings, axis)]
    return [line for line in lines if line]


def _line(kind: str, axis: str, row: Usage, tried: Mapping[str, Item]) -> str:
    """Compare what completed runs used with what one that is tried again asks for; empty: nothing is known."""
    spent = row.memory if kind == "memory" else row.time
    if spent.most is None or spent.suggested is None:
        return ""
    resources = tried[label_text(row.value)].resources
    if kind == "memory":
        used, enough, key = format_memory(spent.most), as_memory(spent.suggested), "resources.mem"
        asks = format_memory(resources.mem_mb) if resources.mem_mb else "no limit"
    else:
        used, enough, key = format_duration(spent.most), as_time(spent.suggested), "resources.time"
        asks = format_duration(resources.time_s) if resources.time_s else "no limit"
    who = f"{axis}={label_text(row.value)}" if axis else "this collection"
    finished = "1 run that completed" if row.completed == 1 else f"{row.completed:,} runs that completed"
    return f"of {who}, {finished} used up to {used}: --set {key}={enough} would have done for them; this try: {asks}"

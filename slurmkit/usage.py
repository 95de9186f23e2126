"""Pure: what runs asked for and what they used, and what to ask for next time."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from slurmkit.names import label_text
from slurmkit.records import Json, RunStatus
from slurmkit.resources import Resources, format_duration, format_memory
from slurmkit.states import Reason, State

_SPARE_MEMORY = 1.2
_SPARE_TIME = 1.5
"""What is suggested, against the most that was used."""

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400
_TIME_STEPS_S = ((10 * _MINUTE_S, _MINUTE_S), (_HOUR_S, 5 * _MINUTE_S), (10 * _HOUR_S, 30 * _MINUTE_S))
_MEMORY_STEPS_MB = ((1024, 50), (8 * 1024, 512), (64 * 1024, 1024))
"""Up to this size, round to multiples of that; what is larger, to 12 hours and 8 GB."""


@dataclass(frozen=True, slots=True)
class Spent:
    """One kind of resource: what was asked for, what was used, and what would do.

    Attributes:
        asked: least and most that runs asked for; None: some asked for nothing.
        median, most: of what was used; None: not known of any.
        suggested: what would have been enough for all, with some to spare; None: that cannot be told.
        note: why not, or what else there is to know.
    """

    asked: tuple[int, int] | None
    median: float | None
    most: float | None
    suggested: int | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the runs of one axis value asked for and used.

    Attributes:
        value: of the axis.
        total, completed, failed: how many runs.
        memory: in MiB a run.
        time: in seconds a run.
    """

    value: Json
    total: int
    completed: int
    failed: int
    memory: Spent
    time: Spent

    def to_json(self) -> dict[str, Json]:
        """Return a record of it."""
        record: dict[str, Json] = {"value": self.value, "total": self.total}
        record |= {"completed": self.completed, "failed": self.failed}
        for name, spent in (("mem_mb", self.memory), ("time_s", self.time)):
            record[name] = {
                "asked": spent.asked,
                "median": spent.median,
                "most": spent.most,
                "suggested": spent.suggested,
                "note": spent.note,
            }
        return record


def usage(statuses: Sequence[RunStatus], asked: Mapping[str, Resources], axis: str) -> list[Usage]:
    """Sum up what runs asked for and used, for each value of an axis.

    Args:
        statuses: the runs.
        asked: run id to what its latest attempt asked for.
        axis: its values are the rows; a run without it, or no axis at all (empty), goes under None.
    """
    groups: dict[str, list[RunStatus]] = {}
    for run in statuses:
        groups.setdefault(label_text(run.axes.get(axis)), []).append(run)
    return [_of(runs, asked, axis) for runs in groups.values()]


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of resource.

    Attributes:
        asked: what a run asked for; None: nothing.
        used: what a run used; None or 0: not known.
        cut: why a run fails that needs more.
        is_whole: whether a completed run tells all that its work needs.
        spare: what is suggested, against the most that was used.
        steps, beyond: what is suggested is a multiple of these (`round_up`).
        write: an amount in words.
        cut_note: what is known of `count` runs that were cut off at up to `bound`.
        part_note: why nothing can be suggested where no run is whole.
    """

    asked: Callable[[Resources], int | None]
    used: Callable[[RunStatus], float | None]
    cut: Reason
    is_whole: Callable[[RunStatus], bool]
    spare: float
    steps: Sequence[tuple[int, int]]
    beyond: int
    write: Callable[[float], str]
    cut_note: str
    part_note: str


_MEMORY = _Kind(
    asked=lambda asked: asked.mem_mb,
    used=lambda run: run.peak_rss_mb,
    cut=Reason.OOM_HOST,
    is_whole=lambda run: bool(run.peak_rss_mb),
    spare=_SPARE_MEMORY,
    steps=_MEMORY_STEPS_MB,
    beyond=8 * 1024,
    write=format_memory,
    cut_note="{count} killed for memory at up to {bound}: they need more, and no peak says how much",
    part_note="",
)
"""The peak of a run that was killed for its memory says only that it needs more than its limit."""
_TIME = _Kind(
    asked=lambda asked: asked.time_s,
    used=lambda run: run.duration_s,
    cut=Reason.TIMEOUT,
    is_whole=lambda run: bool(run.duration_s) and run.attempt == 1,
    spare=_SPARE_TIME,
    steps=_TIME_STEPS_S,
    beyond=12 * _HOUR_S,
    write=format_duration,
    cut_note="{count} ended at their limit, of up to {bound}: they need more",
    part_note="all that completed were tried again, and may have gone on from a checkpoint: "
    "their time is not the whole",
)
"""A later attempt may have gone on from a checkpoint, and so be too short."""


def _of(runs: Sequence[RunStatus], asked: Mapping[str, Resources], axis: str) -> Usage:
    return Usage(
        value=runs[0].axes.get(axis),
        total=len(runs),
        completed=sum(run.state is State.COMPLETED for run in runs),
        failed=sum(run.state is State.FAILED for run in runs),
        memory=_spent(_MEMORY, runs, asked),
        time=_spent(_TIME, runs, asked),
    )


def _spent(kind: _Kind, runs: Sequence[RunStatus], asked: Mapping[str, Resources]) -> Spent:
    """Sum up one kind of resource, and suggest what would have been enough for all."""
    completed = [run for run in runs if run.state is State.COMPLETED]
    failed = [run for run in runs if run.state is State.FAILED]
    cut = [run for run in failed if run.reason is kind.cut]
    used = [amount for run in (*completed, *failed) if (amount := kind.used(run))]
    free = [amount for run in (*completed, *failed) if run.reason is not kind.cut and (amount := kind.used(run))]
    whole = any(kind.is_whole(run) for run in completed)
    suggested = round_up(max(free) * kind.spare, kind.steps, kind.beyond) if whole else None
    note = kind.part_note if completed and not whole else ""
    if cut:
        bound = max(kind.asked(asked[run.id]) or kind.used(run) or 0 for run in cut)
        note = kind.cut_note.format(count=len(cut), bound=kind.write(bound))
        suggested = suggested if suggested is not None and suggested > bound else None
    limits = [kind.asked(asked[run.id]) for run in runs]
    given = [limit for limit in limits if limit is not None]
    span = (min(given), max(given)) if given and len(given) == len(limits) else None
    return Spent(span, median(used) if used else None, max(used, default=None), suggested, note)


def round_up(amount: float, steps: Sequence[tuple[int, int]], beyond: int) -> int:
    """Round up to a number that people would write.

    Args:
        amount: the number.
        steps: up to this size, to multiples of that.
        beyond: to multiples of this, for what is larger than all of them.
    """
    step = next((step for size, step in steps if amount <= size), beyond)
    return math.ceil(amount / step) * step


def as_memory(mem_mb: int) -> str:
    """Write MiB as a definition has it: ``1500M``, ``1.5G``, ``4G``."""
    return f"{mem_mb / 1024:g}G" if mem_mb % 512 == 0 else f"{mem_mb}M"


def as_time(time_s: int) -> str:
    """Write a number of minutes, given in seconds, as a definition has it: ``30m``, ``1h30m``, ``2h``, ``1d12h``."""
    days, rest = divmod(time_s, _DAY_S)
    hours, rest = divmod(rest, _HOUR_S)
    parts = ((days, "d"), (hours, "h"), (rest // _MINUTE_S, "m"))
    return "".join(f"{number}{unit}" for number, unit in parts if number)


def as_definition(row: Usage, axis: str) -> str:
    """Return the line of a definition that asks for what is suggested; empty: nothing is."""
    words = [f"mem: {as_memory(row.memory.suggested)}"] if row.memory.suggested else []
    words += [f"time: {as_time(row.time.suggested)}"] if row.time.suggested else []
    if not words:
        return ""
    resources = f"resources: {{{', '.join(words)}}}"
    return f"- {{where: {{{axis}: [{_as_yaml(row.value)}]}}, {resources}}}" if axis else resources


def _as_yaml(label: Json) -> str:
    """Write a label so that YAML reads the same; all JSON is YAML."""
    plain = (
        isinstance(label, str) and re.fullmatch(r"[A-Za-z_][\w-]*", label) and label not in {"true", "false", "null"}
    )
    return str(label) if plain else json.dumps(label)

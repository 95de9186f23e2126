"""All that one comparison finds out, put together once for every form of output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from slurmkit.aggregate.choose import match_metrics, matches, telling_metrics
from slurmkit.aggregate.deltas import matched_deltas
from slurmkit.aggregate.frame import RUN_COLUMNS, axis_column, metric_columns, to_frame, usable
from slurmkit.aggregate.metric_info import METRIC_PREFIX, MetricInfo, describe_metrics
from slurmkit.aggregate.metrics_file import Problem
from slurmkit.aggregate.read import read_metrics
from slurmkit.comparison.changes import Change, config_changes, definition_changes, resource_changes, version_changes
from slurmkit.comparison.code import CodeChange, code_changes
from slurmkit.comparison.match import Matching, match
from slurmkit.comparison.side import Side
from slurmkit.errors import UsageError
from slurmkit.names import did_you_mean
from slurmkit.records import Json, RunStatus
from slurmkit.states import State

SIDE = "(side)"
"""The column that tells A's runs from B's; no axis can have this name."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between two sides.

    Attributes:
        a, b: the sides; every difference is B minus A.
        matching: which runs are compared with which.
        metrics: the metrics shown.
        other_metrics: those with numbers that are not shown.
        only_metrics: for A and for B, metrics that only this side has.
        infos: metric to what is known of it.
        directed: metrics of which a definition says which values are better.
        refused: metrics shown without a difference, to the reason.
        deltas: over all matched pairs, a row a metric (`matched_deltas`).
        per: the axis that the differences are also given by; None: no axis has several values.
        per_deltas: by its values.
        config, resources, definition, versions: what differs in them.
        code: what differs between the commits.
        problems: metrics files that could not be used.
        notes: what has to be known to trust the rest.
    """

    a: Side
    b: Side
    matching: Matching
    metrics: list[str]
    other_metrics: list[str]
    only_metrics: tuple[list[str], list[str]]
    infos: dict[str, MetricInfo]
    directed: frozenset[str]
    refused: dict[str, str]
    deltas: pd.DataFrame
    per: str | None
    per_deltas: pd.DataFrame
    config: tuple[Change, ...]
    resources: tuple[Change, ...]
    definition: tuple[Change, ...]
    versions: tuple[Change, ...]
    code: tuple[CodeChange, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


def compare(
    a: Side,
    b: Side,
    root: Path,
    *,
    metrics: Sequence[str] = (),
    per: str | None = None,
    taken: Mapping[str, str] | None = None,
    anyway: bool = False,
) -> Comparison:
    """Compare two sides.

    Args:
        a: the earlier side.
        b: the later one.
        root: top of the project, whose repository may have the commits.
        metrics: globs; none: a few metrics that say most.
        per: axis to give the differences by; None: the first that has several values in the matched cells.
        taken: axis to the label of runs that have neither the axis nor its config keys.
        anyway: compare also metrics that mean something else in each setting.

    Raises:
        UsageError: no cell is matched, or an axis or metric does not exist.
    """
    matching = match(a, b, taken)
    pairs = matching.pairs()
    config = config_changes(pairs, but=() if matching.seeds_pair else matching.seed_keys)
    statuses = _statuses(matching)
    read = read_metrics(statuses)
    axes = matching.axes | ({matching.seed_axis: matching.seeds} if matching.seeds else {})
    frame = to_frame(statuses, axes, metrics=read)
    available = metric_columns(frame)
    declared = {**_declared(a), **_declared(b)}
    infos = describe_metrics(available, declared, read.marked)
    # Runs of the same config give a metric the same meaning, whatever it sums up.
    doubtful = {key: info.because for key, info in infos.items() if not info.comparable and config}
    of_side = [_with_values(frame, available, who) for who in "AB"]
    both = [key for key in available if key in of_side[0] and key in of_side[1]]
    shown = match_metrics(metrics, available) if metrics else telling_metrics(both, frozenset(doubtful))
    by = _per_axis(matching, per)
    rows = frame if matching.seeds_pair else _cell_means(frame, matching, available)
    refused = {} if anyway else {key: doubtful[key] for key in shown if key in doubtful}
    within = [] if by is None else [axis_column(by)]
    seed = matching.seed_axis if matching.seeds and matching.seeds_pair else None
    return Comparison(
        a=a,
        b=b,
        matching=matching,
        metrics=shown,
        other_metrics=[key for key in both if key not in shown],
        only_metrics=(
            [key for key in of_side[0] if key not in of_side[1]],
            [key for key in of_side[1] if key not in of_side[0]],
        ),
        infos=infos,
        directed=frozenset(key for key in available if _is_directed(key, declared)),
        refused=refused,
        deltas=matched_deltas(rows, {SIDE: "A"}, shown, axes=axes, seed_axis=seed),
        per=by,
        per_deltas=matched_deltas(rows, {SIDE: "A"}, shown if within else [], within=within, axes=axes, seed_axis=seed),
        config=config,
        resources=resource_changes(pairs),
        definition=definition_changes(a, b),
        versions=version_changes(a, b, pairs),
        code=code_changes(pairs, [Path(b.header["repository"]), Path(a.header["repository"]), root]),
        problems=read.problems,
        notes=_notes(a, b, matching),
    )


def _statuses(matching: Matching) -> list[RunStatus]:
    """Return the runs of both sides with their labels on all axes, and their side as the last one."""
    return [
        member.status._replace(
            axes={
                **dict(zip(matching.axes, place, strict=True)),
                **({matching.seed_axis: seed} if matching.seeds else {}),
                SIDE: who,
            }
        )
        for who, members in zip("AB", matching.members, strict=True)
        for (place, seed), member in members.items()
    ]


def _declared(side: Side) -> Mapping[str, Mapping[str, Json]]:
    return side.header["definition"].get("metrics") or {}


def _is_directed(key: str, declared: Mapping[str, Mapping[str, Json]]) -> bool:
    name = key.removeprefix(METRIC_PREFIX)
    return any(entry.get("direction") and matches(name, pattern) for pattern, entry in declared.items())


def _with_values(frame: pd.DataFrame, metrics: Sequence[str], who: str) -> list[str]:
    """Return the metrics of which some usable run of a side has a value."""
    rows = frame[usable(frame) & (frame[SIDE] == who).to_numpy(dtype=np.bool_)]
    return [key for key in metrics if bool(rows[key].notna().any())]


def _per_axis(matching: Matching, per: str | None) -> str | None:
    """Return the axis to give differences by."""
    if per is not None and per not in matching.axes:
        raise UsageError(f"--per {per}: no axis {per!r}. {did_you_mean(per, matching.axes)}")
    if per is not None:
        return per
    several = (
        axis for index, axis in enumerate(matching.axes) if len({place[index] for place in matching.matched}) > 1
    )
    return next(several, None)


def _cell_means(frame: pd.DataFrame, matching: Matching, metrics: Sequence[str]) -> pd.DataFrame:
    """Return one row a cell and side with the means over its seeds: for sides that share no seed."""
    axes = [*map(axis_column, matching.axes), SIDE]
    good = frame[usable(frame)]
    means = good.groupby(axes, sort=False, dropna=False)[list(metrics)].mean().reset_index()
    own = dict.fromkeys(RUN_COLUMNS, "")
    runs = pd.DataFrame({**own, "state": State.COMPLETED.value, "reason": None}, index=means.index)
    return pd.concat([means[axes], runs[list(RUN_COLUMNS)], means[list(metrics)]], axis=1)


def _notes(a: Side, b: Side, matching: Matching) -> tuple[str, ...]:
    notes = [*dict.fromkeys([*a.notes, *b.notes]), *matching.notes]
    for who, count in zip("AB", matching.superseded, strict=True):
        if count:
            notes.append(f"{who}: {count} runs left out: a later one has the same cell and {matching.seed_axis}")
    if not matching.seeds_pair:
        notes.append(
            f"no {matching.seed_axis} is common to both: means over each cell's seeds are compared, cell by cell"
        )
    elif matching.unpaired:
        notes.append(
            f"{matching.unpaired} matched cells have no {matching.seed_axis} in common, and no part in the differences"
        )
    return tuple(notes)

"""A setting against a baseline, over the runs that both have: means over different sets of tasks mislead."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from slurmkit.aggregate.frame import Bools, Floats, Ints, axis_column, axis_columns, usable
from slurmkit.aggregate.groups import Groups, group_means, group_rows, mean_interval, row_each
from slurmkit.definition.grid import BLOCK, SETTING
from slurmkit.errors import UsageError
from slurmkit.names import did_you_mean, label_text
from slurmkit.records import Json

BASELINE_WORDS = ("base", "baseline", "control", "default", "none", "off")
"""A text value that is one of these, or ends in one after an underscore, names a baseline."""

FIGURES = (
    "n",
    "common_cells",
    "baseline_mean",
    "setting_mean",
    "difference",
    "half_width",
    "n_baseline",
    "n_setting",
    "naive_baseline_mean",
    "naive_setting_mean",
    "naive_difference",
)
"""Columns of a matched comparison, beside those that say what is compared."""


def matched_deltas(
    frame: pd.DataFrame,
    baseline: Mapping[str, Json],
    metrics: Sequence[str],
    *,
    within: Sequence[str] = (),
    axes: Mapping[str, Sequence[Json]] | None = None,
    seed_axis: str | None = None,
) -> pd.DataFrame:
    """Compare every setting with the baseline, run by run.

    A setting is a combination of values of the axes that `baseline` names. A run of it is matched with the baseline's
    run that has the same values of all other axes (task and seed, say); runs without a counterpart do not count.

    Columns: the baseline's axes; those of `within`; ``metric``; ``n`` matched pairs in ``common_cells`` (pairs that
    differ in the seed alone are of one cell); ``baseline_mean`` and ``setting_mean`` over these; ``difference``
    (setting minus baseline) and ``half_width`` of its 95 % t-interval over the pairs (NaN: n below 2); ``n_baseline``
    and ``n_setting`` runs with a value, and their ``naive_baseline_mean`` and ``naive_setting_mean``;
    ``naive_difference`` of these: NaN where all runs are matched, else a number over different sets of runs, shown to
    be distrusted.

    Args:
        frame: from `to_frame`, or some of its rows.
        baseline: axis column to the baseline's value.
        metrics: metric columns.
        within: further axes to give the differences by, rather than over all of their values.
        axes: axis name to its values: the order of the rows.
        seed_axis: the axis whose values only repeat; None: there is none.

    Raises:
        UsageError: no run has the baseline's values, or an axis is unknown.
    """
    columns = [*baseline, *within]
    others = [name for name in axis_columns(frame) if name not in baseline]
    seed = None if seed_axis is None else axis_column(seed_axis)
    settings = group_rows(frame, list(baseline), axes)
    baseline_setting = _baseline_code(frame, baseline, settings.first)
    pairing = _Pairing(
        is_baseline=settings.codes == baseline_setting,
        counterparts=group_rows(frame, others),
        cells=group_rows(frame, [name for name in others if name != seed]),
        shown=group_rows(frame, columns, axes) if within else settings,
        within=group_rows(frame, list(within)),
    )
    if not metrics:
        return pd.DataFrame(columns=[*columns, "metric", *FIGURES])
    lines = np.flatnonzero(settings.codes[pairing.shown.first] != baseline_setting)
    usable_rows = usable(frame)
    figures: list[dict[str, Floats | Ints]] = []
    for metric in metrics:
        values: Floats = frame[metric].to_numpy(dtype=np.float64)
        own = _compare(values, usable_rows & np.isfinite(values), pairing)
        figures.append({name: column[lines] for name, column in own.items()})
    return row_each(frame[columns].iloc[pairing.shown.first[lines]], metrics, figures)


@dataclass(frozen=True, slots=True)
class _Pairing:
    """Which run is compared with which.

    Attributes:
        is_baseline: (rows,).
        counterparts: rows that are compared with each other: equal in all axes that the baseline does not name.
        cells: the same, whatever the seed.
        shown: rows that one line of the result is over.
        within: rows that one line's baseline is over.
    """

    is_baseline: Bools
    counterparts: Groups
    cells: Groups
    shown: Groups
    within: Groups


def _compare(values: Floats, good: Bools, pairing: _Pairing) -> dict[str, Floats | Ints]:
    """Return `FIGURES` of one metric, (lines,) each.

    Args:
        values: (rows,) the metric.
        good: (rows,) where it can be used.
        pairing: which run is compared with which.
    """
    shown, lines = pairing.shown, len(pairing.shown)
    reference, other = good & pairing.is_baseline, good & ~pairing.is_baseline
    codes = pairing.counterparts.codes
    against = group_means(values[reference], codes[reference], len(pairing.counterparts))[1][codes]
    paired = other & np.isfinite(against)
    pairs = shown.codes[paired]
    n, difference, half_width = mean_interval(values[paired] - against[paired], pairs, lines)
    n_setting, setting_naive = group_means(values[other], shown.codes[other], lines)
    per_line = pairing.within.codes[shown.first]
    n_within, within_naive = group_means(values[reference], pairing.within.codes[reference], len(pairing.within))
    n_baseline = n_within[per_line]
    cell_pairs = np.unique(pairs * len(pairing.cells) + pairing.cells.codes[paired]) // max(len(pairing.cells), 1)
    naive_baseline = within_naive[per_line]
    all_matched = (n == n_setting) & (n == n_baseline)
    return {
        "n": n,
        "common_cells": np.bincount(cell_pairs, minlength=lines),
        "baseline_mean": group_means(against[paired], pairs, lines)[1],
        "setting_mean": group_means(values[paired], pairs, lines)[1],
        "difference": difference,
        "half_width": half_width,
        "n_baseline": n_baseline,
        "n_setting": n_setting,
        "naive_baseline_mean": naive_baseline,
        "naive_setting_mean": setting_naive,
        "naive_difference": np.where(all_matched, np.nan, setting_naive - naive_baseline),
    }


def _baseline_code(frame: pd.DataFrame, baseline: Mapping[str, Json], first: Ints) -> int:
    """Return the number of the baseline's setting, given the first row of each setting."""
    found = np.flatnonzero(_rows_with(frame.iloc[first], baseline))
    if not len(found):
        wanted = ", ".join(f"{name}={label_text(value)}" for name, value in baseline.items())
        raise UsageError(f"baseline {wanted}: no run has these values together. Choose those of one setting.")
    return int(found[0])


def _rows_with(frame: pd.DataFrame, values: Mapping[str, Json]) -> Bools:
    """Return (rows,): which have some axis values."""
    fits = np.ones(len(frame), dtype=np.bool_)
    for name, value in values.items():
        column = frame[name]
        fits &= (column.isna() if value is None else column == value).to_numpy(dtype=np.bool_, na_value=False)
    return fits


def parse_baseline(text: str, axes: Mapping[str, Sequence[Json]]) -> dict[str, Json]:
    """Read ``pv=0.0,rmkl=0.0`` into axis values, spelt as the definition spells them.

    Raises:
        UsageError: an axis or value that does not exist; says what there is.
    """
    baseline: dict[str, Json] = {}
    for part in re.split(r",(?=\w+=)", text):  # a comma inside a value is kept
        axis, equals, wanted = part.partition("=")
        if not equals:
            raise UsageError(f"--baseline {text}: {part!r} is no axis=value. Write --baseline pv=0.0,rmkl=0.0")
        if axis not in axes:
            raise UsageError(f"--baseline {text}: no axis {axis!r}. {did_you_mean(axis, axes)}")
        found = [value for value in axes[axis] if wanted == label_text(value) or _same_number(wanted, value)]
        if not found:
            labels = [label_text(value) for value in axes[axis]]
            raise UsageError(f"--baseline {text}: {axis} has no value {wanted!r}. {did_you_mean(wanted, labels)}")
        baseline[axis] = found[0]
    return baseline


def _same_number(text: str, value: Json) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return float(text) == value
    except ValueError:
        return False


def complete_baseline(frame: pd.DataFrame, baseline: Mapping[str, Json]) -> dict[str, Json]:
    """Add the block to a baseline that names only its setting: the two change together.

    Raises:
        UsageError: several blocks have a setting of that name.
    """
    if SETTING not in baseline or BLOCK in baseline or BLOCK not in axis_columns(frame):
        return dict(baseline)
    rows = _rows_with(frame, {SETTING: baseline[SETTING]})
    blocks: list[Json] = frame.loc[rows, BLOCK].unique().tolist()
    if len(blocks) > 1:
        raise UsageError(
            f"baseline setting={baseline[SETTING]}: several blocks have one ({', '.join(map(str, blocks))}). "
            f"Write --baseline block={blocks[0]},setting={baseline[SETTING]}",
        )
    return {**({BLOCK: blocks[0]} if blocks else {}), **baseline}


def guess_baseline(frame: pd.DataFrame, axes: Mapping[str, Sequence[Json]], seed_axis: str | None) -> dict[str, Json]:
    """Guess which values switch a sweep's treatment off; empty if nothing suggests itself.

    An axis takes part if it has several values, and among them 0 (or false), or exactly one text that says so, such as
    ``base`` or ``beta0p1_base``. Other axes are what runs are matched on.
    """
    guess: dict[str, Json] = {}
    for name, values in axes.items():
        if name in (seed_axis, BLOCK) or len(values) < 2:
            continue
        zeros = [value for value in values if isinstance(value, int | float) and value == 0]
        words = [v for v in values if isinstance(v, str) and v.lower().rpartition("_")[2] in BASELINE_WORDS]
        if zeros:
            guess[axis_column(name)] = zeros[0]
        elif len(words) == 1:
            guess[axis_column(name)] = words[0]
    return complete_baseline(frame, guess) if guess and _rows_with(frame, guess).any() else {}

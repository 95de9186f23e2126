"""A setting against a baseline, over the runs that both have: means over different sets of tasks mislead."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from slurmkit.aggregate.table import Floats, Ints, axis_columns, group_rows, mean_interval, usable
from slurmkit.errors import UsageError
from slurmkit.records import Json

BASELINE_WORDS = ("base", "baseline", "control", "default", "none", "off")
"""A text value that is one of these, or ends in one after an underscore, names a baseline."""


def matched_deltas(
    frame: pd.DataFrame,
    baseline: Mapping[str, Json],
    metrics: Sequence[str],
    *,
    within: Sequence[str] = (),
    axes: Mapping[str, Sequence[Json]] | None = None,
) -> pd.DataFrame:
    """Compare every setting with the baseline, run by run.

    A setting is a combination of values of the axes that `baseline` names. A run of it is matched with the baseline's
    run that has the same values of all other axes (task and seed, say); runs without a counterpart do not count.

    Columns: the baseline's axes; those of `within`; ``metric``; ``n`` matched pairs; ``baseline_mean`` and
    ``setting_mean`` over these; ``difference`` (setting minus baseline) and ``half_width`` of its 95 % t-interval over
    the pairs (NaN: n below 2); ``n_baseline`` and ``n_setting`` runs with a value; ``naive_difference`` of the means
    over all of these: NaN where all are matched, else a number over different sets of runs, shown to be distrusted.

    Args:
        frame: from `to_frame`, or some of its rows.
        baseline: axis column to the baseline's value.
        metrics: metric columns.
        within: further axes to give the differences by, rather than over all of their values.
        axes: axis name to its values: the order of the rows.

    Raises:
        UsageError: no run has the baseline's values, or an axis is unknown.
    """
    of_setting = list(baseline)
    settings = group_rows(frame, of_setting, axes)
    baseline_setting = _baseline_code(frame, baseline, settings.first)
    matched_on = [name for name in axis_columns(frame) if name not in baseline]
    counterparts = group_rows(frame, matched_on)
    shown = group_rows(frame, [*of_setting, *within], axes)
    wide = group_rows(frame, list(within))
    is_baseline = settings.codes == baseline_setting
    rows = np.flatnonzero(settings.codes[shown.first] != baseline_setting)
    usable_rows = usable(frame)
    parts: list[pd.DataFrame] = []
    for metric in metrics:
        values: Floats = frame[metric].to_numpy(dtype=np.float64)
        good = usable_rows & np.isfinite(values)
        reference = good & is_baseline
        other = good & ~is_baseline
        per_counterpart = mean_interval(values[reference], counterparts.codes[reference], len(counterparts))[1]
        against = per_counterpart[counterparts.codes]
        paired = other & np.isfinite(against)
        codes = shown.codes[paired]
        n, difference, half_width = mean_interval(values[paired] - against[paired], codes, len(shown))
        n_setting, naive_setting, _ = mean_interval(values[other], shown.codes[other], len(shown))
        n_reference, naive_reference, _ = mean_interval(values[reference], wide.codes[reference], len(wide))
        n_baseline = n_reference[wide.codes[shown.first]]
        naive = naive_setting - naive_reference[wide.codes[shown.first]]
        part = frame[[*of_setting, *within]].iloc[shown.first].reset_index(drop=True)
        part = part.assign(
            metric=metric,
            n=n,
            baseline_mean=mean_interval(against[paired], codes, len(shown))[1],
            setting_mean=mean_interval(values[paired], codes, len(shown))[1],
            difference=difference,
            half_width=half_width,
            n_baseline=n_baseline,
            n_setting=n_setting,
            naive_difference=np.where((n == n_setting) & (n == n_baseline), np.nan, naive),
        )
        parts.append(part.iloc[rows])
    if not parts:
        return pd.DataFrame(columns=[*of_setting, *within, "metric"])
    tidy = pd.concat(parts, ignore_index=True)
    order = np.argsort(np.tile(np.arange(len(rows)), len(parts)), kind="stable")
    return tidy.iloc[order].reset_index(drop=True)


def _baseline_code(frame: pd.DataFrame, baseline: Mapping[str, Json], first: Ints) -> int:
    """Return the number of the baseline's setting, given the first row of each setting."""
    rows = frame[list(baseline)].iloc[first]
    fits = np.ones(len(first), dtype=np.bool_)
    for name, value in baseline.items():
        column = rows[name]
        fits &= (column.isna() if value is None else column == value).to_numpy(dtype=np.bool_, na_value=False)
    if fits.any():
        return int(np.flatnonzero(fits)[0])
    wanted = ", ".join(f"{name}={value}" for name, value in baseline.items())
    raise UsageError(f"--baseline: no run has {wanted}. Choose values that one setting has together.")


def guess_baseline(axes: Mapping[str, Sequence[Json]], seed_axis: str | None) -> dict[str, Json]:
    """Guess which values switch a sweep's treatment off; empty if nothing suggests itself.

    An axis takes part if it has several values, and among them 0 (or false), or exactly one text that says so, such as
    ``base`` or ``beta0p1_base``. Other axes are what runs are matched on.
    """
    guess: dict[str, Json] = {}
    for name, values in axes.items():
        if name == seed_axis or len(values) < 2:
            continue
        zeros = [value for value in values if isinstance(value, (int, float)) and value == 0]
        words = [v for v in values if isinstance(v, str) and v.lower().rpartition("_")[2] in BASELINE_WORDS]
        if zeros:
            guess[name] = zeros[0]
        elif len(words) == 1:
            guess[name] = words[0]
    return guess

"""How many times as large a metric is as in the baseline, over the runs that both have."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from slurmkit.aggregate.deltas import matched_deltas
from slurmkit.records import Json


def fold_changes(
    frame: pd.DataFrame,
    baseline: Mapping[str, Json],
    metrics: Sequence[str],
    *,
    within: Sequence[str] = (),
    axes: Mapping[str, Sequence[Json]] | None = None,
) -> pd.DataFrame:
    """Compare every setting with the baseline as a ratio, run by run (see `matched_deltas` for what is matched).

    Columns: the baseline's axes; those of `within`; ``metric``; ``n`` matched pairs with positive values; ``fold``,
    their geometric mean of setting over baseline (2: twice as large; 0.5: half), and ``low`` to ``high``, its 95 %
    t-interval on the logarithms (NaN: n below 2); ``n_not_positive`` pairs that have no ratio; ``naive_fold``, the
    ratio of the arithmetic means over whatever each has: NaN where these are the same runs as the pairs.

    Args:
        frame: from `to_frame`, or some of its rows.
        baseline: axis column to the baseline's value.
        metrics: metric columns.
        within: further axes to give the ratios by.
        axes: axis name to its values: the order of the rows.

    Raises:
        UsageError: no run has the baseline's values, or an axis is unknown.
    """
    plain = matched_deltas(frame, baseline, metrics, within=within, axes=axes)
    columns = [*baseline, *within, "metric"]
    if plain.empty:
        return pd.DataFrame(columns=[*columns, "n", "fold", "low", "high", "n_not_positive", "naive_fold"])
    values = frame[list(metrics)].to_numpy(dtype=np.float64)
    logs = np.full_like(values, np.nan)
    np.log(values, out=logs, where=values > 0)
    of_logs = matched_deltas(
        frame.assign(**dict(zip(metrics, logs.T, strict=True))), baseline, metrics, within=within, axes=axes
    )
    log_fold, half_width = of_logs["difference"], of_logs["half_width"]
    table = plain[columns].copy()
    table["n"] = of_logs["n"]
    with np.errstate(over="ignore"):
        table["fold"] = np.exp(log_fold)
        table["low"], table["high"] = np.exp(log_fold - half_width), np.exp(log_fold + half_width)
    table["n_not_positive"] = plain["n"] - of_logs["n"]
    with np.errstate(divide="ignore", invalid="ignore"):
        naive = plain["naive_setting_mean"] / plain["naive_baseline_mean"]
    table["naive_fold"] = naive.where(plain["naive_difference"].notna())
    return table

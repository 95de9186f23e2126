"""Records become tables: metrics of runs, means over seeds, matched comparisons, rankings and series."""

from slurmkit.aggregate.best import best_per_group, block_maxima, leading_blocks, refuse_ranking, without_block
from slurmkit.aggregate.deltas import guess_baseline, matched_deltas
from slurmkit.aggregate.folds import fold_changes
from slurmkit.aggregate.frame import to_frame
from slurmkit.aggregate.history import downsample, mean_series, read_history
from slurmkit.aggregate.metric_info import Direction, MetricInfo, describe_metrics
from slurmkit.aggregate.metrics_file import Flaw, Problem
from slurmkit.aggregate.noops import suspected_noops
from slurmkit.aggregate.read import Metrics, read_metrics
from slurmkit.aggregate.table import completeness, missing_runs, pivot, summarise

__all__ = [
    "Direction",
    "Flaw",
    "MetricInfo",
    "Metrics",
    "Problem",
    "best_per_group",
    "block_maxima",
    "completeness",
    "describe_metrics",
    "downsample",
    "fold_changes",
    "guess_baseline",
    "leading_blocks",
    "matched_deltas",
    "mean_series",
    "missing_runs",
    "pivot",
    "read_history",
    "read_metrics",
    "refuse_ranking",
    "summarise",
    "suspected_noops",
    "to_frame",
    "without_block",
]

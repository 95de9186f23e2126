"""Records become tables: metrics of runs, means over seeds, and matched comparisons of settings."""

from slurmkit.aggregate.deltas import guess_baseline, matched_deltas
from slurmkit.aggregate.read import Flaw, Metrics, Problem, read_metrics
from slurmkit.aggregate.table import completeness, missing_runs, summarise, to_frame

__all__ = [
    "Flaw",
    "Metrics",
    "Problem",
    "completeness",
    "guess_baseline",
    "matched_deltas",
    "missing_runs",
    "read_metrics",
    "summarise",
    "to_frame",
]

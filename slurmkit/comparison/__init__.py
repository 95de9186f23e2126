"""Two collections, or two commits of one: what is matched, what differs in results, config and code."""

from slurmkit.comparison.build import Comparison, compare
from slurmkit.comparison.side import Side, read_side

__all__ = ["Comparison", "Side", "compare", "read_side"]

"""The report of a collection: what was observed, in Markdown, with figures and the data behind them."""

from slurmkit.report.build import build
from slurmkit.report.material import Material
from slurmkit.report.write import write

__all__ = ["Material", "build", "write"]

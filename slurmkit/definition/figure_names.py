"""The names of a report's figures, apart from what checks a definition: reading commands need no pydantic."""

FIGURES = (
    "completion",
    "series",
    "objective",
    "auxiliary",
    "folds",
    "standardised",
    "final",
    "interaction",
    "trade-off",
)
"""In their order."""

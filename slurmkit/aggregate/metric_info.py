"""What is known of a metric beside its numbers: its label, which way is better, its format, what it compares.

The definition's `metrics:` says it, then the runs themselves (``<key>__comparable: false``), then the metric's name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from slurmkit.aggregate.choose import matches
from slurmkit.aggregate.format import format_estimate, format_number, short_names
from slurmkit.records import Json

METRIC_PREFIX = "metric/"
"""What a metric's column starts with where another column has its name."""


class Direction(StrEnum):
    """Which values of a metric are better."""

    MIN = "min"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """What is known of one metric.

    Attributes:
        key: its column.
        label: what tables and figures call it.
        direction: which values are better; None: neither, as far as is known.
        format: how its numbers are written (Python's format language); empty: with four significant digits.
        comparable: whether its values mean the same in every setting.
        because: why they do not; empty where they do.
    """

    key: str
    label: str
    direction: Direction | None
    format: str
    comparable: bool
    because: str

    def text(self, value: float) -> str:
        """Write a value as the definition wants it."""
        return format_number(value) if not self.format or value != value else format(value, self.format)

    def estimate(self, mean: float, half_width: float) -> str:
        """Write a mean with its interval as the definition wants it; else to the second digit of the interval."""
        if not self.format or mean != mean or half_width != half_width:
            return self.text(mean) if half_width != half_width else format_estimate(mean, half_width)
        return f"{format(mean, self.format)} ± {format(half_width, self.format.lstrip('+'))}"


_NEITHER = (
    *("*_majority", "*_n", "*/n", "*_standard_error", "*_count", "*_count/*", "*/fraction/*", "*/weighted/*"),
    *("*baseline_*", "*_share", "train/*", "latent/*", "model/*", "seed", "*/seed", "*step"),
)
"""Metrics that explain others or keep the books: neither large nor small is better."""
_BETTER: dict[Direction, tuple[str, ...]] = {
    Direction.MAX: (
        *("*accuracy*", "*alignment*", "*coverage*", "*score*", "*reward*", "*success*", "*validity*"),
        *("*f1", "*auc", "*bleu*", "*precision", "*recall", "*tokens_per_*", "*per_second"),
    ),
    Direction.MIN: (
        *("*loss*", "*error*", "*perplexity*", "*nll*", "*kl", "*kl_*", "*variance*", "*reconstruction*"),
        *("*seconds", "*rss_mb", "*divergence*", "*distance_to_*"),
    ),
}
"""Words of names by which results are told: the first pattern that fits decides."""


def describe_metrics(
    keys: Sequence[str],
    declared: Mapping[str, Mapping[str, Json]] | None = None,
    marked: Iterable[str] = (),
) -> dict[str, MetricInfo]:
    """Put together what is known of some metrics.

    Args:
        keys: metric columns.
        declared: the definition's `metrics`: key or glob to ``label``, ``direction``, ``format``, ``comparable``;
            later entries win, field by field. A glob matches a whole key or its last parts.
        marked: metrics of which runs say that they are not comparable.

    Returns:
        column to what is known, in the order of `keys`.
    """
    short, not_comparable = short_names(keys), set(marked)
    return {key: _describe(key, short[key], _declared_of(key, declared or {}), key in not_comparable) for key in keys}


def _declared_of(key: str, declared: Mapping[str, Mapping[str, Json]]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for pattern, entry in declared.items():
        if matches(key.removeprefix(METRIC_PREFIX), pattern):
            found |= {name: value for name, value in entry.items() if value is not None}
    return found


def _describe(key: str, short: str, declared: Mapping[str, Json], marked: bool) -> MetricInfo:
    because = ""
    if "comparable" in declared:
        if not declared["comparable"]:
            because = "the definition's `metrics` say so"
    elif marked:
        because = f"the runs say so ({key.removeprefix(METRIC_PREFIX)}__comparable: false)"
    elif is_total_loss(key):
        because = "a total loss changes with the terms and weights of a setting"
    direction = declared.get("direction", guess_direction(key))
    return MetricInfo(
        key=key,
        label=declared.get("label", short),
        direction=None if direction is None else Direction(direction),
        format=declared.get("format", ""),
        comparable=not because,
        because=because,
    )


def guess_direction(key: str) -> Direction | None:
    """Tell from a metric's name which values are better; None: the name does not say."""
    name = key.removeprefix(METRIC_PREFIX).lower()
    if any(fnmatchcase(name, pattern) for pattern in _NEITHER):
        return None
    for direction, patterns in _BETTER.items():
        if any(fnmatchcase(name.rpartition("/")[2], pattern) for pattern in patterns):
            return direction
    return Direction.MIN if name.startswith("loss/") else None


def is_total_loss(key: str) -> bool:
    """Whether a metric is, by its name, the sum of a loss's terms."""
    parts = key.removeprefix(METRIC_PREFIX).split("/")
    return parts[-1] == "total_loss" or (parts[-1] == "total" and parts[0] == "loss")


def unmatched_globs(keys: Sequence[str], globs: Iterable[str]) -> tuple[str, ...]:
    """Return the globs that name none of some metrics; where there are no metrics yet, that says nothing.

    Args:
        keys: columns of metrics.
        globs: of a definition.
    """
    names = [key.removeprefix(METRIC_PREFIX) for key in keys]
    return tuple(glob for glob in globs if names and not any(matches(name, glob) for name in names))

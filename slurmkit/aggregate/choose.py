"""Which metrics a table shows: those asked for, or a few that say most."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from slurmkit.errors import UsageError
from slurmkit.names import did_you_mean

MOST_BY_DEFAULT = 6
"""More columns than this, with their intervals, fit no terminal."""

_TELLING = ("accuracy", "probe", "alignment", "coverage", "score", "reward", "reconstruction", "loss", "kl", "variance")
"""Words in the names of results, in the order in which people ask for them."""
_SIDE = ("majority", "chance", "standard_error", "fraction", "count", "baseline", "seconds", "tokens", "step", "seed")
"""Words in the names of what only explains a result, or keeps the books."""


def matches(key: str, pattern: str) -> bool:
    """Whether a glob names a metric: by its whole key, or by the last parts of it.

    ``router_probe_accuracy`` finds ``final/router_probe_accuracy``. A star also stands for slashes.
    """
    return fnmatchcase(key, pattern) or fnmatchcase(key, f"*/{pattern}")


def match_metrics(patterns: Sequence[str], available: Sequence[str], *, option: str = "--metric") -> list[str]:
    """Return the metrics that some globs name (`matches`), in the order of the globs.

    Args:
        patterns: the globs.
        available: keys of all metrics.
        option: how the message calls what was asked.

    Raises:
        UsageError: a glob that matches no metric; suggests the nearest.
    """
    chosen: dict[str, None] = {}
    for pattern in patterns:
        found = [key for key in available if matches(key, pattern)]
        if not found:
            raise UsageError(f"{option} {pattern}: no metric with numbers matches. {did_you_mean(pattern, available)}")
        chosen.update(dict.fromkeys(found))
    return list(chosen)


def telling_metrics(available: Sequence[str], not_comparable: frozenset[str]) -> list[str]:
    """Return a few metrics that say most, judged by their names; never one that means something else in each setting.

    Of each telling word in turn the first metric with it, then the second, until there are enough.
    """
    good = [key for key in available if key not in not_comparable]
    results = [key for key in good if not any(word in key for word in _SIDE) and not key.endswith(("_n", "/n"))]
    if len(good) <= MOST_BY_DEFAULT or not results:
        return good[:MOST_BY_DEFAULT]
    of_word: list[list[str]] = []
    rest = list(results)
    for word in _TELLING:
        of_word.append([key for key in rest if word in key.rpartition("/")[2]])
        rest = [key for key in rest if key not in of_word[-1]]
    of_word.append(rest)
    turns = max(map(len, of_word))
    ranked = [keys[turn] for turn in range(turns) for keys in of_word if turn < len(keys)]
    return ranked[:MOST_BY_DEFAULT]

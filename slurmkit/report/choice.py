"""What a report shows: what the definition's `report:` asks for, and else what the names of the metrics suggest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slurmkit.aggregate.aggregation import Aggregation
from slurmkit.aggregate.choose import matches
from slurmkit.aggregate.metric_info import Direction, MetricInfo, unmatched_globs
from slurmkit.definition.figure_names import FIGURES
from slurmkit.records import Json, is_list
from slurmkit.report.cells import MAJORITY

MOST_FINAL = 6
MOST_TERMS = 4
"""Metrics in one figure, and rows of series."""

_ACCURACY = ("*answer_accuracy", "*task_accuracy", "*accuracy", "*score", "*reward", "*success*")
_ALIGNMENT = ("*alignment*", "*router_probe*", "*probe*")
_EXPLAINS = ("*_majority", "*_n", "*standard_error*", "*x_only*", "*chance*", "*count*")
"""Metrics that others are judged by; no results themselves."""
_SERIES = ("*val*accuracy*", "*val*probe*", "*val*alignment*")
_OBJECTIVE = (
    "loss/*/reconstruction_normalized",
    "loss/*/reconstruction*",
    "loss/*/kl",
    "loss/*/total*",
    "loss",
    "*/loss",
)
_AUXILIARY = ("*/weighted/*", "weighted/*")
_NOT_AUXILIARY = ("reconstruction", "kl")
_TRAIN = "train"


@dataclass(frozen=True, slots=True)
class Choice:
    """What a report shows.

    Attributes:
        final: metric columns of the figure of final metrics.
        accuracy, alignment: metric columns whose trade-off is shown; None: there is none of that kind.
        best: metric column that the best runs are chosen by, and which values are better; None: nothing says.
        series: globs of validation series; `objective`: of the objective's terms; `auxiliary`: of weighted terms.
        is_default: names of those three that nobody asked for.
        figures: names of the figures, in their order.
    """

    final: tuple[str, ...]
    accuracy: str | None
    alignment: str | None
    best: tuple[str, Direction] | None
    series: tuple[str, ...]
    objective: tuple[str, ...]
    auxiliary: tuple[str, ...]
    is_default: frozenset[str]
    figures: tuple[str, ...]


def choose(aggregation: Aggregation, asked: Mapping[str, Json]) -> Choice:
    """Decide what a report shows.

    What the definition asks for and no run has is left out: it may come with later runs.

    Args:
        aggregation: the collection's tables.
        asked: the definition's `report:`, as frozen; empty: nothing was asked for.
    """
    keys = list(aggregation.infos)
    shown = shown_metrics(aggregation.infos, aggregation.metrics, asked)
    accuracy, alignment = _told(keys, asked)
    defaults = {"series": _SERIES, "objective": _OBJECTIVE, "auxiliary": _AUXILIARY}
    globs = {name: tuple(asked.get(name) or default) for name, default in defaults.items()}
    return Choice(
        final=tuple(_results_first(_without_references(shown), accuracy, alignment)[:MOST_FINAL]),
        accuracy=accuracy,
        alignment=alignment,
        best=_best(aggregation.infos, asked.get("best"), (alignment, accuracy, *shown)),
        **globs,
        is_default=frozenset(name for name in defaults if not asked.get(name)),
        figures=tuple(asked.get("figures") or FIGURES),
    )


def asked_metrics(keys: Sequence[str], asked: Mapping[str, Json]) -> list[str]:
    """Return the metrics that the definition's `report:` asks for, as far as some run has them."""
    return _first(keys, asked.get("metrics") or (), len(keys))


def unmatched(keys: Sequence[str], asked: Mapping[str, Json]) -> list[tuple[str, str]]:
    """Return key and glob of what the definition's `report:` asks for and no completed run has."""
    found: list[tuple[str, str]] = []
    for key in ("metrics", "best", "accuracy", "alignment"):
        given: Json = asked.get(key) or []
        globs: list[str] = given if is_list(given) else [_without_direction(given)]
        found += [(f"report.{key}", glob) for glob in unmatched_globs(keys, globs)]
    return found


def _without_direction(metric: str) -> str:
    name, _, word = metric.rpartition(":")
    return name if word in list(Direction) else metric


def shown_metrics(infos: Mapping[str, MetricInfo], telling: Sequence[str], asked: Mapping[str, Json]) -> list[str]:
    """Return the metrics of tables: those asked for, or accuracy, alignment and others of which more or less is better.

    Args:
        infos: metric column to what is known of it, all with numbers.
        telling: those that say most.
        asked: the definition's `report:`.
    """
    keys = list(infos)
    if chosen := asked_metrics(keys, asked):
        return chosen
    directed = [key for key in telling if infos[key].direction is not None]
    first = [key for key in _told(keys, asked) if key is not None]
    return list(dict.fromkeys([*first, *directed]))[:MOST_FINAL] or list(telling)


def _told(keys: Sequence[str], asked: Mapping[str, Json]) -> tuple[str | None, str | None]:
    """Return the metrics that are the accuracy and the alignment."""
    return (
        _one(keys, asked.get("accuracy"), _ACCURACY, but=("*probe*",)),
        _one(keys, asked.get("alignment"), _ALIGNMENT),
    )


def _without_references(shown: Sequence[str]) -> list[str]:
    """Leave out what is drawn beside the metric that it belongs to."""
    return [key for key in shown if not (key.endswith(MAJORITY) and key.removesuffix(MAJORITY) in shown)]


def _first(keys: Sequence[str], globs: Sequence[str], most: int) -> list[str]:
    """Return the keys that globs name, in the order of the globs."""
    found: dict[str, None] = dict.fromkeys(key for glob in globs for key in keys if matches(key, glob))
    return list(found)[:most]


def _one(keys: Sequence[str], asked: str | None, suggested: Sequence[str], but: Sequence[str] = ()) -> str | None:
    """Return the metric that was asked for, or the first that a word suggests."""
    if asked:
        return next(iter(_first(keys, [asked], 1)), None)
    results = [key for key in keys if not any(matches(key, pattern) for pattern in (*_EXPLAINS, *but))]
    return next(iter(_first(results, suggested, 1)), None)


def _results_first(shown: Sequence[str], accuracy: str | None, alignment: str | None) -> list[str]:
    first = [key for key in (accuracy, alignment) if key is not None and key in shown]
    return [*first, *(key for key in shown if key not in first)]


def _best(
    infos: Mapping[str, MetricInfo], asked: str | None, candidates: Sequence[str | None]
) -> tuple[str, Direction] | None:
    """Return what the best runs are chosen by: never a metric that means something else in each setting."""
    if asked:
        name, _, word = asked.rpartition(":")
        named = word in list(Direction)
        key = next(iter(_first(list(infos), [name if named else asked], 1)), None)
        if key is not None and named and infos[key].comparable:
            return key, Direction(word)
        candidates = [key]
    for key in candidates:
        info = infos.get(key) if key else None
        if key and info is not None and info.comparable and info.direction is not None:
            return key, info.direction
    return None


def series_keys(
    available: Sequence[str], globs: Sequence[str], *, is_default: bool, most: int = MOST_TERMS
) -> list[str]:
    """Return the series that globs name; by default those of training where there are such of both kinds."""
    found = _first(available, globs, len(available))
    if not is_default:
        return found[:most]
    training = [key for key in found if _TRAIN in key.split("/")]
    found = [key for key in (training or found) if "baseline" not in key]
    kinds: dict[str, str] = {}
    for key in found:
        kinds.setdefault(_kind(key), key)
    return list(kinds.values())[:most]


def _kind(key: str) -> str:
    """Name what a term is, whatever it is normalised by: one of a kind is enough."""
    return "reconstruction" if "reconstruction" in key else key.rpartition("/")[2]


def auxiliary_keys(available: Sequence[str], globs: Sequence[str], *, is_default: bool) -> list[str]:
    """Return the weighted terms beside the objective's own."""
    found = series_keys(available, globs, is_default=is_default, most=2 * MOST_TERMS)
    if is_default:
        found = [key for key in found if key.rpartition("/")[2] not in _NOT_AUXILIARY]
    return found[:MOST_TERMS]

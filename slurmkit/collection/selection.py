"""Pure: choose runs by axis values, state, reason and id."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from slurmkit.errors import UsageError
from slurmkit.names import label_text
from slurmkit.records import Json, RunStatus
from slurmkit.states import REASON_GROUPS, Reason, State, reasons_named


def select(
    statuses: Sequence[RunStatus],
    where: Sequence[str] = (),
    *,
    states: Sequence[str] = (),
    reasons: Sequence[str] = (),
    runs: Sequence[str] = (),
) -> list[RunStatus]:
    """Choose runs; what is given together must all hold, several of one kind: any of them.

    Args:
        statuses: the runs to choose from.
        where: ``axis=value`` (``axis=a,b`` for either); the same axis given twice: either value.
        states: state words.
        reasons: reason words, or a group such as ``oom``.
        runs: run names, or prefixes of run ids.

    Raises:
        UsageError: an axis, value, state, reason or run that does not exist; says what there is.
    """
    wanted = _parse_where(statuses, where)
    chosen_states = {_word(State, word, "state") for word in states}
    chosen_reasons = {reason for word in reasons for reason in _reasons(word)}
    chosen_runs = {status.id for text in runs for status in _named(statuses, text)}
    return [
        status
        for status in statuses
        if all(axis in status.axes and label_text(status.axes[axis]) in values for axis, values in wanted.items())
        and (not chosen_states or status.state in chosen_states)
        and (not chosen_reasons or status.reason in chosen_reasons)
        and (not runs or status.id in chosen_runs)
    ]


def _parse_where(statuses: Sequence[RunStatus], where: Sequence[str]) -> Mapping[str, set[str]]:
    wanted: dict[str, set[str]] = {}
    for condition in where:
        axis, equals, text = condition.partition("=")
        if not equals:
            raise UsageError(f"--where {condition}: expected axis=value.")
        known = {label_text(status.axes[axis]): status.axes[axis] for status in statuses if axis in status.axes}
        if not known:
            axes = list(dict.fromkeys(name for status in statuses for name in status.axes))
            raise UsageError(f"--where {condition}: no axis {axis!r}. {_hint(axis, axes)}")
        words = [text] if text in known else text.split(",")
        wanted.setdefault(axis, set()).update(_value(condition, word, known) for word in words)
    return wanted


def _value(condition: str, word: str, known: Mapping[str, Json]) -> str:
    """Find an axis value by the way it is written, or by its number (0.10 is 0.1)."""
    if word in known:
        return word
    try:
        number = float(word)
    except ValueError:
        number = None
    for text, value in known.items():
        if number is not None and isinstance(value, int | float) and not isinstance(value, bool) and value == number:
            return text
    raise UsageError(f"--where {condition}: no run has {word!r}. {_hint(word, list(known))}")


def _hint(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, 1)
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"Did you mean {near[0]}?" if near else f"There are: {shown}."


def _word(kind: type[State] | type[Reason], word: str, name: str) -> str:
    try:
        return kind(word)
    except ValueError:
        raise UsageError(f"--{name} {word}: no such {name}. {_hint(word, list(kind))}") from None


def _reasons(word: str) -> frozenset[Reason]:
    try:
        return reasons_named(word)
    except ValueError:
        raise UsageError(f"--reason {word}: no such reason. {_hint(word, [*REASON_GROUPS, *Reason])}") from None


def _named(statuses: Sequence[RunStatus], text: str) -> list[RunStatus]:
    exact = [status for status in statuses if text in {status.id, status.name}]
    found = exact or [status for status in statuses if text and status.id.startswith(text)]
    if not found:
        raise UsageError(f"--run {text}: no run has that name or an id that begins so. See: slurmkit collection show")
    if len(found) > 1:
        names = ", ".join(f"{status.id} ({status.name})" for status in found[:5])
        raise UsageError(f"--run {text}: {len(found)} runs have ids that begin so: {names}. Give more of the id.")
    return found

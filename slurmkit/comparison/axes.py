"""Pure: the axes of two sides together, and which label a run would have on an axis that its side does not have."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from slurmkit.comparison.side import Side
from slurmkit.errors import UsageError
from slurmkit.names import did_you_mean, label_key, label_text
from slurmkit.records import Json, is_mapping

ABSENT = "(not in its config)"
"""Stands for the label of a run that has neither an axis nor the keys that it sets."""


class Owner(NamedTuple):
    """A run that has an axis.

    Attributes:
        signature: its config's values of the keys that the axis sets, as one text.
        label: key of its label (`label_key`).
        labels: its labels on all axes.
    """

    signature: str
    label: str
    labels: dict[str, Json]


@dataclass(slots=True)
class Axis:
    """One axis under construction: what is known of its labels.

    Attributes:
        name: of the axis.
        keys: the config keys that it sets.
        texts: key of a label (`label_key`) to how it is written, in order.
        owners: the runs that have the axis.
        taken: the label of runs that have neither the axis nor its keys; None: nobody said.
    """

    name: str
    keys: tuple[str, ...]
    texts: dict[str, str] = field(default_factory=dict[str, str])
    owners: list[Owner] = field(default_factory=list[Owner])
    taken: str | None = None
    _found: dict[tuple[str, ...], dict[tuple[str, ...], dict[str, None]]] = field(
        default_factory=dict[tuple[str, ...], dict[tuple[str, ...], dict[str, None]]]
    )

    def labels(self, signature: str, run: Mapping[str, Json], alike: tuple[str, ...]) -> dict[str, None]:
        """Return the labels of the owners with some values of the keys that have some labels in common with a run.

        Args:
            signature: values of the keys.
            run: labels of a run.
            alike: axes on which an owner must have the run's label.
        """
        if alike not in self._found:
            table = self._found[alike] = {}
            for own, label, labels in self.owners:
                if all(axis in labels for axis in alike):
                    where = (own, *(label_key(labels[axis]) for axis in alike))
                    table.setdefault(where, {})[label] = None
        return self._found[alike].get((signature, *(label_key(run[axis]) for axis in alike)), {})


def labels_of(side: Side, seed_axis: str) -> list[dict[str, Json]]:
    """Return the labels of each run; the seed axis has the same name on both sides."""
    own = side.seed_axis
    if own == seed_axis or any(seed_axis in member.status.axes for member in side.members):
        return [member.status.axes for member in side.members]
    return [
        {seed_axis if axis == own else axis: label for axis, label in member.status.axes.items()}
        for member in side.members
    ]


def axes_of(a: Side, b: Side, labels: Sequence[list[dict[str, Json]]], taken: Mapping[str, str]) -> dict[str, Axis]:
    """Collect the axes of both sides, their labels, and which config values go with these.

    Raises:
        UsageError: `taken` names an axis or a label that there is not.
    """
    renamed = {a.seed_axis: b.keys.get(b.seed_axis, ())} if b.seed_axis != a.seed_axis else {}
    keys = {**renamed, **b.keys, **a.keys}
    names = dict.fromkeys(axis for own in labels for run in own for axis in run)
    axes = {name: Axis(name, keys.get(name, ())) for name in names}
    for side, own in zip((a, b), labels, strict=True):
        for known in side.header["axes"].items():
            _know(axes, *known)
        for member, run in zip(side.members, own, strict=True):
            for name, label in run.items():
                _know(axes, name, [label])
                axis = axes[name]
                axis.owners.append(Owner(signature_of(axis, member.config), label_key(label), run))
    for name, wanted in taken.items():
        if name not in axes:
            raise UsageError(f"--as {name}={wanted}: no axis {name!r}. {did_you_mean(name, axes)}")
        axes[name].taken = _known_label(axes[name], wanted)
    return axes


def _know(axes: Mapping[str, Axis], name: str, labels: Iterable[Json]) -> None:
    if name in axes:
        for label in labels:
            axes[name].texts.setdefault(label_key(label), label_text(label))


def _known_label(axis: Axis, wanted: str) -> str:
    for key, text in axis.texts.items():
        if wanted in (key, text) or _number(wanted) == _number(text) is not None:
            return text
    hint = did_you_mean(wanted, axis.texts.values(), what="There are")
    raise UsageError(f"--as {axis.name}={wanted}: {axis.name} has no such value. {hint}")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def signature_of(axis: Axis, config: Mapping[str, Json]) -> str:
    """Write the values of an axis's keys in a config as one text: ``objective.pv=0``; a key may be absent."""
    return ", ".join(f"{key}={value_text(config, key)}" for key in axis.keys)


def value_text(config: Mapping[str, Json], dotted: str) -> str:
    """Write the value of a dotted key in a config; `ABSENT`: there is none."""
    value: Json = config
    for part in dotted.split("."):
        if not is_mapping(value) or part not in value:
            return ABSENT
        value = value[part]
    if isinstance(value, dict | list):
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    return label_key(value)


def read_label(axis: Axis, config: Mapping[str, Json], run: Mapping[str, Json], who: str, seed: Axis | None) -> str:
    """Tell which label of an axis a run would have, from its config and, where that leaves several, its other labels.

    Args:
        axis: an axis that the run does not have.
        config: the run's.
        run: the run's labels.
        who: the run's side, for the message.
        seed: the seed axis; on it, a run whose config says nothing has no label.

    Returns:
        the label as text; where no run has one that fits, the values of the keys, or `ABSENT`.

    Raises:
        UsageError: several labels fit.
    """
    signature = signature_of(axis, config)
    absent = all(value_text(config, key) == ABSENT for key in axis.keys)
    if absent and axis.taken is not None:
        return axis.taken
    found = axis.labels(signature, run, ())
    if len(found) > 1 and axis is not seed:
        shared = tuple(name for name in run if name in axis.owners[0].labels and (seed is None or name != seed.name))
        found = axis.labels(signature, run, shared)
        if len(found) > 1:
            raise UsageError(_undecided(axis, signature, list(found), who))
    if len(found) == 1:
        return axis.texts[next(iter(found))]
    if absent:
        return ABSENT
    return value_text(config, axis.keys[0]) if len(axis.keys) == 1 else signature


def _undecided(axis: Axis, signature: str, found: Sequence[str], who: str) -> str:
    texts = [axis.texts[key] for key in found]
    why = f"config does not tell them apart ({signature})" if axis.keys else "it sets no config key"
    return (
        f"axis {axis.name}: {who} does not have it, the other side has {', '.join(texts)}, and {why}. "
        f"Say which of them {who}'s runs are: --as {axis.name}={texts[0]}"
    )

"""Pure: which runs of two sides are of the same cell, and how that is known.

A run's place is its label on every axis that either side has. An axis that a run's side does not have is read from the
run's config: the keys that the axis sets have the same values there as in the runs with some label.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slurmkit.comparison.axes import ABSENT, Axis, axes_of, labels_of, read_label
from slurmkit.comparison.side import Member, Side
from slurmkit.definition.grid import BLOCK, SETTING
from slurmkit.errors import UsageError
from slurmkit.names import label_key
from slurmkit.records import Json

Place = tuple[str, ...]
"""Labels as text, in the order of the axes."""


@dataclass(frozen=True, slots=True)
class AxisMatch:
    """How the runs of both sides were placed on one axis.

    Attributes:
        axis: its name.
        keys: the dotted config keys that it sets.
        read: side (``A`` or ``B``) to, for runs that do not have the axis, the label they were given and how many;
            empty: all have it, and equal labels match.
        how: the same in words.
    """

    axis: str
    keys: tuple[str, ...]
    read: dict[str, dict[str, int]]
    how: str


@dataclass(frozen=True, slots=True)
class Matching:
    """Which runs are compared with which.

    Attributes:
        axes: axis to its labels as text, A's before those that only B has; without the seed axis.
        seeds: labels of the seed axis; empty: there is none.
        seed_axis: its name.
        how: axis by axis, the seed axis last.
        members: for A and for B, place and seed (empty: none) to the run.
        matched: places that both have, in A's order.
        only: places that only A, and only B, has, to the number of runs.
        superseded: for A and for B, how many runs another one of the same place and seed replaces.
        seeds_pair: whether some matched place has a seed that both have; if not, cells are compared as wholes.
        unpaired: matched places without a common seed, where others have one.
        notes: what makes a match doubtful.
    """

    axes: dict[str, tuple[str, ...]]
    seeds: tuple[str, ...]
    seed_axis: str
    how: tuple[AxisMatch, ...]
    members: tuple[dict[tuple[Place, str], Member], dict[tuple[Place, str], Member]]
    matched: tuple[Place, ...]
    only: tuple[dict[Place, int], dict[Place, int]]
    superseded: tuple[int, int]
    seeds_pair: bool
    unpaired: int
    notes: tuple[str, ...]

    @property
    def seed_keys(self) -> tuple[str, ...]:
        """The config keys that the seed axis sets."""
        return self.how[-1].keys if self.seeds else ()

    def pairs(self) -> list[tuple[Member, Member]]:
        """Return the runs that are compared: equal in place and seed, or, where no seed pairs, one of each cell."""
        a, b = self.members
        if self.seeds_pair:
            return [(a[where], b[where]) for where in a if where in b]
        first = ({place: member for (place, _), member in reversed(side.items())} for side in (a, b))
        of_a, of_b = first
        return [(of_a[place], of_b[place]) for place in self.matched]


def match(a: Side, b: Side, taken: Mapping[str, str] | None = None) -> Matching:
    """Find out which runs of two sides belong together.

    Args:
        a: the earlier side.
        b: the later one.
        taken: axis to the label of runs that have neither the axis nor the config keys that it sets.

    Raises:
        UsageError: no run of one side has a counterpart, or config alone does not tell which label a run has.
    """
    labels = [labels_of(side, a.seed_axis) for side in (a, b)]
    axes = axes_of(a, b, labels, taken or {})
    seed = axes.pop(a.seed_axis, None)
    ordered = list(axes.values())
    read: dict[str, dict[str, Counter[str]]] = {}
    members, superseded = zip(
        *(_placed(who, side, own, ordered, seed, read) for who, side, own in zip("AB", (a, b), labels, strict=True)),
        strict=True,
    )
    of_a, of_b = (Counter(place for place, _ in side) for side in members)
    matched = tuple(place for place in of_a if place in of_b)
    only = tuple({p: n for p, n in own.items() if p not in other} for own, other in ((of_a, of_b), (of_b, of_a)))
    how = tuple(_how(axis, read.get(axis.name, {})) for axis in (*ordered, *([seed] if seed else [])))
    if not matched:
        raise UsageError(_no_match(a, b, labels, ordered, of_a, of_b))
    paired = {place for place, _ in members[0].keys() & members[1].keys()}
    return Matching(
        axes={axis.name: _shown_labels(axis, index, (*of_a, *of_b)) for index, axis in enumerate(ordered)},
        seeds=tuple(dict.fromkeys(text for side in members for _, text in side)) if seed else (),
        seed_axis=a.seed_axis,
        how=how,
        members=(members[0], members[1]),
        matched=matched,
        only=(only[0], only[1]),
        superseded=(superseded[0], superseded[1]),
        seeds_pair=bool(paired),
        unpaired=len(set(matched) - paired) if paired else 0,
        notes=tuple(_doubts(a, b, ordered)),
    )


def _placed(
    who: str,
    side: Side,
    labels: list[dict[str, Json]],
    axes: Sequence[Axis],
    seed: Axis | None,
    read: dict[str, dict[str, Counter[str]]],
) -> tuple[dict[tuple[Place, str], Member], int]:
    """Give each run of a side its place; of several with the same place and seed the latest counts.

    Args:
        who: ``A`` or ``B``.
        side: the side.
        labels: of each of its runs.
        axes: all but the seed.
        seed: the seed axis, if any run has it.
        read: filled with axis, side and label given to runs that do not have the axis.

    Returns:
        (place, seed) to run, and how many runs another one replaced.
    """
    members: dict[tuple[Place, str], Member] = {}
    for member, run in zip(side.members, labels, strict=True):
        texts: list[str] = []
        for axis in (*axes, *([seed] if seed else [])):
            if axis.name in run:
                texts.append(axis.texts[label_key(run[axis.name])])
            else:
                texts.append(read_label(axis, member.config, run, who, seed))
                read.setdefault(axis.name, {}).setdefault(who, Counter())[texts[-1]] += 1
        where = (tuple(texts[: len(axes)]), texts[-1] if seed else "")
        members.pop(where, None)
        members[where] = member
    return members, len(side.members) - len(members)


def _shown_labels(axis: Axis, index: int, places: Sequence[Place]) -> tuple[str, ...]:
    """Return the labels that some run has, those of the definitions first."""
    there = dict.fromkeys(place[index] for place in places)
    known = [text for text in axis.texts.values() if text in there]
    return tuple(dict.fromkeys([*known, *there]))


def _how(axis: Axis, read: Mapping[str, Counter[str]]) -> AxisMatch:
    """Say in words how the runs were placed on an axis."""
    keys = ", ".join(axis.keys)
    parts: list[str] = []
    for who, counts in read.items():
        given = ", ".join(
            f"{label} ({count} runs)" if count != 1 else f"{label} (1 run)" for label, count in counts.items()
        )
        if not axis.keys:
            said = "by --as" if axis.taken in counts else "as the only value that the other has"
            parts.append(f"{who} does not have it, and it sets no config key: {who} is taken for {given}, {said}")
        elif axis.taken in counts:
            parts.append(f"{who} does not have it, nor {keys} in its config: {given}, by --as")
        else:
            parts.append(f"{who} does not have it: by {keys} in its config: {given}")
    return AxisMatch(
        axis.name, axis.keys, {who: dict(counts) for who, counts in read.items()}, "; ".join(parts) or "by label"
    )


def _doubts(a: Side, b: Side, axes: Sequence[Axis]) -> list[str]:
    """Name the axes whose equal labels set different config keys on the two sides."""
    lines: list[str] = []
    for axis in axes:
        mine, other = a.keys.get(axis.name), b.keys.get(axis.name)
        if mine is not None and other is not None and mine != other and axis.name not in (BLOCK, SETTING):
            ours, theirs = (", ".join(keys) or "no config key" for keys in (mine, other))
            lines.append(f"axis {axis.name} sets {ours} in A and {theirs} in B: equal labels may not mean the same")
    return lines


def _no_match(
    a: Side,
    b: Side,
    labels: Sequence[list[dict[str, Json]]],
    axes: Sequence[Axis],
    of_a: Mapping[Place, int],
    of_b: Mapping[Place, int],
) -> str:
    """Say why no cell of one side has a counterpart, and what could be done."""
    if not a.members or not b.members:
        return f"{a.name if not a.members else b.name}: has no runs. Nothing to compare."
    names = [dict.fromkeys(axis for run in own for axis in run if axis != a.seed_axis) for own in labels]
    shared = [name for name in names[0] if name in names[1]]
    apart = [
        _apart(axis, {p[index] for p in of_a}, {p[index] for p in of_b})
        for index, axis in enumerate(axes)
        if not {p[index] for p in of_a} & {p[index] for p in of_b}
    ]
    first = f"{a.name} and {b.name}: no cell of one has a counterpart in the other."
    if not shared:
        mine, other = (", ".join(own) or "none" for own in names)
        first = f"{first[:-1]}: they have no axis in common (A: {mine}; B: {other})."
    missing = next((axis.name for index, axis in enumerate(axes) if ABSENT in {p[index] for p in (*of_a, *of_b)}), None)
    advice = (
        f" If runs without {missing} are some value of it, say so: --as {missing}=VALUE."
        if missing
        else " Compare collections that share values of their axes; slurmkit collection show NAME lists them."
    )
    return " ".join([first, *apart]) + advice


def _apart(axis: Axis, of_a: set[str], of_b: set[str]) -> str:
    ours, theirs = (", ".join(sorted(texts)[:6]) + (", ..." if len(texts) > 6 else "") for texts in (of_a, of_b))
    return f"{axis.name}: A has {ours}, B has {theirs}."

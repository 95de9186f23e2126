"""Pure: a definition becomes runs, with ids that depend on what runs and on nothing else."""

import difflib
import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from math import prod
from operator import attrgetter
from typing import TYPE_CHECKING

import orjson

from slurmkit.definition import grid
from slurmkit.errors import DefinitionError, UsageError
from slurmkit.names import Label, check_run_name, label_key, label_text
from slurmkit.records import Json, is_mapping
from slurmkit.resources import Resources
from slurmkit.template import placeholders

if TYPE_CHECKING:  # reading commands need `resolve_config` without pydantic
    from slurmkit.definition.model import Definition

MAX_RUNS = 200_000
_MAX_DRAWS = 2_000_000
_NEARLY = 0.8
"""Likeness of two keys (`difflib`) from which one may be a slip of the pen."""
_SHOWN = 5
"""How many clashes an error lists."""

_Cell = tuple[grid.Point, grid.Point]
"""All dimensions but the last as one point, which neighbours share; and the last."""


@dataclass(frozen=True, slots=True)
class Run:
    """One cell x one seed, with all that it is.

    Attributes:
        id: 12 hex digits: of the resolved config, the command, its environment and what it needs; not of its name,
            resources or place in the file.
        name: unique in the collection; the name of its folder.
        axes: axis to label.
        set: dotted config key to value: what differs from the shared config.
        config_sha256: of the resolved config, placeholders still open.
        resources: what it asks for.
    """

    id: str
    name: str
    axes: dict[str, Label]
    set: dict[str, Json]
    config_sha256: str
    resources: Resources


@dataclass(frozen=True)
class Expansion:
    """All runs of a definition.

    Attributes:
        runs: in the order in which they should start.
        axes: axis to its labels, in the order of `Run.axes`.
        notes: what is worth saying to a person.
    """

    runs: tuple[Run, ...]
    axes: dict[str, tuple[Label, ...]]
    notes: tuple[str, ...]


def resolve_config(shared: Mapping[str, Json], overrides: Mapping[str, Json]) -> dict[str, Json]:
    """Set dotted keys in a config. Parts that nothing is set in are shared with the original, not copied.

    Raises:
        UsageError: a key leads through something that is not a mapping.
    """
    config = dict(shared)
    copied: dict[str, dict[str, Json]] = {}
    for key, value in overrides.items():
        if "." not in key:
            config[key] = value
            continue
        parts = key.split(".")
        level, way = config, ""
        for part in parts[:-1]:
            way = f"{way}.{part}"
            inner = copied.get(way)
            if inner is None or level.get(part) is not inner:
                below = level.get(part, {})
                if not is_mapping(below):
                    raise UsageError(
                        f"config.{key}: config{way} is {below!r:.60}, not a mapping. Name a key inside mappings."
                    )
                inner = copied[way] = dict(below)
                level[part] = inner
            level = inner
        level[parts[-1]] = value
    return config


def config_sha256(config: Mapping[str, Json]) -> str:
    """Return the hash of a resolved config, whatever the order of its keys."""
    return hashlib.sha256(orjson.dumps(config, option=orjson.OPT_SORT_KEYS)).hexdigest()


def expand(definition: "Definition") -> Expansion:
    """Make the runs of a definition.

    The same definition gives the same runs; another order of keys in the file changes their order at most.

    Raises:
        DefinitionError: too many runs, none at all, two with the same name, or two that would do the same.
    """
    notes: list[str] = []
    cells = [*_grid_cells(definition, notes), *_included_cells(definition)]
    if not cells:
        raise _error(definition, ["exclude"], "leaves no run. Exclude less, or include some cells.")
    runs = tuple(_runs(definition, cells))
    _refuse_twins(definition, runs, attrgetter("id"), ["axes"], _identical)
    _refuse_twins(definition, runs, attrgetter("name"), ["run_name"], _same_name)
    notes += _near_misses(definition, runs)
    axes = {axis: tuple(labels) for axis, labels in grid.labels(definition).items()}
    return Expansion(runs, axes, tuple(notes))


def _near_misses(definition: "Definition", runs: Iterable[Run]) -> Iterator[str]:
    """Name the keys that runs set beside one of `config` that is spelt nearly so: such runs may differ in nothing."""
    from slurmkit.definition.references import dotted_keys

    known = dict.fromkeys(dotted_keys(definition.config))
    combinations = dict.fromkeys(tuple(run.set) for run in runs)
    for key in dict.fromkeys(key for keys in combinations for key in keys):
        near = [] if key in known else difflib.get_close_matches(key, known, n=1, cutoff=_NEARLY)
        if near:
            yield f"{key} is not in config, which has {near[0]}: runs get both. Is one of them misspelt?"


def _error(definition: "Definition", path: Sequence[str], what: str) -> DefinitionError:
    source = definition.source
    return source.refuse([source.problem(path, what)])


def _grid_cells(definition: "Definition", notes: list[str]) -> list[_Cell]:
    """Return the cells of the grid that are neither excluded nor left out by sampling."""
    dimensions = grid.dimensions(definition)
    total = prod(len(points) for points in dimensions)
    excluded = [grid.Where(where) for where in definition.exclude]
    hits = [0] * len(excluded)

    def kept(cell: _Cell) -> bool:
        labels = cell[0].labels | cell[1].labels
        for index, where in enumerate(excluded):
            if where.holds(labels):
                hits[index] += 1
                return False
        return True

    if definition.sample is not None and definition.sample.count < total:
        cells = _drawn(definition, dimensions, total, kept)
        notes.append(f"sampled {len(cells):,} of {total:,} cells (seed {definition.sample.seed})")
        return cells
    if total > MAX_RUNS:
        what = f"the grid has {total:,} cells; a collection has at most {MAX_RUNS:,} runs. Use fewer values, or sample."
        raise _error(definition, ["axes"], what)
    *most, last = dimensions or [[grid.point({}, {})]]
    outer = [grid.joined(points) for points in product(*most)]
    cells = [cell for cell in product(outer, last) if not excluded or kept(cell)]
    notes += [f"exclude[{index}] matches no cell that is still there" for index, hit in enumerate(hits) if not hit]
    return cells


def _drawn(
    definition: "Definition", dimensions: list[list[grid.Point]], total: int, kept: Callable[[_Cell], bool]
) -> list[_Cell]:
    """Draw cells without repetition (a Fisher-Yates shuffle of which only the touched places are stored).

    Cells are numbered with dimensions and labels in alphabetical order, so the order of keys in the file draws no
    others; drawing more with the same seed keeps those that were drawn.
    """
    assert definition.sample is not None
    count = definition.sample.count
    if count > MAX_RUNS:
        raise _error(definition, ["sample", "count"], f"at most {MAX_RUNS:,} runs make a collection. Draw fewer.")
    sorted_points = [sorted(range(len(points)), key=lambda index: _sort_key(points[index])) for points in dimensions]
    by_name = sorted(range(len(dimensions)), key=lambda index: min(dimensions[index][0].labels))
    # random() is the one draw whose values Python promises to keep between versions.
    uniform = random.Random(definition.sample.seed).random
    moved: dict[int, int] = {}
    drawn: list[tuple[int, ...]] = []
    for draw in range(min(total, _MAX_DRAWS)):
        if len(drawn) == count:
            break
        other = draw + int(uniform() * (total - draw))
        number = moved.get(other, other)
        moved[other] = moved.get(draw, draw)
        position = [0] * len(dimensions)
        for index in by_name:
            number, rank = divmod(number, len(dimensions[index]))
            position[index] = sorted_points[index][rank]
        if kept(_cell_at(dimensions, position)):
            drawn.append(tuple(position))
    if len(drawn) < count:
        what = f"{count:,} cells were asked for, and exclude left {len(drawn):,}. Draw fewer, or exclude less."
        raise _error(definition, ["sample", "count"], what)
    return [_cell_at(dimensions, position) for position in sorted(drawn)]


def _sort_key(point: grid.Point) -> list[tuple[str, str]]:
    return sorted((axis, label_key(label)) for axis, label in point.labels.items())


def _cell_at(dimensions: list[list[grid.Point]], position: Iterable[int]) -> _Cell:
    return _cell([points[index] for points, index in zip(dimensions, position, strict=True)])


def _cell(points: Sequence[grid.Point]) -> _Cell:
    return grid.joined(points[:-1]), points[-1]


def _included_cells(definition: "Definition") -> Iterator[_Cell]:
    for entry in definition.include:
        yield from map(_cell, grid.included(definition, entry))


def _runs(definition: "Definition", cells: Iterable[_Cell]) -> Iterator[Run]:
    """Give each cell its config, id, name and resources."""
    resources = definition.resources.over(Resources())
    overrides = [(grid.Where(override.where), override) for override in definition.overrides]
    identity = _identity(definition)
    pattern = definition.run_name or grid.default_run_name(definition)
    conditional = _conditional_needs(definition)
    shared, shared_by = definition.config, grid.point({}, {})
    for outer, inner in cells:
        if outer is not shared_by:
            shared, shared_by = resolve_config(definition.config, outer.sets), outer
        labels = outer.labels | inner.labels
        sets = outer.sets | inner.sets
        config = resolve_config(shared, inner.sets)
        asked = resources
        for where, override in overrides:
            if where.holds(labels):
                sets = _set_over(sets, override.set)
                config = resolve_config(config, override.set)
                asked = asked if override.resources is None else override.resources.over(asked)
        if conditional:
            _check_conditional(definition, conditional, config, labels)
        digest = config_sha256(config)
        run_id = identity(digest, labels)
        name = pattern.format_map({"run_id": run_id, **outer.texts, **inner.texts})
        try:
            check_run_name(name)
        except ValueError as error:
            raise _error(definition, ["run_name"], f"{error}.") from error
        yield Run(run_id, name, labels, sets, digest, asked)


def _set_over(sets: dict[str, Json], override: Mapping[str, Json]) -> dict[str, Json]:
    """Add an override's keys, without those that they replace as a whole."""
    kept = {key: value for key, value in sets.items() if not any(key.startswith(f"{over}.") for over in override)}
    return {**kept, **override}


def _identity(definition: "Definition") -> Callable[[str, Mapping[str, Label]], str]:
    """Return what makes a run's id of its config's digest and its labels."""
    from slurmkit.definition.references import templates

    used: set[str] = set()
    for _, text, kind in templates(definition):
        if kind != "run_name" and kind != "check":
            used |= placeholders(text)
    needs: dict[str, Json] = {}
    for alias, need in definition.needs.items():
        needs[alias] = [need.collection, need.match and sorted(need.match), need.where, need.when]
        # A run that needs another is told apart by the axes that pick it. Axes that set config keys are in the config.
        picking = need.match
        if picking is None:
            picking = [
                axis
                for axis, values in definition.axes.items()
                if not any(point.sets for point in grid.axis_points(values, axis, definition.config))
            ]
        used |= {*picking, *need.when}
    common = orjson.dumps([definition.command, definition.env, needs], option=orjson.OPT_SORT_KEYS)
    start = hashlib.blake2b(common, digest_size=6)
    axes = sorted(used & {axis for group in grid.groups(definition) for axis in group})

    def identify(digest: str, labels: Mapping[str, Label]) -> str:
        whole = start.copy()
        whole.update(digest.encode())
        if axes:
            whole.update(orjson.dumps([label_text(labels[axis]) for axis in axes]))
        return whole.hexdigest()

    return identify


def _conditional_needs(definition: "Definition") -> dict[str, grid.Where]:
    return {f"needs.{alias}.run_dir": grid.Where(need.when) for alias, need in definition.needs.items() if need.when}


def _check_conditional(
    definition: "Definition",
    conditional: Mapping[str, grid.Where],
    config: Mapping[str, Json],
    labels: Mapping[str, Label],
) -> None:
    """Refuse a config that names a needed run which this cell does not have."""
    for name in placeholders(config) & conditional.keys():
        if not conditional[name].holds(labels):
            alias = name.split(".")[1]
            what = (
                f"the config of {_cell_text(labels)} uses {{{name}}}, but this cell is not within `when`. "
                "Set that key by overrides for the cells that need the run."
            )
            raise _error(definition, ["needs", alias, "when"], what)


def _refuse_twins(
    definition: "Definition",
    runs: Sequence[Run],
    trait: Callable[[Run], str],
    path: Sequence[str],
    say: Callable[[Run, Run], str],
) -> None:
    """Refuse runs that share what must be their own, naming both cells."""
    if len(set(map(trait, runs))) == len(runs):
        return
    first: dict[str, Run] = {}
    twins = ((first[trait(run)], run) for run in runs if first.setdefault(trait(run), run) is not run)
    if shown := list(islice(twins, _SHOWN)):
        rest = sum(1 for _ in twins)
        lines = [say(one, other) for one, other in shown] + ([f"and {rest:,} more pairs like these"] if rest else [])
        source = definition.source
        raise source.refuse([source.problem(path, line) for line in lines])


def _identical(one: Run, other: Run) -> str:
    return (
        f"two cells are the same run, with the same config and command: {_cell_text(one.axes)} and "
        f"{_cell_text(other.axes)}. Delete one, or let an axis that tells them apart set something."
    )


def _same_name(one: Run, other: Run) -> str:
    differing = [axis for axis in one.axes if one.axes[axis] != other.axes[axis]]
    braces = ", ".join(f"{{{axis}}}" for axis in differing)
    return (
        f"{one.name!r} would be the name of two runs: {_cell_text(one.axes)} and {_cell_text(other.axes)}. "
        f"Put {braces} into run_name, and mind that characters other than letters, digits and . _ = + , @ - become -."
    )


def _cell_text(labels: Mapping[str, Label]) -> str:
    return "{" + ", ".join(f"{axis}: {label_text(label):.60}" for axis, label in labels.items()) + "}"

"""What was planned: the swept dimensions, the settings of a sparse sweep, and what all runs share."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from slurmkit.aggregate.format import clean
from slurmkit.aggregate.text import TextTable
from slurmkit.definition.grid import BLOCK, SETTING
from slurmkit.names import label_text
from slurmkit.records import Json, is_mapping
from slurmkit.report.material import Material
from slurmkit.report.model import Block, Fact, Facts, Section
from slurmkit.resources import format_duration, format_memory

_NEED = re.compile(r"\{needs\.([^.}]+)\.run_dir\}")
_MOST_VALUES = 12
_MOST_SHARED = 60


def design(material: Material) -> Section:
    """Say what was swept, what all runs share, and what a run asks for."""
    axes: Mapping[str, Sequence[Json]] = material.header["axes"]
    swept_keys = {key for sets in material.sets.values() for key in sets}
    shared = [item for item in _leaves(material.definition.get("config") or {}) if item[0] not in swept_keys]
    blocks: list[Block] = [Facts(tuple(Fact(axis, _values(values)) for axis, values in axes.items()), "Swept")]
    if SETTING in axes:
        blocks.append(_settings(material))
    if shared:
        facts = [Fact(key, clean(_needs_named(label_text(value), material))) for key, value in shared[:_MOST_SHARED]]
        blocks.append(Facts(tuple(facts), "The same in all runs"))
    blocks.append(
        Facts((*_asked(material), Fact("command", " ".join(material.definition["command"]), literal=True)), "A run")
    )
    return Section("Design", tuple(blocks))


def _values(values: Sequence[Json]) -> str:
    shown = ", ".join(clean(label_text(value)) for value in values[:_MOST_VALUES])
    return shown + (f" and {len(values) - _MOST_VALUES} more" if len(values) > _MOST_VALUES else "")


def _needs_named(text: str, material: Material) -> str:
    """Write which run of which collection is meant, where a config names a run that each run needs."""
    needs: Mapping[str, Mapping[str, Json]] = material.definition.get("needs") or {}

    def named(found: "re.Match[str]") -> str:
        need = needs.get(found[1])
        if need is None:
            return found[0]
        same = ", ".join(need.get("match") or ())
        run = f"<the run with the same {same}>" if same else "<its run>"
        return f"runs/{need['collection']}/{run}"

    return _NEED.sub(named, text)


def _leaves(config: Mapping[str, Json], prefix: str = "") -> Iterator[tuple[str, Json]]:
    """Yield dotted keys and values of a nested config."""
    for key, value in config.items():
        if is_mapping(value) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _settings(material: Material) -> TextTable:
    """List the settings of a sparse sweep, with the config keys that each sets in all of its runs."""
    of_setting: dict[tuple[str, str], list[Mapping[str, Json]]] = {}
    for status in material.statuses:
        key = (label_text(status.axes.get(BLOCK)), label_text(status.axes.get(SETTING)))
        of_setting.setdefault(key, []).append(material.sets[status.id])
    everywhere = _common(list(material.sets.values()))
    rows: list[list[str]] = []
    for (block, setting), sets in of_setting.items():
        own = {key: value for key, value in _common(sets).items() if key not in everywhere}
        shown = ", ".join(f"{key} = {label_text(value)}" for key, value in own.items())
        rows.append([clean(block), clean(setting), clean(shown) or "as the shared config has it"])
    return TextTable("Settings", [BLOCK, SETTING, "sets"], rows, 3, [])


def _common(sets: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """Return the keys that all have, with the same value."""
    first, *others = sets
    return {key: value for key, value in first.items() if all(key in other and other[key] == value for other in others)}


def _asked(material: Material) -> Iterator[Fact]:
    """Yield what runs asked of the scheduler, the least and the most where they differ."""
    asked = list(material.asked.values())
    if not asked:
        return
    yield Fact("CPUs", _span(sorted({one.cpus for one in asked}), str))
    if any(one.gpus for one in asked):
        yield Fact("GPUs", _span(sorted({one.gpus for one in asked}), str))
    for name, sizes, write in (
        ("memory", {one.mem_mb for one in asked}, format_memory),
        ("time limit", {one.time_s for one in asked}, format_duration),
    ):
        given = sorted(size for size in sizes if size is not None)
        if given:
            yield Fact(name, _span(given, write))


def _span(values: Sequence[int], write: Callable[[int], str]) -> str:
    low, high = write(values[0]), write(values[-1])
    return low if low == high else f"{low} to {high}"

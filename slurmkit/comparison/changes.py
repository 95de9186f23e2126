"""What differs between runs that are compared: config, resources, versions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import orjson

from slurmkit import files
from slurmkit.aggregate.metrics_file import METRICS_FILE, FlawError, values_of
from slurmkit.collection.extend import differing_keys
from slurmkit.comparison.side import Member, Side
from slurmkit.errors import StoreError
from slurmkit.records import Json, is_mapping
from slurmkit.states import State

_PROVENANCE = "provenance/"
_OF_ONE_RUN = frozenset({"commit", "config_sha256", "run_id"})
"""Keys of a result's provenance that differ from run to run, or are compared elsewhere."""


@dataclass(frozen=True, slots=True)
class Change:
    """One key whose values differ.

    Attributes:
        key: dotted, or a name.
        pairs: in how many pairs of runs it differs.
        of: how many pairs there are; of versions, those in which both runs tell theirs.
        values: (A's value, B's value, in how many pairs), most frequent first; None: there is none, or it is null.
    """

    key: str
    pairs: int
    of: int
    values: tuple[tuple[Json, Json, int], ...]

    @property
    def everywhere(self) -> bool:
        """Whether it differs in every pair."""
        return self.pairs == self.of


def config_changes(pairs: Iterable[tuple[Member, Member]], *, but: Sequence[str] = ()) -> tuple[Change, ...]:
    """Return the dotted config keys that differ, as the latest attempts had them: in every pair first.

    Args:
        pairs: the runs that are compared.
        but: keys that differ as a matter of course.
    """
    return tuple(change for change in _changes((a.ran, b.ran) for a, b in pairs) if change.key not in but)


def resource_changes(pairs: Iterable[tuple[Member, Member]]) -> tuple[Change, ...]:
    """Return the resources that differ in what the latest attempts asked for."""
    return _changes((a.resources, b.resources) for a, b in pairs)


def definition_changes(a: Side, b: Side) -> tuple[Change, ...]:
    """Return which of command, environment and needs two definitions have otherwise."""
    wanted = ("command", "env", "needs")
    old, new = ({key: side.header["definition"].get(key) for key in wanted} for side in (a, b))
    return _changes([(old, new)])


def version_changes(a: Side, b: Side, pairs: Iterable[tuple[Member, Member]]) -> tuple[Change, ...]:
    """Return the versions that differ: of the environment, of slurmkit, and those that results tell of themselves.

    A result tells of itself by the keys ``provenance/...`` of its metrics (``provenance/torch``). A key that only one
    of two runs has is left out: its value is not known to differ.
    """
    common = _environment(a), _environment(b)
    seen = [(common[0] | _versions(one), common[1] | _versions(other)) for one, other in pairs]
    both = [({key: x[key] for key in x if key in y}, {key: y[key] for key in y if key in x}) for x, y in seen]
    known = Counter(key for old, _ in both for key in old)
    return tuple(replace(change, of=known[change.key]) for change in _changes(both))


def _environment(side: Side) -> dict[str, Json]:
    """Return what the collection's record says of where it was made."""
    told: Json = side.header.get("environment")
    return {key: told[key] for key in ("python", "platform") if key in told} if is_mapping(told) else {}


def _versions(member: Member) -> dict[str, Json]:
    """Return what the records of a run's latest attempt, and its result, say of versions; empty: nothing."""
    status = member.status
    found: dict[str, Json] = {}
    try:
        started: Json = files.read_json(status.run_dir / "attempts" / str(status.attempt) / "started.json")
    except (FileNotFoundError, StoreError):
        started = None
    if is_mapping(started) and "slurmkit" in started:
        found["slurmkit"] = started["slurmkit"]
    if status.state is not State.COMPLETED:
        return found
    try:
        values = values_of(f"{status.folder}/{METRICS_FILE}", status)
    except FlawError:  # told where the metrics are read
        return found
    named = {key.removeprefix(_PROVENANCE): v for key, v in values.items() if key.startswith(_PROVENANCE)}
    return found | {key: value for key, value in named.items() if key not in _OF_ONE_RUN}


def _changes(pairs: Iterable[tuple[Mapping[str, Json], Mapping[str, Json]]]) -> tuple[Change, ...]:
    counts: dict[str, dict[bytes, int]] = {}
    of = 0
    for old, new in pairs:
        of += 1
        for key, both in differing_keys(old, new).items():
            values = orjson.dumps(both, option=orjson.OPT_SORT_KEYS)
            own = counts.setdefault(key, {})
            own[values] = own.get(values, 0) + 1
    found = [
        Change(
            key,
            sum(own.values()),
            of,
            tuple((*orjson.loads(v), count) for v, count in sorted(own.items(), key=lambda item: -item[1])),
        )
        for key, own in counts.items()
    ]
    return tuple(sorted(found, key=lambda change: (not change.everywhere, -change.pairs, change.key)))

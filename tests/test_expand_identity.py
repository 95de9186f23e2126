"""Ids and names of runs: what they depend on, and what they do not."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from expanding import COMMAND, define, runs_of
from hypothesis import assume, given
from hypothesis import strategies as st

from slurmkit.errors import DefinitionError
from slurmkit.expand import Expansion, expand

LABELS = st.lists(
    st.integers(-5, 5)
    | st.sampled_from(["a", "b c", "ü", "0.5"])
    | st.floats(0, 1, width=16)
    | st.booleans()
    | st.none(),
    min_size=1,
    max_size=4,
    unique_by=lambda label: (
        str(float(label)) if isinstance(label, int | float) and not isinstance(label, bool) else str(label)
    ),
)


@st.composite
def definitions(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a definition in which names cannot collide."""
    names = draw(st.lists(st.sampled_from(["task", "pv", "lr", "seed"]), max_size=3, unique=True))
    axes = {name: {"key": f"part.{name}", "values": draw(LABELS)} for name in names}
    config = draw(
        st.dictionaries(st.sampled_from(["x", "y"]), st.integers(0, 3) | st.text("{ab", max_size=0), max_size=2)
    )
    keys: dict[str, Any] = {
        "axes": axes,
        "config": {"part": {"other": 1, "seed": 3}, **config},
        "run_name": "r-{run_id}",
    }
    if draw(st.booleans()):
        keys["settings"] = {"A": {"base": {}, "one": {"w": 1, "v": 2}}, "B": {"two": {"w": 2}}}
    if draw(st.booleans()) and names:
        keys["exclude"] = [{names[0]: axes[names[0]]["values"][0]}]
        keys["include"] = [{names[0]: "new label"}]
    if draw(st.booleans()) and names:
        where = {names[0]: draw(st.sampled_from(axes[names[0]]["values"]))}
        keys["overrides"] = [{"where": where, "set": {"part.other": 5}, "resources": {"mem": "2G"}}]
    if draw(st.booleans()):
        keys["sample"] = {"count": draw(st.integers(1, 6)), "seed": draw(st.integers(0, 3))}
    return keys


def in_order(value: Any, sort: Callable[[list[Any]], list[Any]]) -> Any:
    """Return a JSON value with the keys of all its mappings in another order."""
    if isinstance(value, dict):
        return {key: in_order(value[key], sort) for key in sort(list(value))}
    return [in_order(item, sort) for item in value] if isinstance(value, list) else value


def expanded_or_not(keys: dict[str, Any]) -> Expansion | None:
    """Expand, or return None where `exclude` leaves too little."""
    try:
        return expand(define(**keys))
    except DefinitionError as error:
        if any("exclude" not in problem for problem in error.problems):
            raise
        return None


@given(definitions())
def test_expansion_is_pure(keys: dict[str, Any]) -> None:
    definition = define(**keys)
    before = definition.model_dump_json()
    expansion = expanded_or_not(keys)
    assume(expansion is not None)
    assert expand(definition) == expand(definition) == expansion
    assert definition.model_dump_json() == before


@given(definitions(), st.randoms(use_true_random=False))
def test_the_order_of_keys_changes_the_order_of_runs_at_most(keys: dict[str, Any], random: Any) -> None:
    def shuffled(items: list[Any]) -> list[Any]:
        random.shuffle(items)
        return items

    one, other = expanded_or_not(keys), expanded_or_not(in_order(keys, shuffled))
    assume(one is not None)
    assert one is not None
    assert other is not None

    def as_set(expansion: Expansion) -> list[bytes]:
        return sorted(orjson.dumps(run, option=orjson.OPT_SORT_KEYS) for run in expansion.runs)

    assert as_set(one) == as_set(other)


def test_the_order_of_keys_changes_no_default_name() -> None:
    axes = {"b": {"key": "b", "values": [1]}, "seed": {"key": "s", "values": [0]}, "a": {"key": "a", "values": [2]}}
    names = {runs_of(axes=in_order(axes, order))[0].name for order in (sorted, list, lambda keys: keys[::-1])}
    assert names == {"a-2_b-1_seed-0"}


@given(definitions())
def test_ids_and_names_are_unique_and_tell_the_config(keys: dict[str, Any]) -> None:
    expansion = expanded_or_not(keys)
    assume(expansion is not None)
    assert expansion is not None
    assert len({run.id for run in expansion.runs}) == len({run.name for run in expansion.runs}) == len(expansion.runs)
    for run in expansion.runs:
        assert len(run.id) == 12
        assert all(run.axes[axis] in labels for axis, labels in expansion.axes.items())
        assert list(run.axes) == list(expansion.axes)


@given(st.lists(st.text("ab/ .-", min_size=1, max_size=3), min_size=2, max_size=5, unique=True))
def test_names_that_collide_are_refused_with_both_cells(labels: list[str]) -> None:
    texts = ["".join("-" if character in "/ " else character for character in label) for label in labels]
    keys = {"axes": {"m": {"key": "m", "values": labels}}, "run_name": "r{m}"}
    if len(set(texts)) == len(texts):
        assert [run.name for run in runs_of(**keys)] == [f"r{text}" for text in texts]
        return
    with pytest.raises(DefinitionError) as error:
        runs_of(**keys)
    first = next(index for index, text in enumerate(texts) if text in texts[:index])
    twin = texts.index(texts[first])
    assert f"two runs: {{m: {labels[twin]}}} and {{m: {labels[first]}}}" in str(error.value)


SAME: dict[str, Any] = {"config": {"lr": 1, "k": "{run_dir}"}, "axes": {"task": {"key": "task.name", "values": ["a"]}}}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "y"},
        {"description": "another"},
        {"tags": ["t"]},
        {"check": ["{python}"]},
        {"run_name": "other-{task}"},
        {"resources": {"mem": "9G"}},
        {"overrides": [{"where": {"task": "a"}, "resources": {"time": "1h"}}]},
        {"on_failure": {"timeout": {"config.lr": "/2"}}},
        {"on_failure": {"preempted": {"requeue": 1}}},
        {"config": {"k": "{run_dir}", "lr": 2}, "overrides": [{"where": {"task": "a"}, "set": {"lr": 1}}]},
    ],
)
def test_an_id_does_not_change_with_what_does_not_run(change: dict[str, Any]) -> None:
    assert [run.id for run in runs_of(**{**SAME, **change})] == [run.id for run in runs_of(**SAME)]


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"lr": 1.0, "k": "{run_dir}"}},
        {"config": {"lr": 1, "k": "{run_dir}", "new": None}},
        {"command": [*COMMAND, "--fast"]},
        {"env": {"A": "1"}},
        {"needs": {"base": {"collection": "other"}}},
        {"axes": {"task": {"key": "task", "values": ["a"]}}},
    ],
)
def test_an_id_changes_with_what_runs(change: dict[str, Any]) -> None:
    assert runs_of(**{**SAME, **change})[0].id != runs_of(**SAME)[0].id


def test_an_axis_that_only_the_command_uses_tells_runs_apart() -> None:
    runs = runs_of(command=[*COMMAND, "{task}"], axes={"task": ["a", "b"]})
    assert runs[0].id != runs[1].id
    assert runs[0].config_sha256 == runs[1].config_sha256
    assert runs[0].set == {}


def test_an_axis_that_only_picks_the_needed_run_tells_runs_apart() -> None:
    for need in ({"collection": "bases"}, {"collection": "bases", "match": ["size"]}):
        one, other = runs_of(config={"base": "{needs.b.run_dir}"}, axes={"size": ["s", "m"]}, needs={"b": need})
        assert one.id != other.id


def test_ids_stay_what_they_were() -> None:
    """Ids are kept in records for years: change this only with a migration of those."""
    assert [run.id for run in runs_of(**SAME)] == ["51f2080bdbef"]

"""Expansion: pure, the same whatever the order of keys, with ids and names of their own; and the shipped sweeps."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from slurmkit.definition.model import Definition, load_definition, parse_definition
from slurmkit.errors import DefinitionError, UsageError
from slurmkit.expand import Expansion, Run, expand, resolve_config
from slurmkit.template import fill, placeholders

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests/golden"
COMMAND = ["{python}", "train.py", "{config}"]


def define(**keys: Any) -> Definition:
    return parse_definition(json.dumps({"name": "x", "command": COMMAND, **keys}).encode(), "x.yaml")


def runs_of(**keys: Any) -> tuple[Run, ...]:
    return expand(define(**keys)).runs


def cells(expansion: Expansion | tuple[Run, ...], *axes: str) -> list[tuple[Any, ...]]:
    runs = expansion.runs if isinstance(expansion, Expansion) else expansion
    return [tuple(run.axes[axis] for axis in axes) for run in runs]


# The grid


def test_axes_are_crossed_in_their_order_the_last_one_fastest() -> None:
    expansion = expand(define(config={"a": 0, "b": 0}, axes={"a": [2, 1], "b": ["x", "y"]}))
    assert cells(expansion, "a", "b") == [(2, "x"), (2, "y"), (1, "x"), (1, "y")]
    assert expansion.axes == {"a": (2, 1), "b": ("x", "y")}
    assert [run.name for run in expansion.runs] == ["a-2_b-x", "a-2_b-y", "a-1_b-x", "a-1_b-y"]
    assert expansion.runs[1].set == {"a": 2, "b": "y"}


def test_a_definition_without_axes_is_one_run() -> None:
    (run,) = runs_of(config={"lr": 0.1})
    assert (run.name, run.axes, run.set) == ("run", {}, {})


def test_each_form_of_an_axis_sets_its_keys() -> None:
    runs = runs_of(
        config={"seed": 0},
        axes={
            "seed": [7],
            "lr": {"key": "train.lr", "values": [0.1]},
            "size": {"values": {"s": {"model.width": 64, "model.layers": 2}}},
            "targets": {"key": "lora.targets", "values": {"attention": ["q", "v"]}},
        },
    )
    assert runs[0].axes == {"seed": 7, "lr": 0.1, "size": "s", "targets": "attention"}
    assert resolve_config({"seed": 0}, runs[0].set) == {
        "seed": 7,
        "train": {"lr": 0.1},
        "model": {"width": 64, "layers": 2},
        "lora": {"targets": ["q", "v"]},
    }


def test_zipped_axes_go_hand_in_hand_where_the_first_of_them_stands() -> None:
    axes = {"a": [1, 2], "b": ["x", "y"], "c": [10, 20]}
    expansion = expand(define(config={"a": 0, "b": 0, "c": 0}, axes=axes, zip=[["c", "a"]]))
    assert cells(expansion, "a", "c", "b") == [(1, 10, "x"), (1, 10, "y"), (2, 20, "x"), (2, 20, "y")]


def test_settings_are_crossed_with_the_axes_and_stand_before_the_seed() -> None:
    expansion = expand(
        define(
            config={"task": "", "seed": 0},
            axes={"task": ["t", "u"], "seed": [0, 1]},
            settings={"A": {"base": {}}, "B": {"base": {"twr": 1}, "twr2": {"twr": 2}}},
        )
    )
    assert list(expansion.axes) == ["task", "block", "setting", "seed"]
    assert expansion.axes["setting"] == ("base", "twr2")
    assert cells(expansion, "task", "block", "setting", "seed")[:3] == [
        ("t", "A", "base", 0),
        ("t", "A", "base", 1),
        ("t", "B", "base", 0),
    ]
    assert len(expansion.runs) == 2 * 3 * 2


def test_exclude_takes_cells_out_and_include_puts_some_back() -> None:
    expansion = expand(
        define(
            config={"a": 0, "b": 0, "seed": 0},
            axes={"a": [1, 2, 3], "b": [1, 2], "seed": [0, 1]},
            exclude=[{"a": [1, 2], "b": 2}, {"a": 3}],
            include=[{"a": 9, "b": 2}, {"a": 3, "b": 1, "seed": 5}],
        )
    )
    assert cells(expansion, "a", "b", "seed") == [
        *[(1, 1, 0), (1, 1, 1), (2, 1, 0), (2, 1, 1)],
        *[(9, 2, 0), (9, 2, 1), (3, 1, 5)],
    ]
    assert expansion.axes == {"a": (1, 2, 3, 9), "b": (1, 2), "seed": (0, 1, 5)}
    assert expansion.runs[-1].set == {"a": 3, "b": 1, "seed": 5}


def test_an_included_cell_may_pair_zipped_axes_anew_if_it_names_them_all() -> None:
    def included(cell: dict[str, Any]) -> tuple[Any, ...]:
        keys = {"config": {"a": 0, "b": 0}, "axes": {"a": [1, 2], "b": [10, 20]}, "zip": [["a", "b"]]}
        return cells(runs_of(**keys, exclude=[{"a": 2}], include=[cell]), "a", "b")[-1]

    assert included({"a": 2}) == (2, 20)
    assert included({"a": 1, "b": 20}) == (1, 20)
    with pytest.raises(
        DefinitionError, match=r"include\[0\]: a has a new value here and is zipped with b\. Give b too\."
    ):
        included({"a": 3})


def test_an_exclude_that_matches_nothing_is_said() -> None:
    keys = {"config": {"a": 0, "b": 0}, "axes": {"a": [1, 2], "b": [10, 20]}, "zip": [["a", "b"]]}
    assert expand(define(**keys, exclude=[{"a": 1, "b": 20}])).notes == (
        "exclude[0] matches no cell that is still there",
    )


def test_overrides_change_config_and_resources_where_they_match_later_ones_last() -> None:
    runs = runs_of(
        config={"task": "", "train": {"bs": 32, "lr": 1}},
        axes={"task": ["sorting", "grid"], "k": {"values": {"one": {"model": {"w": 1, "d": 2}}}}},
        resources={"mem": "4G", "cpus": 2, "extra": {"nice": 1}},
        overrides=[
            {
                "where": {"task": "sorting"},
                "set": {"train.bs": 16},
                "resources": {"mem": "8G", "extra": {"comment": "c"}},
            },
            {"where": {"task": ["sorting", "grid"]}, "set": {"model.w": 3}},
            {"where": {"task": "sorting"}, "set": {"train.bs": 8, "model": {"w": 9}}, "resources": {"cpus": 4}},
        ],
    )
    sorting, grid = runs
    assert sorting.set == {"task": "sorting", "model": {"w": 9}, "train.bs": 8}
    assert resolve_config({}, grid.set)["model"] == {"w": 3, "d": 2}
    assert (sorting.resources.mem_mb, sorting.resources.cpus, sorting.resources.extra) == (
        8192,
        4,
        {"nice": 1, "comment": "c"},
    )
    assert (grid.resources.mem_mb, grid.resources.cpus, grid.resources.extra) == (4096, 2, {"nice": 1})


def test_conditions_find_a_label_however_its_number_is_written() -> None:
    keys = {"config": {"pv": 0}, "axes": {"pv": [0.0, 0.1], "k": {"values": {"8": {"d": 8}, "16": {"d": 16}}}}}
    assert cells(runs_of(**keys, exclude=[{"pv": 0, "k": 8}, {"pv": "0.1"}]), "pv", "k") == [(0.0, "16")]


# Sampling


def big(count: int, seed: int = 0, **keys: Any) -> dict[str, Any]:
    axes = {axis: {"key": axis, "values": list(range(100))} for axis in "abcdef"}
    return {"axes": axes, "sample": {"count": count, "seed": seed}, **keys}


def test_a_sample_of_a_huge_grid_is_drawn_without_listing_it() -> None:
    expansion = expand(define(**big(50)))
    assert len({run.id for run in expansion.runs}) == 50
    assert expansion.notes == ("sampled 50 of 1,000,000,000,000 cells (seed 0)",)
    assert cells(expansion, *"abcdef") == sorted(cells(expansion, *"abcdef"))


def test_a_larger_sample_keeps_the_runs_of_a_smaller_one() -> None:
    few, many = ({run.id for run in runs_of(**big(count, seed=3))} for count in (20, 40))
    assert few < many
    assert few.isdisjoint(run.id for run in runs_of(**big(20, seed=4)))


def test_a_sample_avoids_what_is_excluded_and_is_uniform() -> None:
    axes = {"a": [0, 1, 2], "b": [0, 1]}
    counts = dict.fromkeys([(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)], 0)
    for seed in range(400):
        keys = {"config": {"a": 0, "b": 0}, "axes": axes, "exclude": [{"a": 1, "b": 1}]}
        (cell,) = cells(runs_of(**keys, sample={"count": 1, "seed": seed}), "a", "b")
        counts[cell] += 1
    assert all(50 < count < 110 for count in counts.values())  # 80 expected, standard deviation 8


def test_a_sample_that_exclude_leaves_too_small_is_refused() -> None:
    keys = {"config": {"a": 0}, "axes": {"a": [0, 1, 2]}, "exclude": [{"a": [0, 1]}]}
    with pytest.raises(DefinitionError, match=r"sample\.count: 2 cells were asked for, and exclude left 1\."):
        runs_of(**keys, sample={"count": 2})


def test_a_sample_as_large_as_the_grid_is_the_grid() -> None:
    keys = {"config": {"a": 0}, "axes": {"a": [0, 1, 2]}}
    assert expand(define(**keys, sample={"count": 3})) == expand(define(**keys))


# Identity

Axes = dict[str, dict[str, Any]]
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


# Configs and templates


def test_resolving_copies_only_what_it_changes() -> None:
    shared = {"train": {"lr": 1, "opt": {"b": 1}}, "model": {"w": 1}, "seed": 0}
    before = json.dumps(shared)
    made = resolve_config(shared, {"train.lr": 2, "train.opt.b": 3, "train.opt.c": 4, "new.deep.key": 5, "seed": 1})
    assert made == {
        "train": {"lr": 2, "opt": {"b": 3, "c": 4}},
        "model": {"w": 1},
        "seed": 1,
        "new": {"deep": {"key": 5}},
    }
    assert json.dumps(shared) == before
    assert made["model"] is shared["model"]


def test_resolving_does_not_write_into_a_value_that_it_set_before() -> None:
    model = {"w": 1}
    assert resolve_config({"model": {"d": 0}}, {"model.d": 5, "model": model, "model.w": 2}) == {"model": {"w": 2}}
    assert model == {"w": 1}


def test_resolving_through_a_value_is_refused() -> None:
    with pytest.raises(UsageError, match=r"config\.a\.b\.c: config\.a\.b is 1, not a mapping"):
        resolve_config({"a": {"b": 1}}, {"a.b.c": 2})


def test_filling_is_done_once_everywhere_and_keeps_literal_braces() -> None:
    values = {"run_dir": "{config}", "needs.base.run_dir": "/b", "x": "}"}
    template = {"{x}": ["{run_dir}/a", "{{run_dir}}", 3, None], "p": "{needs.base.run_dir}{x}{{"}
    assert fill(template, values) == {"{x}": ["{config}/a", "{run_dir}", 3, None], "p": "/b}{"}
    assert placeholders(template) == {"run_dir", "needs.base.run_dir", "x"}


@pytest.mark.parametrize("text", ["{", "a}", "{}", "{ x }", "{x!r}", "{x:3}", "{0}", "{x.}", "{{}"])
def test_what_is_no_placeholder_is_refused(text: str) -> None:
    for read in (placeholders, lambda text: fill(text, {"x": "1"})):
        with pytest.raises(UsageError, match="single"):
            read(text)


def test_an_unknown_placeholder_is_told_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'\{rundir\}': unknown placeholder \{rundir\}\. Did you mean \{run_dir\}\?"):
        fill("{rundir}", {"run_dir": "/r", "config": "/c"})


@given(st.text(st.sampled_from("{}ab.\n$"), max_size=12), st.text(max_size=5))
def test_doubled_braces_carry_any_text(text: str, value: str) -> None:
    doubled = text.replace("{", "{{").replace("}", "}}")
    assert fill(doubled + "{x}", {"x": value}) == text + value


# The shipped sweeps


@pytest.mark.parametrize("path", sorted((ROOT / "collections").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_definition_expands(path: Path) -> None:
    definition = load_definition(path)
    assert definition.name == path.stem
    assert expand(definition).runs


@pytest.mark.parametrize("name", ["pretrained-pv-rmkl", "entangled-ms-m", "sparse-loss-sweep"])
def test_a_shipped_definition_expands_to_its_golden_runs(name: str) -> None:
    """UPDATE_GOLDEN=1 writes what there is now; look at the difference before you commit it."""
    runs = expand(load_definition(ROOT / f"collections/{name}.yaml")).runs
    lines = [json.dumps({**vars_of(run), "resources": run.resources.to_json()}) for run in runs]
    text = "\n".join(lines) + "\n"
    golden = GOLDEN / f"{name}.jsonl"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def vars_of(run: Run) -> dict[str, Any]:
    return {field: getattr(run, field) for field in ("id", "name", "axes", "set", "config_sha256")}


def test_the_sparse_sweep_has_21_settings_on_3_tasks() -> None:
    expansion = expand(load_definition(ROOT / "collections/sparse-loss-sweep.yaml"))
    assert len(expansion.runs) == 63
    assert len({(run.axes["block"], run.axes["setting"]) for run in expansion.runs}) == 21
    twr2 = [run for run in expansion.runs if run.axes["setting"] == "beta0p1_twr2"]
    assert {run.axes["block"] for run in twr2} == {"B_twr_only"}
    assert {run.set["objective.token_weighted_reconstruction_weight"] for run in twr2} == {2.0}


def test_the_pretrained_sweep_has_6_tasks_by_2_by_2() -> None:
    expansion = expand(load_definition(ROOT / "collections/pretrained-pv-rmkl.yaml"))
    assert [len(labels) for labels in expansion.axes.values()] == [6, 2, 2, 1]
    assert len(expansion.runs) == 24
    assert expansion.runs[3].name == "task-list_summation_pv0.1_rmkl0.1_s314159"

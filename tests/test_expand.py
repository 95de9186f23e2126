"""Expansion: which runs a definition makes, with which configs and resources."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from expanding import cells, define, runs_of

from slurmkit.definition.model import load_definition
from slurmkit.errors import DefinitionError
from slurmkit.expand import Run, expand, resolve_config

ROOT = Path(__file__).parents[1]


GOLDEN = ROOT / "tests/golden"


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


Axes = dict[str, dict[str, Any]]


def test_a_swept_key_beside_one_spelt_nearly_so_is_noted() -> None:
    config = {"lr": 0.1, "train": {"steps": 10}, "seed": 0}
    axes = {
        "lr": {"key": "lrr", "values": [0.1, 0.2]},
        "steps": {"key": "train.step", "values": [1, 2]},
        "seed": [1, 2],
    }
    assert expand(define(config=config, axes=axes)).notes == (
        "lrr is not in config, which has lr: runs get both. Is one of them misspelt?",
        "train.step is not in config, which has train.steps: runs get both. Is one of them misspelt?",
    )
    fine = {"lr": [0.1, 0.2], "width": {"key": "model.width", "values": [1, 2]}, "seed": [1, 2]}
    assert expand(define(config=config, axes=fine)).notes == ()


# The shipped sweeps


@pytest.mark.parametrize("path", sorted((ROOT / "collections").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_definition_expands(path: Path) -> None:
    definition = load_definition(path)
    assert definition.name == path.stem
    expansion = expand(definition)
    assert expansion.runs
    assert expansion.notes == ()


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

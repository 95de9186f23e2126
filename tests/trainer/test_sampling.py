"""Records drawn for a task: their splits, streams, strategies and ranges."""

import random
import re
from collections import Counter

import pytest

from trainer.tasks import TASKS, Record, Split, TaskError, attribute, sample_records, split_of

SETTINGS = [(name, preset) for name, task in TASKS.items() for preset in task.presets]

GOLDEN_SPLITS = {"20>64": "train", "00>22": "train", "45>99": "validation", "33>55": "test"}
GOLDEN_RECORDS = [
    Record(x="6,7,7,3", y="6+7=13;13+7=20;20+3=23#23", strategy="left-to-right"),
    Record(x="7,5,5,1", y="7+5=12;5+1=6;12+6=18#18", strategy="pairwise"),
    Record(x="7,5,2,1", y="1+2=3;3+5=8;8+7=15#15", strategy="right-to-left"),
]


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("base_conversion", 224),
        ("linear_equation_solving", 540),
        ("grid_pathfinding", 676),
        ("list_summation", 6561),
        ("multidigit_addition", 8100),
        ("sorting_algorithms", 30240),
    ],
)
def test_the_demo_ranges_hold_as_many_inputs_as_documented_and_a_tenth_is_test(name: str, inputs: int):
    task, rng = TASKS[name], random.Random(7)
    draws = min(30 * inputs, 60_000)
    found = {task.render_x(task.sample(rng, {})) for _ in range(draws)}
    assert len(found) <= inputs
    assert len(found) == pytest.approx(inputs * (1 - (1 - 1 / inputs) ** draws), rel=0.005)  # as of a uniform draw
    splits = Counter(split_of(name, x) for x in found)
    for split in ("test", "validation"):
        assert splits[split] / len(found) == pytest.approx(0.1, abs=4 * (0.09 / len(found)) ** 0.5)


def test_splits_and_streams_are_the_same_on_every_machine():
    assert [split_of("grid_pathfinding", x) for x in GOLDEN_SPLITS] == list(GOLDEN_SPLITS.values())
    records = sample_records(TASKS["list_summation"], {}, 3, seed=0, split="train", purpose="golden")
    assert records == GOLDEN_RECORDS


@pytest.mark.parametrize(("name", "preset"), SETTINGS)
def test_held_out_records_are_of_their_split_only_and_true_to_their_strategy(name: str, preset: str):
    task = TASKS[name]
    for split in ("train", "validation", "test"):
        records = sample_records(task, task.presets[preset], 200, seed=1, split=split, purpose="eval")
        assert len(records) == 200
        for record in records:
            assert split_of(name, record.x) == split
            assert record.strategy in attribute(task, record.x, record.y).strategies
        assert {record.strategy for record in records} == set(task.strategies)


def test_overlapping_records_come_from_all_inputs():
    records = sample_records(TASKS["base_conversion"], {}, 500, seed=0, split="test", purpose="eval", policy="overlap")
    assert {split_of("base_conversion", record.x) for record in records} == {"train", "validation", "test"}


def test_a_stream_belongs_to_seed_split_and_purpose_and_a_longer_one_begins_with_a_shorter():
    def draw(n: int = 20, *, seed: int = 0, split: Split = "train", purpose: str = "pool") -> list[Record]:
        task = TASKS["sorting_algorithms"]
        return sample_records(task, {}, n, seed=seed, split=split, purpose=purpose, policy="overlap")

    assert draw(50)[:20] == draw()
    streams = [draw(), draw(seed=1), draw(split="test"), draw(purpose="eval")]
    assert len({tuple(records) for records in streams}) == 4


def test_a_mix_weighs_the_strategies():
    task, mix = TASKS["grid_pathfinding"], {"down-first": 3, "right-first": 1.0, "alternating": 0}
    records = sample_records(task, {}, 4000, seed=0, split="train", purpose="mix", mix=mix)
    counts = Counter(record.strategy for record in records)
    assert set(counts) == {"right-first", "down-first"}
    assert counts["down-first"] / 4000 == pytest.approx(0.75, abs=0.03)
    reordered = dict(reversed(mix.items()))
    assert records == sample_records(task, {}, 4000, seed=0, split="train", purpose="mix", mix=reordered)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mix": {"up-first": 1}}, "task.strategy_mix: there is no 'up-first'. Did you mean"),
        ({"mix": {"down-first": -1}}, "task.strategy_mix.down-first: expected a weight of 0 or more, got -1"),
        ({"mix": {"down-first": float("nan")}}, "got nan"),
        ({"mix": {"down-first": 0}}, "task.strategy_mix: the weights add up to 0:"),
        ({"mix": {}}, "task.strategy_mix: the weights add up to 0:"),
        ({"split": "tests"}, "split: there is no 'tests'. Did you mean test?"),
        ({"policy": "held-out"}, "task.split_policy: there is no 'held-out'. Did you mean heldout?"),
        ({"params": {"offset_max": 1, "offset_min": 1, "rows": 2}}, "task.params.rows"),
    ],
)
def test_a_request_that_cannot_be_met_names_key_value_and_choice(arguments: dict, message: str):
    request = {"params": {}, "split": "train", "seed": 0, "purpose": "p"} | arguments
    params = request.pop("params")
    with pytest.raises(TaskError, match=re.escape(message)):
        sample_records(TASKS["grid_pathfinding"], params, 1, **request)


def test_ranges_with_no_input_in_a_split_are_an_error_and_no_endless_search():
    with pytest.raises(TaskError, match=r"none of 2000 inputs .* 'test'.* set task.split_policy to overlap"):
        sample_records(
            TASKS["base_conversion"], {"value_min": 16, "value_max": 17}, 1, seed=0, split="test", purpose="p"
        )

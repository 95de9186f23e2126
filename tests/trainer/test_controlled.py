"""Metrics of controlled latents, on oracles whose scores follow from a formula."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluation.controlled import (
    Outcomes,
    alignment_ceiling,
    alignment_one_to_one,
    attributable,
    controlled_metrics,
    one_to_one,
)
from trainer.tasks import TASKS, Attribution, attribute, sample_records

SETTINGS = [
    ("grid_pathfinding", "mar19"),
    ("sorting_algorithms", "mar19"),
    ("multidigit_addition", "demo"),
]
NAMES = ("z1", "z2", "z3", "z4", "z5", "z6", "z7", "z8")


def inputs(task: str, preset: str, n: int = 400) -> list[str]:
    records = sample_records(
        TASKS[task], TASKS[task].presets[preset], n, seed=1, split="test", purpose="t", policy="overlap"
    )
    return [record.x for record in records]


def outcomes(task_name: str, xs: Sequence[str], choices: Sequence[Sequence[str]]) -> Outcomes:
    """Return what comes out where the K latents write the given strategies, one row of `choices` an input."""
    task = TASKS[task_name]
    verdicts = [
        [attribute(task, x, task.render(task.parse_x(x), strategy)) for strategy in row]
        for x, row in zip(xs, choices, strict=True)
    ]
    numbers = {x: number for number, x in enumerate(dict.fromkeys(xs))}
    return Outcomes.of(verdicts, NAMES[: len(choices[0])], task.strategies, [numbers[x] for x in xs])


def measured(task: str, xs: Sequence[str], result: Outcomes) -> dict:
    return controlled_metrics("c", result, attributable(task, xs), seed=0)


@pytest.mark.parametrize(("task", "preset"), SETTINGS)
def test_collapsed_latents_score_by_the_closed_forms(task: str, preset: str):
    """With a the share of ambiguous outputs: alignment (1 - a) / K, coverage (1 + a) / S (pairs write the same)."""
    xs, rng = inputs(task, preset), np.random.default_rng(0)
    strategies = TASKS[task].strategies
    result = outcomes(task, xs, [[str(rng.choice(strategies))] * len(strategies) for _ in xs])
    metrics = measured(task, xs, result)
    a = float((result.written[:, 0].sum(1) > 1).mean())
    assert (a > 0) == (preset == "mar19")
    assert metrics["c/alignment_one_to_one"] == pytest.approx((1 - a) / len(strategies))
    assert metrics["c/alignment_shuffled"] == pytest.approx((1 - a) / len(strategies))
    assert metrics["c/local_strategy_coverage_mean"] == pytest.approx((1 + a) / len(strategies))
    assert metrics["c/local_strategy_full_coverage_rate"] == 0
    assert metrics["c/mean_overall_final_answer_accuracy"] == 1


@pytest.mark.parametrize(("task", "preset"), SETTINGS)
def test_perfect_latents_reach_the_ceiling_and_cover_everything(task: str, preset: str):
    xs = inputs(task, preset)
    strategies = TASKS[task].strategies
    order = strategies[1:] + strategies[:1]  # the names of the latents mean nothing
    metrics = measured(task, xs, outcomes(task, xs, [order] * len(xs)))
    assert metrics["c/alignment_one_to_one"] == pytest.approx(metrics["c/alignment_ceiling"])
    assert metrics["c/local_strategy_coverage_mean"] == 1
    assert metrics["c/local_strategy_full_coverage_rate"] == 1
    assert metrics["c/alignment_shuffled"] < metrics["c/alignment_one_to_one"] - 0.3
    assert [metrics[f"c/matched/{name}"] for name in NAMES[: len(order)]] == list(order)
    if task == "multidigit_addition":  # nothing is ambiguous
        assert metrics["c/alignment_ceiling"] == 1
        assert metrics["c/confusion/z1/left-to-right-partials"] == 1


def test_latents_that_mean_another_strategy_for_each_input_cover_all_and_align_with_none():
    xs, rng = inputs("multidigit_addition", "demo", 2000), np.random.default_rng(0)
    strategies = TASKS["multidigit_addition"].strategies
    metrics = measured(
        "multidigit_addition",
        xs,
        outcomes("multidigit_addition", xs, [rng.permutation(strategies).tolist() for _ in xs]),
    )
    assert metrics["c/local_strategy_full_coverage_rate"] == 1
    assert metrics["c/alignment_one_to_one"] == pytest.approx(metrics["c/alignment_shuffled"], abs=0.03)
    assert metrics["c/alignment_one_to_one_ci95_low"] < 0.37


@pytest.mark.parametrize(("latents", "expected"), [(2, 1.0), (3, 1.0), (5, 3 / 5)])
def test_with_another_number_of_latents_than_strategies_the_best_is_all_that_can_be_matched(
    latents: int, expected: float
):
    xs = inputs("multidigit_addition", "demo", 50)
    strategies = TASKS["multidigit_addition"].strategies
    row = [strategies[k % 3] for k in range(latents)]
    metrics = measured("multidigit_addition", xs, outcomes("multidigit_addition", xs, [row] * len(xs)))
    assert metrics["c/alignment_one_to_one"] == pytest.approx(expected)
    assert metrics["c/alignment_ceiling"] == pytest.approx(expected)
    assert [metrics[f"c/matched/{name}"] == "none" for name in NAMES[:latents]].count(True) == max(latents - 3, 0)


def test_the_ceiling_on_the_small_grid_is_seven_ninths():
    """Offsets 1 to 3: a third of the inputs goes one column right, where two of three strategies are the same."""
    rows = np.array([[True, True, True]] * 6 + [[False, True, False]] * 3)
    assert alignment_ceiling(rows, 3) == pytest.approx(7 / 9)
    xs = inputs("grid_pathfinding", "mar19", 3000)
    assert alignment_ceiling(attributable("grid_pathfinding", xs), 3) == pytest.approx(7 / 9, abs=0.03)


@given(st.integers(1, 4), st.integers(1, 5), st.data())
def test_the_matching_is_the_best_of_all(latents: int, strategies: int, data: st.DataObject):
    row = st.lists(st.integers(0, 9), min_size=strategies, max_size=strategies)
    counts = np.array(data.draw(st.lists(row, min_size=latents, max_size=latents)))
    small, large = (counts, counts.T) if latents <= strategies else (counts.T, counts)
    best = max(sum(small[i, j] for i, j in enumerate(p)) for p in permutations(range(large.shape[0]), len(small)))
    total, matched = one_to_one(counts)
    assert total == best
    assert sum(counts[k, s] for k, s in matched.items()) == best
    assert len(set(matched.values())) == len(matched) == len(small)


def test_invalid_and_ambiguous_outputs_explain_nothing_and_a_broken_latent_is_counted():
    valid = Attribution(parse_ok=True, answer_ok=True, strategies=frozenset({"pairwise"}))
    both = Attribution(parse_ok=True, answer_ok=True, strategies=frozenset({"left-to-right", "right-to-left"}))
    invalid = Attribution(parse_ok=False, answer_ok=False, strategies=frozenset())
    rows = [[valid, both, invalid]] * 3 + [[valid, both, both]]
    result = Outcomes.of(rows, NAMES[:3], TASKS["list_summation"].strategies, range(4))
    metrics = controlled_metrics("c", result, np.ones((4, 3), dtype=bool), seed=0)
    assert metrics["c/alignment_one_to_one"] == pytest.approx(1 / 3)
    assert metrics["c/local_strategy_full_coverage_rate"] == 1
    assert metrics["c/mean_overall_final_answer_accuracy"] == pytest.approx(9 / 12)
    assert (metrics["c/valid_share/z3"], metrics["c/valid_share_min"], metrics["c/broken_latents"]) == (0.25, 0.25, 1)
    assert metrics["c/confusion/z2/ambiguous"] == 1
    assert metrics["c/confusion/z3/invalid"] == 0.75
    assert metrics["c/strategy_count/pairwise"] == 4
    for latent in NAMES[:3]:
        assert sum(v for key, v in metrics.items() if key.startswith(f"c/confusion/{latent}/")) == pytest.approx(1)


def test_the_interval_holds_the_alignment_and_copies_of_an_input_do_not_narrow_it():
    xs, rng = inputs("multidigit_addition", "demo", 60), np.random.default_rng(3)
    strategies = TASKS["multidigit_addition"].strategies
    choices = [list(strategies) if rng.random() < 0.5 else [strategies[0]] * 3 for _ in xs]
    once = measured("multidigit_addition", xs, outcomes("multidigit_addition", xs, choices))
    often = measured("multidigit_addition", xs * 10, outcomes("multidigit_addition", xs * 10, choices * 10))
    for metrics in (once, often):
        low, high = metrics["c/alignment_one_to_one_ci95_low"], metrics["c/alignment_one_to_one_ci95_high"]
        assert low < metrics["c/alignment_one_to_one"] < high
        assert 0.05 < high - low < 0.25
    for key in ("c/alignment_one_to_one", "c/alignment_one_to_one_ci95_low"):
        assert often[key] == pytest.approx(once[key])
    assert (often["c/n"], often["c/distinct_inputs"]) == (600, once["c/distinct_inputs"])


def test_a_suffix_marks_the_other_decoding_and_leaves_the_tables_out():
    xs = inputs("multidigit_addition", "demo", 20)
    result = outcomes("multidigit_addition", xs, [list(TASKS["multidigit_addition"].strategies)] * 20)
    metrics = controlled_metrics("c", result, attributable("multidigit_addition", xs), seed=0, suffix="_sampled")
    assert all("_sampled" in key for key in metrics)
    assert alignment_one_to_one(result.unique) == metrics["c/alignment_one_to_one_sampled"]

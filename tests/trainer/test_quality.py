"""Shares of good answers, and whether a base has learnt its task or its inputs."""

import math

import pytest

from trainer.evaluation.quality import answer_quality, generalisation
from trainer.tasks import TASKS, attribute

X = "20>64"
RIGHT_FIRST = "R21R22R23R24D34D44D54D64#64"
STRATEGIES = TASKS["grid_pathfinding"].strategies


def test_what_fails_first_is_counted_once_and_all_adds_up():
    outputs = [
        RIGHT_FIRST,
        RIGHT_FIRST,
        "D30D40D50D60R61R62R63R64#64",
        "D30R31R32R33R34D44D54D64#64",  # a right path that no strategy takes
        RIGHT_FIRST[:-1] + "5",  # wrong answer, so no strategy's output either
        "R21R22",
        "",
    ]
    metrics = answer_quality("t", [attribute(TASKS["grid_pathfinding"], X, y) for y in outputs], STRATEGIES)
    assert metrics["t/n"] == 7
    assert metrics["t/parse_success_rate"] == pytest.approx(5 / 7)
    assert metrics["t/final_answer_accuracy"] == pytest.approx(4 / 7)
    assert metrics["t/trace_validity_rate"] == pytest.approx(3 / 7)
    assert metrics["t/final_answer_accuracy_standard_error"] == pytest.approx(math.sqrt(4 / 7 * 3 / 7 / 7))
    errors = [metrics[f"t/error_share/{kind}"] for kind in ("unparsable", "wrong_answer", "invalid_trace")]
    assert errors == pytest.approx([2 / 7, 1 / 7, 1 / 7])
    counts = {strategy: metrics[f"t/strategy_count/{strategy}"] for strategy in STRATEGIES}
    assert counts == {"right-first": 2, "down-first": 1, "alternating": 0}


def generalised(tested: range, trained: range, test_accuracy: float, seen_accuracy: float) -> dict:
    return generalisation(
        "t",
        tested=[[i] for i in tested],
        trained=[[i] for i in trained],
        test_accuracy=test_accuracy,
        seen_accuracy=seen_accuracy,
    )


def test_a_gap_between_seen_and_held_out_inputs_is_memorising():
    metrics = generalised(range(100), range(100, 1000), 0.635, 0.995)
    assert (metrics["t/memorised"], metrics["t/generalisation_gap"]) == (True, pytest.approx(0.36))
    assert (metrics["t/seen_share"], metrics["t/distinct_trained_inputs"]) == (0, 900)
    assert generalised(range(100), range(100, 1000), 0.97, 0.99)["t/memorised"] is False


def test_a_gap_that_few_inputs_cannot_prove_is_none():
    """Ten distinct inputs at 0.8: the standard error is 0.13, so 0.15 more on seen ones may be chance."""
    assert generalised(range(10), range(10, 1000), 0.8, 0.95)["t/memorised"] is False
    assert generalised(range(1000), range(1000, 9000), 0.8, 0.95)["t/memorised"] is True


def test_inputs_that_were_trained_on_measure_no_generalisation_and_it_is_said():
    metrics = generalised(range(100), range(50, 1000), 0.99, 0.99)
    assert metrics["t/seen_share"] == 0.5
    for name in ("memorised", "generalisation_gap"):
        assert metrics[f"t/{name}"] is None
        assert "50.0% of the test inputs were trained on" in str(metrics[f"t/{name}__reason"])

"""Weights over the steps: numbers, points, and what is neither."""

from typing import Any

import pytest
from pydantic import ValidationError

from trainer.config import ObjectiveConfig
from trainer.weights import TERMS, Part, first_step_above_0, part_of, weight_at, weights_at


def beta(value: Any) -> Any:
    return ObjectiveConfig.model_validate({"beta": value}).beta


def test_a_number_is_a_weight_and_stays_one_in_a_record() -> None:
    assert beta(1) == 1.0
    assert isinstance(beta(1), float)
    assert ObjectiveConfig(beta=0.3).model_dump(mode="json")["beta"] == 0.3
    assert ObjectiveConfig.model_validate({"beta": [[0, 0], [60, 0.1]]}).model_dump(mode="json")["beta"] == [
        [0, 0.0],
        [60, 0.1],
    ]


@pytest.mark.parametrize(
    "value",
    [
        "0.1",
        True,
        None,
        -0.1,
        float("nan"),
        float("inf"),
        [],
        [0.1],
        [[0, 0.1], [0, 0.2]],
        [[5, 0.1], [2, 0.2]],
        [[0, -1.0]],
        [[0.5, 1.0]],
        [[-1, 1.0]],
        [[0, 0.1, 0.2]],
        {"start": 0.1},
    ],
)
def test_what_is_no_weight_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError, match=r"should be a number of 0 or more|should hold"):
        beta(value)


def test_points_are_joined_by_lines_and_hold_at_both_ends() -> None:
    points = ((10, 0.0), (20, 1.0), (40, 0.5))
    values = [weight_at(points, step) for step in (1, 10, 15, 20, 30, 40, 1000)]
    assert values == pytest.approx([0.0, 0.0, 0.5, 1.0, 0.75, 0.5, 0.5])


@pytest.mark.parametrize(
    ("weight", "first"),
    [
        (0.0, None),
        (0.2, 1),
        (((0, 0.0),), None),
        (((0, 0.0), (60, 0.1)), 1),
        (((50, 0.0), (60, 0.1)), 51),
        (((0, 0.3), (1, 0.0)), None),  # steps count from 1
        (((1, 0.3), (2, 0.0)), 1),
        (((7, 0.1),), 1),
    ],
)
def test_the_first_step_with_a_weight_is_the_one_that_trying_all_steps_finds(weight: Any, first: int | None) -> None:
    assert first_step_above_0(weight) == first
    tried = next((step for step in range(1, 100) if weight_at(weight, step) > 0), None)
    assert tried == first


def test_each_kind_of_latent_has_its_terms_and_every_weight_of_the_config_belongs_to_one() -> None:
    continuous = weights_at(ObjectiveConfig(), "continuous", 1).keys()
    discrete = weights_at(ObjectiveConfig(), "discrete", 1).keys()
    assert continuous - discrete == {"posterior_variance"}
    assert discrete - continuous == {"posterior_entropy", "router_support", "inter_latent_divergence"}
    keys = {name for name in ObjectiveConfig.model_fields if name == "beta" or name.endswith("_weight")}
    assert keys == {term.key for term in TERMS.values() if term.key}


def test_kl_warmup_multiplies_what_beta_is_at_the_step() -> None:
    config = ObjectiveConfig.model_validate({"beta": [[0, 0.2], [10, 0.4]], "kl_warmup_steps": 10})
    assert weights_at(config, "discrete", 5)["kl"] == pytest.approx(0.5 * 0.3)
    assert weights_at(config, "discrete", 20)["kl"] == pytest.approx(0.4)


def test_parameters_are_told_apart_by_name() -> None:
    names = {
        "generator.model.layers.0.self_attn.q_proj.weight": Part.GENERATOR,
        "generator.base_model.model.layers.0.q_proj.lora_A.generator.weight": Part.GENERATOR,
        "generator.base_model.model.layers.0.q_proj.lora_A.posterior.weight": Part.POSTERIOR,
        "posterior.layers.0.mlp.up_proj.weight": Part.POSTERIOR,
        "posterior_head.bias": Part.POSTERIOR_HEAD,
        "router_head.weight": Part.ROUTER_HEAD,
        "injection.weight": Part.INJECTION,
    }
    assert {name: part_of(name) for name in names} == names

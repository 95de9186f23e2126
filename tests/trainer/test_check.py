"""What `check` refuses, what it calls inactive, and that it is quick."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import BASE, disentangle

from trainer.backbone import load_backbone
from trainer.check import check_line, inactive, validate
from trainer.config import Config
from trainer.pool import describe, load_pool, valid_pairs


def problems(raw: dict[str, Any]) -> str:
    return "\n".join(validate(raw)[0])


def test_good_configurations_pass() -> None:
    assert check_line(json.dumps(BASE)) == {"errors": [], "inactive": []}
    assert check_line(json.dumps(disentangle("x"))) == {"errors": [], "inactive": []}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": {"betta": 0.1}}, "objective.betta: unknown key. Did you mean beta?"),
        (
            {"objective": {"beta": "0.1"}},
            "objective.beta: should be a number of 0 or more, or points [[step, weight], ...], got '0.1'.",
        ),
        ({"objective": {"beta": -1.0}}, "objective.beta: "),
        ({"objective": {"beta": float("nan")}}, "objective.beta: "),
        ({"train": {"steps": True}}, "train.steps: "),
        ({"train": {"epochs": 2}}, "train.epochs: is 2, but train.steps is given too."),
        ({"train": {"steps": None}}, "train.steps: missing."),
        (
            {"train": {"steps": None, "epochs": 2, "max_sequences_per_epoch": 7}},
            "train.max_sequences_per_epoch: is 7, less than a batch of 8.",
        ),
        ({"objective": {"beta": 10**400}}, "objective.beta: should be a number of 0 or more"),
        ({"model": {"size": ["s", "m"]}}, "model.size: should be 's', 'm' or 'l', got ['s', 'm']."),
        ({"task": {"name": "grid_pathfindin"}}, "Did you mean grid_pathfinding?"),
        ({"task": {"params": {"size": 3}}}, "task.params.size: "),
        ({"task": {"strategy_mix": {"right-first": 0.0}}}, "task.strategy_mix: the weights add up to 0, "),
        (
            {"task": {"strategy_mix": {"right-first": 1e308, "alternating": 1e308}}},
            "task.strategy_mix: the weights add up to inf, ",
        ),
        ({"task": {"strategy_mix": {"right": 1.0}}}, "Did you mean right-first?"),
        ({"objective": {"beta": [[9, 0.1], [2, 0.0]]}}, "objective.beta: should hold at least one point"),
        ({"objective": {"beta": [[8, 0.0], [20, 0.1]]}}, "above 0 from step 9 on, but the run ends at step 8"),
        ({"latent": {"kind": "discrete"}}, "latent.count: missing."),
        ({"latent": {"kind": "discrete", "count": 9}}, "latent.count: should be less than or equal to 8, got 9."),
        (
            {"latent": {"kind": "discrete", "count": 3}},
            "posterior_variance_weight: is 0.1, but a discrete latent has no",
        ),
        ({"objective": {"router_support_weight": 0.1}}, "a continuous latent has no such term"),
        ({"objective": {"posterior_entropy_weight": [[0, 0], [4, 1]]}}, "is [[0, 0.0], [4, 1.0]], but a continuous"),
        (
            {"objective": {"token_weighted_mode": "replace"}},
            "token_weighted_reconstruction_weight is 0. Give it a weight",
        ),
        ({"adaptation": {"kind": "lora"}, "train": {"optimizer": "muon"}}, "kind lora leaves none to train"),
        ({"adaptation": {"kind": "head_only"}, "train": {"optimizer": "muon"}}, "kind head_only leaves none to train"),
        ({"adaptation": {"kind": "lora", "targets": []}}, "adaptation.targets: "),
        ({"data": {"refresh_every": 8}}, "data.refresh_every: is 8, but the run ends at step 8: pairs would never be"),
        ({"base": {"pth": "x"}}, "base.pth: unknown key. Did you mean path?"),
    ],
)
def test_mistakes_are_named_with_key_and_value(changes: dict[str, Any], message: str) -> None:
    raw = disentangle(**{"base": "x", **changes})
    assert message in problems(raw)


def test_a_run_that_disentangles_needs_a_base() -> None:
    raw = disentangle("x")
    del raw["base"]
    assert "base.path: missing." in problems(raw)


def test_all_problems_come_at_once() -> None:
    raw = disentangle("x", objective={"router_support_weight": 1.0}, task={"name": "none"}, train={"epochs": 1})
    assert len(validate(raw)[0]) == 3


def test_base_mode_refuses_terms_and_calls_the_rest_inactive() -> None:
    assert "a base run has no such term" in problems({**BASE, "objective": {"posterior_variance_weight": 0.1}})
    config = Config.model_validate({**BASE, "latent": {"dim": 4}, "objective": {"posterior_variance_weight": 0.0}})
    assert inactive(config) == ["latent.dim", "objective.posterior_variance_weight"]


def test_a_base_leaves_the_pool_that_its_source_says(tmp_path: Path, run_trainer: Callable[..., int]) -> None:
    """So the key is not inactive: the pool's answers are the strategies', also where the base cannot write them yet."""
    raw = {**BASE, "data": {"records": 40, "source": "groundtruth"}, "train": {"steps": 1, "batch_size": 4}}
    assert check_line(json.dumps(raw)) == {"errors": [], "inactive": []}
    assert run_trainer(raw, tmp_path) == 0
    config = Config.model_validate(raw)
    backbone = load_backbone(str(tmp_path / "checkpoint"), seed=0)
    pool = load_pool(tmp_path / "checkpoint", describe(config, backbone.sha256))
    assert pool is not None
    pairs = pool.pairs["train"]
    assert len(valid_pairs(pairs, backbone.tokenizer, "grid_pathfinding")) == len(pairs)


def test_what_only_one_of_two_settings_decides_is_inactive() -> None:
    seeds = {"data": 1, "model": 2}
    assert inactive_of(seeds=seeds) == []
    assert inactive_of(seeds={**seeds, "sampling": 3}) == ["seed"]
    for raw in (BASE, disentangle("x")):
        given = {**raw, "data": {"source": "groundtruth"}, "pool": {"temperature": 0.7}}
        assert check_line(json.dumps(given)) == {"errors": [], "inactive": ["pool.temperature"]}


def test_keys_without_effect_are_inactive() -> None:
    raw = disentangle(
        "x",
        adaptation={"kind": "full", "rank": 4},
        model={"width": 128},
        objective={"router_support_weight": 0.0, "beta": 0.0, "kl_warmup_steps": 10},
    )
    assert check_line(json.dumps(raw)) == {
        "errors": [],
        "inactive": ["adaptation.rank", "model.width", "objective.kl_warmup_steps", "objective.router_support_weight"],
    }


def inactive_of(**changes: Any) -> list[str]:
    raw = disentangle("x", **changes)
    answer = check_line(json.dumps(raw))
    assert answer["errors"] == []
    return answer["inactive"]


def test_keys_of_the_other_kind_of_latent_are_inactive() -> None:
    off = {"posterior_variance_weight": 0.0, "router_marginal_kl_to_prior_weight": 1.0}
    assert inactive_of(latent={"kind": "discrete", "count": 3, "dim": 8, "samples": 2}, objective=off) == [
        "latent.dim",
        "latent.samples",
        "objective.posterior_variance_weight",
    ]
    weights = {"posterior_entropy_weight": 0.0, "inter_latent_divergence_positions": "weighted"}
    assert inactive_of(latent={"count": 3}, objective=weights) == [
        "latent.count",
        "objective.inter_latent_divergence_positions",
        "objective.posterior_entropy_weight",
    ]


def test_settings_of_terms_without_weight_are_inactive() -> None:
    gamma, steps = "objective.token_weighted_gamma", "objective.curriculum_steps"
    assert inactive_of(objective={"token_weighted_gamma": 2.0, "curriculum_steps": 5}) == [steps, gamma]
    on = {"token_weighted_reconstruction_weight": 1.0, "token_weighted_gamma": 2.0, "curriculum_steps": 5}
    assert inactive_of(objective=on) == [steps]
    assert inactive_of(objective={**on, "token_weighted_mode": "curriculum"}) == []
    replaced = {"token_weighted_reconstruction_weight": 1.0, "token_weighted_mode": "replace"}
    assert inactive_of(objective={**replaced, "baseline_normalized": True}) == ["objective.baseline_normalized"]
    divergence = {
        "posterior_variance_weight": 0.0,
        "inter_latent_divergence_weight": 0.1,
        "inter_latent_divergence_positions": "weighted",
        "token_weighted_gamma": 2.0,
    }
    discrete = {"kind": "discrete", "count": 3}
    assert inactive_of(latent=discrete, objective=divergence) == ["objective.posterior_variance_weight"]
    divergence["inter_latent_divergence_positions"] = "all"
    assert gamma in inactive_of(latent=discrete, objective=divergence)


def test_rates_of_a_backbone_that_is_not_trained_are_inactive() -> None:
    found = inactive_of(adaptation={"kind": "head_only"}, train={"posterior_lr_scale": 0.5})
    assert found == ["train.lr", "train.posterior_lr_scale"]


def test_what_is_no_configuration_is_refused_in_one_line() -> None:
    for line in ("{", "[]", "3", "null", '{"mode": "bse"}', "[" * 100_000):
        answer = check_line(line)
        assert answer["errors"]
        assert all("\n" not in error for error in answer["errors"])


def test_hundreds_of_configurations_are_checked_at_once_without_torch() -> None:
    """One process answers 400 lines in order, by some tenths of a second of computing."""
    lines = [json.dumps(disentangle("x", seed=seed, objective={"beta": 0.1 if seed else -1.0})) for seed in range(400)]
    program = (
        "import sys, time, trainer.__main__ as m; m.check(); "
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules); print(time.process_time(), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 400
    assert answers[0]["errors"]
    assert not any(answer["errors"] for answer in answers[1:])
    assert float(done.stderr) < 10

"""What `check` refuses, what it calls inactive, and that it is quick."""

import json
import subprocess
import sys
import time
from typing import Any

import pytest
from tiny_runs import BASE, disentangle

from trainer.check import check_line, inactive, validate
from trainer.config import Config


def problems(raw: dict[str, Any]) -> str:
    return "\n".join(validate(raw)[0])


def test_good_configurations_pass() -> None:
    assert check_line(json.dumps(BASE)) == {"errors": [], "inactive": []}
    assert check_line(json.dumps(disentangle("x"))) == {"errors": [], "inactive": []}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": {"betta": 0.1}}, "objective.betta: unknown key. Did you mean beta?"),
        ({"objective": {"beta": "0.1"}}, "objective.beta: should be a valid number, got '0.1'."),
        ({"objective": {"beta": -1.0}}, "objective.beta: "),
        ({"objective": {"beta": float("nan")}}, "objective.beta: "),
        ({"train": {"steps": True}}, "train.steps: "),
        ({"train": {"epochs": 2}}, "train.epochs: is 2, but train.steps is given too."),
        ({"train": {"steps": None}}, "train.steps: missing."),
        ({"task": {"name": "grid_pathfindin"}}, "Did you mean grid_pathfinding?"),
        ({"task": {"params": {"size": 3}}}, "task.params.size: "),
        ({"task": {"strategy_mix": {"right": 1.0}}}, "Did you mean right-first?"),
        ({"latent": {"kind": "discrete"}}, "latent.kind: "),
        ({"objective": {"router_support_weight": 0.1}}, "a continuous latent has no such term"),
        ({"objective": {"token_weighted_reconstruction_weight": 2.0}}, "does not compute that term"),
        ({"adaptation": {"kind": "lora"}, "train": {"optimizer": "muon"}}, "LoRA leaves none to train"),
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


def test_what_is_no_configuration_is_refused_in_one_line() -> None:
    for line in ("{", "[]", "3", "null", '{"mode": "bse"}'):
        answer = check_line(line)
        assert answer["errors"]
        assert all("\n" not in error for error in answer["errors"])


def test_hundreds_of_configurations_are_checked_at_once_without_torch() -> None:
    """One process answers 400 lines in order, in well under the time that importing torch takes."""
    lines = [json.dumps(disentangle("x", seed=seed, objective={"beta": 0.1 if seed else -1.0})) for seed in range(400)]
    program = (
        "import sys, trainer.__main__ as m; m.check(); assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 400
    assert answers[0]["errors"]
    assert not any(answer["errors"] for answer in answers[1:])
    assert time.monotonic() - started < 10

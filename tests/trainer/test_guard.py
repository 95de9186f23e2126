"""Terms that do nothing end the run, each named with its key."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_runs import disentangle, parsed
from torch import nn

from trainer.errors import TrainerError
from trainer.guard import PATIENCE_STEPS, TermGuard, require_applied
from trainer.objective import Objective

Run = Callable[..., int]


@pytest.fixture
def parameters() -> dict[str, nn.Parameter]:
    names = ("generator.layer", "posterior.layer", "posterior_head.weight", "router_head.weight", "injection.weight")
    return {name: nn.Parameter(torch.ones(2)) for name in names}


def objective(value: torch.Tensor) -> Objective:
    return Objective(value, {}, {"kl": value})


def everything(parameters: dict[str, nn.Parameter], factor: float = 1.0) -> torch.Tensor:
    return factor * torch.stack([p.sum() for p in parameters.values()]).sum()


def test_a_term_that_reaches_all_its_parts_is_let_through(parameters: dict[str, nn.Parameter]) -> None:
    guard = TermGuard(parameters)
    for _ in range(PATIENCE_STEPS + 1):
        guard.look(objective(everything(parameters)), {"kl": 0.1})


@pytest.mark.parametrize("frozen", ["posterior.layer", "router_head.weight"])
def test_a_part_without_gradient_is_named_after_five_steps(parameters: dict[str, nn.Parameter], frozen: str) -> None:
    reached = {name: p for name, p in parameters.items() if name != frozen}
    guard, value = TermGuard(parameters), everything(reached)
    for _ in range(PATIENCE_STEPS - 1):
        guard.look(objective(value), {"kl": 0.1})
    part = frozen.split(".")[0]
    with pytest.raises(TrainerError, match=f"objective.beta: .* the term kl gave no gradient to: {part}"):
        guard.look(objective(value), {"kl": 0.1})


def test_a_gradient_that_is_0_or_comes_from_elsewhere_does_not_count(parameters: dict[str, nn.Parameter]) -> None:
    for value in (everything(parameters, 0.0), torch.tensor(3.0)):
        guard = TermGuard(parameters)
        for _ in range(PATIENCE_STEPS - 1):
            guard.look(objective(value), {"kl": 0.1})
        with pytest.raises(TrainerError, match="gave no gradient"):
            guard.look(objective(value), {"kl": 0.1})


def test_steps_without_weight_do_not_count_and_one_good_step_is_enough(parameters: dict[str, nn.Parameter]) -> None:
    guard, dead = TermGuard(parameters), torch.tensor(0.0)
    for _ in range(20):
        guard.look(objective(dead), {"kl": 0.0})
    guard.look(objective(everything(parameters)), {"kl": 0.1})
    for _ in range(20):
        guard.look(objective(dead), {"kl": 0.1})


def test_looking_leaves_the_gradients_alone(parameters: dict[str, nn.Parameter]) -> None:
    value = everything(parameters)
    TermGuard(parameters).look(objective(value), {"kl": 0.1})
    assert all(p.grad is None for p in parameters.values())
    value.backward()
    assert all(torch.equal(p.grad, torch.ones(2)) for p in parameters.values() if p.grad is not None)


def test_a_term_that_was_never_applied_is_an_error() -> None:
    config = parsed(disentangle("x", objective={"router_marginal_kl_to_prior_weight": [[6, 0.0], [8, 1.0]]}))
    counts = {"reconstruction": 8, "kl": 8, "posterior_variance": 8}
    with pytest.raises(TrainerError, match=r"objective.router_marginal_kl_to_prior_weight: .* in none of 8 steps"):
        require_applied(config, 8, counts)
    require_applied(config, 8, {**counts, "router_marginal_kl_to_prior": 2})
    require_applied(config, 6, counts)  # its weight was 0 until then


def test_a_weight_that_begins_behind_the_last_epoch_is_told_before_training(
    tmp_path: Path, base: Path, run_trainer: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """80 pairs in batches of 8, twice: 20 steps."""
    epochs = {"steps": None, "epochs": 2}
    raw = disentangle(base, train=epochs, objective={"posterior_variance_weight": [[20, 0.0], [30, 1.0]]})
    assert run_trainer(raw, tmp_path) == 1
    assert capsys.readouterr().err == (
        "objective.posterior_variance_weight: is above 0 from step 21 on, but 2 epochs end at step 20. "
        "Let it begin earlier.\n"
    )
    assert not (tmp_path / "history.jsonl").exists()


def test_a_run_whose_latent_reaches_nothing_fails_with_the_terms_name(
    tmp_path: Path, base: Path, run_trainer: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A posterior certain from the start: at that rate its first step takes it where no gradient comes back."""
    raw = disentangle(
        base,
        latent={"kind": "discrete", "count": 2},
        objective={"posterior_variance_weight": 0.0},
        train={"head_lr": 1e6, "lr": 1e-6, "clip": 0.0, "steps": 20},
    )
    # Points begin when the posterior is long certain: then its entropy has no gradient left.
    raw["objective"]["posterior_entropy_weight"] = [[9, 0.0], [10, 1.0]]
    assert run_trainer(raw, tmp_path) == 1
    assert "the term posterior_entropy gave no gradient" in capsys.readouterr().err
    assert json.loads((tmp_path / "error.json").read_text())["kind"] == "error"

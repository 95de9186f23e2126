"""Whole runs with a discrete latent: series of every term, weights over the steps, resuming, diverging."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import disentangle, series

Run = Callable[..., int]
TERMS = {
    "reconstruction",
    "token_weighted_reconstruction",
    "kl",
    "router_marginal_kl_to_prior",
    "posterior_entropy",
    "router_support",
    "inter_latent_divergence",
}


def discrete(base: Path, **changes: Any) -> dict[str, Any]:
    """Return a run with every term that a discrete latent has."""
    objective = {
        "posterior_variance_weight": 0.0,
        "posterior_entropy_weight": 0.1,
        "router_support_weight": 0.01,
        "token_weighted_reconstruction_weight": 1.0,
        "inter_latent_divergence_weight": 0.1,
        "inter_latent_divergence_positions": "weighted",
    }
    raw = disentangle(base, latent={"kind": "discrete", "count": 3}, objective=objective)
    for key, value in changes.items():
        raw[key] = {**raw.get(key, {}), **value}
    return raw


def metrics_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize("adaptation", [{"kind": "full"}, {"kind": "lora", "rank": 4}, {"kind": "head_only"}])
def test_every_term_has_its_series_share_and_count(
    tmp_path: Path, base: Path, run_trainer: Run, adaptation: dict[str, Any]
) -> None:
    assert run_trainer(discrete(base, adaptation=adaptation), tmp_path) == 0
    metrics, points = metrics_of(tmp_path), series(tmp_path)
    for term in TERMS:
        assert f"loss/train/weighted/{term}" in points[0]
        assert metrics[f"train/applied_steps/{term}"] == 8
    assert sum(points[0][f"loss/train/fraction/{term}"] for term in TERMS) == pytest.approx(1)
    assert sum(metrics[f"latent/posterior_share/z{k}"] for k in (1, 2, 3)) == pytest.approx(1)
    assert sum(metrics[f"latent/router_share/z{k}"] for k in (1, 2, 3)) == pytest.approx(1)
    assert -1 <= metrics["loss/val/inter_latent_divergence"] <= 0
    assert "objective/coding_margin" in metrics


def test_the_divergence_is_measured_in_validation_also_without_a_weight(
    tmp_path: Path, base: Path, run_trainer: Run
) -> None:
    """In training it would cost a pass over the vocabulary a target and latent, so there it is left out."""
    off = {"inter_latent_divergence_weight": 0.0}
    assert run_trainer(discrete(base, objective=off, train={"steps": 2}), tmp_path) == 0
    assert metrics_of(tmp_path)["loss/val/inter_latent_divergence"] < 0
    assert "loss/train/inter_latent_divergence" not in series(tmp_path)[0]


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_a_marginal_over_micro_batches_is_said_to_be_one(
    tmp_path: Path, base: Path, run_trainer: Run, capsys: pytest.CaptureFixture[str], weight: float
) -> None:
    raw = discrete(
        base, objective={"router_marginal_kl_to_prior_weight": weight}, train={"accumulation": 2, "steps": 1}
    )
    assert run_trainer(raw, tmp_path) == 0
    told = (
        "router_marginal_kl_to_prior_weight: the marginal is taken over each micro-batch of 8 records, not over the 16"
    )
    assert (told in capsys.readouterr().err) == (weight > 0)


def test_a_weight_that_begins_later_counts_from_there(tmp_path: Path, base: Path, run_trainer: Run) -> None:
    later = {"posterior_entropy_weight": [[5, 0.0], [6, 0.2]]}
    assert run_trainer(discrete(base, objective=later), tmp_path) == 0
    assert metrics_of(tmp_path)["train/applied_steps/posterior_entropy"] == 3
    first = series(tmp_path)[0]
    assert first["loss/train/weighted/posterior_entropy"] == 0
    assert first["loss/train/posterior_entropy"] > 0


def test_the_posterior_mean_changes_the_validation_loss_alone(tmp_path: Path, base: Path, run_trainer: Run) -> None:
    for posterior in ("sample", "mean"):
        raw = discrete(base, eval={"posterior": posterior}, train={"steps": 3})
        assert run_trainer(raw, tmp_path / posterior) == 0
    sample, mean = metrics_of(tmp_path / "sample"), metrics_of(tmp_path / "mean")
    assert sample["loss/val/reconstruction_loss"] != mean["loss/val/reconstruction_loss"]
    assert sample["loss/val/kl"] == mean["loss/val/kl"]


def test_a_discrete_run_that_diverges_names_step_and_term(tmp_path: Path, base: Path, run_trainer: Run) -> None:
    raw = discrete(base, train={"lr": 1e30, "head_lr": 1e30, "clip": 0.0})
    assert run_trainer(raw, tmp_path) == 1
    record = json.loads((tmp_path / "error.json").read_text())
    assert record["kind"] == "diverged"
    assert record["step"] == 2
    assert record["term"]

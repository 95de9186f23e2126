"""What tiny runs say of themselves at their end: every key, every null with its reason, the same each time."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from tiny_runs import disentangle, parsed

from trainer.backbone import Backbone, load_backbone
from trainer.evaluation.during import follow_latents
from trainer.evaluation.of_latents import evaluate_latents
from trainer.evaluation.quality import Metrics
from trainer.evaluation.writing import Writer
from trainer.latents import build_latent_model
from trainer.pool import Pool, load_pool

DISCRETE = {"kind": "discrete", "count": 4}
OFF = {"posterior_variance_weight": 0.0, "router_marginal_kl_to_prior_weight": 0.0}
HEADLINES = (
    "alignment_one_to_one",
    "local_strategy_coverage_mean",
    "local_strategy_full_coverage_rate",
    "mean_overall_final_answer_accuracy",
)


@pytest.fixture(scope="module")
def pool(base_run: Path) -> Pool:
    """Return the tiny base's own pool: 40 test pairs."""
    with safe_open(base_run / "checkpoint" / "pool.safetensors", framework="pt") as file:
        description = json.loads(file.metadata()["description"])
    pool = load_pool(base_run / "checkpoint", description)
    assert pool is not None
    return pool


def measured(backbone: Backbone, pool: Pool, latent: dict[str, Any], **evaluation: Any) -> Metrics:
    """Measure a model that has not been trained."""
    config = parsed(disentangle("x", latent=latent, eval=evaluation, objective=OFF))
    model = build_latent_model(backbone, config)
    metrics = evaluate_latents(config, Writer(model, True, pool.max_new_tokens, batch_size=64), pool)
    assert metrics.pop("eval/core_seconds")
    return metrics


def test_a_base_says_how_it_answers_where_it_was_trained_and_where_not(base_run: Path) -> None:
    metrics = json.loads((base_run / "metrics.json").read_text())
    assert metrics["base_test_final/n"] == metrics["base_seen_final/n"] == 40
    assert metrics["base_test_final/seen_share"] == 0
    assert isinstance(metrics["base_test_final/memorised"], bool)
    gap = metrics["base_seen_final/final_answer_accuracy"] - metrics["base_test_final/final_answer_accuracy"]
    assert metrics["base_test_final/generalisation_gap"] == pytest.approx(gap)


@pytest.mark.parametrize(
    ("latent", "aligned"), [({"kind": "discrete", "count": 3}, True), ({"kind": "continuous"}, False)]
)
def test_answers_and_alignment_are_followed_while_a_model_is_trained(
    backbone: Backbone, pool: Pool, latent: dict[str, Any], aligned: bool
) -> None:
    model = build_latent_model(backbone, parsed(disentangle("x", latent=latent, objective=OFF)))
    writer = Writer(model, True, pool.max_new_tokens, batch_size=64)

    def followed(answers: int) -> dict[str, float]:
        config = parsed(disentangle("x", latent=latent, objective=OFF, eval={"answers": answers}))
        return follow_latents(config, writer, pool.pairs["validation"])

    points = followed(16)
    assert points == followed(16), "the same model gives the same points"
    expected = {"router_val/final_answer_accuracy", "router_val/trace_validity_rate"}
    assert set(points) == expected | ({"controlled_val/alignment_one_to_one"} if aligned else set())  # 16: no probe
    assert all(0 <= value <= 1 for value in points.values())
    assert followed(0) == {}


def test_a_base_run_logs_how_it_answers_at_each_validation(base_run: Path) -> None:
    history = [json.loads(line) for line in (base_run / "history.jsonl").read_text().splitlines()]
    validated = [point for point in history if "loss/val/total" in point]
    assert validated
    assert all(0 <= point["base_val/final_answer_accuracy"] <= 1 for point in validated)


@pytest.mark.parametrize("latent", [DISCRETE, {"kind": "continuous"}])
def test_every_null_has_a_reason_and_every_mode_its_headline(
    backbone: Backbone, pool: Pool, latent: dict[str, Any]
) -> None:
    metrics = measured(backbone, pool, latent)
    nulls = {key for key, value in metrics.items() if value is None}
    assert all(metrics[f"{key}__reason"] for key in nulls)
    probes = {key for key in metrics if key.endswith("probe_accuracy")}
    assert probes == {
        "router_test_final/router_probe_accuracy",
        "router_test_final/router_mu_probe_accuracy",
        "posterior_test_final/posterior_mu_probe_accuracy",
        "posterior_test_final/posterior_sampled_probe_accuracy",
        "posterior_test_final/x_only_probe_accuracy",
    }
    assert probes <= nulls  # 40 pairs are too few
    assert "200 are needed" in str(metrics["diagnosis/failing_part__reason"])
    for name in HEADLINES:
        assert (metrics[f"controlled_test_final/{name}"] is None) == (latent["kind"] == "continuous")
    for prefix in ("router_test_final", "posterior_test_final"):
        assert metrics[f"{prefix}/n"] == 40
        assert metrics[f"{prefix}/final_answer_accuracy"] is not None


def test_latents_set_by_hand_are_told_apart_in_a_table_whose_rows_add_up(backbone: Backbone, pool: Pool) -> None:
    metrics = measured(backbone, pool, DISCRETE, controlled_sampled=True)
    for latent in ("z1", "z2", "z3", "z4"):
        row = [value for key, value in metrics.items() if key.startswith(f"controlled_test_final/confusion/{latent}/")]
        assert len(row) == 5  # three strategies, ambiguous, invalid
        assert sum(float(share or 0) for share in row) == pytest.approx(1)
    for name in HEADLINES:
        assert metrics[f"controlled_test_final/{name}_sampled"] is not None


def test_measuring_twice_gives_the_same_and_the_posteriors_mean_is_said(base: Path, pool: Pool) -> None:
    first, second = (measured(load_backbone(str(base), 0), pool, DISCRETE) for _ in range(2))
    assert first == second
    mean = measured(load_backbone(str(base), 0), pool, DISCRETE, posterior="mean")
    assert (first["posterior_test_final/latent"], mean["posterior_test_final/latent"]) == ("sample", "mean")
    assert {key for key in first if first[key] != mean[key]} <= {
        key for key in first if key.startswith(("posterior_test_final/", "diagnosis/"))
    }


def test_greedy_answers_leave_what_is_probed_alone(base: Path, pool: Pool) -> None:
    sampled, greedy = (
        measured(load_backbone(str(base), 0), pool, {"kind": "continuous"}, decoding=decoding)
        for decoding in ("sample", "greedy")
    )
    for key in ("posterior_test_final/same_strategy_rate", "router_test_final/router_probe_accuracy_n"):
        assert sampled[key] == greedy[key]
    assert greedy["router_test_final/decoding"] == "greedy"

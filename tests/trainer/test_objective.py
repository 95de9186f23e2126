"""The objective as a whole: its sum, its weights over the steps, and what batches add up to."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from trainer import terms
from trainer.config import ObjectiveConfig
from trainer.distributions import Categoricals, Gaussians
from trainer.objective import Forward, Surprise, evaluate_objective, fractions, join

RECORD = torch.tensor([0, 0, 1, 1, 1, 2])
RECORDS, TARGETS, LATENTS, DIM = 3, 6, 2, 4


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def surprise() -> Surprise:
    return Surprise(draw(TARGETS, seed=1).abs(), draw(TARGETS, seed=2).abs(), RECORD)


@pytest.fixture
def gaussian() -> Forward:
    return Forward(
        log_likelihood=-draw(LATENTS, TARGETS, seed=0).abs(),
        mixing=torch.full((LATENTS, RECORDS), 0.5, dtype=torch.float64),
        surprise=surprise(),
        posterior=Gaussians(*draw(2, RECORDS, DIM, seed=3)),
        router=Gaussians(*draw(2, RECORDS, DIM, seed=4)),
    )


@pytest.fixture
def categorical() -> Forward:
    q = draw(RECORDS, LATENTS, seed=5).log_softmax(-1)
    return Forward(
        log_likelihood=-draw(LATENTS, TARGETS, seed=0).abs(),
        mixing=q.exp().T,
        surprise=surprise(),
        posterior=Categoricals(q),
        router=Categoricals(draw(RECORDS, LATENTS, seed=6).log_softmax(-1)),
        log_support=-draw(RECORDS, seed=7).abs(),
        divergence=draw(TARGETS, seed=8).abs() / 4,
    )


def total(forward: Forward, step: int = 1, **config: Any) -> float:
    return evaluate_objective(forward, ObjectiveConfig(**config), step).total.item()


def raw(forward: Forward, **config: Any) -> dict[str, float]:
    return {k: v.item() for k, v in evaluate_objective(forward, ObjectiveConfig(**config), 1).raw.items()}


def test_total_of_a_continuous_latent_is_the_weighted_sum_by_hand(gaussian: Forward) -> None:
    r = raw(gaussian)
    by_hand = (
        r["reconstruction_loss"] / r["baseline_reconstruction"]
        + 0.3 * 0.5 * r["kl"]
        + 0.2 * r["posterior_variance"]
        + 0.7 * r["router_marginal_kl_to_prior"]
        + 2.0 * r["token_weighted_reconstruction"]
    )
    config = {
        "beta": 0.3,
        "kl_warmup_steps": 10,
        "posterior_variance_weight": 0.2,
        "router_marginal_kl_to_prior_weight": 0.7,
        "token_weighted_reconstruction_weight": 2,
    }
    assert total(gaussian, step=5, **config) == pytest.approx(by_hand)


def test_total_of_a_discrete_latent_is_the_weighted_sum_by_hand(categorical: Forward) -> None:
    r = raw(categorical)
    by_hand = (
        r["reconstruction_loss"]
        + 0.3 * r["kl"]
        + 0.2 * r["posterior_entropy"]
        + 0.7 * r["router_marginal_kl_to_prior"]
        + 0.01 * r["router_support"]
        + 0.5 * r["inter_latent_divergence"]
    )
    config = {
        "baseline_normalized": False,
        "beta": 0.3,
        "posterior_entropy_weight": 0.2,
        "router_marginal_kl_to_prior_weight": 0.7,
        "router_support_weight": 0.01,
        "inter_latent_divergence_weight": 0.5,
    }
    assert total(categorical, **config) == pytest.approx(by_hand)


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_weighted_terms_add_up_to_the_total_and_terms_of_weight_0_are_reported(
    kind: str, request: pytest.FixtureRequest
) -> None:
    objective = evaluate_objective(request.getfixturevalue(kind), ObjectiveConfig(beta=0.0), step=1)
    series = objective.series()
    names = [name for name in series if name.startswith("weighted/")]
    assert sum(series[name] for name in names) == pytest.approx(series["total"].item())
    assert series["kl"] > 0
    assert series["router_marginal_kl_to_prior"] > 0
    assert all(name.removeprefix("weighted/") in {*series, "reconstruction"} for name in names)


def test_exact_elbo_is_the_log_likelihood_where_the_posterior_is_the_true_one(categorical: Forward) -> None:
    """By enumeration of z: R + KL = -log sum_z p(z|x) p(y|x,z) at q = p(z|x,y), and more for any other q."""
    router = categorical.router
    assert isinstance(router, Categoricals)
    joint = router.log_p + torch.stack(
        [terms.per_record(ll, RECORD, RECORDS) for ll in categorical.log_likelihood], dim=1
    )  # (B, K): log p(z, y | x)
    exact = -joint.logsumexp(1).mean().item()
    config = {"beta": 1.0, "reduction": "sequence_mean", "baseline_normalized": False}

    def bound(log_q: Tensor) -> float:
        return total(
            Forward(**{**vars(categorical), "mixing": log_q.exp().T, "posterior": Categoricals(log_q)}), **config
        )

    assert bound(joint.log_softmax(1)) == pytest.approx(exact)
    other = draw(RECORDS, LATENTS, seed=9).log_softmax(-1)
    gap = terms.categorical_kl(other, joint.log_softmax(1)).item()
    assert gap > 0.01
    assert bound(other) == pytest.approx(exact + gap)


def test_modes_of_the_token_weighted_reconstruction(gaussian: Forward) -> None:
    r = raw(gaussian)
    plain, weighted = r["reconstruction_normalized"], r["token_weighted_reconstruction"]
    config = {"beta": 0.0, "token_weighted_reconstruction_weight": 2.0, "curriculum_steps": 10}
    assert total(gaussian, **config) == pytest.approx(plain + 2 * weighted)
    assert total(gaussian, **config, token_weighted_mode="replace") == pytest.approx(2 * weighted)
    for step, share in ((1, 0.1), (5, 0.5), (10, 1.0), (99, 1.0)):
        value = total(gaussian, step=step, **config, token_weighted_mode="curriculum")
        assert value == pytest.approx(share * plain + 2 * weighted)


def test_a_sharper_gamma_gives_uncertain_tokens_more_weight(gaussian: Forward) -> None:
    weights = terms.token_weights(gaussian.surprise.entropy, RECORD, RECORDS, 3.0)
    by_hand = -(weights * gaussian.log_likelihood.mean(0)).sum().item() / RECORDS
    assert raw(gaussian, token_weighted_gamma=3.0)["token_weighted_reconstruction"] == pytest.approx(by_hand)


def test_divergence_counts_all_positions_alike_or_by_their_weights(categorical: Forward) -> None:
    divergence = categorical.divergence
    assert divergence is not None
    plain, weighted = (
        raw(categorical, inter_latent_divergence_positions=positions, token_weighted_gamma=2.0)
        for positions in ("all", "weighted")
    )
    weights = terms.token_weights(categorical.surprise.entropy, RECORD, RECORDS, 2.0)
    assert plain["inter_latent_divergence"] == pytest.approx(-divergence.mean().item() / math.log(LATENTS))
    by_hand = (weights * divergence).sum().item() / RECORDS
    assert weighted["inter_latent_divergence"] == pytest.approx(-by_hand / math.log(LATENTS))


def test_weights_follow_their_points(gaussian: Forward) -> None:
    kl, without = raw(gaussian)["kl"], total(gaussian, beta=0.0)
    points = [[2, 0.0], [6, 0.4], [8, 0.1]]
    for step, weight in ((1, 0.0), (2, 0.0), (3, 0.1), (6, 0.4), (7, 0.25), (8, 0.1), (100, 0.1)):
        assert total(gaussian, step=step, beta=points) == pytest.approx(without + weight * kl)


def test_normalisation_has_a_floor_and_lets_no_gradient_into_the_baseline(gaussian: Forward) -> None:
    certain = torch.zeros(TARGETS, dtype=torch.float64)
    likelihood = gaussian.log_likelihood.clone().requires_grad_()
    sure = Forward(**{**vars(gaussian), "log_likelihood": likelihood, "surprise": Surprise(certain, certain, RECORD)})
    objective = evaluate_objective(sure, ObjectiveConfig(), step=1)
    expected = objective.raw["reconstruction_loss"].item() / 1e-4
    assert objective.raw["reconstruction_normalized"].item() == pytest.approx(expected)
    objective.total.backward()
    torch.testing.assert_close(likelihood.grad, torch.full_like(likelihood, -1e4 / likelihood.numel()))


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_parts_of_a_batch_joined_are_the_whole_batch(kind: str, request: pytest.FixtureRequest) -> None:
    whole: Forward = request.getfixturevalue(kind)
    parts = [_records(whole, [0, 1]), _records(whole, [2])]
    config = ObjectiveConfig()
    torch.testing.assert_close(
        evaluate_objective(join(parts), config, 1).series(), evaluate_objective(whole, config, 1).series()
    )


def test_fractions_add_up_to_1_by_size() -> None:
    assert fractions({"a": 3.0, "b": -1.0, "c": 0.0}) == {"a": 0.75, "b": 0.25, "c": 0.0}
    assert fractions({"a": 0.0}) == {"a": 0.0}


def _records(forward: Forward, chosen: list[int]) -> Forward:
    """Cut some records, which follow one another, out of a batch."""
    own = torch.isin(RECORD, torch.tensor(chosen))

    def cut(distribution: Gaussians | Categoricals) -> Any:
        return type(distribution)(*(value[chosen] for value in vars(distribution).values()))

    return Forward(
        forward.log_likelihood[:, own],
        forward.mixing[:, chosen],
        Surprise(forward.surprise.baseline[own], forward.surprise.entropy[own], RECORD[own] - chosen[0]),
        cut(forward.posterior),
        cut(forward.router),
        None if forward.log_support is None else forward.log_support[chosen],
        None if forward.divergence is None else forward.divergence[own],
    )

"""The terms of the objective against slow, obvious computations."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from trainer.config import ObjectiveConfig
from trainer.objective import (
    Forward,
    evaluate_objective,
    fractions,
    gaussian_kl,
    posterior_variance,
    reconstruction,
    router_marginal_kl_to_prior,
)

RECORDS, DIM, SAMPLES, TARGETS = 5, 3, 2, 17


@pytest.fixture
def forward() -> Forward:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Forward(
        -draw(SAMPLES, TARGETS).abs(),
        draw(TARGETS).abs(),
        draw(RECORDS, DIM),
        draw(RECORDS, DIM),
        draw(RECORDS, DIM),
        draw(RECORDS, DIM),
    )


def test_kl_is_the_one_of_torch_distributions(forward: Forward) -> None:
    q = Independent(Normal(forward.mu_q, (forward.log_var_q / 2).exp()), 1)
    p = Independent(Normal(forward.mu_p, (forward.log_var_p / 2).exp()), 1)
    ours = gaussian_kl(forward.mu_q, forward.log_var_q, forward.mu_p, forward.log_var_p)
    torch.testing.assert_close(ours, kl_divergence(q, p).mean())


def test_router_marginal_is_the_kl_of_the_mixtures_moments(forward: Forward) -> None:
    """The moments are taken from draws of the mixture, one component after the other."""
    expected = 0.0
    for d in range(DIM):
        mu, variance = forward.mu_p[:, d], forward.log_var_p[:, d].exp()
        mean = sum(mu.tolist()) / RECORDS
        second_moment = sum(v + m * m for m, v in zip(mu.tolist(), variance.tolist(), strict=True)) / RECORDS
        spread = second_moment - mean**2
        expected += kl_divergence(Normal(mean, math.sqrt(spread)), Normal(0.0, 1.0)).item()
    assert router_marginal_kl_to_prior(forward.mu_p, forward.log_var_p).item() == pytest.approx(expected, rel=1e-6)


def test_router_marginal_is_0_at_the_prior_and_for_a_router_that_spreads_like_it() -> None:
    assert router_marginal_kl_to_prior(torch.zeros(9, 4), torch.zeros(9, 4)).item() == pytest.approx(0, abs=1e-6)
    means = torch.tensor([[0.6], [-0.6]])
    log_var = torch.full((2, 1), math.log(1 - 0.36))
    assert router_marginal_kl_to_prior(means, log_var).item() == pytest.approx(0, abs=1e-6)


def test_posterior_variance_is_the_mean_of_all_variances(forward: Forward) -> None:
    expected = sum(math.exp(value) for value in forward.log_var_q.flatten().tolist()) / (RECORDS * DIM)
    assert posterior_variance(forward.log_var_q).item() == pytest.approx(expected)


@pytest.mark.parametrize(("reduction", "divisor"), [("token_mean", TARGETS), ("sequence_mean", RECORDS)])
def test_reconstruction_is_the_mean_over_samples_and_tokens_or_sequences(
    forward: Forward, reduction: str, divisor: int
) -> None:
    expected = -sum(forward.log_likelihood.flatten().tolist()) / (SAMPLES * divisor)
    assert reconstruction(forward.log_likelihood, RECORDS, reduction).item() == pytest.approx(expected)


def test_total_is_the_weighted_sum_by_hand(forward: Forward) -> None:
    config = ObjectiveConfig(
        beta=0.3, posterior_variance_weight=0.2, router_marginal_kl_to_prior_weight=0.7, kl_warmup_steps=10
    )
    objective = evaluate_objective(forward, config, step=5)
    raw = {name: value.item() for name, value in objective.raw.items()}
    ratio = raw["reconstruction_loss"] / raw["baseline_reconstruction"]
    by_hand = ratio + 0.3 * 0.5 * raw["kl"] + 0.2 * raw["posterior_variance"] + 0.7 * raw["router_marginal_kl_to_prior"]
    assert objective.total.item() == pytest.approx(by_hand)
    assert sum(value.item() for value in objective.weighted.values()) == pytest.approx(by_hand)


def test_terms_of_weight_0_are_still_reported_raw(forward: Forward) -> None:
    objective = evaluate_objective(forward, ObjectiveConfig(beta=0.0, baseline_normalized=False), step=1)
    series = objective.series()
    assert series["posterior_variance"] > 0
    assert series["router_marginal_kl_to_prior"] > 0
    assert series["kl"] > 0
    assert objective.total.item() == pytest.approx(series["reconstruction_loss"].item())


def test_normalisation_has_a_floor_and_lets_no_gradient_into_the_baseline(forward: Forward) -> None:
    certain = torch.zeros(TARGETS, dtype=torch.float64)
    likelihood = forward.log_likelihood.clone().requires_grad_()
    sure = Forward(likelihood, certain, forward.mu_q, forward.log_var_q, forward.mu_p, forward.log_var_p)
    objective = evaluate_objective(sure, ObjectiveConfig(), step=1)
    expected = objective.raw["reconstruction_loss"].item() / 1e-4
    assert objective.raw["reconstruction_normalized"].item() == pytest.approx(expected)
    objective.total.backward()
    torch.testing.assert_close(likelihood.grad, torch.full_like(likelihood, -1e4 / likelihood.numel()))


def test_gradients_of_the_terms_agree_with_finite_differences(forward: Forward) -> None:
    inputs = [
        tensor.clone().requires_grad_() for tensor in (forward.mu_q, forward.log_var_q, forward.mu_p, forward.log_var_p)
    ]
    assert torch.autograd.gradcheck(gaussian_kl, inputs)
    assert torch.autograd.gradcheck(router_marginal_kl_to_prior, inputs[2:])
    assert torch.autograd.gradcheck(posterior_variance, inputs[1:2])


def test_fractions_add_up_to_1_by_size() -> None:
    assert fractions({"a": 3.0, "b": -1.0, "c": 0.0}) == {"a": 0.75, "b": 0.25, "c": 0.0}
    assert fractions({"a": 0.0}) == {"a": 0.0}

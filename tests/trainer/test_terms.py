"""Each term of the objective against a slow, obvious computation, and its gradient against finite differences."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, Normal, kl_divergence

from trainer import terms

RECORDS, DIM, LATENTS, TARGETS, VOCABULARY = 4, 3, 3, 11, 6
RECORD = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def log_probabilities(*shape: int, seed: int = 0) -> Tensor:
    return draw(*shape, seed=seed).log_softmax(-1)


@pytest.fixture
def likelihood() -> Tensor:
    return -draw(LATENTS, TARGETS).abs()


@pytest.fixture
def mixing() -> Tensor:
    return log_probabilities(RECORDS, LATENTS, seed=1).exp().T


def test_expected_likelihood_is_the_sum_over_latents_target_by_target(likelihood: Tensor, mixing: Tensor) -> None:
    expected = np.zeros(TARGETS)
    for t in range(TARGETS):
        for k in range(LATENTS):
            expected[t] += float(mixing[k, RECORD[t]]) * float(likelihood[k, t])
    np.testing.assert_allclose(terms.expected_log_likelihood(likelihood, mixing, RECORD).numpy(), expected)


@pytest.mark.parametrize(("reduction", "divisor"), [("token_mean", TARGETS), ("sequence_mean", RECORDS)])
def test_reconstruction_is_the_mean_over_tokens_or_sequences(likelihood: Tensor, reduction: str, divisor: int) -> None:
    expected = -sum(likelihood[0].tolist()) / divisor
    assert terms.reconstruction(likelihood[0], RECORDS, reduction).item() == pytest.approx(expected)


def test_token_weights_follow_the_entropy_and_add_up_to_1_in_every_record() -> None:
    entropy = draw(TARGETS).abs()
    for gamma in (0.5, 1.0, 2.0):
        weights = terms.token_weights(entropy, RECORD, RECORDS, gamma).numpy()
        for record in range(RECORDS):
            own = (record == RECORD).numpy()
            raised = (entropy.numpy()[own] + 1e-3) ** gamma
            np.testing.assert_allclose(weights[own], raised / raised.sum())
            assert weights[own].sum() == pytest.approx(1)


def test_token_weights_of_a_base_that_is_certain_everywhere_are_equal() -> None:
    weights = terms.token_weights(torch.zeros(TARGETS, dtype=torch.float64), RECORD, RECORDS)
    torch.testing.assert_close(weights, 1 / torch.bincount(RECORD).double()[RECORD])


def test_token_weighted_reconstruction_is_a_weighted_mean_a_record_then_the_mean_of_records(
    likelihood: Tensor,
) -> None:
    weights = terms.token_weights(draw(TARGETS, seed=3).abs(), RECORD, RECORDS)
    records = [0.0] * RECORDS
    for t in range(TARGETS):
        records[int(RECORD[t])] -= float(weights[t]) * float(likelihood[0, t])
    value = terms.token_weighted_reconstruction(likelihood[0], weights, RECORDS)
    assert value.item() == pytest.approx(sum(records) / RECORDS)


def test_both_kls_are_those_of_torch_distributions() -> None:
    mu_q, log_var_q, mu_p, log_var_p = draw(4, RECORDS, DIM)
    q = Independent(Normal(mu_q, (log_var_q / 2).exp()), 1)
    p = Independent(Normal(mu_p, (log_var_p / 2).exp()), 1)
    torch.testing.assert_close(terms.gaussian_kl(mu_q, log_var_q, mu_p, log_var_p), kl_divergence(q, p).mean())
    log_q, log_p = log_probabilities(2, RECORDS, LATENTS)
    expected = kl_divergence(Categorical(logits=log_q), Categorical(logits=log_p)).mean()
    torch.testing.assert_close(terms.categorical_kl(log_q, log_p), expected)


def test_the_kl_of_a_posterior_that_is_certain_is_finite_and_has_a_finite_gradient() -> None:
    logits = torch.tensor([[300.0, 0.0, -300.0]], requires_grad=True)
    value = terms.categorical_kl(logits.log_softmax(-1), torch.zeros(1, 3).log_softmax(-1))
    value.backward()
    assert value.item() == pytest.approx(math.log(3))
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_posterior_entropy_is_torchs_and_reaches_from_0_to_log_k() -> None:
    log_q = log_probabilities(RECORDS, LATENTS)
    torch.testing.assert_close(terms.posterior_entropy(log_q), Categorical(logits=log_q).entropy().mean())
    assert terms.posterior_entropy(torch.zeros(2, 3).log_softmax(-1)).item() == pytest.approx(math.log(3))
    assert terms.posterior_entropy(torch.tensor([[200.0, 0.0]]).log_softmax(-1)).item() == pytest.approx(0)


def test_router_support_is_minus_the_log_of_the_mass_on_the_latents() -> None:
    p = log_probabilities(RECORDS, VOCABULARY).exp().numpy()
    expected = -np.mean([math.log(row[1] + row[4]) for row in p])
    log_support = torch.tensor(np.log(p[:, 1] + p[:, 4]))
    assert terms.router_support(log_support).item() == pytest.approx(expected)


def test_marginal_kl_of_a_discrete_router_is_that_of_its_mean_from_the_uniform_prior() -> None:
    log_p = log_probabilities(RECORDS, LATENTS)
    marginal = Categorical(probs=log_p.exp().mean(0))
    expected = kl_divergence(marginal, Categorical(probs=torch.ones(LATENTS, dtype=torch.float64)))
    torch.testing.assert_close(terms.categorical_marginal_kl(log_p), expected)


def test_marginal_kl_is_0_for_a_router_that_tells_inputs_apart_but_uses_all_latents() -> None:
    certain = torch.eye(3).mul(1e3).log_softmax(-1)
    assert terms.categorical_marginal_kl(certain).item() == pytest.approx(0, abs=1e-6)
    collapsed = certain[[0, 0, 0]].requires_grad_()
    value = terms.categorical_marginal_kl(collapsed)
    value.backward()
    assert value.item() == pytest.approx(math.log(3), abs=1e-5)
    assert collapsed.grad is not None
    assert bool(collapsed.grad.isfinite().all())


def test_marginal_kl_of_a_gaussian_router_is_that_of_the_mixtures_moments() -> None:
    """The moments are computed component by component."""
    mu, log_var = draw(2, RECORDS, DIM)
    expected = 0.0
    for d in range(DIM):
        means, variances = mu[:, d].tolist(), log_var[:, d].exp().tolist()
        mean = sum(means) / RECORDS
        second_moment = sum(v + m * m for m, v in zip(means, variances, strict=True)) / RECORDS
        spread = math.sqrt(second_moment - mean**2)
        expected += kl_divergence(Normal(mean, spread), Normal(0.0, 1.0)).item()
    assert terms.gaussian_marginal_kl(mu, log_var).item() == pytest.approx(expected, rel=1e-6)


def test_marginal_kl_is_0_at_the_prior_and_for_a_router_that_spreads_like_it() -> None:
    assert terms.gaussian_marginal_kl(torch.zeros(9, 4), torch.zeros(9, 4)).item() == pytest.approx(0, abs=1e-6)
    means = torch.tensor([[0.6], [-0.6]])
    log_var = torch.full((2, 1), math.log(1 - 0.36))
    assert terms.gaussian_marginal_kl(means, log_var).item() == pytest.approx(0, abs=1e-6)


def test_posterior_variance_is_the_mean_of_all_variances() -> None:
    log_var = draw(RECORDS, DIM)
    expected = sum(math.exp(value) for value in log_var.flatten().tolist()) / (RECORDS * DIM)
    assert terms.posterior_variance(log_var).item() == pytest.approx(expected)


def test_jensen_shannon_is_the_mean_kl_from_the_mean_prediction() -> None:
    """By its other definition, in loops: mean_k KL(P_k || mean)."""
    log_p = log_probabilities(LATENTS, TARGETS, VOCABULARY)
    p = log_p.exp().numpy()
    expected = np.zeros(TARGETS)
    for t in range(TARGETS):
        mean = p[:, t].mean(0)
        for k in range(LATENTS):
            expected[t] += sum(p[k, t, v] * math.log(p[k, t, v] / mean[v]) for v in range(VOCABULARY)) / LATENTS
    np.testing.assert_allclose(terms.jensen_shannon(log_p).numpy(), expected)


def test_jensen_shannon_is_0_for_equal_and_log_k_for_disjoint_predictions() -> None:
    equal = log_probabilities(1, 5, VOCABULARY).expand(LATENTS, -1, -1)
    torch.testing.assert_close(terms.jensen_shannon(equal), torch.zeros(5, dtype=torch.float64))
    disjoint = (
        (torch.eye(3)[:, None] * 1e4).log_softmax(-1).requires_grad_()
    )  # float32; other tokens have probability 0
    value = terms.jensen_shannon(disjoint)
    value.sum().backward()
    torch.testing.assert_close(value.detach(), torch.full((1,), math.log(3)))
    assert disjoint.grad is not None
    assert bool(disjoint.grad.isfinite().all())


def test_inter_latent_divergence_is_a_share_of_log_k_over_all_targets_or_by_their_weights() -> None:
    divergence = draw(TARGETS).abs()
    plain = terms.inter_latent_divergence(divergence, LATENTS, None, RECORDS)
    assert plain.item() == pytest.approx(-np.mean(divergence.numpy()) / math.log(LATENTS))
    weights = terms.token_weights(draw(TARGETS, seed=5).abs(), RECORD, RECORDS)
    weighted = terms.inter_latent_divergence(divergence, LATENTS, weights, RECORDS)
    by_hand = sum(float(w) * float(d) for w, d in zip(weights, divergence, strict=True)) / RECORDS
    assert weighted.item() == pytest.approx(-by_hand / math.log(LATENTS))


def test_gradients_of_all_terms_agree_with_finite_differences() -> None:
    def check(function: object, *shapes: tuple[int, ...]) -> None:
        inputs = [draw(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
        assert callable(function)
        assert torch.autograd.gradcheck(function, inputs)

    gaussian, categorical = (RECORDS, DIM), (RECORDS, LATENTS)
    weights = terms.token_weights(draw(TARGETS).abs(), RECORD, RECORDS)
    check(terms.gaussian_kl, gaussian, gaussian, gaussian, gaussian)
    check(terms.gaussian_marginal_kl, gaussian, gaussian)
    check(terms.posterior_variance, gaussian)
    check(lambda q, p: terms.categorical_kl(q.log_softmax(-1), p.log_softmax(-1)), categorical, categorical)
    check(lambda q: terms.posterior_entropy(q.log_softmax(-1)), categorical)
    check(lambda p: terms.categorical_marginal_kl(p.log_softmax(-1)), categorical)
    check(lambda r: terms.router_support(r.log_softmax(-1)[:, :2].logsumexp(-1)), (RECORDS, VOCABULARY))
    check(lambda x: terms.jensen_shannon(x.log_softmax(-1)), (LATENTS, TARGETS, VOCABULARY))
    check(lambda d: terms.inter_latent_divergence(d, LATENTS, weights, RECORDS), (TARGETS,))
    check(lambda ll: terms.token_weighted_reconstruction(ll, weights, RECORDS), (TARGETS,))
    check(lambda ll: terms.reconstruction(ll, RECORDS, "token_mean"), (TARGETS,))
    check(
        lambda ll, q: terms.expected_log_likelihood(ll, q.softmax(-1).T, RECORD),
        (LATENTS, TARGETS),
        categorical,
    )

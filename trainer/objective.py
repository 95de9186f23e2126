"""The objective on one batch: all terms, their weights, their sum. The formulas are in `trainer.terms`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer import terms
from trainer.config import ObjectiveConfig
from trainer.distributions import Categoricals, Distributions, Gaussians, concatenate
from trainer.weights import Kind, weights_at

MIN_BASELINE = 1e-4
"""Floor, in nats a token, of the base model's own reconstruction that R is divided by."""


@dataclass(frozen=True)
class Surprise:
    """What the frozen base, which has no z, makes of a batch's n targets. No gradient.

    Attributes:
        baseline: (n,); -log p(y_t | x, y_<t).
        entropy: (n,); of its prediction there.
        record: (n,), int64; number of the target's record in the batch.
    """

    baseline: Tensor
    entropy: Tensor
    record: Tensor


@dataclass(frozen=True)
class Forward:
    """All that the objective is computed from. L is the number of latents run: K, or of samples.

    Attributes:
        log_likelihood: (L, n); log p(y_t | x, z, y_<t) of each target token.
        mixing: (L, B); weights of the latents in a record's reconstruction, which add up to 1.
        surprise: of the base, at the same targets.
        posterior: q(z|x,y), B of them.
        router: p(z|x), of the same kind.
        log_support: (B,), discrete: log of the probability of the latents' tokens at ``<z>``.
        divergence: (n,), discrete: of the latents' predictions; None where it was not asked for.
    """

    log_likelihood: Tensor
    mixing: Tensor
    surprise: Surprise
    posterior: Distributions
    router: Distributions
    log_support: Tensor | None = None
    divergence: Tensor | None = None

    @property
    def kind(self) -> Kind:
        """Of the latent."""
        return "continuous" if isinstance(self.posterior, Gaussians) else "discrete"


@dataclass(frozen=True)
class Objective:
    """One value of the objective.

    Attributes:
        total: what is minimised, with gradient.
        raw: every term as it is, also those of weight 0, and the diagnostics of the reconstruction.
        weighted: every term of the sum times its weight; they add up to `total`.
    """

    total: Tensor
    raw: dict[str, Tensor]
    weighted: dict[str, Tensor]

    def series(self) -> dict[str, Tensor]:
        """Return all values by the names that the history uses, causes before sums, without gradient."""
        values = dict(self.raw)
        values |= {f"weighted/{name}": value for name, value in self.weighted.items()}
        values["total"] = self.total
        return {name: value.detach() for name, value in values.items()}


def join(parts: Sequence[Forward]) -> Forward:
    """Return the passes over several micro-batches as one over them all: terms of the batch need the whole of it."""
    offsets = torch.tensor([0, *(len(part.posterior) for part in parts)]).cumsum(0).tolist()
    supports = [part.log_support for part in parts if part.log_support is not None]
    divergences = [part.divergence for part in parts if part.divergence is not None]
    return Forward(
        log_likelihood=torch.cat([part.log_likelihood for part in parts], dim=1),
        mixing=torch.cat([part.mixing for part in parts], dim=1),
        surprise=Surprise(
            torch.cat([part.surprise.baseline for part in parts]),
            torch.cat([part.surprise.entropy for part in parts]),
            torch.cat([part.surprise.record + offset for part, offset in zip(parts, offsets, strict=False)]),
        ),
        posterior=concatenate([part.posterior for part in parts]),
        router=concatenate([part.router for part in parts]),
        log_support=torch.cat(supports) if supports else None,
        divergence=torch.cat(divergences) if divergences else None,
    )


def evaluate_objective(forward: Forward, config: ObjectiveConfig, step: int) -> Objective:
    """Compute J = c_R R* + lambda_tw R_tw + beta KL + sum_j lambda_j L_j on one batch.

    R* is R / max(R_base, 1e-4) if `config.baseline_normalized`, with R_base the base model's own reconstruction of the
    same batch: the generator starts as the base, so R alone is small from the start and the KL would outweigh it.

    Args:
        forward: of the batch.
        config: the weights.
        step: optimiser step, from 1; weights may change over the steps.
    """
    raw = {**_reconstructions(forward, config), **_latent_terms(forward, config)}
    summed = {
        **raw,
        "reconstruction": raw["reconstruction_normalized" if config.baseline_normalized else "reconstruction_loss"],
    }
    weighted = {
        name: weight * summed[name]
        for name, weight in weights_at(config, forward.kind, step).items()
        if name in summed  # the divergence may not have been asked for
    }
    return Objective(torch.stack(list(weighted.values())).sum(), raw, weighted)


def fractions(weighted: dict[str, float]) -> dict[str, float]:
    """Return each term's share of the objective, |w_j L_j| / sum_i |w_i L_i|: of its value, not of its gradient."""
    whole = sum(abs(value) for value in weighted.values())
    return {name: abs(value) / whole if whole > 0 else 0.0 for name, value in weighted.items()}


def _reconstructions(forward: Forward, config: ObjectiveConfig) -> dict[str, Tensor]:
    records, surprise = len(forward.posterior), forward.surprise
    expected = terms.expected_log_likelihood(forward.log_likelihood, forward.mixing, surprise.record)  # (n,)
    weights = _token_weights(forward, config)
    r = terms.reconstruction(expected, records, config.reduction)
    r_base = terms.reconstruction(-surprise.baseline, records, config.reduction)
    return {
        "reconstruction_loss": r,
        "baseline_reconstruction": r_base,
        "reconstruction_normalized": r / r_base.clamp(min=MIN_BASELINE),
        "nll_per_sequence": terms.reconstruction(expected, records, "sequence_mean"),
        "token_weighted_reconstruction": terms.token_weighted_reconstruction(expected, weights, records),
        "token_weighted_baseline": terms.token_weighted_reconstruction(-surprise.baseline, weights, records),
    }


def _latent_terms(forward: Forward, config: ObjectiveConfig) -> dict[str, Tensor]:
    q, p = forward.posterior, forward.router
    if isinstance(q, Gaussians):
        assert isinstance(p, Gaussians)
        return {
            "kl": terms.gaussian_kl(q.mu, q.log_var, p.mu, p.log_var),
            "posterior_variance": terms.posterior_variance(q.log_var),
            "router_marginal_kl_to_prior": terms.gaussian_marginal_kl(p.mu, p.log_var),
        }
    assert isinstance(p, Categoricals)
    assert forward.log_support is not None
    values = {
        "kl": terms.categorical_kl(q.log_p, p.log_p),
        "posterior_entropy": terms.posterior_entropy(q.log_p),
        "router_support": terms.router_support(forward.log_support),
        "router_marginal_kl_to_prior": terms.categorical_marginal_kl(p.log_p),
    }
    if forward.divergence is not None:
        weights = _token_weights(forward, config) if config.inter_latent_divergence_positions == "weighted" else None
        values["inter_latent_divergence"] = terms.inter_latent_divergence(forward.divergence, q.count, weights, len(q))
    return values


def _token_weights(forward: Forward, config: ObjectiveConfig) -> Tensor:
    surprise = forward.surprise
    return terms.token_weights(surprise.entropy, surprise.record, len(forward.posterior), config.token_weighted_gamma)

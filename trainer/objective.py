"""The terms of the objective and their sum. All logarithms are natural, all values nats.

Shapes: B records, d_z latent dimensions, S latent samples a record, n target tokens in the batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.config import ObjectiveConfig

MIN_BASELINE = 1e-4
"""Floor, in nats a token, of the base model's own reconstruction that R is divided by."""


@dataclass(frozen=True)
class Forward:
    """All that the objective is computed from.

    Attributes:
        log_likelihood: (S, n); log p(y_t | x, z_s, y_<t) of each target token.
        baseline: (n,); -log p(y_t | x, y_<t) under the frozen base model. No gradient.
        mu_q, log_var_q: (B, d_z); the posterior q(z|x,y).
        mu_p, log_var_p: (B, d_z); the router p(z|x).
    """

    log_likelihood: Tensor
    baseline: Tensor
    mu_q: Tensor
    log_var_q: Tensor
    mu_p: Tensor
    log_var_p: Tensor


def reconstruction(log_likelihood: Tensor, records: int, reduction: str) -> Tensor:
    """R = -(1/S) sum_s sum_t log p(y_t | x, z_s, y_<t), over n (``token_mean``) or over B (``sequence_mean``).

    Args:
        log_likelihood: (S, n).
        records: B.
        reduction: ``token_mean`` or ``sequence_mean``.
    """
    if reduction == "token_mean":
        return -log_likelihood.mean()
    return -log_likelihood.sum() / (log_likelihood.shape[0] * records)


def gaussian_kl(mu_q: Tensor, log_var_q: Tensor, mu_p: Tensor, log_var_p: Tensor) -> Tensor:
    """KL(q || p) of diagonal Gaussians, summed over dimensions, mean over records.

    1/2 sum_d [ log s_p - log s_q + (s_q + (mu_q - mu_p)^2) / s_p - 1 ], s = exp(log_var). All arguments: (B, d_z).
    """
    spread = (log_var_q.exp() + (mu_q - mu_p).square()) / log_var_p.exp()
    return 0.5 * (log_var_p - log_var_q + spread - 1).sum(1).mean()


def posterior_variance(log_var_q: Tensor) -> Tensor:
    """Mean posterior variance over records and dimensions.

    Args:
        log_var_q: (B, d_z).
    """
    return log_var_q.exp().mean()


def router_marginal_kl_to_prior(mu_p: Tensor, log_var_p: Tensor) -> Tensor:
    """KL of the router's marginal over the batch, as a Gaussian with its moments, from N(0, I).

    The variance of the mixture E_x[p(z|x)] follows from the law of total variance, mean_b s_p + Var_b(mu_p): without
    the second part a router that tells inputs apart would be punished although its marginal matches the prior. Both
    arguments: (B, d_z).
    """
    mean = mu_p.mean(0)  # (d_z,)
    variance = log_var_p.exp().mean(0) + mu_p.var(0, correction=0)  # (d_z,)
    return 0.5 * (variance + mean.square() - 1 - variance.log()).sum()


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


def evaluate_objective(forward: Forward, config: ObjectiveConfig, step: int) -> Objective:
    """Compute J = R* + beta KL + sum_j lambda_j L_j on one batch.

    R* is R / max(R_base, 1e-4) if `config.baseline_normalized`, with R_base the base model's own reconstruction of the
    same batch: the generator starts as the base, so R alone is small from the start and the KL would outweigh it.

    Args:
        forward: of the batch.
        config: the weights.
        step: optimiser step, from 1; for the KL's warm-up.
    """
    records = len(forward.mu_q)
    r = reconstruction(forward.log_likelihood, records, config.reduction)
    r_base = reconstruction(-forward.baseline[None], records, config.reduction)
    normalized = r / r_base.clamp(min=MIN_BASELINE)
    raw = {
        "reconstruction_loss": r,
        "baseline_reconstruction": r_base,
        "reconstruction_normalized": normalized,
        "nll_per_sequence": reconstruction(forward.log_likelihood, records, "sequence_mean"),
        "kl": gaussian_kl(forward.mu_q, forward.log_var_q, forward.mu_p, forward.log_var_p),
        "posterior_variance": posterior_variance(forward.log_var_q),
        "router_marginal_kl_to_prior": router_marginal_kl_to_prior(forward.mu_p, forward.log_var_p),
    }
    warmup = min(1.0, step / config.kl_warmup_steps) if config.kl_warmup_steps else 1.0
    weighted = {
        "reconstruction": normalized if config.baseline_normalized else r,
        "kl": config.beta * warmup * raw["kl"],
        "posterior_variance": config.posterior_variance_weight * raw["posterior_variance"],
        "router_marginal_kl_to_prior": config.router_marginal_kl_to_prior_weight * raw["router_marginal_kl_to_prior"],
    }
    return Objective(torch.stack(list(weighted.values())).sum(), raw, weighted)


def fractions(weighted: dict[str, float]) -> dict[str, float]:
    """Return each term's share of the objective, |w_j L_j| / sum_i |w_i L_i|: of its value, not of its gradient."""
    whole = sum(abs(value) for value in weighted.values())
    return {name: abs(value) / whole if whole > 0 else 0.0 for name, value in weighted.items()}

"""The formulas of the objective's terms, on tensors alone. All logarithms are natural, all values nats.

Shapes: B records, n target tokens in the batch, K values of a discrete z, d_z dimensions of a continuous one,
L latents run for a record (K, or the number of samples), V tokens in the vocabulary.
"""

import math

import torch
from torch import Tensor

ENTROPY_FLOOR = 1e-3
"""Added to each entropy, in nats, before it becomes a token's weight: where the base is certain all weigh the same."""

MARGINAL_FLOOR = 1e-8
"""Floor of the router's marginal probability of a latent, so that one that died keeps a finite gradient."""


def expected_log_likelihood(log_likelihood: Tensor, mixing: Tensor, record: Tensor) -> Tensor:
    """Return E_z~q log p(y_t | x, z, y_<t) of each target: an exact sum over K, or a mean over samples.

    Args:
        log_likelihood: (L, n).
        mixing: (L, B); weights of a record's latents, which add up to 1. Gradients reach q through them.
        record: (n,), int64; the record of each target.

    Returns:
        (n,).
    """
    return (mixing[:, record] * log_likelihood).sum(0)


def reconstruction(log_likelihood: Tensor, records: int, reduction: str) -> Tensor:
    """R = -sum_t log p(y_t) over n (``token_mean``) or over B (``sequence_mean``).

    Args:
        log_likelihood: (n,).
        records: B.
        reduction: ``token_mean`` or ``sequence_mean``.
    """
    return -log_likelihood.sum() / (len(log_likelihood) if reduction == "token_mean" else records)


def per_record(values: Tensor, record: Tensor, records: int) -> Tensor:
    """Add up the values (n,) of each record's targets, (B,)."""
    return torch.zeros(records, dtype=values.dtype, device=values.device).index_add(0, record, values)


def token_weights(entropy: Tensor, record: Tensor, records: int, gamma: float = 1.0) -> Tensor:
    """w_t = (H_t + eps)^gamma / sum over the record's targets: weights of one record add up to 1. No gradient.

    H and not the negative log-likelihood: entropy belongs to the position, while a surprising token may also be a
    rare one that means nothing, or the base's own mistake.

    Args:
        entropy: (n,); of the base's prediction at each target.
        record: (n,), int64.
        records: B.
        gamma: how much the uncertain tokens stand out; 0: not at all.

    Returns:
        (n,).
    """
    weights = (entropy.detach() + ENTROPY_FLOOR) ** gamma
    return weights / per_record(weights, record, records)[record]


def token_weighted_reconstruction(log_likelihood: Tensor, weights: Tensor, records: int) -> Tensor:
    """R_tw = -(1/B) sum_t w_t log p(y_t).

    Args:
        log_likelihood: (n,), expected under q.
        weights: (n,), of `token_weights`.
        records: B.
    """
    return -(weights * log_likelihood).sum() / records


def gaussian_kl(mu_q: Tensor, log_var_q: Tensor, mu_p: Tensor, log_var_p: Tensor) -> Tensor:
    """KL(q || p) of diagonal Gaussians, summed over dimensions, mean over records.

    1/2 sum_d [ log s_p - log s_q + (s_q + (mu_q - mu_p)^2) / s_p - 1 ], s = exp(log_var). All arguments: (B, d_z).
    """
    spread = (log_var_q.exp() + (mu_q - mu_p).square()) / log_var_p.exp()
    return 0.5 * (log_var_p - log_var_q + spread - 1).sum(1).mean()


def categorical_kl(log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(q || p) = sum_k q_k (log q_k - log p_k), mean over records. Both arguments: (B, K), normalised."""
    return (log_q.exp() * (log_q - log_p)).sum(1).mean()


def posterior_entropy(log_q: Tensor) -> Tensor:
    """Mean entropy of the posteriors, 0 to log K.

    Args:
        log_q: (B, K), normalised.
    """
    return -(log_q.exp() * log_q).sum(1).mean()


def router_support(log_support: Tensor) -> Tensor:
    """Mean of -log of the probability that the next token at ``<z>`` is a latent's at all.

    Args:
        log_support: (B,), log of that probability.
    """
    return -log_support.mean()


def categorical_marginal_kl(log_p: Tensor) -> Tensor:
    """KL of the router's marginal over the batch from the uniform prior, 0 to log K: sum_k m_k (log m_k + log K).

    Args:
        log_p: (B, K), normalised.
    """
    marginal = log_p.exp().mean(0).clamp(min=MARGINAL_FLOOR)  # (K,)
    return (marginal * (marginal.log() + math.log(log_p.shape[1]))).sum()


def gaussian_marginal_kl(mu_p: Tensor, log_var_p: Tensor) -> Tensor:
    """KL of the router's marginal over the batch, as a Gaussian with its moments, from N(0, I).

    The variance of the mixture E_x[p(z|x)] follows from the law of total variance, mean_b s_p + Var_b(mu_p): without
    the second part a router that tells inputs apart would be punished although its marginal matches the prior. Both
    arguments: (B, d_z).
    """
    mean = mu_p.mean(0)  # (d_z,)
    variance = log_var_p.exp().mean(0) + mu_p.var(0, correction=0)  # (d_z,)
    return 0.5 * (variance + mean.square() - 1 - variance.log()).sum()


def posterior_variance(log_var_q: Tensor) -> Tensor:
    """Mean posterior variance over records and dimensions.

    Args:
        log_var_q: (B, d_z).
    """
    return log_var_q.exp().mean()


def jensen_shannon(log_p: Tensor) -> Tensor:
    """Divergence of K predictions, equally weighted: entropy of their mean less the mean of their entropies.

    The mean is taken in logarithms, so that a token no latent gives any probability has no undefined gradient.

    Args:
        log_p: (K, n, V), normalised.

    Returns:
        (n,), from 0 (equal) to log K (disjoint).
    """
    log_mean = log_p.logsumexp(0) - math.log(len(log_p))  # (n, V)
    entropies = -(log_p.exp() * log_p).sum(-1)  # (K, n)
    return -(log_mean.exp() * log_mean).sum(-1) - entropies.mean(0)


def inter_latent_divergence(divergence: Tensor, latents: int, weights: Tensor | None, records: int) -> Tensor:
    """-JSD / log K, from -1 (latents predict different tokens everywhere) to 0: less is better.

    Args:
        divergence: (n,), of `jensen_shannon`.
        latents: K.
        weights: (n,), of `token_weights`, for the mean over a record's targets; None: the plain mean over all.
        records: B.
    """
    mean = divergence.mean() if weights is None else (weights * divergence).sum() / records
    return -mean / math.log(latents)

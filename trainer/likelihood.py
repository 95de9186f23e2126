"""Log-likelihoods of the target tokens alone: logits are never made for the prompt or for padding."""

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from trainer.backbone import Parts
from trainer.batches import Rows
from trainer.terms import jensen_shannon

MAX_LOGITS = 2**26
"""Logits held at once (256 MiB in float32). More targets are done in chunks whose logits are made again backwards."""


def target_states(hidden: Tensor, rows: Rows) -> Tensor:
    """Return the hidden states that predict the targets.

    Args:
        hidden: (B, L, d).
        rows: B records of length L with n targets.

    Returns:
        (n, d), row by row.
    """
    return hidden[:, :-1][rows.is_target[:, 1:]]


def targets(rows: Rows) -> Tensor:
    """Return the ids of the targets, (n,), row by row."""
    return rows.ids[rows.is_target]


def log_likelihood(states: Tensor, target_ids: Tensor, lm: Parts) -> Tensor:
    """Return log p of each target.

    Args:
        states: (n, d), of `target_states`.
        target_ids: (n,).
        lm: whose head makes the logits.

    Returns:
        (n,), float32.
    """

    def of_chunk(states: Tensor, target_ids: Tensor) -> Tensor:
        return -functional.cross_entropy(lm.head(states).float(), target_ids, reduction="none")

    chunk = max(1, MAX_LOGITS // lm.config.vocab_size)
    if len(states) <= chunk:
        return of_chunk(states, target_ids)
    return torch.cat(
        [
            checkpoint(of_chunk, part, part_ids, use_reentrant=False)
            for part, part_ids in zip(states.split(chunk), target_ids.split(chunk), strict=True)
        ]
    )


def log_likelihood_and_divergence(states: Tensor, target_ids: Tensor, lm: Parts) -> tuple[Tensor, Tensor]:
    """Return log p of each target under each of K latents, and how much these disagree about the token.

    Args:
        states: (K, n, d); see `target_states`.
        target_ids: (n,).
        lm: whose head makes the logits.

    Returns:
        (K, n), and the Jensen-Shannon divergence of the K predictions over the vocabulary, (n,); float32.
    """

    def of_chunk(states: Tensor, target_ids: Tensor) -> tuple[Tensor, Tensor]:
        log_p = lm.head(states).float().log_softmax(-1)  # (K, chunk, V)
        own = log_p.gather(-1, target_ids.expand(len(log_p), -1)[..., None])[..., 0]  # (K, chunk)
        return own, jensen_shannon(log_p)

    chunk = max(1, MAX_LOGITS // (len(states) * lm.config.vocab_size))
    if len(target_ids) <= chunk:
        return of_chunk(states, target_ids)
    parts = [
        checkpoint(of_chunk, part, part_ids, use_reentrant=False)
        for part, part_ids in zip(states.split(chunk, dim=1), target_ids.split(chunk), strict=True)
    ]
    return torch.cat([own for own, _ in parts], dim=1), torch.cat([divergence for _, divergence in parts])


@torch.no_grad()
def surprise(states: Tensor, target_ids: Tensor, lm: Parts) -> tuple[Tensor, Tensor]:
    """Return what a model makes of each target: its negative log-likelihood, and the entropy of the prediction.

    Args:
        states: (n, d).
        target_ids: (n,).
        lm: whose head makes the logits.

    Returns:
        (n,) and (n,), nats, float32.
    """
    nll, entropy = [], []
    chunk = max(1, MAX_LOGITS // lm.config.vocab_size)
    for part, part_ids in zip(states.split(chunk), target_ids.split(chunk), strict=True):
        log_p = lm.head(part).float().log_softmax(-1)  # (chunk, V)
        nll.append(-log_p.gather(1, part_ids[:, None])[:, 0])
        entropy.append(-(log_p.exp() * log_p).sum(-1))
    return torch.cat(nll), torch.cat(entropy)

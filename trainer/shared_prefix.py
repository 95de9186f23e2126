"""The generator's pass: one record under several latents, with the prefix that they share computed once.

A record's cost is then (P + L T') instead of L (P + T') tokens, with P tokens up to ``<z>`` and T' behind it; gradients
go through the prefix's keys and values and are those of the repetition.
"""

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from trainer.backbone import Parts, hidden_states
from trainer.batches import Rows
from trainer.likelihood import target_states


def run_generator(lm: Parts, rows: Rows, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Run B records under L latents each.

    Args:
        lm: the generator.
        rows: B generator records with n targets.
        latents: (L, B, d); embeddings at the place behind ``<z>``.

    Returns:
        final states at ``<z>``, (B, d), where the router reads, and those that predict the targets, (L, n, d).
    """
    if len(latents) == 1:
        return _in_one_pass(lm, rows, latents[0])
    count, records = latents.shape[:2]
    prefix_length = int(rows.slot.max()) + 1  # P, of the longest
    is_prefix = torch.arange(prefix_length, device=rows.ids.device) <= rows.slot[:, None]  # (B, P)
    cache = DynamicCache(config=lm.config)
    prefix_visible = rows.visible[:, :prefix_length] & is_prefix
    hidden = hidden_states(
        lm.decoder, lm.embed(rows.ids[:, :prefix_length]), rows.positions[:, :prefix_length], cache, prefix_visible
    )  # (B, P, d)
    at_z = hidden[torch.arange(records, device=hidden.device), rows.slot]
    _repeat_cache(cache, count)
    suffix = _behind_slot(rows)
    embeddings = lm.embed(suffix.ids[:, 1:]).repeat(count, 1, 1)  # (L B, T' - 1, d)
    embeddings = torch.cat([latents.flatten(0, 1)[:, None].to(embeddings.dtype), embeddings], dim=1)
    visible = torch.cat([prefix_visible, suffix.visible], dim=1).repeat(count, 1)  # (L B, P + T')
    behind = hidden_states(lm.decoder, embeddings, suffix.positions.repeat(count, 1), cache, visible)
    states = target_states(behind, suffix.repeat(count))  # (L n, d)
    return at_z, states.unflatten(0, (count, -1))


def _in_one_pass(lm: Parts, rows: Rows, latent: Tensor) -> tuple[Tensor, Tensor]:
    """Run B records under one latent each, (B, d); see `run_generator`."""
    every = torch.arange(len(latent), device=latent.device)
    embeddings = lm.embed(rows.ids)  # (B, L, d)
    embeddings = embeddings.index_put((every, rows.slot + 1), latent.to(embeddings.dtype))
    hidden = hidden_states(lm.decoder, embeddings, rows.positions, visible=rows.visible)
    return hidden[every, rows.slot], target_states(hidden, rows)[None]


def _repeat_cache(cache: DynamicCache, times: int) -> None:
    """Give a cache of B rows `times` whole copies of them, one behind the other; gradients add up."""
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer)
        assert layer.keys is not None
        assert layer.values is not None
        layer.keys, layer.values = layer.keys.repeat(times, 1, 1, 1), layer.values.repeat(times, 1, 1, 1)


def _behind_slot(rows: Rows) -> Rows:
    """Return the records from the place behind ``<z>`` on, right-padded; padding is never looked at."""
    lengths = rows.lengths - rows.slot - 1
    places = torch.arange(int(lengths.max()), device=rows.ids.device)
    inside = places < lengths[:, None]  # (B, T')
    index = (rows.slot[:, None] + 1 + places).clamp(max=rows.ids.shape[1] - 1)
    return Rows(
        rows.ids.gather(1, index),
        rows.positions.gather(1, index),
        rows.is_target.gather(1, index) & inside,
        lengths,
        torch.zeros_like(rows.slot),
        rows.visible.gather(1, index),
    )

"""One decoding step of small Qwen2 and Llama models, with fewer and cheaper operations than transformers' own.

transformers' layers serve every length, mask and back end. For one new token a row, at one position and with nothing
hidden, rows need no mask and share a rotation, and attention written as two batched products takes two thirds of
torch's fused one. The modules are the model's own, so adapters act; what is written here again is

    h <- h + O softmax(R q (R k)^T / sqrt(d_head)) v        q, k, v of norm(h); R turns by the position
    h <- h + MLP(norm(h))                                   norm(h) = w h / sqrt(mean(h^2) + eps)

after `transformers.models.qwen2.modeling_qwen2` (Llama's differs by biases only).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.cache_utils import DynamicCache

from trainer.backbone import hidden_states

FAMILIES = frozenset({"Qwen2Model", "LlamaModel"})
"""Decoders of transformers whose layers are those above."""

SMALL_PRODUCT = 400
"""Multiply-adds of one matrix product below which torch batches such products by a plain loop on CPUs; with values,
whose rows lie apart, that takes three times as long as multiplying and summing."""


def decode(decoder: nn.Module, embeddings: Tensor, position: int, cache: DynamicCache) -> Tensor:
    """Run a decoder over one new token a row; all tokens in the cache are looked at.

    Args:
        decoder: of `Parts`.
        embeddings: (A, d).
        position: of all A tokens.
        cache: of the A rows, extended in place.

    Returns:
        (A, d), behind the final norm.
    """
    if is_light(decoder):
        return _decode_lightly(decoder, embeddings, position, cache)
    positions = torch.full((len(embeddings), 1), position, device=embeddings.device)
    return hidden_states(decoder, embeddings[:, None], positions, cache)[:, 0]


def is_light(decoder: Any) -> bool:
    """Say whether the layers of a decoder are those that are written here."""
    layer_types = getattr(decoder.config, "layer_types", None) or ["full_attention"]
    return type(decoder).__name__ in FAMILIES and set(layer_types) == {"full_attention"}


def _decode_lightly(decoder: Any, hidden: Tensor, position: int, cache: DynamicCache) -> Tensor:
    """Do what `decode` does, (A, d) to (A, d)."""
    cosine, sine = decoder.rotary_emb(hidden, torch.tensor([[position]], device=hidden.device))  # (1, 1, d_head)
    first, second = sine.chunk(2, dim=-1)
    rotation = cosine, torch.cat([-first, second], dim=-1)
    for layer in decoder.layers:
        hidden = hidden + _attend(layer.self_attn, _norm(layer.input_layernorm, hidden), rotation, cache)
        hidden = hidden + layer.mlp(_norm(layer.post_attention_layernorm, hidden))
    return _norm(decoder.norm, hidden)


def _attend(attention: Any, x: Tensor, rotation: tuple[Tensor, Tensor], cache: DynamicCache) -> Tensor:
    """Let each row's new token look at all of its row, (A, d) to (A, d)."""
    shape = len(x), -1, attention.head_dim
    q, k, v = (project(x).view(shape) for project in (attention.q_proj, attention.k_proj, attention.v_proj))
    keys, values = cache.update(_turn(k, rotation)[:, :, None], v[:, :, None], attention.layer_idx)
    queries = _turn(q, rotation) * attention.scaling  # (A, H, d_head)
    queries = queries.unflatten(1, (keys.shape[1], -1))  # (A, H_kv, H / H_kv, d_head)
    weights = (queries @ keys.mT).softmax(-1)  # keys, values: (A, H_kv, S, d_head)
    small = weights.shape[2] * values.shape[2] * values.shape[3] < SMALL_PRODUCT and weights.shape[2] == 1
    mixed = (weights.mT * values).sum(-2, keepdim=True) if small else weights @ values
    return attention.o_proj(mixed.flatten(1))


def _turn(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn (A, heads, d_head) by a position: the halves of d_head are the two parts of complex numbers."""
    cosine, sine = rotation
    return x * cosine + x.roll(x.shape[-1] // 2, dims=-1) * sine


def _norm(norm: Any, x: Tensor) -> Tensor:
    return functional.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)

"""Writing traces: batched decoding with a key-value cache, for rows whose prompts are equally long."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from trainer.backbone import Parts, Tokenizer, hidden_states


def equal_length_groups(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Yield row numbers in groups of one length and of at most `batch_size`: nothing is ever padded on the left."""
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for row, length in enumerate(lengths):
        groups[length].append(row)
    for _, rows in sorted(groups.items()):
        for start in range(0, len(rows), batch_size):
            yield rows[start : start + batch_size]


def drop_hidden_keys(cache: DynamicCache, visible: Tensor) -> None:
    """Take keys and values that nothing may look at any more out of a cache: decoding then needs no mask.

    Args:
        cache: of B prompts of one length L, changed in place.
        visible: (L,), bool; the same for all prompts.
    """
    if bool(visible.all()):
        return
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer)
        assert layer.keys is not None
        assert layer.values is not None
        layer.keys, layer.values = layer.keys[:, :, visible], layer.values[:, :, visible]  # (B, heads, seen, d_head)


@torch.no_grad()
def write_traces(
    lm: Parts,
    tokenizer: Tokenizer,
    *,
    hidden: Tensor,
    cache: DynamicCache,
    position: int,
    max_tokens: int,
    temperature: float,
    generator: torch.Generator,
) -> list[list[int]]:
    """Go on from ``<y>`` until ``</y>``, or ``<eos>``, or the limit.

    Args:
        lm: what writes.
        tokenizer: of the markup.
        hidden: (B, d); final states at ``<y>``.
        cache: keys and values of the prompts, with ``<y>``; extended and cut in place.
        position: of the next token.
        max_tokens: the limit.
        temperature: of the sampling; 0 takes the most probable token.
        generator: of the sampling.

    Returns:
        B lists of token ids, without ``</y>``.
    """
    count = len(hidden)
    written: list[list[int]] = [[] for _ in range(count)]
    alive = torch.arange(count, device=hidden.device)  # rows still being written, (A,)
    for _ in range(max_tokens):
        tokens = _choose(lm.head(hidden).float(), temperature, generator)  # (A,)
        going = (tokens != tokenizer.y_close) & (tokens != tokenizer.eos)
        for row, token, goes_on in zip(alive.tolist(), tokens.tolist(), going.tolist(), strict=True):
            if goes_on:
                written[row].append(token)
        if not bool(going.any()):
            break
        if not bool(going.all()):
            kept = going.nonzero()[:, 0]
            alive, tokens = alive[kept], tokens[kept]
            cache.batch_select_indices(kept)
        positions = torch.full((len(alive), 1), position, device=hidden.device)
        hidden = hidden_states(lm.decoder, lm.embed(tokens[:, None]), positions, cache)[:, -1]
        position += 1
    return written


def _choose(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Choose a token a row.

    Args:
        logits: (A, V).
        temperature: 0 takes the most probable token.
        generator: of the draws.

    Returns:
        (A,), int64.
    """
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]

"""Writing traces: batched decoding with a key-value cache, for rows whose prompts are equally long."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from trainer.backbone import Parts, Tokenizer
from trainer.decode_step import decode

NOTHING = -1
"""Stands where no token was written."""

CARRIED_SHARE = 0.75
"""Rows that are done are carried along until fewer than that share still write: taking rows out copies the cache."""


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


@torch.inference_mode()
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
    make_room(cache, max_tokens)
    written = torch.full((count, max_tokens), NOTHING, device=hidden.device)
    rows = torch.arange(count, device=hidden.device)  # of the answers that are still carried along, (A,)
    writing = torch.ones_like(rows, dtype=torch.bool)  # (A,)
    for step in range(max_tokens):
        tokens = _choose(lm.head(hidden).float(), temperature, generator)  # (A,)
        writing = writing & (tokens != tokenizer.y_close) & (tokens != tokenizer.eos)
        written[rows, step] = tokens.where(writing, NOTHING)
        left = int(writing.sum())
        if left == 0:
            break
        if left < CARRIED_SHARE * len(rows):
            kept = writing.nonzero()[:, 0]
            rows, tokens, writing = rows[kept], tokens[kept], writing[kept]
            cache.batch_select_indices(kept)
        hidden = decode(lm.decoder, lm.embed(tokens), position + step, cache)
    lengths = (written != NOTHING).sum(1).tolist()
    return [row[:length] for row, length in zip(written.tolist(), lengths, strict=True)]


class RoomyLayer(DynamicLayer):
    """A layer of a cache with room for tokens to come: they are written in place, where `DynamicLayer` copies it all.

    Args:
        filled: what is in the cache already, (B, heads, S, d_head).
        room: tokens to come.
    """

    def __init__(self, filled: DynamicLayer, room: int) -> None:
        super().__init__()
        assert filled.keys is not None
        assert filled.values is not None
        self.lazy_initialization(filled.keys, filled.values)
        self._room = room
        self._keys, self.keys = self._spread(filled.keys)
        self._values, self.values = self._spread(filled.values)

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Append (B, heads, L, d_head) each, and return all keys and values."""
        start, stop = self.get_seq_length(), self.get_seq_length() + key_states.shape[-2]
        self._keys[:, :, start:stop] = key_states
        self._values[:, :, start:stop] = value_states
        self.keys, self.values = self._keys[:, :, :stop], self._values[:, :, :stop]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some of the rows: they move to the front of the buffers, which stay."""
        assert self.keys is not None
        assert self.values is not None
        self._keys, self.keys = self._moved(self._keys, self.keys[indices])
        self._values, self.values = self._moved(self._values, self.values[indices])

    def _moved(self, buffer: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Write rows to the front of a buffer; return what is left of it, and the view of what is there."""
        buffer = buffer[: len(kept)]
        view = buffer[:, :, : kept.shape[2]]
        view.copy_(kept)
        return buffer, view

    def _spread(self, filled: Tensor) -> tuple[Tensor, Tensor]:
        """Return a buffer with room behind what is there, and the view of what is there."""
        batch, heads, length, width = filled.shape
        buffer = filled.new_empty(batch, heads, length + self._room, width)
        buffer[:, :, :length] = filled
        return buffer, buffer[:, :, :length]


def make_room(cache: DynamicCache, tokens: int) -> None:
    """Give all layers of a cache room for that many tokens to come."""
    for number, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:  # others, of sliding windows, forget
            cache.layers[number] = RoomyLayer(layer, tokens)


def _choose(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Choose a token a row: one number is drawn for it, where `torch.multinomial` draws one for each of V tokens.

    Args:
        logits: (A, V).
        temperature: 0 takes the most probable token.
        generator: of the draws.

    Returns:
        (A,), int64.
    """
    if temperature == 0:
        return logits.argmax(-1)
    cumulated = (logits / temperature).softmax(-1).cumsum(-1)  # (A, V)
    share = torch.rand(len(logits), 1, generator=generator, device=logits.device)
    drawn = torch.searchsorted(cumulated, share * cumulated[:, -1:], right=True)  # never a token of probability 0
    return drawn[:, 0].clamp(max=logits.shape[-1] - 1)

"""Decoding token by token: the light step and the cache with room, against transformers' own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel, Qwen2Config, Qwen2Model
from transformers.cache_utils import DynamicCache

from trainer.adapters import GENERATOR, add_adapters, switch_to
from trainer.backbone import Backbone, Parts, hidden_states
from trainer.config import AdaptationConfig
from trainer.decode_step import decode, is_light
from trainer.generate import RoomyLayer, make_room

SHAPE: dict[str, Any] = {
    "vocab_size": 11,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
ROWS, PROMPT, STEPS = 5, 7, 6


def qwen2() -> Any:
    return Qwen2Model(Qwen2Config(**SHAPE))


def llama() -> Any:
    scaled = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    return LlamaModel(LlamaConfig(**SHAPE, attention_bias=True, head_dim=10, rope_parameters=scaled))


def sliding() -> Any:
    window = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
    return Qwen2Model(Qwen2Config(**SHAPE, **window))


def gpt2() -> Any:
    return GPT2Model(GPT2Config(vocab_size=11, n_embd=24, n_layer=2, n_head=4))


def moved(model: Any) -> Any:
    """Return a model away from its start, where norms are ones and biases zeros."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@torch.no_grad()
def in_steps(decoder: Any, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the states of `STEPS` tokens behind a prompt, step by step and in one whole pass, (B, STEPS, d) each.

    Between two steps some of the rows leave the batch; the others' states alone are returned.
    """
    embeddings = torch.randn(ROWS, PROMPT + STEPS, width, generator=torch.Generator().manual_seed(2))
    positions = torch.arange(PROMPT + STEPS).expand(ROWS, -1)
    cache, kept = DynamicCache(config=decoder.config), torch.tensor([1, 4])
    hidden_states(decoder, embeddings[:, :PROMPT], positions[:, :PROMPT], cache)
    make_room(cache, STEPS)
    states = []
    for step in range(STEPS):
        if step == 3:
            cache.batch_select_indices(kept)
        inputs = embeddings if step < 3 else embeddings[kept]
        state = decode(decoder, inputs[:, PROMPT + step], PROMPT + step, cache)
        states.append(state[kept] if step < 3 else state)
    return torch.stack(states, 1), hidden_states(decoder, embeddings, positions)[kept, PROMPT:]


@pytest.mark.parametrize(("make", "light"), [(qwen2, True), (llama, True), (sliding, False), (gpt2, False)])
def test_steps_of_any_decoder_are_one_whole_pass_of_transformers(make: Callable[[], Any], light: bool) -> None:
    torch.manual_seed(0)
    decoder = moved(make())
    assert is_light(decoder) is light
    steps, whole = in_steps(decoder, 24)
    assert whole.std() > 0.1
    torch.testing.assert_close(steps, whole, rtol=1e-5, atol=1e-5)


def test_the_adapter_that_acts_takes_part_in_a_step(backbone: Backbone) -> None:
    adaptation = AdaptationConfig(kind="lora", rank=4)
    tokens = backbone.new_token_ids
    model = moved(add_adapters(backbone.model, adaptation, generator_token_ids=tokens, posterior_token_ids=tokens))
    switch_to(model, GENERATOR)
    decoder = Parts.of(model.get_base_model()).decoder
    assert is_light(decoder)
    steps, whole = in_steps(decoder, 32)
    torch.testing.assert_close(steps, whole, rtol=1e-4, atol=1e-5)
    with model.disable_adapter():
        assert (in_steps(decoder, 32)[0] - steps).abs().max() > 0.01


def test_a_step_in_bfloat16_is_near_the_one_in_float32() -> None:
    torch.manual_seed(0)
    decoder = moved(qwen2())
    exact, _ = in_steps(decoder, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, _ = in_steps(decoder, 24)
    difference = (rough.float() - exact).square().mean().sqrt() / exact.std()
    assert 0 < difference < 0.05


def test_a_cache_with_room_holds_what_transformers_own_holds() -> None:
    """A prompt, tokens, rows that leave, and the last token that there is room for."""
    generator = torch.Generator().manual_seed(0)

    def draw(rows: int, length: int) -> list[torch.Tensor]:
        return [torch.randn(rows, 2, length, 4, generator=generator) for _ in range(2)]

    theirs, ours = DynamicCache(), DynamicCache()
    prompt = draw(3, 5)
    for cache in (theirs, ours):
        cache.update(*prompt, 0)
    make_room(ours, 4)
    assert isinstance(ours.layers[0], RoomyLayer)
    for rows, length in [(3, 1), (3, 2), (2, 1)]:
        if rows == 2:
            for cache in (theirs, ours):
                cache.batch_select_indices(torch.tensor([2, 0]))
        new = draw(rows, length)
        for expected, got in zip(theirs.update(*new, 0), ours.update(*new, 0), strict=True):
            assert torch.equal(expected, got)
        assert ours.get_seq_length() == theirs.get_seq_length()

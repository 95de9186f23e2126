"""LoRA with the merged weight against peft's own layers: values, gradients, and where it steps aside."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.nn import functional

from trainer import merged_lora
from trainer.merged_lora import MergedLinear

DIM_IN, DIM_OUT, RANK = 12, 20, 4


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(DIM_IN, DIM_OUT)
        self.two = nn.Linear(DIM_OUT, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(x)))


def adapted(base: Stack, *, merged: bool) -> nn.Module:
    config = LoraConfig(r=RANK, lora_alpha=8, target_modules=["one", "two"], init_lora_weights=False)
    if merged:
        config._register_custom_module({nn.Linear: MergedLinear})
    torch.manual_seed(1)
    model = get_peft_model(copy.deepcopy(base), config)
    assert type(model.base_model.model.one) is (MergedLinear if merged else Linear)
    return model


def value_and_gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    y = model(x)
    y.square().sum().backward()
    return {"y": y, **{name: p.grad for name, p in model.named_parameters() if p.grad is not None}}


@contextmanager
def products() -> Iterator[list[tuple[int, ...]]]:
    """Yield the shapes of the weights of all products that are made meanwhile."""
    shapes: list[tuple[int, ...]] = []
    linear = functional.linear

    def counted(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        shapes.append(tuple(weight.shape))
        return linear(x, weight, bias)

    functional.linear = counted
    try:
        yield shapes
    finally:
        functional.linear = linear


@pytest.fixture
def base() -> Stack:
    torch.manual_seed(0)
    return Stack()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 7, DIM_IN, generator=torch.Generator().manual_seed(0))


def test_values_and_gradients_are_those_of_peft(base: Stack, x: Tensor) -> None:
    ours, theirs = (value_and_gradients(adapted(base, merged=merged), x) for merged in (True, False))
    assert ours.keys() == theirs.keys()
    assert len(ours) == 5  # y, and two matrices a layer: the base has no gradient
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-5)


def test_it_is_one_product_a_layer(base: Stack, x: Tensor) -> None:
    with products() as merged:
        adapted(base, merged=True)(x)
    with products() as low_rank:
        adapted(base, merged=False)(x)
    assert merged == [(DIM_OUT, DIM_IN), (3, DIM_OUT)]
    assert len(low_rank) == 6


def test_large_layers_and_low_precision_go_the_low_rank_way(
    base: Stack, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = adapted(base, merged=True)
    with products() as shapes, torch.autocast("cpu", torch.bfloat16):
        model(x)
    assert (RANK, DIM_IN) in shapes
    monkeypatch.setattr(merged_lora, "MERGED_WEIGHTS", DIM_IN * DIM_OUT - 1)
    with products() as shapes:
        model(x)
    assert (RANK, DIM_IN) in shapes
    assert (RANK, DIM_OUT) not in shapes  # the second layer is small enough still


def test_a_disabled_adapter_leaves_the_base(base: Stack, x: Tensor) -> None:
    model = adapted(base, merged=True)
    assert not torch.allclose(model(x), base(x))
    with model.disable_adapter():
        torch.testing.assert_close(model(x), base(x), rtol=0, atol=0)

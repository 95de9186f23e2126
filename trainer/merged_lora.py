"""LoRA by one product with the merged weight, for layers so small that the low-rank way round costs more.

    y = x (W + s B A)^T + b    instead of    y = x W^T + b + s (x A^T) B^T

Values and gradients are the same up to rounding. The second form needs fewer operations, but its products are thin and
its sum passes over all of y twice more: at widths up to 256 the first is faster, backwards too, although it makes the
gradient of all of W on the way. `docs/trainer.md` has the figures.
"""

from typing import Any, cast

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.nn import functional

MERGED_WEIGHTS = 2**16
"""The largest layer that is merged, in weights."""


class MergedLinear(Linear):
    """peft's LoRA layer, run as one product where the layer is small and nothing is rounded below float32.

    In bfloat16 the sum W + s B A would round the adapter away; there, and in all else that peft knows (merged for good,
    disabled, mixed batches, variants), the layer is peft's.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Map (..., d_in) to (..., d_out)."""
        base = cast("nn.Linear", self.base_layer)
        weight: Tensor = base.weight
        plain = not (args or kwargs or self.disable_adapters or self.merged or self.lora_variant)
        exact = x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled(x.device.type)
        if not (plain and exact and weight.numel() <= MERGED_WEIGHTS):
            return super().forward(x, *args, **kwargs)
        for name in self.active_adapters:
            if name in self.lora_A:
                low, high = cast("nn.Linear", self.lora_A[name]), cast("nn.Linear", self.lora_B[name])
                weight = torch.addmm(weight, high.weight, low.weight, alpha=self.scaling[name])  # (d_out, d_in)
        return functional.linear(x, weight, base.bias)

"""Muon in float32, made for CPUs: matrices of equal shape are orthogonalised in one batched product.

`torch.optim.Muon` iterates in bfloat16 and goes through the matrices one by one, which is right on CUDA and ten to
thirty times slower than this on a CPU without bfloat16 units.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Literal, overload

import torch
from torch import Tensor

# Quintic Newton-Schulz: p(s) = a s + b s^3 + c s^5 with the steepest slope at 0 (Jordan et al. 2024,
# https://kellerjordan.github.io/posts/muon/). Five steps bring singular values above 0.002 of the norm to 0.68 to 1.21,
# not to 1; smaller ones stay smaller.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
MIN_NORM = 1e-7  # a gradient of zeros stays zero instead of becoming NaN

Scale = Literal["match_rms", "original"]


def orthogonalize(gradient: Tensor, *, steps: int = 5) -> Tensor:
    """Push the singular values towards 1 by Newton-Schulz iteration (Jordan et al. 2024).

    Args:
        gradient: (..., out, in), any float dtype.
        steps: number of iterations.

    Returns:
        (..., out, in), float32.
    """
    a, b, c = NEWTON_SCHULZ
    x = gradient.float().reshape(-1, *gradient.shape[-2:])  # (N, out, in)
    tall = x.shape[-2] > x.shape[-1]
    if tall:  # the Gram matrix below is then the smaller one
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=MIN_NORM)  # Frobenius >= spectral: singular values <= 1
    for _ in range(steps):
        gram = x @ x.mT  # (N, m, m), m = min(out, in)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.mT if tall else x).reshape(gradient.shape)


def update_scale(rows: int, columns: int, scale: Scale) -> float:
    """Return the factor of an orthogonalised update.

    Args:
        rows: out features.
        columns: in features.
        scale: "match_rms" gives updates the root mean square of AdamW's, so that learning rates carry over
            (Liu et al. 2025, https://arxiv.org/abs/2502.16982); "original" is Jordan's.
    """
    if scale == "match_rms":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised (Jordan et al. 2024); for the weight matrices of a network's inner layers.

    Embeddings, heads, norms and biases belong to AdamW.

    Args:
        params: two-dimensional parameters, or parameter groups of them.
        lr: learning rate.
        momentum: share of the old in the running mean of gradients.
        weight_decay: decoupled: every step multiplies weights by 1 - lr * weight_decay.
        scale: see `update_scale`.
        steps: Newton-Schulz iterations.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        scale: Scale = "match_rms",
        steps: int = 5,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "scale": scale, "steps": steps}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own.

        Raises:
            ValueError: a parameter that is no matrix, or a setting out of its range.
        """
        super().add_param_group(param_group)
        _check_group(self.param_groups[-1])

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_shape: defaultdict[tuple[torch.Size, torch.device], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape, parameter.device].append(parameter)
            for parameters in by_shape.values():
                self._update(parameters, group)
        return loss

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update N parameters of one shape (out, in)."""
        directions = torch.stack([self._direction(p, group["momentum"]) for p in parameters])  # (N, out, in)
        updates = orthogonalize(directions, steps=group["steps"])
        rows, columns = parameters[0].shape
        step_size = group["lr"] * update_scale(rows, columns, group["scale"])
        for parameter, update in zip(parameters, updates.unbind(), strict=True):
            if group["weight_decay"]:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update.to(parameter.dtype), alpha=-step_size)

    def _direction(self, parameter: Tensor, momentum: float) -> Tensor:
        """Take the gradient into the running mean and return Nesterov's direction, (out, in), float32."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            # In the parameter's dtype: torch casts a loaded state to it, so a resumed run has the same bits.
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(buffer, momentum).float()


def _check_group(group: dict[str, Any]) -> None:
    """Refuse what Muon cannot train."""
    for parameter in group["params"]:
        if parameter.ndim != 2:
            raise ValueError(
                f"Muon: expected matrices, got a parameter of shape {tuple(parameter.shape)}. Give it to AdamW."
            )
    if group["scale"] not in ("match_rms", "original"):
        raise ValueError(f"Muon: scale: unknown value, got {group['scale']!r}. Use match_rms or original.")
    if group["lr"] < 0 or group["weight_decay"] < 0:
        raise ValueError(f"Muon: lr {group['lr']} and weight_decay {group['weight_decay']} must be 0 or more.")
    if not 0 <= group["momentum"] < 1:
        raise ValueError(f"Muon: momentum: expected 0 <= momentum < 1, got {group['momentum']}. The usual is 0.95.")

"""Which parameter is trained by which rule, and how the learning rate moves."""

import math
from collections.abc import Mapping

import torch
from torch import nn

from trainer.config import TrainConfig
from trainer.muon import Muon

ADAM_BETAS = (0.9, 0.95)
"""Usual for language models; the same second moment's memory as in nanoGPT and the Muon recipes."""

MUON_MOMENTUM = 0.95
"""Jordan et al. 2024."""

FLAT_UNTIL = 0.6
"""Share of the steps at which the schedule ``warmup_flat_linear`` begins to fall."""

HEADS = ("router_head", "posterior_head", "injection")
"""Modules that are new, not copies of the base; they learn at `train.head_lr`."""


def build_optimizers(
    parameters: Mapping[str, nn.Parameter], config: TrainConfig, device: torch.device
) -> list[torch.optim.Optimizer]:
    """Sort parameters into groups and make the optimizers.

    Matrices of a backbone go to Muon if that is chosen; embeddings, norms, biases, heads, injection and LoRA factors
    always to AdamW. Each group keeps its peak learning rate as ``peak_lr``.

    Args:
        parameters: what is trained, by name; names that begin with ``posterior.`` are the posterior's backbone's.
        config: rule, rates and weight decay.
        device: decides whose Muon is taken.
    """
    muon: dict[float, list[nn.Parameter]] = {}
    adamw: dict[float, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        head = name.startswith(HEADS)
        posterior = name.startswith("posterior.") or ".posterior" in name  # its adapter's
        scale = config.posterior_lr_scale if posterior and config.posterior_lr_scale is not None else 1.0
        lr = config.head_lr if head else config.lr * scale
        is_matrix = parameter.ndim == 2 and not head and "embed" not in name and "lm_head" not in name
        rule = muon if is_matrix and config.optimizer == "muon" else adamw
        rule.setdefault(lr, []).append(parameter)
    optimizers: list[torch.optim.Optimizer] = []
    if muon:
        optimizers.append(_muon(_groups(muon), config.weight_decay, device))
    optimizers.append(torch.optim.AdamW(_groups(adamw), betas=ADAM_BETAS, weight_decay=config.weight_decay, fused=True))
    return optimizers


def lr_share(step: int, steps: int, config: TrainConfig) -> float:
    """Return the learning rate's share of its peak.

    Args:
        step: from 1 to `steps`.
        steps: of the whole run.
        config: names the schedule.
    """
    if step <= config.warmup_steps:
        return step / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    start = config.warmup_steps if config.schedule == "cosine" else max(config.warmup_steps, FLAT_UNTIL * steps)
    gone = max(0.0, (step - start) / max(1.0, steps - start))
    fallen = (1 - math.cos(math.pi * gone)) / 2 if config.schedule == "cosine" else gone
    return 1.0 - (1.0 - config.final_lr_share) * fallen


def set_learning_rates(optimizers: list[torch.optim.Optimizer], share: float) -> None:
    """Set all groups to a share of their peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * share


def _groups(parameters: dict[float, list[nn.Parameter]]) -> list[dict[str, object]]:
    return [{"params": params, "lr": lr, "peak_lr": lr} for lr, params in parameters.items()]


def _muon(groups: list[dict[str, object]], weight_decay: float, device: torch.device) -> torch.optim.Optimizer:
    """Take torch's Muon on CUDA, where its bfloat16 is fast, and ours elsewhere."""
    if device.type == "cuda":
        return torch.optim.Muon(
            groups, momentum=MUON_MOMENTUM, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
    return Muon(groups, momentum=MUON_MOMENTUM, weight_decay=weight_decay, scale="match_rms")

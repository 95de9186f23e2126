"""The training loop: batches, gradient, step, series. Both modes go through it."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from trainer.batches import BatchOrder
from trainer.checkpoint import Checkpoint, Progress
from trainer.config import TrainConfig
from trainer.environment import choose_precision
from trainer.errors import DivergedError
from trainer.objective import fractions
from trainer.optimizers import build_optimizers, lr_share, set_learning_rates
from trainer.records import RunRecords
from trainer.stop import TRY_AGAIN_EXIT_CODE, StoppedError, StopRequest


class Order(Protocol):
    """Which rows are in the i-th micro-batch."""

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches in an epoch."""
        ...

    def __getitem__(self, i: int) -> Tensor:
        """Return the row numbers, (B,), of micro-batch i."""
        ...


class Learner(Protocol):
    """What a mode gives to the loop."""

    def parameters_by_name(self) -> Mapping[str, nn.Parameter]:
        """Return what is trained."""
        ...

    def loss(self, index: Tensor, step: int, part: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the objective on a micro-batch.

        Args:
            index: (B,), numbers of the training rows.
            step: from 1.
            part: number of the micro-batch within the step, from 0.

        Returns:
            what is minimised, and all values by name, scalars without gradient.
        """
        ...

    def prepare(self, step: int) -> None:
        """Have the data of a step (from 1) ready. May take long, and may be broken off and asked for again."""
        ...

    def tokens(self, index: Tensor) -> int:
        """Return how many tokens the model reads for a micro-batch, padding left out."""
        ...

    def validate(self, step: int) -> dict[str, float]:
        """Return the validation's metrics, the terms under ``loss/val/``.

        Raises:
            DivergedError: a term is not finite.
        """
        ...


def batch_order(lengths: Tensor, config: TrainConfig, seed: int) -> BatchOrder:
    """Return the order of the training rows.

    Args:
        lengths: (N,), tokens of each row.
        config: batch size, and where epochs are counted, how long one is at most.
        seed: of the run.
    """
    return BatchOrder(lengths, config.batch_size, seed, config.max_sequences_per_epoch if config.epochs else None)


def total_steps(config: TrainConfig, order: Order) -> int:
    """Return the number of optimiser steps: as configured, or what the epochs come to."""
    if config.steps is not None:
        return config.steps
    assert config.epochs is not None  # `check` refuses a config with neither
    return max(1, config.epochs * order.batches_per_epoch // config.accumulation)


@dataclass(frozen=True)
class Work:
    """What a step works with.

    Attributes:
        learner, order: of the mode.
        parameters: what is trained, by name.
        optimizers: of the parameters.
        config: of the training.
        steps: of the whole run.
        validate_every: steps between validations; 0: only at the end.
        device: of the weights.
        precision: of the products; weights, gradients and sums stay float32.
    """

    learner: Learner
    order: Order
    parameters: Mapping[str, nn.Parameter]
    optimizers: list[torch.optim.Optimizer]
    config: TrainConfig
    steps: int
    validate_every: int
    device: torch.device
    precision: torch.dtype

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass."""
        return torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision != torch.float32)


def train(
    learner: Learner,
    order: Order,
    config: TrainConfig,
    *,
    validate_every: int,
    series: str,
    device: torch.device,
    records: RunRecords,
    stop: StopRequest,
) -> Progress:
    """Train to the end, going on from the run's checkpoint if it is of the same series (see `Config.series`).

    Raises:
        DivergedError: the objective or the gradient is no longer finite.
        SystemExit: somebody asked to stop; a checkpoint was saved.
    """
    parameters = learner.parameters_by_name()
    optimizers = build_optimizers(parameters, config, device)
    steps = total_steps(config, order)
    precision = choose_precision(config.precision, device)
    work = Work(learner, order, parameters, optimizers, config, steps, validate_every, device, precision)
    checkpoint = Checkpoint(records, series, parameters, optimizers)
    progress = checkpoint.resume(device)
    records.rewind_history(progress.step - progress.point_due)
    shown: dict[str, float] = {}
    with stop.deferred():
        try:
            while progress.step < steps or progress.point_due:
                with checkpoint.last_good(progress):
                    shown = _advance(work, progress, records, stop, checkpoint) or shown
                speed = progress.tokens / max(progress.core_seconds, 1e-9)
                records.progress(progress.step, steps, {**shown, "train/tokens_per_core_second": speed})
                if stop.asked:
                    raise StoppedError  # noqa: TRY301  # as where a signal breaks off what takes long
        except StoppedError:
            checkpoint.save(progress)
            raise SystemExit(TRY_AGAIN_EXIT_CODE) from None
        checkpoint.save(progress)
    records.progress(steps, steps, shown, force=True)
    return progress


def _advance(
    work: Work, progress: Progress, records: RunRecords, stop: StopRequest, checkpoint: Checkpoint
) -> dict[str, float]:
    """Do one step, unless only its point of the series is due, and write that point.

    What is saved in between are weights that have just given a finite loss and gradient.

    Returns:
        what of it is worth showing; nothing where the step has no point.
    """
    before = time.process_time()
    if not progress.point_due:
        with stop.interruptible():
            work.learner.prepare(progress.step + 1)
            gradient = _gradient(work, progress.step + 1)
        if checkpoint.age_s > work.config.checkpoint_every_s:
            checkpoint.save(progress)
        _update(work, progress, gradient)
    with stop.interruptible():
        point = _point(work, progress)
    progress.core_seconds += time.process_time() - before
    if point:
        records.history({"step": progress.step, **_finite(point)})
    if _is_logged(work, progress.step):
        progress.sums, progress.summed_steps = {}, 0
    progress.point_due = False
    return {name: value for name, value in point.items() if name.count("/") < 3}


def _is_logged(work: Work, step: int) -> bool:
    return step % work.config.log_every == 0 or step == work.steps


def _point(work: Work, progress: Progress) -> dict[str, float]:
    """Return the last step's point of the series, empty where it has none; changes nothing."""
    step, every = progress.step, work.validate_every
    point = _window(progress) if _is_logged(work, step) else {}
    if step == work.steps or (every and step % every == 0):
        with work.autocast():
            point |= work.learner.validate(step)
    return point


@dataclass(frozen=True)
class Gradient:
    """What a step has found before it changes anything; the gradient itself is with the parameters.

    Attributes:
        means: of the step's values over its micro-batches.
        tokens: that were read.
    """

    means: dict[str, float]
    tokens: int


def _gradient(work: Work, step: int) -> Gradient:
    """Compute the gradient of a step (from 1).

    Raises:
        DivergedError: a value or the gradient is not finite.
    """
    config = work.config
    means: dict[str, float] = {}
    tokens = 0
    for part in range(config.accumulation):
        index = work.order[(step - 1) * config.accumulation + part]
        with work.autocast():
            total, values = work.learner.loss(index, step, part)
        numbers = torch.stack(list(values.values())).tolist()  # one transfer for all
        for name, number in zip(values, numbers, strict=True):
            means[name] = means.get(name, 0.0) + number / config.accumulation
        require_finite(step, means)
        (total / config.accumulation).backward()
        tokens += work.learner.tokens(index)
    means["gradient_norm"] = float(nn.utils.clip_grad_norm_(work.parameters.values(), config.clip or math.inf))
    require_finite(step, means)
    return Gradient(means, tokens)


def require_finite(step: int, values: Mapping[str, float]) -> None:
    """Hold a step's values against what can be trained on.

    Raises:
        DivergedError: one is not finite; names the first of them.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise DivergedError(step, name, value)


def _update(work: Work, progress: Progress, gradient: Gradient) -> None:
    """Do the next optimiser step and take its values into the progress."""
    step = progress.step + 1
    share = lr_share(step, work.steps, work.config)
    set_learning_rates(work.optimizers, share)
    for optimizer in work.optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    progress.step, progress.point_due = step, True
    progress.tokens += gradient.tokens
    _sum_up(progress, {**gradient.means, "lr": work.config.lr * share})


def _sum_up(progress: Progress, values: dict[str, float]) -> None:
    for name, value in values.items():
        progress.sums[name] = progress.sums.get(name, 0.0) + value
        if name.startswith("weighted/") and value != 0:
            term = name.removeprefix("weighted/")
            progress.applied_steps[term] = progress.applied_steps.get(term, 0) + 1
    progress.summed_steps += 1


def _window(progress: Progress) -> dict[str, float]:
    """Return the means since the last point of the series, with each term's share of the objective."""
    means = {name: value / progress.summed_steps for name, value in progress.sums.items()}
    weighted = {n.removeprefix("weighted/"): v for n, v in means.items() if n.startswith("weighted/")}
    point = {f"loss/train/{name}": v for name, v in means.items() if name not in {"gradient_norm", "lr"}}
    point |= {f"loss/train/fraction/{name}": v for name, v in fractions(weighted).items()}
    return {**point, "train/gradient_norm": means["gradient_norm"], "train/lr": means["lr"]}


def _finite(point: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in point.items()}

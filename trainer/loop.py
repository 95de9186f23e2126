"""The training loop: batches, gradient, step, series, checkpoints. Both modes go through it."""

import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trainer.batches import BatchOrder
from trainer.config import TrainConfig
from trainer.environment import choose_precision
from trainer.errors import DivergedError
from trainer.objective import fractions
from trainer.optimizers import build_optimizers, lr_share, set_learning_rates
from trainer.records import RunRecords, replacement
from trainer.stop import TRY_AGAIN_EXIT_CODE, StoppedError, StopRequest

STATE_FILE = "state.pt"


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
        """Return the validation's metrics, under ``loss/val/``."""
        ...


@dataclass
class Progress:
    """Where training stands; all of it goes into a checkpoint.

    Attributes:
        step: optimiser steps done.
        tokens, core_seconds: read and spent in these.
        sums: of each value since the last point of the series.
        summed_steps: how many steps are in `sums`.
        applied_steps: for each term of the objective, the steps in which it had a weight above 0.
        point_due: the last step's point of the series is still to be made and written.
    """

    step: int = 0
    tokens: int = 0
    core_seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    summed_steps: int = 0
    applied_steps: dict[str, int] = field(default_factory=dict)
    point_due: bool = False


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
    steps, path = total_steps(config, order), records.checkpoint_folder / STATE_FILE
    precision = choose_precision(config.precision, device)
    work = Work(learner, order, parameters, optimizers, config, steps, validate_every, device, precision)
    progress = _resume(path, work, series, records)
    records.rewind_history(progress.step - progress.point_due)
    shown: dict[str, float] = {}
    with stop.deferred():
        saved_step, last_save = progress.step if path.exists() else None, time.monotonic()
        try:
            while progress.step < steps or progress.point_due:
                shown = _advance(work, progress, records, stop, saved_step) or shown
                speed = progress.tokens / max(progress.core_seconds, 1e-9)
                records.progress(progress.step, steps, {**shown, "train/tokens_per_core_second": speed})
                if stop.asked:
                    raise StoppedError  # noqa: TRY301  # as where a signal breaks a validation off
                if time.monotonic() - last_save > config.checkpoint_every_s:
                    _save(path, work, progress, series)
                    saved_step, last_save = progress.step, time.monotonic()
        except StoppedError:
            _save(path, work, progress, series)
            raise SystemExit(TRY_AGAIN_EXIT_CODE) from None
        _save(path, work, progress, series)
    records.progress(steps, steps, shown, force=True)
    return progress


def _advance(
    work: Work, progress: Progress, records: RunRecords, stop: StopRequest, saved_step: int | None
) -> dict[str, float]:
    """Do one step, unless only its point of the series is due, and write that point.

    Returns:
        what of it is worth showing; nothing where the step has no point.
    """
    before = time.process_time()
    if not progress.point_due:
        with stop.interruptible():
            work.learner.prepare(progress.step + 1)
        with _last_good(saved_step):
            _step(work, progress)
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


@contextmanager
def _last_good(checkpoint_step: int | None) -> Iterator[None]:
    """Let a divergence in the block name the last checkpoint."""
    try:
        yield
    except DivergedError as error:
        raise DivergedError(error.step, error.term, error.value, checkpoint_step) from error


def _step(work: Work, progress: Progress) -> None:
    """Do one optimiser step and take its values, means over its micro-batches, into the progress."""
    step, config = progress.step + 1, work.config
    means: dict[str, float] = {}
    for part in range(config.accumulation):
        index = work.order[progress.step * config.accumulation + part]
        with work.autocast():
            total, values = work.learner.loss(index, step, part)
        numbers = torch.stack(list(values.values())).tolist()  # one transfer for all
        for name, number in zip(values, numbers, strict=True):
            if not math.isfinite(number):
                raise DivergedError(step, name, number)
            means[name] = means.get(name, 0.0) + number / config.accumulation
        (total / config.accumulation).backward()
        progress.tokens += work.learner.tokens(index)
    norm = float(nn.utils.clip_grad_norm_(work.parameters.values(), config.clip or math.inf))
    if not math.isfinite(norm):
        raise DivergedError(step, "gradient_norm", norm)
    share = lr_share(step, work.steps, config)
    set_learning_rates(work.optimizers, share)
    for optimizer in work.optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    progress.step, progress.point_due = step, True
    _sum_up(progress, {**means, "gradient_norm": norm, "lr": config.lr * share})


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


def _save(path: Path, work: Work, progress: Progress, series: str) -> None:
    """Replace the checkpoint, at once: a kill leaves the old one or the new one."""
    state = {
        "series": series,
        "parameters": {name: parameter.detach() for name, parameter in work.parameters.items()},
        "optimizers": [optimizer.state_dict() for optimizer in work.optimizers],
        "progress": vars(progress),
    }
    with replacement(path) as temporary:
        torch.save(state, temporary)


@torch.no_grad()
def _resume(path: Path, work: Work, series: str, records: RunRecords) -> Progress:
    """Bring parameters and optimizers to where the checkpoint left them; set aside one of another series."""
    if not path.exists():
        return Progress()
    state: dict[str, Any] = torch.load(path, map_location=work.device, weights_only=True)
    if state["series"] != series:
        kept = records.set_aside(state["series"])
        print(f"{path}: of another configuration. Kept in {kept}; starting at step 0.", file=sys.stderr)
        return Progress()
    for name, parameter in work.parameters.items():
        parameter.copy_(state["parameters"][name])
    for optimizer, saved in zip(work.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return Progress(**state["progress"])

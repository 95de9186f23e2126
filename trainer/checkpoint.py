"""The file that a run goes on from: what is trained, the optimizers, and where training stands."""

import pickle
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from trainer.errors import DivergedError, TrainerError
from trainer.records import RunRecords, replacement


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


class Checkpoint:
    """One run's checkpoint: the file, and how it stands to what is trained.

    Args:
        records: of the run; it knows the folder.
        series: of the run; only a checkpoint of the same is gone on from (see `Config.series`).
        parameters: what is trained, by name.
        optimizers: of the parameters.
    """

    def __init__(
        self,
        records: RunRecords,
        series: str,
        parameters: Mapping[str, nn.Parameter],
        optimizers: Sequence[torch.optim.Optimizer],
    ) -> None:
        self._records, self._series = records, series
        self._parameters, self._optimizers = parameters, optimizers
        self._path = records.state_path
        self._step: int | None = None  # that the file holds
        self._saved_at = time.monotonic()

    @property
    def age_s(self) -> float:
        """Seconds since the last save, or since the start."""
        return time.monotonic() - self._saved_at

    @torch.no_grad()
    def resume(self, device: torch.device) -> Progress:
        """Bring parameters and optimizers to where the file left them; set aside one of another series.

        Raises:
            TrainerError: the file is damaged.
        """
        if not self._path.exists():
            return Progress()
        try:
            state: dict[str, Any] = torch.load(self._path, map_location=device, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            first_line = str(error).strip().split("\n")[0]
            raise TrainerError(
                f"{self._path}: the checkpoint is damaged ({first_line:.80}). Move it away to start at step 0."
            ) from error
        if state["series"] != self._series:
            kept = self._records.set_aside(state["series"])
            print(f"{self._path}: of another configuration. Kept in {kept}; starting at step 0.", file=sys.stderr)
            return Progress()
        for name, parameter in self._parameters.items():
            parameter.copy_(state["parameters"][name])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        progress = Progress(**state["progress"])
        self._step = progress.step
        return progress

    def save(self, progress: Progress) -> None:
        """Replace the file, at once: a kill or a full disk leaves the old one or the new one."""
        state = {
            "series": self._series,
            "parameters": {name: parameter.detach() for name, parameter in self._parameters.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "progress": vars(progress),
        }
        # Through a file of Python's: of its own torch would hide why a write failed.
        with replacement(self._path) as temporary, temporary.open("wb") as file:
            torch.save(state, file)
        self._step, self._saved_at = progress.step, time.monotonic()

    @contextmanager
    def last_good(self, progress: Progress) -> Iterator[None]:
        """Let a divergence in the block name the file's step, if its weights are older than those that diverged."""
        try:
            yield
        except DivergedError as error:
            good = self._step if self._step is not None and self._step < progress.step else None
            raise DivergedError(error.step, error.term, error.value, good) from error

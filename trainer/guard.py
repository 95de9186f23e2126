"""Terms that do nothing fail the run: one that was never applied, or that reaches none of what it is to train."""

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import nn

from trainer.config import Config
from trainer.errors import TrainerError
from trainer.objective import Objective
from trainer.weights import TERMS, Part, first_step_above_0, part_of, weights_at

PATIENCE_STEPS = 5
"""A term has that many steps, from the first in which it is applied, to give every part of its a gradient."""


class TermGuard:
    """Watches each term's own gradient until it has reached all parts of the model that the term is to train.

    Usually that is one additional backward pass a term, in the first step.

    Args:
        parameters: what is trained, by name.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters: defaultdict[Part, list[nn.Parameter]] = defaultdict(list)
        for name, parameter in parameters.items():
            self._parameters[part_of(name)].append(parameter)
        trained = self._parameters.keys()
        self._missing = {name: [part for part in term.trains if part in trained] for name, term in TERMS.items()}
        self._looks: defaultdict[str, int] = defaultdict(int)

    def look(self, objective: Objective, weights: Mapping[str, float]) -> None:
        """Look at one step's terms, before its backward pass.

        Args:
            objective: of the step.
            weights: of the terms in this step; those of weight 0 are not looked at.

        Raises:
            TrainerError: a term had its steps and left a part without gradient.
        """
        for name, value in objective.weighted.items():
            if weights[name] == 0 or not self._missing[name]:
                continue
            self._missing[name] = [part for part in self._missing[name] if not self._reaches(value, part)]
            self._looks[name] += 1
            if self._missing[name] and self._looks[name] >= PATIENCE_STEPS:
                parts = ", ".join(self._missing[name])
                raise TrainerError(
                    f"objective.{TERMS[name].key or name}: in its first {PATIENCE_STEPS} steps the term {name} gave no "
                    f"gradient to: {parts}. Set its weight to 0, or find out what cuts it off."
                )

    def _reaches(self, value: torch.Tensor, part: Part) -> bool:
        if not value.requires_grad:
            return False
        gradients = torch.autograd.grad(value, self._parameters[part], retain_graph=True, allow_unused=True)
        return any(gradient is not None and bool(gradient.any()) for gradient in gradients)


def require_beginnings(config: Config, steps: int) -> None:
    """Hold weights that begin later against the steps that a run will have; `check` cannot count epochs in steps.

    Raises:
        TrainerError: a term has a weight above 0 only behind the last step.
    """
    for name in weights_at(config.objective, config.latent.kind, 1):
        key = TERMS[name].key
        start = first_step_above_0(getattr(config.objective, key)) if key else None
        if start is not None and start > steps:
            raise TrainerError(
                f"objective.{key}: is above 0 from step {start} on, but {config.train.epochs} epochs end at step "
                f"{steps}. Let it begin earlier."
            )


def require_applied(config: Config, steps: int, applied_steps: Mapping[str, int]) -> None:
    """Hold the counts of a run that has ended against the weights that it was given.

    Args:
        config: of the run.
        steps: that it had.
        applied_steps: for each term the steps in which it added to the objective.

    Raises:
        TrainerError: a term had a weight above 0 in some step and was never applied.
    """
    expected = {
        name
        for step in range(1, steps + 1)
        for name, weight in weights_at(config.objective, config.latent.kind, step).items()
        if weight > 0
    }
    for name in sorted(expected - {name for name, count in applied_steps.items() if count}):
        raise TrainerError(
            f"objective.{TERMS[name].key or name}: the term {name} has a weight, but in none of {steps} steps did it "
            "add anything to the objective. Set its weight to 0, or find out why it is always 0."
        )

"""The terms of the objective by name, and their weights, which may change over the steps. Imports nothing heavy."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import PlainSerializer, PlainValidator
from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from trainer.config import ObjectiveConfig

Kind = Literal["continuous", "discrete"]
"""Of the latent."""

Points = tuple[tuple[int, float], ...]
"""(step, weight), steps rising: linear in between, constant before the first and behind the last."""


class Part(StrEnum):
    """A part of the model; a trained parameter belongs to one."""

    GENERATOR = "generator"
    """Backbone of router and generator, with the rows of the latent's tokens."""
    ROUTER_HEAD = "router_head"
    INJECTION = "injection"
    POSTERIOR = "posterior"
    """Backbone of the posterior."""
    POSTERIOR_HEAD = "posterior_head"


@dataclass(frozen=True)
class Term:
    """A term of the objective.

    Attributes:
        key: of its weight, below ``objective``; empty for the reconstruction, whose weight follows from the mode.
        kinds: of latent that have it.
        trains: parts that it must give a gradient to.
    """

    key: str
    kinds: tuple[Kind, ...]
    trains: tuple[Part, ...]


_BOTH: tuple[Kind, ...] = ("continuous", "discrete")
_RECONSTRUCTION = (Part.GENERATOR, Part.INJECTION, Part.POSTERIOR, Part.POSTERIOR_HEAD)
_POSTERIOR = (Part.POSTERIOR, Part.POSTERIOR_HEAD)
_ROUTER = (Part.GENERATOR, Part.ROUTER_HEAD)

TERMS = {
    "reconstruction": Term("", _BOTH, _RECONSTRUCTION),
    "token_weighted_reconstruction": Term("token_weighted_reconstruction_weight", _BOTH, _RECONSTRUCTION),
    "kl": Term("beta", _BOTH, (*_POSTERIOR, *_ROUTER)),
    "router_marginal_kl_to_prior": Term("router_marginal_kl_to_prior_weight", _BOTH, _ROUTER),
    "posterior_variance": Term("posterior_variance_weight", ("continuous",), _POSTERIOR),
    "posterior_entropy": Term("posterior_entropy_weight", ("discrete",), _POSTERIOR),
    "router_support": Term("router_support_weight", ("discrete",), _ROUTER),
    "inter_latent_divergence": Term("inter_latent_divergence_weight", ("discrete",), (Part.GENERATOR, Part.INJECTION)),
}
"""All terms. J is the sum of those that the latent's kind has, each times its weight."""


def _parse(value: Any) -> float | Points:
    """Read a weight: a number of 0 or more, or a list of [step, weight].

    Raises:
        PydanticCustomError: it is neither.
    """
    if isinstance(value, list | tuple):
        return _parse_points(value)
    if not _is_number(value):
        raise PydanticCustomError("weight", "should be a number of 0 or more, or points [[step, weight], ...]")
    return float(value)


def _parse_points(value: Sequence[Any]) -> Points:
    points: list[tuple[int, float]] = []
    for point in value:
        match point:
            case [int() as step, weight] if not isinstance(step, bool) and step >= 0 and _is_number(weight):
                points.append((step, float(weight)))
            case _:
                raise PydanticCustomError("weight", "should hold points [step, weight], both of 0 or more")
    steps = [step for step, _ in points]
    if not steps or steps != sorted(set(steps)):
        raise PydanticCustomError("weight", "should hold at least one point [step, weight], with rising steps")
    return tuple(points)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max


def _write(value: float | Points) -> Any:
    """Return a weight as it is written in a record; pydantic would warn of the list that JSON makes of a tuple."""
    return [list(point) for point in value] if isinstance(value, tuple) else value


ScheduledWeight = Annotated[float | Points, PlainValidator(_parse), PlainSerializer(_write)]
"""A weight in a configuration: ``0.1``, or ``[[0, 0.0], [60, 0.1]]``."""


def weight_at(weight: float | Points, step: int) -> float:
    """Return a weight's value at a step (from 1)."""
    if not isinstance(weight, tuple):
        return weight
    before = [point for point in weight if point[0] <= step]
    after = [point for point in weight if point[0] > step]
    if not before or not after:
        return (before[-1] if before else after[0])[1]
    (left, low), (right, high) = before[-1], after[0]
    return low + (high - low) * (step - left) / (right - left)


def first_step_above_0(weight: float | Points) -> int | None:
    """Return the first step, from 1, at which a weight is above 0; None where there is none."""
    if not isinstance(weight, tuple):
        return 1 if weight > 0 else None
    candidates = sorted({1, *(step + offset for step, _ in weight for offset in (0, 1))})
    return next((step for step in candidates if step >= 1 and weight_at(weight, step) > 0), None)


def weights_at(objective: "ObjectiveConfig", kind: Kind, step: int) -> dict[str, float]:
    """Return the weight of every term that a kind of latent has, at a step (from 1)."""
    weights = {"reconstruction": _reconstruction_weight(objective, step)}
    for name, term in TERMS.items():
        if term.key and kind in term.kinds:
            weights[name] = weight_at(getattr(objective, term.key), step)
    if objective.kl_warmup_steps:
        weights["kl"] *= min(1.0, step / objective.kl_warmup_steps)
    return weights


def _reconstruction_weight(objective: "ObjectiveConfig", step: int) -> float:
    match objective.token_weighted_mode:
        case "additive":
            return 1.0
        case "replace":
            return 0.0
        case "curriculum":
            return min(1.0, step / objective.curriculum_steps)


def part_of(name: str) -> Part:
    """Return the part of the model that a trained parameter belongs to, by the parameter's name."""
    for part in (Part.ROUTER_HEAD, Part.INJECTION, Part.POSTERIOR_HEAD):
        if name.startswith(part):
            return part
    if name.startswith("posterior.") or ".posterior" in name:  # a copy of the backbone, or an adapter's weights
        return Part.POSTERIOR
    return Part.GENERATOR

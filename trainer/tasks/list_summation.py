"""Sum a list of numbers; the strategies differ in which two numbers are added next."""

import random
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from trainer.tasks.task import Params, Task

# With three values, adding by pairs is adding from the left: the strategies could not be told apart.
MIN_VALUES = 4


@dataclass(frozen=True)
class ValueList:
    """The numbers to sum."""

    values: tuple[int, ...]


class ListSummationParams(Params):
    """How many values (n), and from which range."""

    n_min: Annotated[int, Field(ge=MIN_VALUES, le=64)]
    n_max: Annotated[int, Field(ge=MIN_VALUES, le=64)]
    value_min: Annotated[int, Field(ge=0, le=9999)]
    value_max: Annotated[int, Field(ge=0, le=9999)]


def _add_in_order(values: tuple[int, ...]) -> str:
    steps, total = [], values[0]
    for value in values[1:]:
        steps.append(f"{total}+{value}={total + value}")
        total += value
    return ";".join(steps)


def _left_to_right(problem: ValueList) -> str:
    return _add_in_order(problem.values)


def _right_to_left(problem: ValueList) -> str:
    return _add_in_order(problem.values[::-1])


def _pairwise(problem: ValueList) -> str:
    """Add neighbours round by round; an odd last value goes to the next round unchanged."""
    steps, values = [], list(problem.values)
    while len(values) > 1:
        pairs = list(zip(values[::2], values[1::2], strict=False))
        steps += [f"{first}+{second}={first + second}" for first, second in pairs]
        values = [first + second for first, second in pairs] + values[2 * len(pairs) :]
    return ";".join(steps)


PRESETS = {
    "demo": {"n_min": 4, "n_max": 4, "value_min": 1, "value_max": 9},
    "full": {"n_min": 4, "n_max": 8, "value_min": 1, "value_max": 99},
}
TRACES = {"left-to-right": _left_to_right, "right-to-left": _right_to_left, "pairwise": _pairwise}


class ListSummation(Task[ValueList, ListSummationParams]):
    """Input ``3,8,5,6``; every step adds two numbers."""

    name = "list_summation"
    example = "3,8,5,6"
    presets = PRESETS
    params_type = ListSummationParams
    traces = TRACES
    x_pattern = re.compile(r"[0-9]{1,4}(,[0-9]{1,4})*")
    y_patterns = (re.compile(r"[0-9]+\+[0-9]+=[0-9]+(;[0-9]+\+[0-9]+=[0-9]+)*#[0-9]+"),)

    def render_x(self, problem: ValueList) -> str:
        """Write the values, joined by commas."""
        return ",".join(map(str, problem.values))

    def answer(self, problem: ValueList) -> str:
        """Return the sum."""
        return str(sum(problem.values))

    def _draw(self, rng: random.Random, params: ListSummationParams) -> ValueList:
        n = rng.randint(params.n_min, params.n_max)
        return ValueList(tuple(rng.randint(params.value_min, params.value_max) for _ in range(n)))

    def _read(self, match: re.Match[str]) -> ValueList | None:
        values = tuple(map(int, match[0].split(",")))
        return ValueList(values) if len(values) >= MIN_VALUES else None

"""Add two numbers of several digits; the strategies differ in how the sum is taken apart."""

import random
import re
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated

from pydantic import Field

from trainer.tasks.task import Params, Task

# With one digit there are no place values to take apart.
MIN_DIGITS = 2
Digits = Annotated[int, Field(ge=MIN_DIGITS, le=9)]


@dataclass(frozen=True)
class Addition:
    """The two numbers, each of at least two digits."""

    first: int
    second: int

    def columns(self) -> list[tuple[int, int]]:
        """Return the pairs of digits, the highest first; the shorter number is filled with zeros."""
        width = len(str(max(self.first, self.second)))
        first, second = str(self.first).zfill(width), str(self.second).zfill(width)
        return [(int(a), int(b)) for a, b in zip(first, second, strict=True)]


class AdditionParams(Params):
    """How many digits each number has; every number of digits in the range is as likely as another."""

    digits_min: Digits
    digits_max: Digits


def _right_to_left_carry(problem: Addition) -> str:
    """Write digit + digit + carry for each column, the lowest first."""
    steps, carry = [], 0
    for a, b in reversed(problem.columns()):
        steps.append(f"{a}+{b}+{carry}={a + b + carry}")
        carry = (a + b + carry) // 10
    return ";".join(steps)


def _left_to_right_partials(problem: Addition) -> str:
    """Add the place values from the highest down, then add up those sums."""
    columns = problem.columns()
    places = [10 ** (len(columns) - 1 - i) for i in range(len(columns))]
    steps = [f"{a * place}+{b * place}={(a + b) * place}" for (a, b), place in zip(columns, places, strict=True)]
    partials = [(a + b) * place for (a, b), place in zip(columns, places, strict=True)]
    totals = list(accumulate(partials))
    steps += [f"{totals[i - 1]}+{partials[i]}={totals[i]}" for i in range(1, len(partials))]
    return ";".join(steps)


def _rounding_decomposition(problem: Addition) -> str:
    """Round the first number up to a multiple of ten, add, and take the difference off again."""
    excess = -problem.first % 10
    rounded = problem.first + excess
    total = rounded + problem.second
    return f"{rounded}+{problem.second}={total};{total}-{excess}={total - excess}"


PRESETS = {
    "demo": {"digits_min": 2, "digits_max": 2},
    "full": {"digits_min": 3, "digits_max": 5},
}
TRACES = {
    "right-to-left-carry": _right_to_left_carry,
    "left-to-right-partials": _left_to_right_partials,
    "rounding-decomposition": _rounding_decomposition,
}


class MultidigitAddition(Task[Addition, AdditionParams]):
    """Input ``83+80``."""

    name = "multidigit_addition"
    example = "83+80"
    presets = PRESETS
    params_type = AdditionParams
    traces = TRACES
    x_pattern = re.compile(r"([0-9]{2,9})\+([0-9]{2,9})")
    y_patterns = (
        re.compile(r"[0-9]\+[0-9]\+[0-9]=[0-9]+(;[0-9]\+[0-9]\+[0-9]=[0-9]+)*#[0-9]+"),
        re.compile(r"[0-9]+\+[0-9]+=[0-9]+(;[0-9]+\+[0-9]+=[0-9]+)+#[0-9]+"),
        re.compile(r"[0-9]+\+[0-9]+=[0-9]+;[0-9]+-[0-9]+=[0-9]+#[0-9]+"),
    )

    def render_x(self, problem: Addition) -> str:
        """Write the sum that is asked for."""
        return f"{problem.first}+{problem.second}"

    def answer(self, problem: Addition) -> str:
        """Return the sum."""
        return str(problem.first + problem.second)

    def _draw(self, rng: random.Random, params: AdditionParams) -> Addition:
        first, second = (
            rng.randint(params.digits_min, params.digits_max),
            rng.randint(params.digits_min, params.digits_max),
        )
        return Addition(rng.randrange(10 ** (first - 1), 10**first), rng.randrange(10 ** (second - 1), 10**second))

    def _read(self, match: re.Match[str]) -> Addition | None:
        return Addition(int(match[1]), int(match[2]))

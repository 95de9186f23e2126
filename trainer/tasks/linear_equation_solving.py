"""Solve a*x + b = c over the integers; the strategies differ in what is undone first and how it is written."""

import random
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from trainer.tasks.task import Params, Task

Count = Annotated[int, Field(ge=1, le=99)]
Solution = Annotated[int, Field(ge=-99, le=99)]


@dataclass(frozen=True)
class Equation:
    """a*x + b = c with a >= 2 and b != 0; a divides b and c, so that every intermediate value is an integer."""

    a: int
    b: int
    c: int

    @property
    def solution(self) -> int:
        """The value of x."""
        return (self.c - self.b) // self.a


class LinearParams(Params):
    """Ranges of a, of k in b = a*k or -a*k (either sign equally often), and of the solution."""

    a_min: Annotated[int, Field(ge=2, le=99)]
    a_max: Annotated[int, Field(ge=2, le=99)]
    k_min: Count
    k_max: Count
    solution_min: Solution
    solution_max: Solution


def _subtract_then_divide(problem: Equation) -> str:
    a, b, c, x = problem.a, problem.b, problem.c, problem.solution
    return f"{a}x={c}{-b:+d};{a}x={c - b};x={c - b}/{a};x={x}"


def _divide_then_subtract(problem: Equation) -> str:
    a, b, c, x = problem.a, problem.b, problem.c, problem.solution
    return f"x{b:+d}/{a}={c}/{a};x{b // a:+d}={c // a};x={c // a}{-b // a:+d};x={x}"


def _inverse_ops(problem: Equation) -> str:
    a, b, c, x = problem.a, problem.b, problem.c, problem.solution
    return f"{c}{-b:+d}={c - b};{c - b}/{a}={x}"


PRESETS = {
    "demo": {"a_min": 2, "a_max": 6, "k_min": 1, "k_max": 6, "solution_min": 1, "solution_max": 9},
    "full": {"a_min": 2, "a_max": 12, "k_min": 1, "k_max": 20, "solution_min": -20, "solution_max": 20},
}
TRACES = {
    "subtract-then-divide": _subtract_then_divide,
    "divide-then-subtract": _divide_then_subtract,
    "inverse-ops": _inverse_ops,
}


class LinearEquationSolving(Task[Equation, LinearParams]):
    """Input ``4x+12=40``; the trace is equations, or the two inverse operations."""

    name = "linear_equation_solving"
    example = "4x+12=40"
    presets = PRESETS
    params_type = LinearParams
    traces = TRACES
    x_pattern = re.compile(r"([0-9]{1,2})x([+-][0-9]{1,4})=(-?[0-9]{1,5})")
    y_patterns = (
        re.compile(r"[0-9]+x=-?[0-9]+[+-][0-9]+;[0-9]+x=-?[0-9]+;x=-?[0-9]+/[0-9]+;x=-?[0-9]+#-?[0-9]+"),
        re.compile(r"x[+-][0-9]+/[0-9]+=-?[0-9]+/[0-9]+;x[+-][0-9]+=-?[0-9]+;x=-?[0-9]+[+-][0-9]+;x=-?[0-9]+#-?[0-9]+"),
        re.compile(r"-?[0-9]+[+-][0-9]+=-?[0-9]+;-?[0-9]+/[0-9]+=-?[0-9]+#-?[0-9]+"),
    )

    def render_x(self, problem: Equation) -> str:
        """Write the equation."""
        return f"{problem.a}x{problem.b:+d}={problem.c}"

    def answer(self, problem: Equation) -> str:
        """Return the value of x."""
        return str(problem.solution)

    def _draw(self, rng: random.Random, params: LinearParams) -> Equation:
        a = rng.randint(params.a_min, params.a_max)
        b = a * rng.randint(params.k_min, params.k_max) * rng.choice((1, -1))
        return Equation(a, b, a * rng.randint(params.solution_min, params.solution_max) + b)

    def _read(self, match: re.Match[str]) -> Equation | None:
        a, b, c = map(int, match.groups())
        return Equation(a, b, c) if a >= 2 and b != 0 and b % a == 0 and c % a == 0 else None

"""Walk right and down from one cell of a 10 x 10 grid to another; the strategies differ in the order of the moves."""

import random
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from trainer.tasks.task import Params, Task

GRID_SIZE = 10  # a row and a column are one digit each


@dataclass(frozen=True)
class Route:
    """Start and goal as (row, column); the goal lies below and to the right of the start."""

    start: tuple[int, int]
    goal: tuple[int, int]

    @property
    def down(self) -> int:
        """The number of moves down, at least 1."""
        return self.goal[0] - self.start[0]

    @property
    def right(self) -> int:
        """The number of moves to the right, at least 1."""
        return self.goal[1] - self.start[1]


class GridParams(Params):
    """How many rows down and how many columns right the goal lies, both from one range."""

    offset_min: Annotated[int, Field(ge=1, le=GRID_SIZE - 1)]
    offset_max: Annotated[int, Field(ge=1, le=GRID_SIZE - 1)]


def _walk(problem: Route, moves: str) -> str:
    """Write each move as its letter and the cell that it reaches."""
    row, column = problem.start
    steps = []
    for move in moves:
        row, column = (row, column + 1) if move == "R" else (row + 1, column)
        steps.append(f"{move}{row}{column}")
    return "".join(steps)


def _right_first(problem: Route) -> str:
    return _walk(problem, "R" * problem.right + "D" * problem.down)


def _down_first(problem: Route) -> str:
    return _walk(problem, "D" * problem.down + "R" * problem.right)


def _alternating(problem: Route) -> str:
    """Right and down in turn, right first; what is left of one kind follows at the end."""
    both = min(problem.right, problem.down)
    rest = "R" * (problem.right - both) + "D" * (problem.down - both)
    return _walk(problem, "RD" * both + rest)


PRESETS = {
    "demo": {"offset_min": 2, "offset_max": 5},
    "full": {"offset_min": 2, "offset_max": 8},
    # One column to the right makes right-first and alternating the same: a third of these inputs is ambiguous.
    "mar19": {"offset_min": 1, "offset_max": 3},
}
TRACES = {"right-first": _right_first, "down-first": _down_first, "alternating": _alternating}


class GridPathfinding(Task[Route, GridParams]):
    """Input ``20>64`` (row and column of start and goal); every move is a letter and the cell reached."""

    name = "grid_pathfinding"
    example = "20>64"
    presets = PRESETS
    params_type = GridParams
    traces = TRACES
    x_pattern = re.compile(r"([0-9])([0-9])>([0-9])([0-9])")
    y_patterns = (re.compile(r"([RD][0-9]{2})+#[0-9]{2}"),)

    def render_x(self, problem: Route) -> str:
        """Write row and column of the start, and of the goal."""
        return "{}{}>{}{}".format(*problem.start, *problem.goal)

    def answer(self, problem: Route) -> str:
        """Return the goal's row and column."""
        return "{}{}".format(*problem.goal)

    def answer_ok(self, problem: Route, y: str) -> bool:
        """As for every task, and the moves lead from start to goal, whatever cells are written behind them."""
        moves = y.partition("#")[0][::3]
        leads_there = moves.count("R") == problem.right and moves.count("D") == problem.down
        return leads_there and len(moves) == problem.right + problem.down and super().answer_ok(problem, y)

    def _draw(self, rng: random.Random, params: GridParams) -> Route:
        down = rng.randint(params.offset_min, params.offset_max)
        right = rng.randint(params.offset_min, params.offset_max)
        row, column = rng.randrange(GRID_SIZE - down), rng.randrange(GRID_SIZE - right)
        return Route((row, column), (row + down, column + right))

    def _read(self, match: re.Match[str]) -> Route | None:
        row, column, goal_row, goal_column = map(int, match.groups())
        if goal_row <= row or goal_column <= column:
            return None
        return Route((row, column), (goal_row, goal_column))

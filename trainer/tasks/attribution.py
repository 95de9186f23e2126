"""Which strategies wrote an output: those whose rendering of the same input is that very text."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from trainer.tasks.task import Task


@dataclass(frozen=True)
class Attribution:
    """What an output y to an input x is worth.

    Attributes:
        parse_ok: y has the form of a trace and an answer.
        answer_ok: y has that form and its answer is right.
        strategies: every strategy that writes y for x: a set, never a first match. Empty: the trace is not valid.
    """

    parse_ok: bool
    answer_ok: bool
    strategies: frozenset[str]

    @property
    def label(self) -> str | None:
        """The strategy, if it is the only one that writes y."""
        return next(iter(self.strategies)) if len(self.strategies) == 1 else None

    @property
    def ambiguous(self) -> bool:
        """Whether several strategies write y."""
        return len(self.strategies) > 1


def attribute(task: Task[Any, Any], x: str, y: str) -> Attribution:
    """Judge an output.

    Args:
        task: the task.
        x: the input, without markup.
        y: the output ``TRACE#ANSWER``, without markup; any text will do.

    Raises:
        TaskError: x is no input of the task.
    """
    problem, writers = _writers(task, x)
    if not task.parse_ok(y):
        return Attribution(parse_ok=False, answer_ok=False, strategies=frozenset())
    return Attribution(parse_ok=True, answer_ok=task.answer_ok(problem, y), strategies=writers.get(y, frozenset()))


@lru_cache(maxsize=4096)  # one input has many outputs: one a latent, and test inputs come again and again
def _writers(task: Task[Any, Any], x: str) -> tuple[Any, Mapping[str, frozenset[str]]]:
    """Return the problem of an input, and the strategies that write each of its possible outputs."""
    problem = task.parse_x(x)
    writers: defaultdict[str, set[str]] = defaultdict(set)
    for strategy in task.strategies:
        writers[task.render(problem, strategy)].add(strategy)
    return problem, {y: frozenset(strategies) for y, strategies in writers.items()}

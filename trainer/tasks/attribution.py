"""Which strategies wrote an output: those whose rendering of the same input is that very text."""

from dataclasses import dataclass
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
    problem = task.parse_x(x)
    parse_ok = task.parse_ok(y)
    if not parse_ok:
        return Attribution(parse_ok=False, answer_ok=False, strategies=frozenset())
    strategies = frozenset(strategy for strategy in task.strategies if task.render(problem, strategy) == y)
    return Attribution(parse_ok=True, answer_ok=task.answer_ok(problem, y), strategies=strategies)

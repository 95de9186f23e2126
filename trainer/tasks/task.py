"""What a task is: inputs that can be drawn, written and read, and strategies that write one trace each."""

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from trainer.errors import TrainerError, suggestion


class TaskError(TrainerError, ValueError):
    """Something asked of a task that it cannot do: a bad parameter, an unknown strategy, a text that is no input.

    Attributes:
        problems: all of them, one line each.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class Params(BaseModel):
    """The ranges that inputs are drawn from; both ends of a range ``*_min`` to ``*_max`` belong to it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="after")
    def _ranges_are_in_order(self) -> Self:
        for low in type(self).model_fields:
            high = low.removesuffix("_min") + "_max"
            if low.endswith("_min") and getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} {getattr(self, low)} is above {high} {getattr(self, high)}")
        return self


ProblemT = TypeVar("ProblemT")
ParamsT = TypeVar("ParamsT", bound=Params)


class Task(ABC, Generic[ProblemT, ParamsT]):
    """One task. A problem is exactly what its input text X says, so a trace can be checked against X alone.

    An output y is ``TRACE#ANSWER``. Each strategy writes one trace for one problem, a pure function of it.

    Attributes:
        name: the task's name in configs and metrics.
        example: an input X, for error messages.
        presets: parameters by the name of their setting; "demo" are the defaults.
        params_type: what parameters are checked against.
        traces: strategy name to the function that writes its trace.
        x_pattern: what an input looks like.
        y_patterns: what outputs look like; numbers are not checked.
    """

    name: ClassVar[str]
    example: ClassVar[str]
    presets: ClassVar[Mapping[str, dict[str, Any]]]
    x_pattern: ClassVar[re.Pattern[str]]
    y_patterns: ClassVar[tuple[re.Pattern[str], ...]]
    params_type: type[ParamsT]
    traces: Mapping[str, Callable[[ProblemT], str]]

    @property
    def strategies(self) -> tuple[str, ...]:
        """The names of the strategies, in a fixed order."""
        return tuple(self.traces)

    @property
    def defaults(self) -> dict[str, Any]:
        """The parameters of the preset "demo": ranges that a model of 160k parameters learns within minutes."""
        return dict(self.presets["demo"])

    def validate(self, params: Mapping[str, Any] | ParamsT) -> ParamsT:
        """Check parameters; those left out take their default.

        Raises:
            TaskError: unknown keys, wrong types or ranges; names all of them.
        """
        if isinstance(params, self.params_type):
            return params
        try:
            return self.params_type.model_validate({**self.defaults, **dict(params)})
        except ValidationError as error:
            raise TaskError(*(self._explain(problem) for problem in error.errors())) from error

    def _explain(self, problem: Any) -> str:
        """Say one of pydantic's problems as where, what, with the value, and what to do."""
        key, value = ".".join(map(str, problem["loc"])), problem["input"]
        message = problem["msg"].removeprefix("Value error, ").replace("Input should", "should")
        if not key:
            return f"task.params: {message}. Make the range hold at least one value."
        if problem["type"] == "extra_forbidden":
            near, known = suggestion(key, self.defaults), ", ".join(self.defaults)
            return f"task.params.{key}: {self.name} has no such parameter, got {value!r}.{near} Known: {known}."
        default = self.defaults[str(problem["loc"][0])]
        return f"task.params.{key}: {message}, got {value!r}. Change it, or leave it out for the default {default}."

    def sample(self, rng: random.Random, params: Mapping[str, Any] | ParamsT) -> ProblemT:
        """Draw a problem.

        Raises:
            TaskError: see `validate`.
        """
        return self._draw(rng, self.validate(params))

    def parse_x(self, x: str) -> ProblemT:
        """Read an input: the inverse of `render_x`.

        Raises:
            TaskError: `render_x` never writes this text.
        """
        match = self.x_pattern.fullmatch(x)
        problem = self._read(match) if match else None
        if problem is None or self.render_x(problem) != x:
            raise TaskError(f"{self.name}: {x!r} is no input of this task. Write one like {self.example!r}.")
        return problem

    def render(self, problem: ProblemT, strategy: str) -> str:
        """Write the output ``TRACE#ANSWER`` of one strategy.

        Raises:
            TaskError: the task has no such strategy.
        """
        if strategy not in self.traces:
            near, known = suggestion(strategy, self.traces), ", ".join(self.traces)
            raise TaskError(f"{self.name}: there is no strategy {strategy!r}.{near} Known: {known}.")
        return f"{self.traces[strategy](problem)}#{self.answer(problem)}"

    def parse_ok(self, y: str) -> bool:
        """Tell whether an output has the form of a trace and an answer, whatever its numbers."""
        return any(pattern.fullmatch(y) for pattern in self.y_patterns)

    def answer_ok(self, problem: ProblemT, y: str) -> bool:
        """Tell whether the text behind the one ``#`` is the answer."""
        _, mark, answer = y.partition("#")
        return mark == "#" and answer == self.answer(problem)

    @abstractmethod
    def render_x(self, problem: ProblemT) -> str:
        """Write the input X of a problem."""

    @abstractmethod
    def answer(self, problem: ProblemT) -> str:
        """Return the answer as it stands behind the ``#``."""

    @abstractmethod
    def _draw(self, rng: random.Random, params: ParamsT) -> ProblemT:
        """Draw a problem from checked ranges."""

    @abstractmethod
    def _read(self, match: re.Match[str]) -> ProblemT | None:
        """Return the problem of a match of `x_pattern`, or None where it is none of this task."""

"""What can go wrong in a run, and how a failure is told apart from another."""

import difflib
from collections.abc import Iterable


class TrainerError(Exception):
    """A problem that the person who started the run can mend; told in one line, without a traceback."""


class ConfigError(TrainerError):
    """A configuration that cannot be used.

    Attributes:
        problems: all of them, one line each.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class DivergedError(Exception):
    """A term of the objective, or the gradient, is no longer a finite number.

    Attributes:
        step: optimiser step in which it was seen, from 1.
        term: name of the term.
        checkpoint_step: of the last checkpoint, which is still good; None: there is none.
    """

    def __init__(self, step: int, term: str, value: float, checkpoint_step: int | None = None) -> None:
        good = (
            "no checkpoint was saved before"
            if checkpoint_step is None
            else f"the checkpoint of step {checkpoint_step} is good"
        )
        super().__init__(f"step {step}: {term} is {value}; {good}. Lower train.lr, or clip the gradient (train.clip).")
        self.step = step
        self.term = term
        self.value = value
        self.checkpoint_step = checkpoint_step


def failure_kind(error: BaseException) -> str:
    """Say what ended a run: ``oom``, ``diverged`` or ``error``.

    torch's allocator for CPU memory raises a plain RuntimeError (c10/core/impl/alloc_cpu.cpp), the one for CUDA
    ``torch.OutOfMemoryError``; both are known by their words, so that this needs no torch.
    """
    if isinstance(error, DivergedError):
        return "diverged"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "oom"
    words = str(error)
    if isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in words or "CUDA out of memory" in words):
        return "oom"
    return "error"


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean X?`` for the known word that is nearest, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""

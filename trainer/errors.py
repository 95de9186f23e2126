"""What can go wrong in a run, and how a failure is told apart from another."""

import difflib
import errno
import os
from collections.abc import Iterable
from pathlib import Path


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
        checkpoint_step: of the last checkpoint, whose weights gave finite values; None: there is none such.
    """

    def __init__(self, step: int, term: str, value: float, checkpoint_step: int | None = None) -> None:
        good = (
            "there is no good checkpoint before it"
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


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of the system that making room cures."""


def no_room(error: BaseException) -> str | None:
    """Return the system's own words where a write failed for lack of room, else None.

    torch.save raises an error of its own in the place of the system's, and safetensors one that only quotes it.
    """
    link: BaseException | None = error
    while link is not None:
        for code in NO_ROOM:
            if (isinstance(link, OSError) and link.errno == code) or f"{os.strerror(code)} (os error" in str(link):
                return os.strerror(code)
        link = link.__cause__ or link.__context__
    return None


def explanation(error: BaseException, run_dir: Path) -> str | None:
    """Return what to say to the person who started the run, in one line; None where only a traceback will help."""
    if isinstance(error, TrainerError | DivergedError):
        return str(error)
    if failure_kind(error) == "oom":
        words = str(error).strip().split("\n")[0] or type(error).__name__
        return (
            f"out of memory: {words}. Lower train.batch_size and raise train.accumulation, or set "
            "train.gradient_checkpointing."
        )
    full = no_room(error)
    if full is not None:
        return f"{run_dir}: {full}. Make room and start the same command again: it goes on from its last checkpoint."
    return None


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean X?`` for the known word that is nearest, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""

"""The end of a log, and what it says of a failure: the exception, or memory that ran out. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_MAX_LINE = 400
"""Characters of a line that are shown as evidence."""

_LAST_LINES = 50
"""Where words of an allocator are looked for, if there is no traceback."""

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
"""Terminal control sequences (ECMA-48: CSI, OSC, and those of two bytes)."""

_RANK = re.compile(r"^\[rank\d+\]:\s?")
"""What torch puts in front of each line of a traceback in a process group."""

_GPU_MEMORY = re.compile(
    r"(?:CUDA|HIP|XPU) out of memory|CUDA error: out of memory|\btorch\.(?:cuda\.)?OutOfMemoryError|"
    r"cudaErrorMemoryAllocation|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|RESOURCE_EXHAUSTED: Out of memory"
)
_HOST_MEMORY = re.compile(
    r"\b_?(?:Array)?MemoryError\b|std::bad_alloc|DefaultCPUAllocator|Cannot allocate memory|\boom[_-]kill"
)
"""The last one is slurmstepd's word for what the kernel did; `_ArrayMemoryError` is numpy's."""


class Line(NamedTuple):
    """One line of a log, cleaned of terminal control, and its number from 1."""

    number: int
    text: str


def names_gpu_memory(text: str) -> bool:
    """Whether a message says that a GPU's memory ran out."""
    return _GPU_MEMORY.search(text) is not None


def names_host_memory(text: str) -> bool:
    """Whether a message says that the host's memory ran out."""
    return _HOST_MEMORY.search(text) is not None


def printable(text: str) -> str:
    """Return a text of anybody's making as one line that is safe to show: no control characters, not endless."""
    bare = _ESCAPES.sub("", text)
    shown = "".join(sign if sign.isprintable() else " " for sign in bare).strip()
    return shown if len(shown) <= _MAX_LINE else f"{shown[:_MAX_LINE]} ..."


@dataclass(frozen=True, slots=True)
class LogTail:
    """The last part of a log.

    Attributes:
        content: its bytes, from the beginning of a line on.
        first_line: number of its first line.
    """

    content: bytes = b""
    first_line: int = 1

    def lines(self) -> Iterator[Line]:
        """Yield its lines; of one that was overwritten in place (a progress bar) what stood there last."""
        for number, raw in enumerate(self.content.decode(errors="replace").split("\n"), start=self.first_line):
            text = raw.rstrip("\r").rpartition("\r")[2]
            yield Line(number, _RANK.sub("", text))

    def telling(self) -> Line | None:
        """Return the line that tells most about a failure.

        The exceptions of all tracebacks come first, among them one that names memory (the others of a process group
        die of the one that ran out), else the last. Without a traceback: words of an allocator in the last lines,
        else the last line that is not empty.
        """
        lines = list(self.lines())
        candidates = _exceptions(lines) or [line for line in lines[-_LAST_LINES:] if line.text.strip()]
        if not candidates:
            return None
        memory = [line for line in candidates if names_gpu_memory(line.text) or names_host_memory(line.text)]
        number, text = (memory or candidates)[-1]
        return Line(number, printable(text))


def _exceptions(lines: list[Line]) -> list[Line]:
    """Return the line that ends each Python traceback: the first one behind its head that is not indented."""
    found: list[Line] = []
    inside = False
    for line in lines:
        if line.text.startswith("Traceback (most recent call last)"):
            inside = True
        elif inside and line.text.strip() and not line.text.startswith((" ", "\t")):
            found.append(line)
            inside = False
    return found

"""Sort distinct digits; the strategies differ in the states that the list goes through."""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from trainer.tasks.task import Params, Task


@dataclass(frozen=True)
class DigitList:
    """The digits to sort: distinct, because ties would make a sort's stability a hidden variable."""

    digits: tuple[int, ...]


class SortingParams(Params):
    """How many digits (n)."""

    n_min: Annotated[int, Field(ge=3, le=10)]
    n_max: Annotated[int, Field(ge=3, le=10)]


def _text(digits: Iterable[int]) -> str:
    return "".join(map(str, digits))


def _bubble(problem: DigitList) -> str:
    """State after each pass; ends with the first pass that swaps nothing, or after n-1 passes."""
    digits, states = list(problem.digits), []
    for last in range(len(digits) - 1, 0, -1):
        swapped = False
        for i in range(last):
            if digits[i] > digits[i + 1]:
                digits[i], digits[i + 1] = digits[i + 1], digits[i]
                swapped = True
        states.append(_text(digits))
        if not swapped:
            break
    return ">".join(states)


def _selection(problem: DigitList) -> str:
    """State after each of n-1 selections: the least of the rest is swapped to its front."""
    digits, states = list(problem.digits), []
    for i in range(len(digits) - 1):
        least = digits.index(min(digits[i:]))
        digits[i], digits[least] = digits[least], digits[i]
        states.append(_text(digits))
    return ">".join(states)


def _insertion(problem: DigitList) -> str:
    """State after each of n-1 insertions into the sorted front."""
    digits = problem.digits
    return ">".join(_text([*sorted(digits[: i + 1]), *digits[i + 1 :]]) for i in range(1, len(digits)))


def _merge(problem: DigitList) -> str:
    """Bottom-up: the sorted runs after each level, joined by ``|``."""
    digits, states, width = problem.digits, [], 1
    while width < len(digits):
        width *= 2
        runs = [sorted(digits[start : start + width]) for start in range(0, len(digits), width)]
        states.append("|".join(map(_text, runs)))
    return ">".join(states)


def _sift_down(heap: list[int], root: int, end: int) -> None:
    """Let the value at `root` sink in the max-heap ``heap[:end]``."""
    while (child := 2 * root + 1) < end:
        if child + 1 < end and heap[child + 1] > heap[child]:
            child += 1
        if heap[root] >= heap[child]:
            return
        heap[root], heap[child] = heap[child], heap[root]
        root = child


def _heap(problem: DigitList) -> str:
    """State after the heap is made, then after each extraction of the largest to the end."""
    heap = list(problem.digits)
    for root in range(len(heap) // 2 - 1, -1, -1):
        _sift_down(heap, root, len(heap))
    states = [_text(heap)]
    for end in range(len(heap) - 1, 0, -1):
        heap[0], heap[end] = heap[end], heap[0]
        _sift_down(heap, 0, end)
        states.append(_text(heap))
    return ">".join(states)


def _widths(states: Sequence[str]) -> set[int]:
    return {len(state.replace("|", "")) for state in states}


PRESETS = {
    "demo": {"n_min": 5, "n_max": 5},
    "full": {"n_min": 6, "n_max": 8},
    "mar19": {"n_min": 5, "n_max": 5},
}
TRACES = {
    "bubble-sort": _bubble,
    "selection-sort": _selection,
    "insertion-sort": _insertion,
    "merge-sort": _merge,
    "heap-sort": _heap,
}


class SortingAlgorithms(Task[DigitList, SortingParams]):
    """Input ``54783``; the trace is the states of the list, joined by ``>``."""

    name = "sorting_algorithms"
    example = "54783"
    presets = PRESETS
    params_type = SortingParams
    traces = TRACES
    x_pattern = re.compile(r"[0-9]{3,10}")
    y_patterns = (
        re.compile(r"[0-9]+(>[0-9]+)*#[0-9]+"),
        re.compile(r"[0-9]+(\|[0-9]+)*(>[0-9]+(\|[0-9]+)*)*#[0-9]+"),
    )

    def parse_ok(self, y: str) -> bool:
        """As for every task, and each state has as many digits as the answer."""
        return super().parse_ok(y) and len(_widths(re.split("[>#]", y))) == 1

    def render_x(self, problem: DigitList) -> str:
        """Write the digits."""
        return _text(problem.digits)

    def answer(self, problem: DigitList) -> str:
        """Return the digits in ascending order."""
        return _text(sorted(problem.digits))

    def _draw(self, rng: random.Random, params: SortingParams) -> DigitList:
        return DigitList(tuple(rng.sample(range(10), rng.randint(params.n_min, params.n_max))))

    def _read(self, match: re.Match[str]) -> DigitList | None:
        digits = tuple(map(int, match[0]))
        return DigitList(digits) if len(set(digits)) == len(digits) else None

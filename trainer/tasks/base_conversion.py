"""Write a decimal number in base 4, 8 or 16; the strategies differ in how the digits are found."""

import random
import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, field_validator

from trainer.tasks.task import Params, Task

DIGITS = "0123456789abcdef"
BASES = (4, 8, 16)  # powers of two: a digit is then a group of bits


@dataclass(frozen=True)
class Conversion:
    """A positive number, and the base to write it in."""

    value: int
    base: int


class BaseParams(Params):
    """The range of the number, and the bases."""

    value_min: Annotated[int, Field(ge=1, le=999_999)]
    value_max: Annotated[int, Field(ge=1, le=999_999)]
    # JSON has lists only, which a strict tuple would refuse.
    bases: Annotated[tuple[Literal[4, 8, 16], ...], Field(strict=False)]

    @field_validator("bases")
    @classmethod
    def _names_a_base(cls, bases: tuple[int, ...]) -> tuple[int, ...]:
        if not bases or len(set(bases)) < len(bases):
            raise ValueError("should name at least one base, and none twice")
        return bases


def _digits(problem: Conversion) -> list[int]:
    """Return the digits, the highest first."""
    value, digits = problem.value, []
    while value:
        value, digit = divmod(value, problem.base)
        digits.append(digit)
    return digits[::-1]


def _repeated_division(problem: Conversion) -> str:
    value, base, steps = problem.value, problem.base, []
    while value:
        steps.append(f"{value}/{base}={value // base}r{value % base}")
        value //= base
    return ";".join(steps)


def _via_binary(problem: Conversion) -> str:
    """Write the bits, then each group of log2(base) bits with its digit."""
    bits_a_digit = problem.base.bit_length() - 1
    groups = ",".join(f"{digit:0{bits_a_digit}b}={DIGITS[digit]}" for digit in _digits(problem))
    return f"{problem.value:b};{groups}"


def _decomposition(problem: Conversion) -> str:
    """Take as much as possible of each power of the base, from the highest power down."""
    digits, rest, steps = _digits(problem), problem.value, []
    for place, digit in enumerate(digits):
        power = problem.base ** (len(digits) - 1 - place)
        steps.append(f"{rest}-{digit}*{power}={rest - digit * power}")
        rest -= digit * power
    return ";".join(steps)


PRESETS = {
    "demo": {"value_min": 16, "value_max": 127, "bases": (4, 8)},
    "full": {"value_min": 16, "value_max": 4095, "bases": (4, 8, 16)},
}
TRACES = {
    "repeated-division": _repeated_division,
    "via-binary": _via_binary,
    "decomposition": _decomposition,
}


class BaseConversion(Task[Conversion, BaseParams]):
    """Input ``129b8``: the decimal number, ``b``, and the base."""

    name = "base_conversion"
    example = "129b8"
    presets = PRESETS
    params_type = BaseParams
    traces = TRACES
    x_pattern = re.compile(r"([0-9]{1,6})b([0-9]{1,2})")
    y_patterns = (
        re.compile(r"[0-9]+/[0-9]+=[0-9]+r[0-9]+(;[0-9]+/[0-9]+=[0-9]+r[0-9]+)*#[0-9a-f]+"),
        re.compile(r"[01]+;[01]+=[0-9a-f](,[01]+=[0-9a-f])*#[0-9a-f]+"),
        re.compile(r"[0-9]+-[0-9]+\*[0-9]+=[0-9]+(;[0-9]+-[0-9]+\*[0-9]+=[0-9]+)*#[0-9a-f]+"),
    )

    def render_x(self, problem: Conversion) -> str:
        """Write the decimal number and the base."""
        return f"{problem.value}b{problem.base}"

    def answer(self, problem: Conversion) -> str:
        """Return the number in its base."""
        return "".join(DIGITS[digit] for digit in _digits(problem))

    def _draw(self, rng: random.Random, params: BaseParams) -> Conversion:
        return Conversion(rng.randint(params.value_min, params.value_max), rng.choice(params.bases))

    def _read(self, match: re.Match[str]) -> Conversion | None:
        value, base = map(int, match.groups())
        return Conversion(value, base) if value > 0 and base in BASES else None

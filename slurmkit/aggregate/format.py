"""Numbers and names as readers see them, in every table, figure and message."""

import math
import unicodedata
from collections import Counter
from collections.abc import Sequence

NO_VALUE = "-"
_ROUNDING = 1e-13
"""An interval smaller than this share of the mean is the rounding of equal values, written 0."""


def clean(text: str) -> str:
    """Return text without line breaks and control characters: it can move no cursor and break no table."""
    return "".join(f"\\x{ord(c):02x}" if unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp"} else c for c in text)


def format_number(value: float) -> str:
    """Write a number with four digits: ``0.449``, ``3805``, ``6e-06``; ``-`` for none."""
    if math.isnan(value):
        return NO_VALUE
    if 1000 <= abs(value) < 1e7:
        return f"{value:.0f}"
    return f"{value:.4g}"


def format_estimate(mean: float, half_width: float) -> str:
    """Write a mean with its interval, both to the second digit of the interval: ``0.449 ± 0.012``."""
    if math.isnan(mean) or math.isnan(half_width):
        return format_number(mean)
    if not math.isfinite(half_width):
        return f"{format_number(mean)} ± {half_width}"
    if half_width <= abs(mean) * _ROUNDING:
        return f"{format_number(mean)} ± 0"
    decimals = max(0, 1 - math.floor(math.log10(half_width)))
    if decimals > 7 or abs(mean) >= 1e7:
        return f"{mean:.4g} ± {half_width:.2g}"
    return f"{mean:.{decimals}f} ± {half_width:.{decimals}f}"


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return each key's shortest ending, at slashes, that no other key has; the key itself if there is none."""
    endings = {key: ["/".join(key.split("/")[-length:]) for length in range(1, key.count("/") + 2)] for key in keys}
    shared = Counter(ending for own in endings.values() for ending in own)
    return {key: next((ending for ending in own if shared[ending] == 1), key) for key, own in endings.items()}

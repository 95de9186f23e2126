"""Random streams: one for each use, each a function of the seed and the use's name alone.

A stream has no state that outlives its use, so a resumed run draws the same numbers as an unbroken one.
"""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def stream_seed(seed: int, *use: str | int) -> int:
    """Derive a seed, in 0 .. 2**63 - 1, for one use such as ``("noise", step)``."""
    name = "/".join(str(part) for part in (seed, *use))
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 1


def stream(seed: int, *use: str | int, device: "torch.device | str" = "cpu") -> "torch.Generator":
    """Return a torch generator for one use."""
    import torch

    return torch.Generator(device).manual_seed(stream_seed(seed, *use))

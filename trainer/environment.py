"""What a run uses of the machine, and what it says of it afterwards."""

import gc
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def allowed_threads() -> int:
    """Return the threads that the run may use: its share of the machine, never more than it may run on.

    Two runs on two cores with two threads each are 40 times slower than with one each: OpenMP's barriers spin.
    """
    allowed = len(os.sched_getaffinity(0))
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        asked = os.environ.get(name, "")
        if asked.isdigit() and int(asked) > 0:
            return min(int(asked), allowed)
    return allowed


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import large packages in the block without the garbage collector going through all that they make.

    What was made is then left out of later collections for good, the one at the interpreter's end included. Together
    that saves 1.9 of the 5.1 core-seconds that importing transformers' Qwen2 takes.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def choose_device(asked: str) -> "torch.device":
    """Return the device to train on; ``auto``: CUDA where there is one."""
    import torch

    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(asked)


def provenance(config_sha256: str, device: "torch.device") -> dict[str, Any]:
    """Return what is needed to know how a result came about."""
    import torch
    import transformers

    commit = os.environ.get("SLURMKIT_COMMIT")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "provenance/config_sha256": config_sha256,
        **({"provenance/commit": commit} if commit else {}),
        "provenance/torch": torch.__version__,
        "provenance/transformers": transformers.__version__,
        "provenance/threads": torch.get_num_threads(),
        "provenance/device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "peak_rss_mb": usage.ru_maxrss / 1024,
        "core_seconds": usage.ru_utime + usage.ru_stime,
    }

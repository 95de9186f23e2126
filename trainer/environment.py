"""What a run uses of the machine, and what it says of it afterwards."""

import gc
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import TrainerError

if TYPE_CHECKING:
    import torch

MB = 2**20

BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""What Linux calls the units for products in bfloat16, on x86 and on Arm."""


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
    """Return the device to train on; ``auto``: CUDA where there is one.

    Raises:
        TrainerError: CUDA is asked for, and torch finds none.
    """
    import torch

    found = torch.cuda.is_available()
    if asked == "cuda" and not found:
        raise TrainerError("device: is cuda, but torch finds no such device here. Take auto or cpu, or another node.")
    return torch.device("cuda" if found and asked != "cpu" else "cpu")


def choose_precision(asked: str, device: "torch.device") -> "torch.dtype":
    """Return the type of the products; ``auto``: bfloat16 where the hardware has units for it.

    Without them a product in bfloat16 takes a CPU a hundred times as long as one in float32.
    """
    import torch

    if asked != "auto":
        return torch.bfloat16 if asked == "bfloat16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = not BFLOAT16_FLAGS.isdisjoint(_cpu_flags())
    return torch.bfloat16 if fast else torch.float32


def _cpu_flags() -> set[str]:
    """Return what the processor says it can do; nothing where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith(("flags", "Features"))), set())


def memory_figures() -> dict[str, float]:
    """Return what the process and its accelerator hold, in MB: the evidence beside a failed allocation."""
    figures = {"peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        free, total = torch.cuda.mem_get_info()
        figures |= {
            "cuda_allocated_mb": torch.cuda.memory_allocated() / MB,
            "cuda_reserved_mb": torch.cuda.memory_reserved() / MB,
            "cuda_peak_allocated_mb": torch.cuda.max_memory_allocated() / MB,
            "cuda_free_mb": free / MB,
            "cuda_total_mb": total / MB,
        }
    return figures


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

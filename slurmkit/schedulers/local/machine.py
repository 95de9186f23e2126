"""What this machine has to give, and what of it is free: CPUs, memory, GPUs."""

import os
import shutil
import subprocess
from dataclasses import dataclass

from slurmkit.errors import UsageError
from slurmkit.resources import format_memory, parse_memory_mb

CPUS_VARIABLE = "SLURMKIT_LOCAL_CPUS"
MEMORY_VARIABLE = "SLURMKIT_LOCAL_MEM"
GPUS_VARIABLE = "SLURMKIT_LOCAL_GPUS"

_RESERVE_FRACTION = 0.05
_RESERVE_LEAST_MB = 512
"""What is left to the system and the people on it: 5 % of the memory, at least this."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the jobs of a queue may use together.

    Attributes:
        cpus: CPUs; by default those that this process may run on.
        mem_mb: memory in MiB; by default all but a reserve.
        gpu_ids: devices, as CUDA_VISIBLE_DEVICES names them; by default those that ``nvidia-smi`` lists.
    """

    cpus: int
    mem_mb: int
    gpu_ids: tuple[str, ...]

    def refusal(self, cpus: int, gpus: int, mem_mb: int | None) -> str | None:
        """Say why a job can never run here, or None if it can."""
        if cpus > self.cpus:
            return f"asks for {cpus} CPUs, and this machine gives {self.cpus}. Ask for less, or set {CPUS_VARIABLE}."
        if gpus > len(self.gpu_ids):
            has = len(self.gpu_ids)
            return f"asks for {gpus} GPUs, and this machine gives {has}. Ask for less, or set {GPUS_VARIABLE}."
        if mem_mb is not None and mem_mb > self.mem_mb:
            asked, has = format_memory(mem_mb), format_memory(self.mem_mb)
            return f"asks for {asked} of memory, and this machine gives {has}. Ask for less, or set {MEMORY_VARIABLE}."
        return None


def this_machine(*, gpus: bool) -> Machine:
    """Look at the machine and at the three variables that overrule what is seen.

    Args:
        gpus: look for GPUs too, which can take a second.

    Raises:
        UsageError: a variable makes no sense.
    """
    return Machine(cpus=_cpus(), mem_mb=_memory_mb(), gpu_ids=_gpu_ids() if gpus else ())


class Slots:
    """What is free of a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.cpus = machine.cpus
        self.mem_mb = machine.mem_mb
        self.gpu_ids = list(machine.gpu_ids)

    def fits(self, cpus: int, gpus: int, mem_mb: int | None) -> bool:
        """Whether a job could start now."""
        return cpus <= self.cpus and gpus <= len(self.gpu_ids) and (mem_mb or 0) <= self.mem_mb

    def take(self, cpus: int, mem_mb: int | None, gpu_ids: tuple[str, ...]) -> None:
        """Give a job its share. Adopted jobs may take more than there is: then the others wait."""
        self.cpus -= cpus
        self.mem_mb -= mem_mb or 0
        self.gpu_ids = [gpu for gpu in self.gpu_ids if gpu not in gpu_ids]

    def give_back(self, cpus: int, mem_mb: int | None, gpu_ids: tuple[str, ...]) -> None:
        """Take back the share of a job that has ended."""
        self.cpus += cpus
        self.mem_mb += mem_mb or 0
        self.gpu_ids = [gpu for gpu in self.machine.gpu_ids if gpu in self.gpu_ids or gpu in gpu_ids]


def _cpus() -> int:
    text = os.environ.get(CPUS_VARIABLE)
    if not text:
        return len(os.sched_getaffinity(0))
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{CPUS_VARIABLE}={text}: expected a number of CPUs above 0. Correct or unset it.")
    return int(text)


def _memory_mb() -> int:
    text = os.environ.get(MEMORY_VARIABLE)
    if text:
        try:
            return parse_memory_mb(text)
        except ValueError as error:
            raise UsageError(f"{MEMORY_VARIABLE}={text}: {error}. Correct or unset it.") from error
    total_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    return total_mb - max(_RESERVE_LEAST_MB, round(total_mb * _RESERVE_FRACTION))


def _gpu_ids() -> tuple[str, ...]:
    for variable in (GPUS_VARIABLE, "CUDA_VISIBLE_DEVICES"):
        text = os.environ.get(variable)
        if text is not None:
            return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, "--query-gpu=index", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()  # a broken driver: the machine has no GPU to give
    return tuple(answer.stdout.split()) if answer.returncode == 0 else ()

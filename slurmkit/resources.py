"""What one run asks of the scheduler, with the units in the names."""

import re
from dataclasses import dataclass, field
from typing import Any

_MEMORY_UNITS_MB = {"k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0 * 1024.0}
_TIME_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Resources:
    """Resources of one run.

    Attributes:
        cpus: CPUs, and with them the threads that the run may use.
        gpus: GPUs.
        mem_mb: memory limit in MiB of the whole process tree; None: the scheduler's default.
        time_s: wall-clock limit in seconds; None: the scheduler's default.
        nodes: nodes.
        partition, account, qos, constraint: as Slurm names them.
        pack: how many runs share one Slurm job, side by side; each still has its own worker.
        parallel: how many tasks of one Slurm array may run at once; None: all.
        extra: any other sbatch option, long name without dashes, to its value.
    """

    cpus: int = 1
    gpus: int = 0
    mem_mb: int | None = None
    time_s: int | None = None
    nodes: int = 1
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    pack: int = 1
    parallel: int | None = None
    extra: dict[str, str | int | bool] = field(default_factory=dict[str, "str | int | bool"])

    def to_json(self) -> dict[str, Any]:
        """Return what differs from the defaults, for a record."""
        defaults = Resources()
        asked = {name: getattr(self, name) for name in self.__slots__}  # asdict copies, and is twenty times slower
        return {name: value for name, value in asked.items() if value != getattr(defaults, name)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Resources":
        """Read what `to_json` wrote."""
        return cls(**record)


def parse_memory_mb(text: str | int) -> int:
    """Read a memory size: ``512M``, ``4G``, ``1.5GB``, ``2GiB``; a bare number is MiB, as in sbatch.

    Returns:
        MiB, at least 1.

    Raises:
        ValueError: not a size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgt])(?:i?b)?)?\s*", str(text), re.IGNORECASE)
    if match is None:
        raise ValueError("expected a memory size such as 512M or 4G")
    megabytes = float(match[1]) * _MEMORY_UNITS_MB[(match[2] or "m").lower()]
    if not 0 < megabytes < 2**40:
        raise ValueError("expected a memory size above 0 such as 512M or 4G")
    return max(1, round(megabytes))


def parse_time_s(text: str | int) -> int:
    """Read a time limit: ``90s``, ``30m``, ``1d12h``, ``HH:MM:SS``, ``D-HH:MM:SS``; a bare number is minutes.

    The forms with colons and the bare number mean what they mean to sbatch.

    Returns:
        seconds, at least 1.

    Raises:
        ValueError: not a duration.
    """
    word = str(text).strip().lower()
    if re.fullmatch(r"\d+", word):
        seconds = int(word) * 60
    elif re.fullmatch(r"(\d+[dhms])+", word):
        seconds = sum(int(n) * _TIME_UNITS_S[unit] for n, unit in re.findall(r"(\d+)([dhms])", word))
    elif match := re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?", word):
        days, first, second, third = match.groups()
        if third is None and days is None:  # sbatch: MM:SS
            seconds = int(first) * 60 + int(second)
        else:  # HH:MM:SS, D-HH:MM or D-HH:MM:SS
            seconds = int(days or 0) * 86400 + int(first) * 3600 + int(second) * 60 + int(third or 0)
    else:
        raise ValueError("expected a time limit such as 30m, 2h, 1d12h or 02:30:00")
    if not 0 < seconds <= 10 * 365 * 86400:
        raise ValueError("expected a time limit above 0 such as 30m or 2h")
    return seconds


def hours_in_words(resources: Resources, runs: int, time_s: int | None) -> str:
    """Say what runs use if all take their whole time.

    Args:
        resources: of each.
        runs: how many.
        time_s: the limit that holds for each; None: there is none.
    """
    if not time_s:
        return f"{_count(runs, 'run')} without a time limit: set resources.time to know what they may use"
    hours = runs * time_s / 3600 * resources.nodes
    each = f"{format_duration(time_s)}, {_count(resources.cpus, 'CPU')}"
    each += f", {_count(resources.gpus, 'GPU')}" if resources.gpus else ""
    each += f" shared by {resources.pack}" if resources.gpus and resources.pack > 1 else ""
    each += f", {resources.nodes} nodes" if resources.nodes > 1 else ""
    gpus = f" and {hours * resources.gpus / resources.pack:,.1f} GPU-hours" if resources.gpus else ""
    return f"at most {hours * resources.cpus:,.1f} CPU-hours{gpus}: {_count(runs, 'run')} x ({each})"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def format_memory(mem_mb: float) -> str:
    """Write MiB the way people say them: ``512 MB``, ``3.98 GB``."""
    return f"{mem_mb:.0f} MB" if mem_mb < 1000 else f"{mem_mb / 1024:.3g} GB"


def format_duration(seconds: float) -> str:
    """Write a duration in its two leading units: ``41s``, ``3m20s``, ``2h05m``, ``1d03h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"

"""Which scheduler holds an attempt: the names in the journal, and the schedulers behind them."""

import socket

from slurmkit.errors import UsageError
from slurmkit.schedulers import Scheduler
from slurmkit.store import Store

BACKENDS = ("local", "slurm")
"""What ``--backend`` takes."""


def backend_name(choice: str) -> str:
    """Return the journal's name of a backend: the local queue is one of a machine, a cluster is one for many."""
    return choice if choice == "slurm" else f"{choice}@{socket.gethostname()}"


def other_host(name: str) -> str | None:
    """Return the host that a backend is one of, if it is not this one: what it does not know may be known there."""
    _, _, host = name.partition("@")
    return host if host and host != socket.gethostname() else None


def scheduler(name: str, store: Store) -> Scheduler:
    """Return the scheduler that the journal calls `name`.

    Raises:
        UsageError: this version knows no such scheduler.
    """
    kind, _, host = name.partition("@")
    if kind == "local":
        from slurmkit.schedulers.local.scheduler import LocalScheduler

        return LocalScheduler(store.root / ".queue" / host)
    if kind == "slurm":
        from slurmkit.schedulers.slurm.scheduler import SlurmScheduler

        return SlurmScheduler(store.root / ".slurm")
    if kind == "foreground":
        from slurmkit.schedulers.foreground import ForegroundScheduler

        return ForegroundScheduler(host)
    raise UsageError(f"backend {name!r}: not known to this version. It knows {', '.join(BACKENDS)}.")

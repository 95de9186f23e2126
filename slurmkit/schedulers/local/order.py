"""Which of the waiting jobs start now."""

from collections import Counter
from collections.abc import Callable

from slurmkit.schedulers.local.machine import Slots
from slurmkit.schedulers.local.state import Job, QueueState

MAX_PASSES = 16
"""How often a job may see a later one start before it. Then all wait for it: none waits for ever."""
LOOK_AHEAD = 64
"""How many jobs that do not fit are looked over for one that does."""


class Order:
    """First come, first served, but a job that does not fit yet lets a bounded number of smaller ones pass."""

    def __init__(self) -> None:
        self._passes: Counter[str] = Counter()

    def choose(
        self, state: QueueState, slots: Slots, begin: Callable[[Job], None], refuse: Callable[[Job, str], None]
    ) -> None:
        """Begin the jobs that shall start now.

        Args:
            state: of the queue.
            slots: what is free; what the chosen jobs take is taken from it, by `begin`.
            begin: called for each job, in order; moves it out of the pending state.
            refuse: called with a job that can never start on this machine, and why; ends it.
        """
        too_big: list[str] = []
        for job in state.ready():
            if (why := slots.machine.refusal(job.cpus, job.gpus, job.mem_mb)) is not None:
                refuse(job, why)
                continue
            if slots.fits(job.cpus, job.gpus, job.mem_mb):
                begin(job)
                self._passes.pop(job.id, None)
                self._passes.update(too_big)
                if any(self._passes[passed] >= MAX_PASSES for passed in too_big):
                    break
                continue
            too_big.append(job.id)
            if self._passes[job.id] >= MAX_PASSES or len(too_big) >= LOOK_AHEAD or slots.cpus < 1:
                break

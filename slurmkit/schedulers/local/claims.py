"""Which process runs a start of a job, so that each start happens once whoever dies: names of empty files.

    <job>.<start>                       the start has been decided; nobody runs it yet
    <job>.<start>.<pid>.<ticks>         that process runs it, or has run it
    <job>.<start>.<pid>.<ticks>.<exit>  ... and ended by itself with that exit code

A rename is atomic and needs no space on a disk: of two processes that claim the same start one succeeds, and the
other finds no file. The supervisor makes the first name before it records the start, and removes what is left after it
has recorded the end; so a process that comes too late to claim finds nothing either.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Claim:
    """Who runs a start of a job.

    Attributes:
        pid, ticks: the process, as in `processes.Process`; 0: nobody yet.
        exit_code: what the process ended with, if it ended by itself.
    """

    pid: int
    ticks: int
    exit_code: int | None


class Claims:
    """The folder of claims."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def offer(self, job_id: str, start: int) -> None:
        """Make a start claimable, if it was not yet offered.

        Raises:
            OSError: the disk is full.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        (self._folder / f"{job_id}.{start}").touch(mode=0o600)

    def take(self, job_id: str, start: int, pid: int, ticks: int) -> bool:
        """Claim a start for a process; say whether it was still to be had."""
        offered = self._folder / f"{job_id}.{start}"
        try:
            offered.rename(self._folder / f"{job_id}.{start}.{pid}.{ticks}")
        except FileNotFoundError:
            return False
        return True

    def finish(self, job_id: str, start: int, pid: int, ticks: int, exit_code: int) -> None:
        """Note the exit code of the process that had the claim (nothing if the end is already on record)."""
        taken = self._folder / f"{job_id}.{start}.{pid}.{ticks}"
        with contextlib.suppress(FileNotFoundError):
            taken.rename(self._folder / f"{taken.name}.{exit_code}")

    def all(self) -> dict[tuple[str, int], Claim]:
        """Return all claims by job and start."""
        found: dict[tuple[str, int], Claim] = {}
        if not self._folder.is_dir():
            return found
        for path in self._folder.iterdir():
            job_id, start, *rest = path.name.split(".")
            pid, ticks, exit_code = [*(int(word) for word in rest), *[None] * 3][:3]
            found[job_id, int(start)] = Claim(pid or 0, ticks or 0, exit_code)
        return found

    def clear_all_but(self, current: set[tuple[str, int]]) -> None:
        """Remove the claims of starts whose end is on record, which a supervisor that was killed left behind."""
        for (job_id, start), claim in self.all().items():
            if (job_id, start) not in current:
                self.clear(job_id, start, claim)

    def clear(self, job_id: str, start: int, claim: Claim) -> None:
        """Remove a claim whose end is on record."""
        stem = f"{job_id}.{start}"
        taken = f"{stem}.{claim.pid}.{claim.ticks}"
        for name in (stem, taken, f"{taken}.{claim.exit_code}"):
            (self._folder / name).unlink(missing_ok=True)

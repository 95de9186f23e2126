"""What schedulers answer that know neither job arrays nor scripts nor limits."""

from collections.abc import Sequence
from pathlib import Path

from slurmkit.resources import Resources, hours_in_words
from slurmkit.schedulers import JobRequest, Room


class Unlimited:
    """Jobs wait as long as it takes; what can never run is refused when it is submitted."""

    def split(self, requests: Sequence[JobRequest]) -> list[list[int]]:
        """Take all in one submission."""
        return [list(range(len(requests)))]

    def room(self, resources: Resources) -> Room | None:
        """Set no limit."""
        del resources
        return None

    def memory_cap(self, resources: Resources) -> tuple[int, str] | None:
        """Set none."""
        del resources
        return None

    def forecast(self, resources: Resources, runs: int) -> list[str]:
        """Say what the time limits let runs use."""
        return [hours_in_words(resources, runs, resources.time_s)]

    def preview(self, token: str, requests: Sequence[JobRequest], folder: Path) -> str:
        """Return nothing: no script is made."""
        del token, requests, folder
        return ""

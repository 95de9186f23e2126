"""What the latest attempts of runs left: where they ran, how long they waited, and which files they imported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from slurmkit import files
from slurmkit.errors import StoreError
from slurmkit.records import Json, RunStatus, is_list, is_mapping


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """What the latest attempt of a run left.

    Attributes:
        queued_s: seconds between its submission and its start; None: not known.
        proved: whether its imports proved the pin; None: they left no list.
        imported: the files of the commit that it imported; None: not known.
        version: of slurmkit; empty: not known.
        host: where it ran; empty: not known.
    """

    queued_s: float | None
    proved: bool | None
    imported: frozenset[str] | None
    version: str
    host: str


def read_attempts(
    statuses: Sequence[RunStatus], events: Sequence[Mapping[str, Json]] = ()
) -> list[AttemptRecord | None]:
    """Read what the latest attempts left; None for runs that never started.

    Args:
        statuses: the runs.
        events: the journal, which knows when they were submitted; none: nothing is said of waiting.
    """
    submitted: dict[str, str] = {}
    tokens: dict[str, Mapping[str, Json]] = {}
    for event in events:
        if event.get("event") == "intent":
            tokens[event["token"]] = event["attempts"]
        elif event.get("event") == "submitted":
            submitted |= dict.fromkeys(tokens.get(event["token"], {}), event["at"])
    return [_read_attempt(status, submitted.get(status.id, "")) for status in statuses]


def _read_attempt(status: RunStatus, submitted_at: str) -> AttemptRecord | None:
    folder = status.run_dir / "attempts" / str(status.attempt)
    started, outcome = _record(folder / "started.json"), _record(folder / "outcome.json")
    if status.attempt == 0 or not started:
        return None
    pin: Json = outcome.get("pin")
    pin = pin if is_mapping(pin) else {}
    imported: Json = pin.get("imported")
    return AttemptRecord(
        queued_s=_seconds_between(submitted_at, str(started.get("started_at", ""))),
        proved=pin.get("proved"),
        imported=frozenset(map(str, imported)) if is_list(imported) else None,
        version=str(started.get("slurmkit", "")),
        host=str(started.get("host", "")),
    )


def _record(path: Path) -> dict[str, Json]:
    """Read a record that a worker wrote; what is not there, or is no record, says nothing."""
    try:
        record: Json = files.read_json(path)
    except (FileNotFoundError, StoreError):
        return {}
    return record if is_mapping(record) else {}


def _seconds_between(earlier: str, later: str) -> float | None:
    try:
        return max(0.0, (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds())
    except (ValueError, TypeError):
        return None

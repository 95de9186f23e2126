"""What the runs have cost, and where their results come from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

from slurmkit import files
from slurmkit.aggregate.text import TextTable
from slurmkit.errors import StoreError
from slurmkit.records import Json, RunStatus, is_mapping
from slurmkit.report.material import Material
from slurmkit.report.model import Block, Command, Fact, Facts, Section, Sentence, Tone
from slurmkit.report.standing import counted
from slurmkit.resources import format_duration, format_memory

_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """What the latest attempt of a run left.

    Attributes:
        queued_s: seconds between its submission and its start; None: not known.
        proved: whether its imports proved the pin; None: they left no list.
        version: of slurmkit; empty: not known.
        host: where it ran; empty: not known.
    """

    queued_s: float | None
    proved: bool | None
    version: str
    host: str


def read_attempts(material: Material) -> list[AttemptRecord | None]:
    """Read what the latest attempts left; None for runs that never started."""
    submitted: dict[str, str] = {}
    tokens: dict[str, Mapping[str, Json]] = {}
    for event in material.events:
        if event.get("event") == "intent":
            tokens[event["token"]] = event["attempts"]
        elif event.get("event") == "submitted":
            submitted |= dict.fromkeys(tokens.get(event["token"], {}), event["at"])
    return [_read_attempt(status, submitted.get(status.id, "")) for status in material.statuses]


def _read_attempt(status: RunStatus, submitted_at: str) -> AttemptRecord | None:
    folder = status.run_dir / "attempts" / str(status.attempt)
    started, outcome = _record(folder / "started.json"), _record(folder / "outcome.json")
    if status.attempt == 0 or not started:
        return None
    pin = outcome.get("pin")
    return AttemptRecord(
        queued_s=_seconds_between(submitted_at, str(started.get("started_at", ""))),
        proved=pin.get("proved") if is_mapping(pin) else None,
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


def cost(material: Material, attempts: Sequence[AttemptRecord | None]) -> Section:
    """Sum up time, queue wait, peak memory, attempts and GPU-hours of the latest attempts."""
    statuses = material.statuses
    ended = [status for status in statuses if status.duration_s]
    if not ended:
        return Section("Cost", (Sentence("No attempt has ended yet.", Tone.NOTE),))
    waits = [attempt.queued_s for attempt in attempts if attempt is not None and attempt.queued_s is not None]
    peaks = [status.peak_rss_mb for status in ended if status.peak_rss_mb]
    durations = [status.duration_s for status in ended if status.duration_s]
    cpu_s = gpu_s = 0.0
    for status in ended:
        asked = material.asked[status.id]
        cpu_s += (status.duration_s or 0) * asked.cpus * asked.nodes
        gpu_s += (status.duration_s or 0) * asked.gpus * asked.nodes / asked.pack
    retried = sum(status.attempt > 1 for status in statuses)
    facts = [
        Fact("Time a run", f"{_spread(durations, format_duration)}; {format_duration(sum(durations))} in all"),
        *([Fact("Wait in the queue", _spread(waits, format_duration))] if waits else []),
        *([Fact("Peak memory", _spread(peaks, format_memory))] if peaks else []),
        Fact(
            "Attempts",
            f"{sum(status.attempt for status in statuses)} of {counted(len(statuses), 'run')}; {retried} retried",
        ),
        Fact("CPU-hours", f"{cpu_s / _HOUR_S:,.1f} (time x CPUs asked for)"),
        *([Fact("GPU-hours", f"{gpu_s / _HOUR_S:,.1f} (time x GPUs asked for)")] if gpu_s else []),
    ]
    note = (
        f"Of the latest attempts of {counted(len(ended), 'run')} that ended; earlier attempts and starts are not in it."
    )
    return Section("Cost", (Facts(tuple(facts)), Sentence(note, Tone.NOTE)))


def _spread(values: Sequence[float], write: Callable[[float], str]) -> str:
    return f"median {write(median(values))}, most {write(max(values))}"


def provenance(material: Material, attempts: Sequence[AttemptRecord | None]) -> Section:
    """Say which code made the results and on what proof, what retries changed, and how to make the report again."""
    header = material.header
    environment: Mapping[str, Json] = header.get("environment") or {}
    commits = sorted({status.commit for status in material.statuses} or {header["commit"]})
    seen = [attempt for attempt in attempts if attempt is not None]
    proved = sum(attempt.proved is True for attempt in seen)
    refuted = sum(attempt.proved is False for attempt in seen)
    proof = f"{proved} of {counted(len(seen), 'attempt')} proved by their imports that they ran the pinned files"
    proof += f"; {refuted} ran others" if refuted else ""
    versions = sorted({attempt.version for attempt in seen if attempt.version} or {str(header.get("slurmkit_version"))})
    hosts = sorted({attempt.host for attempt in seen if attempt.host})
    facts = [
        *(Fact("Commit", commit, literal=True) for commit in commits),
        Fact("Proof of pin", proof),
        *(
            [Fact("Definition SHA-256", header["definition_sha256"], literal=True)]
            if "definition_sha256" in header
            else []
        ),
        Fact("slurmkit", ", ".join(versions)),
        *([Fact("Python", str(environment["python"]))] if "python" in environment else []),
        *([Fact("Hosts", _first_few(hosts))] if hosts else []),
    ]
    return Section(
        "Provenance",
        (
            Facts(tuple(facts)),
            *_changes(material),
            Sentence("This report again:"),
            Command((f"slurmkit report {material.name}",)),
        ),
    )


def _changes(material: Material) -> list[Block]:
    """List what retries changed in the config: such results are of another config than their cell's."""
    groups: dict[str, list[str]] = {}
    for status in material.statuses:
        if status.changed:
            groups.setdefault(", ".join(status.changed), []).append(status.name)
    if not groups:
        return [Sentence("No retry changed a config.")]
    rows = [[what, str(len(runs)), _first_few(runs)] for what, runs in groups.items()]
    return [TextTable("Configs that retries changed", ["change", "runs", "which"], rows, 3, [])]


def _first_few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")

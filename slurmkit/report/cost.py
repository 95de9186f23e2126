"""What the runs have cost, and where their results come from."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from slurmkit.aggregate.text import TextTable
from slurmkit.records import Json
from slurmkit.report.attempts import AttemptRecord
from slurmkit.report.material import Material
from slurmkit.report.model import Block, Command, Fact, Facts, Section, Sentence, Tone
from slurmkit.report.standing import counted
from slurmkit.resources import format_duration, format_memory

_HOUR_S = 3600


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
        *([Fact("Imported", _imported(seen))] if any(attempt.imported for attempt in seen) else []),
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


def _imported(attempts: Sequence[AttemptRecord]) -> str:
    """Say which files of the commits ran, as far as attempts kept that."""
    lists = [attempt.imported for attempt in attempts if attempt.imported]
    paths = sorted(frozenset[str]().union(*lists))
    return f"{_first_few(paths)} (by {counted(len(lists), 'attempt')})"


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

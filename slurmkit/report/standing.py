"""What a report says of the collection itself: summary, metadata, failures, what is missing."""

import math
import re
from collections.abc import Mapping, Sequence

from slurmkit.aggregate.text import TextTable, clean, missing_table, problem_lines
from slurmkit.definition.grid import BLOCK, SETTING
from slurmkit.records import Json
from slurmkit.report.choice import Choice
from slurmkit.report.material import Material
from slurmkit.report.model import Block, Command, Fact, Facts, Section, Sentence, Tone
from slurmkit.states import State

_MOST_MISSING = 60
_SHORT_COMMIT = 10


def summary_line(material: Material, choice: Choice) -> str:
    """Return the first line: how much of what was planned is complete, and how far the main metrics reach."""
    aggregation = material.aggregation
    best = choice.best[0] if choice.best is not None else None
    ranges: list[str] = []
    for key in dict.fromkeys(key for key in (choice.accuracy, choice.alignment, best) if key is not None):
        info, values = aggregation.infos[key], aggregation.frame[key].dropna()
        if len(values):
            ranges.append(f"{info.label} from {info.text(float(values.min()))} to {info.text(float(values.max()))}")
    measured = f" Over all runs with results: {', '.join(ranges)}." if ranges else ""
    return f"{planned_design(material)}. {material.overview.headline}.{measured}"


def partial_line(material: Material) -> str:
    """Return what is missing, in one line; empty: nothing is."""
    missing = material.aggregation.missing
    total = material.overview.total
    runs = int(missing["runs"].sum())
    if not runs:
        return ""
    counts: dict[str, int] = {}
    for state, reason, count in zip(missing["state"], missing["reason"], missing["runs"].tolist(), strict=True):
        text = str(state) if reason is None or reason != reason else f"{state}: {reason}"
        counts[text] = counts.get(text, 0) + count
    parts = ", ".join(f"{count} {what}" for what, count in counts.items())
    if runs == total:
        return f"No run has results yet ({parts})."
    return f"{runs} of {total} runs have no results ({parts}). What follows is about the other {total - runs}."


def planned_design(material: Material) -> str:
    """Write the sweep as a product: ``6 tasks x 2 pv x 2 rmkl x 1 seed = 24 runs``."""
    sizes = axis_sizes(material)
    total = material.overview.total
    product = " x ".join(counted(size, axis) for axis, size in sizes.items()) or "no axes"
    combinations = math.prod(sizes.values())
    if combinations == total:
        return f"{product} = {counted(total, 'run')}"
    return f"{product} = {combinations} combinations, {counted(total, 'run')} planned of them"


def axis_sizes(material: Material) -> dict[str, int]:
    """Return how many values each axis has; blocks and their settings count as one axis, the settings."""
    axes: Mapping[str, Sequence[Json]] = material.header["axes"]
    sizes = {axis: len(values) for axis, values in axes.items()}
    if BLOCK in sizes and SETTING in sizes:
        pairs = {(status.axes.get(BLOCK), status.axes.get(SETTING)) for status in material.statuses}
        sizes[SETTING] = len(pairs)
        del sizes[BLOCK]
    return sizes


def counted(count: int, noun: str) -> str:
    """Write a count with its noun: ``1 seed``, ``6 tasks``; abbreviations such as ``pv`` stay as they are."""
    is_word = re.fullmatch(r"[a-z]{3,}", noun) and re.search("[aeiou]", noun) and not noun.endswith("s")
    return f"{count:,} {noun}s" if is_word and count != 1 else f"{count:,} {noun}"


def metadata(material: Material) -> Section:
    """Say which collection this is, what it was made from, and how far it has come."""
    header = material.header
    facts = [Fact("Collection", material.name, literal=True)]
    if material.definition.get("tags"):
        facts.append(Fact("Tags", ", ".join(material.definition["tags"])))
    facts += [
        *([Fact("Created", _minute(header["created_at"]))] if "created_at" in header else []),
        *([Fact("Last change", _minute(str(material.events[-1]["at"])))] if material.events else []),
        Fact("Read for this report", _minute(material.read_at.isoformat())),
        *([Fact("Definition", material.shown_path(header["source"]), literal=True)] if "source" in header else []),
        Fact("Run folder", material.shown_path(material.folder), literal=True),
        Fact("Commit", _commit(material), literal=True),
        Fact("Planned design", planned_design(material)),
        Fact("Observed completion", material.overview.headline),
    ]
    if material.overview.retired:
        facts.append(Fact("Retired", f"{material.overview.retired} runs that an extension took out; not counted here"))
    blocks: list[Block] = [Facts(tuple(facts))]
    if material.overview.problem:
        blocks.append(Sentence(material.overview.problem, Tone.WARNING))
    return Section("Metadata", (*blocks, *failures(material)))


def failures(material: Material) -> list[Block]:
    """List failures by reason, each with the evidence for it and the runs that it struck."""
    rows: list[list[str]] = []
    for group in material.overview.failures:
        for case in group.cases:
            named = ", ".join(case.runs) + (f" and {case.size - len(case.runs)} more" if case.size > 3 else "")
            rows.append([group.reason, str(case.size), case.evidence or "no evidence recorded", named])
    if not rows:
        return []
    rows = [[clean(text) for text in row] for row in rows]
    return [TextTable("Failures by reason", ["reason", "runs", "evidence", "which"], rows, 4, [])]


def _commit(material: Material) -> str:
    commits = {status.commit for status in material.statuses} or {material.header["commit"]}
    text = ", ".join(sorted(commit[:_SHORT_COMMIT] for commit in commits))
    dirty = material.header.get("dirty_files")
    return f"{text} (a snapshot with {counted(len(dirty), 'uncommitted file')})" if dirty else text


def _minute(time: str) -> str:
    """Write a record's time to the minute."""
    return f"{time[:16].replace('T', ' ')} UTC"


def missing(material: Material) -> Section:
    """List the cells without results, why they have none, and what would fill them."""
    table = missing_table(material.aggregation)
    if not table.rows:
        return Section("Missing cells", (Sentence("None: every planned run has results."),))
    hidden = len(table.rows) - _MOST_MISSING
    notes = [f"and {hidden} rows more: slurmkit aggregate {material.name} --json"] if hidden > 0 else []
    blocks: list[Block] = [TextTable("Without results", table.headers, table.rows[:_MOST_MISSING], table.labels, notes)]
    blocks += [Sentence(line, Tone.WARNING) for line in problem_lines(material.aggregation)[:_MOST_MISSING]]
    if commands := filling_commands(material):
        blocks += [Sentence("What would fill them:"), Command(tuple(commands))]
    return Section("Missing cells", tuple(blocks))


def filling_commands(material: Material) -> list[str]:
    """Return what to type so that the missing runs get results, a line for each way in which they are missing."""
    states, name = material.overview.states, material.name
    commands = [
        (State.PLANNED, f"slurmkit submit {name}"),
        (State.FAILED, f"slurmkit resubmit {name} --failed"),
        (State.CANCELLED, f"slurmkit resubmit {name} --state cancelled"),
        (State.RUNNING, f"slurmkit status {name} --watch"),
        (State.QUEUED, f"slurmkit status {name} --watch"),
        (State.BLOCKED, f"slurmkit status {name}"),
    ]
    return list(dict.fromkeys(command for state, command in commands if states.get(state)))

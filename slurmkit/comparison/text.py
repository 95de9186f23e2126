"""A comparison as tables of text: the same for a terminal, a pipe and Markdown."""

import math
from collections.abc import Sequence

import orjson
import pandas as pd

from slurmkit.aggregate.format import NO_VALUE, clean, format_estimate, short_names
from slurmkit.aggregate.frame import axis_column
from slurmkit.aggregate.metric_info import Direction
from slurmkit.aggregate.text import TextTable
from slurmkit.comparison.build import Comparison
from slurmkit.comparison.changes import Change
from slurmkit.comparison.code import CodeChange, FileChange
from slurmkit.comparison.side import Side
from slurmkit.names import label_text
from slurmkit.records import Json
from slurmkit.states import State

MOST_ROWS = 20
"""Rows of a list that a reader looks through; JSON has them all."""
_SHORT = 10
_LONGEST_VALUE = 60
_COLUMNS = ("pairs", "cells", "A", "B", "difference", "B is", "naive A", "naive B")
"""Columns of a table of differences, beside those that name the row."""
_NAIVE = _COLUMNS.index("naive A")


def tables(comparison: Comparison) -> list[TextTable]:
    """Return all that is to be read, in order; what does not differ has no table."""
    found = [_sides(comparison), _match(comparison), *_differences(comparison), *_unmatched(comparison)]
    found += _changes("Config", comparison.config)
    found += _changes("Resources", comparison.resources)
    found += _changes("Definition", comparison.definition)
    found += _changes("Versions", comparison.versions)
    for change in comparison.code:
        found += _code(change)
    return found


def _sides(c: Comparison) -> TextTable:
    """Put what both are, and how far they have come, beside each other."""
    sides = (c.a, c.b)
    totals = [side.overview.total for side in sides]
    rows = [
        ["collection", *(side.name for side in sides)],
        ["created", *(str(side.header.get("created_at", NO_VALUE))[:16].replace("T", " ") for side in sides)],
        ["commit", *map(_commits, sides)],
    ]
    for state in State:
        counts = [side.overview.states.get(state, 0) for side in sides]
        if any(counts) or state is State.COMPLETED:
            rows.append([str(state), *(f"{count}/{total}" for count, total in zip(counts, totals, strict=True))])
            if state is State.FAILED:
                rows += _failures(sides)
    return TextTable("Compared", ["", "A", "B"], [[clean(text) for text in row] for row in rows], 3, [])


def _commits(side: Side) -> str:
    snapshot = {side.header["commit"]} if side.header.get("dirty_files") else set[str]()
    several = len(side.commits) > 1
    return ", ".join(
        commit[:_SHORT] + (f" ({count})" if several else "") + (" (snapshot)" if commit in snapshot else "")
        for commit, count in side.commits.items()
    )


def _failures(sides: Sequence[Side]) -> list[list[str]]:
    counts = [{group.reason: group.size for group in side.overview.failures} for side in sides]
    reasons = dict.fromkeys(reason for own in counts for reason in own)
    return [[f"  {reason}", *(str(own.get(reason, 0)) for own in counts)] for reason in reasons]


def _match(c: Comparison) -> TextTable:
    m = c.matching
    rows = [[clean(axis.axis), clean(axis.how)] for axis in m.how]
    notes = [match_line(c), *map(clean, c.notes)]
    return TextTable("Matched cells", ["axis", "how"], rows, 2, notes)


def match_line(c: Comparison) -> str:
    """Say how much of both sides is compared."""
    m = c.matching
    matched = len(m.matched)
    of_a, of_b = matched + len(m.only[0]), matched + len(m.only[1])
    unit = f"pairs of runs with the same {m.seed_axis}" if m.seeds else "pairs of runs"
    pairs = f"; {unit}: {len(m.pairs())}" if m.seeds_pair else ""
    return f"Matched: {matched} of the {_counted(of_a, 'cell')} of A and of the {of_b} of B{pairs}."


def _unmatched(c: Comparison) -> list[TextTable]:
    """List the cells that only one side has."""
    axes = [clean(axis) for axis in c.matching.axes]
    rows = [
        [who, *map(clean, place), str(runs)]
        for who, only in zip("AB", c.matching.only, strict=True)
        for place, runs in only.items()
    ]
    return (
        [_shortened(TextTable("Cells that only one has", ["only", *axes, "runs"], rows, len(axes) + 1, []))]
        if rows
        else []
    )


def _shortened(table: TextTable) -> TextTable:
    hidden = len(table.rows) - MOST_ROWS
    notes = [*table.notes, f"... and {hidden} more: --json has them all."] if hidden > 0 else table.notes
    return TextTable(table.title, table.headers, table.rows[:MOST_ROWS], table.labels, notes)


def _differences(c: Comparison) -> list[TextTable]:
    """Return the differences over all matched pairs, and by the values of an axis."""
    if not c.metrics:
        return []
    found = [_difference_table(c, "Differences, B minus A", rows_of(c.deltas), _difference_notes(c))]
    if c.per is not None:
        rows = sorted(rows_of(c.per_deltas), key=lambda row: c.metrics.index(row["metric"]))
        found.append(_difference_table(c, f"Differences by {clean(c.per)}", rows, [], by=c.per))
    return found


def _difference_table(
    c: Comparison, title: str, deltas: Sequence[dict[str, Json]], notes: list[str], *, by: str | None = None
) -> TextTable:
    """Return differences as text; columns in which no row says anything are left out.

    Args:
        c: the comparison.
        title: of the table.
        deltas: its rows.
        notes: below it.
        by: the axis whose values have rows of their own; such a table leaves the naive means to JSON.
    """
    short = short_names(c.metrics)
    headers = ["metric", *([] if by is None else [clean(by)]), *_COLUMNS[: None if by is None else _NAIVE]]
    rows = [
        [clean(short[row["metric"]]), *([] if by is None else [clean(str(row[axis_column(by)]))]), *_difference(c, row)]
        for row in deltas
    ]
    kept = [place for place, _ in enumerate(headers) if any(row[place] for row in rows)]
    texts = [[row[place] for place in kept] for row in rows]
    return TextTable(title, [headers[place] for place in kept], texts, 1 if by is None else 2, notes)


def rows_of(deltas: pd.DataFrame) -> list[dict[str, Json]]:
    """Return the rows of a matched comparison as plain values, by column."""
    names = [str(name) for name in deltas.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*(deltas[name].tolist() for name in names), strict=True)]


def _difference(c: Comparison, row: dict[str, Json]) -> list[str]:
    """Return the texts of one difference: pairs, cells, means, difference, verdict, naive means."""
    info = c.infos[row["metric"]]
    naive = [info.text(row["naive_baseline_mean"]), info.text(row["naive_setting_mean"])]
    shown = naive if row["naive_difference"] == row["naive_difference"] else ["", ""]
    counted = [str(row["n"]), str(row["common_cells"])]
    if not row["n"]:
        return [*counted, NO_VALUE, NO_VALUE, "no pairs", "", *naive]
    means = [info.text(row["baseline_mean"]), info.text(row["setting_mean"])]
    if row["metric"] in c.refused:
        return [*counted, *means, "not comparable", "", *shown]
    text = format_estimate(row["difference"], row["half_width"])
    signed = text if text.startswith("-") or not row["difference"] else f"+{text}"
    once = " (n=1)" if row["n"] == 1 else ""
    return [*counted, *means, signed + once, verdict(c, row), *shown]


def verdict(c: Comparison, row: dict[str, Json]) -> str:
    """Say whether B is better or worse in a metric; empty: the interval does not say, or nobody said what better is."""
    direction = c.infos[row["metric"]].direction
    difference, half_width = row["difference"], row["half_width"]
    if row["metric"] not in c.directed or row["metric"] in c.refused or direction is None:
        return ""
    if math.isnan(half_width) or abs(difference) <= half_width:
        return ""
    return "better" if (difference > 0) is (direction is Direction.MAX) else "worse"


def _difference_notes(c: Comparison) -> list[str]:
    unit = "cells" if not c.matching.seeds_pair else "pairs of runs"
    notes = [f"A and B: means over the matched {unit}. Difference ± half-width of its 95 % t-interval; n=1 has none."]
    if c.deltas["naive_difference"].notna().any():
        notes.append("naive: means over whatever each side has. Different sets of runs: not to be compared.")
    if c.directed & set(c.metrics):
        notes.append("better, worse: where the definition declares a direction and the interval excludes 0.")
    notes += [f"{key}: not comparable, as the config differs: {because}." for key, because in c.refused.items()]
    return [clean(note) for note in notes]


def _changes(title: str, changes: Sequence[Change]) -> list[TextTable]:
    """Return the keys that differ, one row for each pair of values, those that differ in all pairs first."""
    rows = [
        [clean(change.key), _value(old), _value(new), "all" if count == change.of else f"{count}/{change.of}"]
        for change in changes
        for old, new, count in change.values
    ]
    return [_shortened(TextTable(title, ["key", "A", "B", "pairs"], rows, 3, []))] if rows else []


def _value(value: Json) -> str:
    """Write a value of a config; lists and mappings as JSON, what is not there as a dash."""
    if value is None:
        return NO_VALUE
    text = orjson.dumps(value).decode() if isinstance(value, dict | list) else label_text(value)
    return clean(text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}...")


def _code(change: CodeChange) -> list[TextTable]:
    """Return what lies between two commits: the commits, and the files."""
    title = f"Code {change.old[:_SHORT]}..{change.new[:_SHORT]}"
    if change.problem:
        return [TextTable(title, ["commit", "subject"], [], 2, [clean(f"not known: {change.problem}")])]
    rows = [["+", short, subject] for short, subject in change.subjects]
    rows += [["-", short, subject] for short, subject in change.lost]
    notes = [f"{_counted(change.ahead, 'commit')} only in B (+), {change.behind} only in A (-); {change.pairs} pairs."]
    shown = [TextTable(title, ["", "commit", "subject"], [[clean(text) for text in row] for row in rows], 3, notes)]
    return [*shown, _shortened(_files(f"{title}: files", change.files))]


def _files(title: str, files: Sequence[FileChange]) -> TextTable:
    """Return the files that differ; where it is known what runs imported, these, and the others in one line."""
    hidden = [file for file in files if file.imported is False]
    rest = [file for file in files if file.imported is not False]
    ran = " that runs imported" if any(file.imported is not None for file in files) else ""
    notes = [f"{_counted(len(rest), 'file')}{ran}, {_sizes(rest)}." if rest else f"No file{ran} differs."]
    if hidden:
        more = "1 more file" if len(hidden) == 1 else f"{len(hidden)} more files"
        notes.append(f"{more} changed that no run imported, {_sizes(hidden)}: --json names them.")
    rows = [[clean(file.path), _lines("+", file.added), _lines("-", file.removed)] for file in rest]
    return TextTable(title, ["file", "added", "removed"], rows, 1, notes)


def _sizes(files: Sequence[FileChange]) -> str:
    return f"+{sum(file.added or 0 for file in files)} -{sum(file.removed or 0 for file in files)} lines"


def _lines(sign: str, count: int | None) -> str:
    return "binary" if count is None else f"{sign}{count}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"

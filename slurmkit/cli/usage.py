"""Asked and used resources as lines of text: for a terminal, and for a pipe."""

from collections.abc import Callable, Sequence

from slurmkit.cli.render import Line
from slurmkit.names import label_text
from slurmkit.resources import format_duration, format_memory
from slurmkit.usage import Spent, Usage, as_definition, as_memory, as_time

Write = Callable[[float], str]


def terminal_lines(name: str, axis: str, rows: Sequence[Usage], width: int) -> list[Line]:
    """Return a table for people: a row for each axis value, then what to know and what to change."""
    header = [axis or "runs", "done", "mem asked", "used (median, most)", "enough", "time asked", "used (median, most)"]
    table = [[*header, "enough"], *(_cells(row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines: list[Line] = []
    for number, row in enumerate(table):
        cells = [cell.ljust(size) for cell, size in zip(row, widths, strict=True)]
        if sum(widths) + 2 * len(widths) <= width:
            lines.append([("  ".join(cells).rstrip(), "bright_black" if number == 0 else "")])
        else:  # memory first, time below it
            lines.append([("  ".join(cells[:5]).rstrip(), "bright_black" if number == 0 else "")])
            indent = " " * (widths[0] + widths[1] + 4)
            lines.append([(indent + "  ".join(cells[5:]).rstrip(), "bright_black" if number == 0 else "")])
    lines.append([])
    lines += [[(f"{_named(axis, row)}: ", "bright_black"), (note, "yellow")] for row in rows for note in _notes(row)]
    wanted = _wanted(axis, rows)
    if wanted:
        where = "under overrides" if axis else "instead of its own"
        lines.append([(f"In the definition of {name}, {where}; then slurmkit collection extend:", "bright_black")])
        lines += [[(f"  {line}", "")] for line in wanted]
    return lines


def pipe_lines(name: str, axis: str, rows: Sequence[Usage]) -> list[str]:
    """Return the same for programs and files: one fact a line, no colour."""
    lines = [f"collection {name}"]
    for row in rows:
        _, done, *cells = _cells(row)
        for kind, (asked, used, enough) in (("mem", cells[:3]), ("time", cells[3:])):
            lines.append(f"{kind} {_named(axis, row)}: done {done}; asked {asked}; used {used}; enough {enough}")
        lines += [f"note {_named(axis, row)}: {note}" for note in _notes(row)]
    return [*lines, *(f"definition: {line}" for line in _wanted(axis, rows))]


def _cells(row: Usage) -> list[str]:
    memory = _spent(row.memory, format_memory, as_memory)
    time = _spent(row.time, format_duration, as_time)
    return [label_text(row.value) if row.value is not None else "all", f"{row.completed}/{row.total}", *memory, *time]


def _spent(spent: Spent, write: Write, enough: Callable[[int], str]) -> list[str]:
    low, high = map(write, spent.asked) if spent.asked else ("-", "-")
    used = "-" if spent.median is None or spent.most is None else f"{write(spent.median)}, {write(spent.most)}"
    return [low if low == high else f"{low} to {high}", used, enough(spent.suggested) if spent.suggested else "-"]


def _named(axis: str, row: Usage) -> str:
    return f"{axis}={label_text(row.value)}" if axis else "all"


def _notes(row: Usage) -> list[str]:
    return [spent.note for spent in (row.memory, row.time) if spent.note]


def _wanted(axis: str, rows: Sequence[Usage]) -> list[str]:
    """Return lines for the definition, for the rows that did not ask for just that."""
    changed = [row for row in rows if any(_differs(spent) for spent in (row.memory, row.time))]
    return [as_definition(row, axis) for row in changed]


def _differs(spent: Spent) -> bool:
    return spent.suggested is not None and spent.asked != (spent.suggested, spent.suggested)

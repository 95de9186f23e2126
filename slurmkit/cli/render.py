"""An overview as lines of text: for a terminal of any width, and for a pipe.

A line is a list of (text, style) pieces; styles are click's. Colour is never the only sign.
"""

import os
from collections.abc import Sequence
from statistics import fmean

import click

from slurmkit.overview import FailureGroup, Grid, Overview, Square
from slurmkit.resources import format_duration
from slurmkit.states import State

Piece = tuple[str, str]
Line = list[Piece]

_COLOURS = {
    State.COMPLETED: "green",
    State.FAILED: "red",
    State.RUNNING: "cyan",
    State.BLOCKED: "yellow",
    State.UNKNOWN: "yellow",
    State.CANCELLED: "magenta",
}
_MOST_ROWS = 40
_MOST_SQUARES = 1200
_MOST_CASES = 4


def styled(line: Line) -> str:
    """Return a line with its colours, or without where NO_COLOR is set (https://no-color.org)."""
    if os.environ.get("NO_COLOR"):
        return "".join(text for text, _ in line)
    return "".join(click.style(text, fg=style) if style else text for text, style in line)


def terminal_lines(summary: Overview, width: int) -> list[Line]:
    """Return an overview for people: counts, grid, failures, blocked runs, estimate, next command."""
    lines: list[Line] = [_headline(summary, width), []]
    lines += _grid_lines(summary.grid, max(40, width))
    lines += _detail_lines(summary)
    return lines


def pipe_lines(summary: Overview) -> list[str]:
    """Return an overview for programs and files: one fact a line, nothing cut, no colour."""
    lines = [f"collection {summary.name} {summary.commit}", summary.headline]
    grid = summary.grid
    axis = f"{grid.row_axis}=" if grid.row_axis else ""
    for row in grid.rows:
        for column in grid.columns:
            square = grid.squares.get((row, column))
            if square is not None:
                counts = " ".join(f"{state}={count}" for state, count in sorted(square.states.items()))
                reasons = f" reasons={','.join(sorted(square.reasons))}" if square.reasons else ""
                lines.append(f"cell {axis}{' '.join(filter(None, (row, column)))}: {counts}{reasons}")
    for group in summary.failures:
        lines += [f"failed {group.reason} {c.size}: {c.evidence} [{', '.join(c.runs)}]" for c in group.cases]
    lines += [f"blocked {count}: {why}" for why, count in summary.blocked.items()]
    lines += [f"unknown {count}: {why}" for why, count in summary.notes.items()]
    lines += [f"queued {count}: {why}" for why, count in summary.stuck.items()]
    lines += [f"cancelled {count}: {why}" for why, count in summary.cancelled.items()]
    if summary.next_command:
        lines.append(f"next: {summary.next_command}")
    return lines


def _headline(summary: Overview, width: int) -> Line:
    line: Line = []
    for part in summary.headline.split(", "):
        word = part.rpartition(" ")[2]
        state = State.COMPLETED if word == "complete" else State(word)
        line += [(", " if line else "", ""), (part, _COLOURS.get(state, ""))]
    about = f"{summary.name} @ {summary.commit[:10]}"
    used = sum(len(text) for text, _ in line)
    if used + 3 + len(about) <= width:
        line.append((f"   {about}", "bright_black"))
    return line


def square_text(square: Square) -> Piece:
    """Return what a cell shows: ``done``, ``2/3``, ``FAILED oom_host``, ``45% 0.123``, ``queued``, ``-``."""
    done = square.states.get(State.COMPLETED, 0)
    several = f"{done}/{square.total}" if square.total > 1 else ""
    if done == square.total:
        return several or "done", "green"
    if square.states.get(State.FAILED):
        return f"{several or 'FAILED'} {'+'.join(sorted(square.reasons))}".strip(), "red"
    if square.states.get(State.RUNNING):
        share = f"{fmean(square.progress):.0%}" if square.progress else "running"
        loss = f" {fmean(square.losses):.3g}" if square.losses else ""
        return f"{several} {share}{loss}".strip(), "cyan"
    for state in (State.UNKNOWN, State.BLOCKED, State.QUEUED, State.CANCELLED):
        if square.states.get(state):
            return f"{several} {state}".strip(), _COLOURS.get(state, "")
    return several or "-", "bright_black"


def _grid_lines(grid: Grid, width: int) -> list[Line]:
    if len(grid.squares) > _MOST_SQUARES or len(grid.rows) > 4 * _MOST_ROWS:
        return _count_lines(grid)
    rows, columns = list(grid.rows), list(grid.columns)
    squares = grid.squares
    title = grid.row_axis
    if len(columns) > len(rows) and _width_of(columns) > width:  # many settings, few tasks: settings down
        squares = {(column, row): square for (row, column), square in squares.items()}
        rows, columns, title = columns, rows, " ".join(grid.column_axes)
    hidden = 0
    if len(rows) > _MOST_ROWS:
        open_rows = [row for row in rows if not all(_complete(squares.get((row, column))) for column in columns)]
        shown = open_rows[:_MOST_ROWS]
        hidden, rows = len(rows) - len(shown), shown
    lines = _table(title, rows, columns, squares, width)
    if hidden:
        lines.append([(f"... and {hidden} rows more: slurmkit status --list, or a larger --where", "bright_black")])
    return [*lines, []] if lines else []


def _complete(square: Square | None) -> bool:
    return square is None or square.states.get(State.COMPLETED, 0) == square.total


def _width_of(labels: Sequence[str]) -> int:
    return sum(len(label) + 2 for label in labels)


def _table(
    title: str, rows: Sequence[str], columns: Sequence[str], squares: dict[tuple[str, str], Square], width: int
) -> list[Line]:
    """Lay out the grid; columns that do not fit go into a further block below."""
    first = min(max([len(title), *(len(row) for row in rows)], default=0), max(12, width // 3))
    cells = {place: square_text(square) for place, square in squares.items()}
    widths = {
        column: max([len(column), *(len(cells[row, column][0]) for row in rows if (row, column) in cells)])
        for column in columns
    }
    lines: list[Line] = []
    left = list(columns)
    while left:
        block = [left.pop(0)]
        used = first + 2 + widths[block[0]]
        while left and used + 2 + widths[left[0]] <= width:
            used += 2 + widths[left[0]]
            block.append(left.pop(0))
        header = [(_cut(title, first).ljust(first), "bright_black")]
        header += [(f"  {column:<{widths[column]}}", "bright_black") for column in block]
        lines.append(header)
        for row in rows:
            line: Line = [(_cut(row, first).ljust(first), "")]
            for column in block:
                text, style = cells.get((row, column), ("", ""))
                line += [("  ", ""), (text.ljust(widths[column]), style)]
            lines.append(line)
        if left:
            lines.append([])
    return lines


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _count_lines(grid: Grid) -> list[Line]:
    """A grid too large to draw: one line for each of the first rows with counts."""
    counts: dict[str, Square] = {}
    for (row, _), square in grid.squares.items():
        total = counts.setdefault(row, Square())
        total.total += square.total
        total.states.update(square.states)
    unfinished = {row: square for row, square in counts.items() if not _complete(square)}
    lines: list[Line] = []
    for row, square in list(unfinished.items())[:_MOST_ROWS]:
        shown = ", ".join(f"{count:,} {state}" for state, count in square.states.most_common())
        lines.append([(f"{grid.row_axis} {row}: {shown}", "")])
    done = len(counts) - len(unfinished)
    hidden = len(unfinished) - len(lines)
    if done:
        lines.append([(f"{done:,} of {len(counts):,} {grid.row_axis} rows are complete", "green")])
    if hidden > 0:
        lines.append([(f"... and {hidden:,} rows more: slurmkit status --list", "bright_black")])
    return [*lines, []]


def _failure_lines(group: FailureGroup) -> list[Line]:
    lines: list[Line] = []
    title = f"{group.size} failed: {group.reason}"
    for case in group.cases[:_MOST_CASES]:
        share = f"  {case.size} of them:" if len(group.cases) > 1 else ""
        lines.append([(title, "red"), (f"{share}  {case.evidence}", "")])
        lines += [[(f"  {name}", "bright_black")] for name in case.runs]
        if case.size > len(case.runs):
            lines.append([(f"  and {case.size - len(case.runs)} more", "bright_black")])
        title = " " * len(title)
    if len(group.cases) > _MOST_CASES:
        lines.append([(f"  and in {len(group.cases) - _MOST_CASES} more ways: slurmkit status --json", "bright_black")])
    return lines


def _detail_lines(summary: Overview) -> list[Line]:
    lines: list[Line] = []
    for group in summary.failures:
        lines += _failure_lines(group)
    for why, count in list(summary.blocked.items())[:5]:
        lines.append([(f"{count} blocked", "yellow"), (f"  {why}", "")])
    if len(summary.blocked) > 5:
        lines.append([(f"... blocked by {len(summary.blocked) - 5} more runs", "yellow")])
    if summary.problem:
        lines.append([(summary.problem, "red")])
    for word, reasons in (("unknown", summary.notes), ("queued", summary.stuck), ("cancelled", summary.cancelled)):
        for why, count in list(reasons.items())[:_MOST_CASES]:
            lines.append([(f"{count} {word}", "yellow"), (f"  {why}", "")])
    if summary.retired:
        lines.append([(f"{summary.retired} retired by an extension; their records are kept", "bright_black")])
    if summary.eta_s is not None:
        lines.append([(f"about {format_duration(summary.eta_s)} left, by finished runs like these", "")])
    if summary.next_command:
        lines.append([("next: ", "bright_black"), (summary.next_command, "")])
    return lines

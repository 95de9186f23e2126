"""`slurmkit aggregate`: the metrics of a collection as tables."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from slurmkit.cli.common import collection_argument, narrate, open_collection, plural, select, where_option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from slurmkit.aggregate.aggregation import Aggregation
    from slurmkit.aggregate.text import TextTable
    from slurmkit.aggregate.views import Request
    from slurmkit.records import Json, RunStatus

_MOST_NAMES = 12
_MOST_MISSING = 20
_MOST_DRAWN_ROWS = 200
"""A terminal table of more rows takes long to lay out, and nobody can see its borders."""


@click.command("aggregate")
@collection_argument
@where_option
@click.option(
    "--metric", "metrics", multiple=True, metavar="GLOB", help="Metrics to show, such as 'loss/val/*'; repeat."
)
@click.option("--by", metavar="AXES", help="Axes that make a row, such as task,pv,rmkl.  [default: all but the seed]")
@click.option("--baseline", metavar="AXIS=VALUE,...", help="Setting to compare with, such as pv=0.0,rmkl=0.0.")
@click.option("--pivot", "pivots", multiple=True, metavar="ROWS:COLUMNS", help="One axis by another: task:setting.")
@click.option("--best", metavar="METRIC[:min|max]", help="Rank settings by a metric; the best of each group.")
@click.option("--per", metavar="AXES", help="Axes that make a group of --best and --block-maxima.")
@click.option("--top", type=click.IntRange(min=1), default=1, show_default=True, help="How many of each group.")
@click.option("--without-block", "without", multiple=True, metavar="BLOCK", help="Rank once more without this block.")
@click.option("--block-maxima", metavar="METRIC[:min|max]", help="The best setting of each block.")
@click.option("--fold", "folds", is_flag=True, help="How many times the baseline, over matched runs.")
@click.option("--anyway", is_flag=True, help="Rank also by a metric that means something else in each setting.")
@click.option("--history", is_flag=True, help="The logged series: a row a run, step and metric (CSV, or --output).")
@click.option(
    "--reread",
    is_flag=True,
    help="Read every metrics file anew, also those read before: they may have been edited or lost since.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a file, too: .csv or .parquet (a row a run; with --by a row a cell), .json, .md, .tex, .html.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON (versioned: the key `schema`).")
def command(
    name: str | None,
    where: tuple[str, ...],
    metrics: tuple[str, ...],
    by: str | None,
    baseline: str | None,
    output: Path | None,
    history: bool,
    reread: bool,
    as_json: bool,
    **asked: Any,
) -> int:
    """Tabulate the metrics of completed runs.

    Means over seeds with their 95 % t-intervals and n, what is missing and why, and differences from a baseline over
    the runs that both settings have. Asked for --best, --block-maxima, --pivot or --fold, it shows these instead. Ends
    with 1 if a completed run's metrics cannot be used; the others are kept.
    """
    from slurmkit.aggregate.aggregation import aggregate
    from slurmkit.aggregate.deltas import parse_baseline
    from slurmkit.aggregate.views import make_views
    from slurmkit.aggregate.write import check_path, document_bytes, write

    if output is not None:
        check_path(output)
    collection = open_collection(name)
    axes = collection.axes
    against = parse_baseline(baseline, axes) if baseline is not None else None
    everyone = collection.statuses()
    statuses = select(everyone, where) if where else everyone
    if history:
        return _history(statuses, axes, metrics, output)
    made = aggregate(
        collection.name,
        statuses,
        axes,
        collection.seed_axis,
        by=_words(by),
        metrics=metrics,
        baseline=against,
        declared=collection.metrics,
        index_file=collection.records.metrics_index,
        reread=reread,
    )
    views = make_views(made, _request(asked))
    if output is not None:
        write(made, output, views, one_row_a_run=by is None)
    if as_json:
        click.echo(document_bytes(made, views), nl=False)
    elif views:
        _show([view.text for view in views])
    else:
        _print(made)
    _narrate(made, output)
    return 1 if made.problems else 0


def _words(text: str | None) -> list[str]:
    return [] if text is None else [word.strip() for word in text.split(",")]


def _request(asked: "dict[str, Any]") -> "Request":
    from slurmkit.aggregate.views import Request

    per: str | None = asked["per"]
    return Request(
        best=asked["best"],
        per=None if per is None else tuple(_words(per)),
        top=asked["top"],
        without_blocks=asked["without"],
        block_maxima=asked["block_maxima"],
        pivots=asked["pivots"],
        folds=asked["folds"],
        anyway=asked["anyway"],
    )


def _history(
    statuses: "Sequence[RunStatus]", axes: "Mapping[str, Sequence[Json]]", metrics: "Sequence[str]", output: Path | None
) -> int:
    """Print the logged series as CSV, or write them to a file."""
    from slurmkit.aggregate.history import read_history
    from slurmkit.aggregate.write import table_bytes, write_table

    table, problems = read_history(statuses, axes, metrics)
    for problem in problems:
        narrate(f"{problem.path}: {problem.what}")
    if output is None:
        click.echo(table_bytes(table, ".csv"), nl=False)
    else:
        write_table(table, output)
        narrate(f"wrote {output}: {plural(len(table), 'row')}")
    return 1 if problems else 0


def _print(made: "Aggregation") -> None:
    from slurmkit.aggregate.text import deltas_table, missing_table, problem_lines, summary_table

    tables = [summary_table(made)]
    missing = missing_table(made)
    if missing.rows:
        tables.append(_shortened(missing) if sys.stdout.isatty() else missing)
    if len(made.deltas):
        tables.append(deltas_table(made))
    _show(tables)
    problems = problem_lines(made)
    if problems:
        click.echo("\nProblems")
        click.echo("\n".join(problems))


def _show(tables: "Sequence[TextTable]") -> None:
    """Print tables, with borders where a person looks at them."""
    in_terminal = sys.stdout.isatty()
    for number, table in enumerate(tables):
        if number:
            click.echo()
        if in_terminal and len(table.rows) <= _MOST_DRAWN_ROWS:
            draw(table)
        else:
            click.echo("\n".join(plain_lines(table)))


def _shortened(table: "TextTable") -> "TextTable":
    from dataclasses import replace

    hidden = len(table.rows) - _MOST_MISSING
    if hidden <= 0:
        return table
    return replace(table, rows=table.rows[:_MOST_MISSING], notes=[f"... and {hidden} rows more: --json has them all."])


def plain_lines(table: "TextTable") -> list[str]:
    """Return a table as lines of aligned columns, whatever the width: the same in every pipe."""
    grid = [table.headers, *table.rows]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in grid]
    return [table.title, *lines, *table.notes]


def draw(table: "TextTable") -> None:
    """Print a table for a terminal, as wide as that is."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=Text(table.title), box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for position, header in enumerate(table.headers):
        drawn.add_column(Text(header), justify="left" if position < table.labels else "right", overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    console = Console(no_color=bool(os.environ.get("NO_COLOR")), highlight=False)
    console.print(drawn)
    for note in table.notes:
        console.print(Text(note, style="dim"))


def _narrate(made: "Aggregation", output: Path | None) -> None:
    """Tell what the tables leave out, what they compare with, and what makes them doubtful."""
    from slurmkit.aggregate.text import baseline_text, clean, warnings

    if not made.metrics:
        narrate("no completed run has metrics with numbers yet: slurmkit status says where the runs stand")
    elif made.other_metrics:
        others = made.other_metrics
        named = clean(", ".join(others[:_MOST_NAMES]))
        more = f" and {len(others) - _MOST_NAMES} more" if len(others) > _MOST_NAMES else ""
        total = len(made.metrics) + len(others)
        narrate(f"{len(made.metrics)} of {total} metrics shown (--metric GLOB chooses); left out: {named}{more}")
    if made.baseline_is_guessed:
        narrate(f"baseline guessed: --baseline {baseline_text(made)}")
    elif not made.baseline and made.metrics:
        narrate("no baseline named or guessed: --baseline AXIS=VALUE shows matched differences")
    for line in warnings(made):
        narrate(f"warning: {line}")
    if made.problems:
        narrate(f"{plural(len(made.problems), 'problem')} with metrics files; what is good was kept")
    if output is not None:
        narrate(f"wrote {output}")

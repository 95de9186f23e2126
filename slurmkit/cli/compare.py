"""`slurmkit compare`: two collections, or two commits of one, beside each other."""

import sys
from typing import TYPE_CHECKING

import click

from slurmkit.cli.common import complete_name, narrate, plural
from slurmkit.errors import UsageError

if TYPE_CHECKING:
    from slurmkit.comparison.build import Comparison

_MOST_NAMES = 12


@click.command()
@click.argument("a", shell_complete=complete_name)
@click.argument("b", shell_complete=complete_name)
@click.option(
    "--metric", "metrics", multiple=True, metavar="GLOB", help="Metrics to compare, such as 'loss/val/*'; repeat."
)
@click.option("--per", metavar="AXIS", help="Give differences by this axis, too.  [default: the first]")
@click.option(
    "--as",
    "taken",
    multiple=True,
    metavar="AXIS=VALUE",
    help="What runs count as that have neither an axis of the other side nor its config key; repeat.",
)
@click.option("--anyway", is_flag=True, help="Compare also metrics that mean something else in each setting.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (versioned: the key `schema`).")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown.")
def compare(
    a: str,
    b: str,
    metrics: tuple[str, ...],
    per: str | None,
    taken: tuple[str, ...],
    anyway: bool,
    as_json: bool,
    as_markdown: bool,
) -> int:
    """Compare collection B with A: matched cells, differences, what changed in config and code.

    NAME@COMMIT is the part of a collection that is pinned to a commit (any beginning of its id), retired runs among
    them: what an extension changed is seen by comparing NAME@COMMIT1 with NAME@COMMIT2. Differences are B minus A, over
    the cells and seeds that both have. Ends with 1 if a completed run's metrics cannot be used; the others are kept.
    """
    from slurmkit.comparison.side import read_side
    from slurmkit.project import Project

    if as_json and as_markdown:
        raise UsageError("--json and --markdown: give one of them.")
    labels = _labels(taken)
    project = Project.discover()
    sides = read_side(a), read_side(b)
    from slurmkit.comparison.build import compare as build  # pandas, which a wrong name need not wait for

    made = build(*sides, project.root, metrics=metrics, per=per, taken=labels, anyway=anyway)
    if as_json or as_markdown:
        from slurmkit.comparison.document import document_bytes, markdown

        click.echo(document_bytes(made) if as_json else markdown(made), nl=False)
    else:
        _print(made)
    _narrate(made)
    return 1 if made.problems else 0


def _labels(taken: tuple[str, ...]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for text in taken:
        axis, equals, label = text.partition("=")
        if not equals:
            raise UsageError(f"--as {text}: expected AXIS=VALUE, such as --as pv=0.0")
        labels[axis] = label
    return labels


def _print(made: "Comparison") -> None:
    from slurmkit.cli.aggregate import draw, plain_lines
    from slurmkit.comparison.text import tables

    in_terminal = sys.stdout.isatty()
    for number, table in enumerate(tables(made)):
        if number:
            click.echo()
        if in_terminal:
            draw(table)
        else:
            click.echo("\n".join(plain_lines(table)))


def _narrate(made: "Comparison") -> None:
    """Tell what the tables leave out."""
    if not made.metrics:
        narrate("no metric has numbers on both sides: slurmkit status says where the runs stand")
    elif made.other_metrics:
        named = ", ".join(made.other_metrics[:_MOST_NAMES])
        more = f" and {len(made.other_metrics) - _MOST_NAMES} more" if len(made.other_metrics) > _MOST_NAMES else ""
        total = len(made.metrics) + len(made.other_metrics)
        narrate(f"{len(made.metrics)} of {total} metrics shown (--metric GLOB chooses); left out: {named}{more}")
    for who, only in zip("AB", made.only_metrics, strict=True):
        if only:
            narrate(f"only {who} has {plural(len(only), 'metric')}: {', '.join(only[:_MOST_NAMES])}")
    for problem in made.problems:
        narrate(f"{problem.path}: {problem.what} [{problem.run}]")
    if made.problems:
        narrate(f"{plural(len(made.problems), 'problem')} with metrics files; what is good was kept")

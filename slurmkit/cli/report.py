"""`slurmkit report`: what a collection has shown so far, as a page with figures."""

import gc
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from slurmkit.cli.common import collection_argument, narrate, open_collection, plural
from slurmkit.collection import Collection
from slurmkit.collection.look import look
from slurmkit.states import State

if TYPE_CHECKING:
    from slurmkit.overview import Overview

_INTERVAL_S = 5.0
"""Between two looks whether a run has finished."""
_PATIENCE_S = 2.0
"""What takes longer says what it is at."""


@click.command()
@collection_argument
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where to write it.  [default: reports/NAME in the project]",
)
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
@click.option("--watch", is_flag=True, help="Write it anew as runs finish, until all has ended.")
def report(name: str | None, out: Path | None, show: bool, watch: bool) -> None:
    """Write the report of a collection, however much of it is complete.

    A page (report.html) that needs no network, the same as Markdown, and figures as SVG, PDF and PNG, each with the CSV
    that it was drawn from. It states what was observed: how much is done, what failed and on what evidence, the best
    results, matched comparisons, and what is missing. `report:` in the definition chooses metrics and figures.
    """
    from slurmkit.report.write import default_folder

    gc.freeze()  # what is imported stays: to look through it for garbage again and again takes a tenth of the time
    opened = open_collection(name)
    folder = out if out is not None else default_folder(opened.project.root, opened.name)
    finished, at_rest = _write(opened, folder)
    if show:
        click.launch(str(folder.absolute() / "report.html"))
    while watch and not at_rest:
        time.sleep(_INTERVAL_S)
        opened = Collection(opened.project, opened.project.store.existing(opened.name))  # it may have been extended
        if _finished(look(opened)) != finished:
            finished, at_rest = _write(opened, folder)


def _finished(summary: "Overview") -> dict[str, int]:
    """Return how many runs are in each state that they do not leave by themselves."""
    return {state: count for state, count in summary.states.items() if state not in {State.QUEUED, State.RUNNING}}


def _write(opened: Collection, folder: Path) -> tuple[dict[str, int], bool]:
    """Write the report, and return what has finished by it and whether nothing moves any more."""
    from slurmkit.collection.reporting import gather
    from slurmkit.report import build, write
    from slurmkit.report.comparisons import unmatched_lines

    began = time.monotonic()

    def tell(what: str) -> None:
        if time.monotonic() - began > _PATIENCE_S:
            narrate(what)

    material = gather(opened)
    made = build(material)
    written = write(made, folder, tell)
    for path in written[:2]:
        click.echo(path)
    narrate(f"{plural(len(made.figures), 'figure')} in {folder / 'figures'}")
    narrate(made.summary)
    for line in unmatched_lines(material):
        narrate(f"note: {line}")
    if made.partial:
        narrate(f"partial: {made.partial}")
    return _finished(material.overview), material.overview.at_rest

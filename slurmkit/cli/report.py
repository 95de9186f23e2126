"""`slurmkit report`: what a collection has shown so far, as a page with figures."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from slurmkit.cli.common import collection_argument, narrate, open_collection

if TYPE_CHECKING:
    from slurmkit.collection import Collection
    from slurmkit.report import Material


@click.command()
@collection_argument
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where to write it.  [default: reports/NAME in the project]",
)
def report(name: str | None, out: Path | None) -> None:
    """Write the report of a collection, however much of it is complete.

    It states what was observed: how much is done, what failed and on what evidence, metrics with their intervals,
    matched comparisons, and what is missing.
    """
    from slurmkit.report import build, write
    from slurmkit.report.write import default_folder

    opened = open_collection(name)
    made = build(gather(opened))
    folder = out if out is not None else default_folder(opened.project.root, opened.name)
    for path in write(made, folder):
        click.echo(path)
    narrate(made.summary)
    if made.partial:
        narrate(f"partial: {made.partial}")


def gather(opened: "Collection") -> "Material":
    """Read what a report is made from, as it is now."""
    from slurmkit.aggregate.aggregation import aggregate
    from slurmkit.collection.look import read_progress, summarise
    from slurmkit.collection.submit import resources_of
    from slurmkit.report import Material

    snapshot = opened.snapshot()
    statuses = snapshot.statuses()
    header = opened.records.header
    return Material(
        header=header,
        events=opened.records.events(),
        statuses=statuses,
        asked={row.id: resources_of(row, header) for row in snapshot.rows},
        overview=summarise(opened, snapshot, statuses, read_progress(statuses)),
        aggregation=aggregate(opened.name, statuses, opened.axes, opened.seed_axis),
        root=opened.project.root,
        folder=opened.records.folder,
        read_at=datetime.now(UTC),
    )

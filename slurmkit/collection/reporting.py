"""What a report of a collection is made from."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from slurmkit.aggregate.aggregation import Aggregation, aggregate
from slurmkit.collection import Collection
from slurmkit.collection.look import read_progress, summarise
from slurmkit.collection.spent import asked_resources
from slurmkit.records import Json, RunStatus
from slurmkit.report import Material
from slurmkit.report.choice import shown_metrics


def gather(opened: Collection) -> Material:
    """Read what a report is made from, as it is now."""
    snapshot = opened.snapshot()
    statuses, header = snapshot.statuses(), opened.records.header
    return Material(
        header=header,
        events=opened.records.events(),
        statuses=statuses,
        sets={row.id: row.set for row in snapshot.rows},
        asked=asked_resources(snapshot, statuses),
        overview=summarise(opened, snapshot, statuses, read_progress(statuses)),
        aggregation=_aggregated(opened, statuses, header["definition"]),
        root=opened.project.root,
        folder=opened.records.folder,
        read_at=datetime.now(UTC),
    )


def _aggregated(opened: Collection, statuses: Sequence[RunStatus], definition: dict[str, Json]) -> Aggregation:
    """Put the tables together, of the metrics that the definition asks for as far as some run has them yet."""
    wanted: dict[str, Json] = definition.get("report") or {}
    return aggregate(
        opened.name,
        statuses,
        opened.axes,
        opened.seed_axis,
        pick=partial(shown_metrics, asked=wanted),
        baseline=wanted.get("baseline") or None,
        declared=definition.get("metrics"),
        index_file=opened.records.metrics_index,
    )

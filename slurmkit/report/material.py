"""What a report is made from: a collection at one moment, and the tables of its metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from slurmkit.aggregate.aggregation import Aggregation
from slurmkit.overview import Overview
from slurmkit.records import Json, RunStatus
from slurmkit.resources import Resources


@dataclass(frozen=True, slots=True)
class Material:
    """A collection at one moment.

    Attributes:
        header: ``collection.json``.
        events: the journal.
        statuses: the runs that count, in the definition's order.
        sets: run id to the dotted config keys that differ from the shared config, with their values.
        asked: run id to the resources that its latest attempt asked for.
        overview: counts and failures.
        aggregation: the tables of its metrics.
        root: top of the project; paths below it are shown relative to it.
        folder: the collection's folder.
        read_at: when all this was so.
    """

    header: Mapping[str, Json]
    events: Sequence[Mapping[str, Json]]
    statuses: Sequence[RunStatus]
    sets: Mapping[str, Mapping[str, Json]]
    asked: Mapping[str, Resources]
    overview: Overview
    aggregation: Aggregation
    root: Path
    folder: Path
    read_at: datetime

    @property
    def name(self) -> str:
        """The collection's name."""
        return self.overview.name

    @property
    def definition(self) -> Mapping[str, Json]:
        """The frozen definition."""
        return self.header["definition"]

    @property
    def asked_for(self) -> Mapping[str, Json]:
        """The definition's `report:`; empty where it has none."""
        return self.definition.get("report") or {}

    def shown_path(self, path: str | Path) -> str:
        """Write a path as a person at the top of the project would type it."""
        try:
            return str(Path(path).relative_to(self.root))
        except ValueError:
            return str(path)

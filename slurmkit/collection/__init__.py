"""A collection, and all that can be done with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slurmkit.collection.poll import Snapshot, poll
from slurmkit.errors import UsageError
from slurmkit.project import Project
from slurmkit.records import Json, RunStatus
from slurmkit.store import CollectionStore

if TYPE_CHECKING:
    import pandas as pd


class Collection:
    """A definition expanded and frozen, pinned to one commit, with its runs.

    Attributes:
        project: where it lives.
        records: its records.
        name: its name.
    """

    def __init__(self, project: Project, records: CollectionStore) -> None:
        self.project = project
        self.records = records
        self.name = records.name

    @classmethod
    def load(cls, name: str | None = None, root: Path | None = None) -> Collection:
        """Open a collection.

        Args:
            name: its name; None: the one last touched.
            root: a folder inside the project; None: the current folder.

        Raises:
            UsageError: there is no such collection.
        """
        project = Project.discover(root)
        name = name or project.store.last()
        if name is None:
            raise UsageError(f"no collection in {project.runs} yet. Create one: slurmkit collection create FILE")
        return cls(project, project.store.existing(name))

    @property
    def axes(self) -> dict[str, tuple[Json, ...]]:
        """Axis names to their values, in the definition's order."""
        return {axis: tuple(values) for axis, values in self.records.header["axes"].items()}

    @property
    def seed_axis(self) -> str:
        """Name of the axis that makes several runs of one cell."""
        return self.records.header["definition"]["seed_axis"]

    @property
    def metrics(self) -> dict[str, dict[str, Json]]:
        """What the definition says of metrics: key or glob to label, direction, format and comparable."""
        return self.records.header["definition"].get("metrics") or {}

    @property
    def commit(self) -> str:
        """The pinned commit."""
        return self.records.header["commit"]

    def snapshot(self) -> Snapshot:
        """Find out where every run stands now.

        Raises:
            SchedulerError: a scheduler that holds runs is out of reach.
        """
        return poll(self.project.store, self.records)

    def statuses(self) -> Sequence[RunStatus]:
        """Return every run and where it stands now, in the definition's order."""
        return self.snapshot().table()

    def to_frame(self) -> pd.DataFrame:
        """Return one row a run: axis values, state, and all metrics of the completed ones."""
        from slurmkit.aggregate import to_frame

        return to_frame(self.statuses(), self.axes)

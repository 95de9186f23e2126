"""The runs of a collection and where they stand, in columns: 100,000 are read and tabulated without an object each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import starmap
from typing import Any, overload

from slurmkit.packed import Coded, Column, Digests, Texts, packed
from slurmkit.records import Json, RunStatus

_ONE_BY_ONE = 8
"""So many times as long a status takes by itself as among all."""


@dataclass(frozen=True, slots=True)
class RunColumns:
    """What tables are made from, of some runs; row i belongs to the i-th.

    Attributes:
        id, name: of the run.
        axes: axis name to its values; None where a run has not got the axis.
        state, reason: where it stands, and why it failed.
        attempt: number of the latest.
        commit: what it is pinned to.
        metrics_sha256: of ``metrics.json`` when it was observed complete.
        changed: config keys that retries have set otherwise, as ``key=value, key=value``; empty: none.
    """

    id: Column
    name: Column
    axes: Mapping[str, Coded]
    state: Coded
    reason: Coded
    attempt: Coded
    commit: Coded
    metrics_sha256: Digests
    changed: Coded

    @classmethod
    def of(cls, statuses: Sequence[RunStatus]) -> "RunColumns":
        """Return the columns of some runs: those that hold them already, or new ones."""
        if isinstance(statuses, Statuses):
            return statuses.columns
        axes = [status.axes for status in statuses]
        names = dict.fromkeys(name for own in dict.fromkeys(map(tuple, axes)) for name in own)
        return cls(
            id=packed(Texts, [status.id for status in statuses]),
            name=packed(Texts, [status.name for status in statuses]),
            axes={name: Coded.of([own.get(name) for own in axes]) for name in names},
            state=Coded.of([status.state for status in statuses]),
            reason=Coded.of([status.reason for status in statuses]),
            attempt=Coded.of([status.attempt for status in statuses]),
            commit=Coded.of([status.commit for status in statuses]),
            metrics_sha256=Digests.of_valid([status.metrics_sha256 for status in statuses]),
            changed=Coded.of([", ".join(status.changed) for status in statuses]),
        )


class Statuses(Sequence[RunStatus]):
    """Runs and where they stand, in the definition's order; a `RunStatus` is made when it is looked at.

    Attributes:
        fields: field of `RunStatus` to its column, all but `axes` and `folder`.
        axes: axis name to its values; None where a run has not got the axis.
        axis_names: names of the axes that each run has, in their order.
        folder: in which the runs have theirs.
        news: row to what is to be said of it instead.
    """

    _MOVING = ("state", "reason", "attempt", "changed")
    """Coded fields that `news` may have otherwise."""

    def __init__(
        self,
        fields: Mapping[str, Column],
        axes: Mapping[str, Coded],
        axis_names: Coded,
        folder: str,
        news: Mapping[int, RunStatus],
    ) -> None:
        self.fields = fields
        self.axes = axes
        self.axis_names = axis_names
        self.folder = folder
        self.news = news

    @cached_property
    def columns(self) -> RunColumns:
        """Return the columns that tables are made from."""
        fields: dict[str, Any] = dict(self.fields)
        for name in self._MOVING:
            fields[name] = fields[name].changed({row: getattr(status, name) for row, status in self.news.items()})
        digests = fields["metrics_sha256"]
        observed = digests if isinstance(digests, Digests) else Digests.of_valid(digests)
        return RunColumns(
            id=fields["id"],
            name=fields["name"],
            axes=self.axes,
            state=fields["state"],
            reason=fields["reason"],
            attempt=fields["attempt"],
            commit=fields["commit"],
            metrics_sha256=observed.changed({row: status.metrics_sha256 for row, status in self.news.items()}),
            changed=fields["changed"].mapped(", ".join),
        )

    def _at(self, row: int) -> RunStatus:
        own: dict[str, Any] = {name: column[row] for name, column in self.fields.items()}
        axes: dict[str, Json] = {name: self.axes[name][row] for name in self.axis_names[row]}
        return RunStatus(axes=axes, folder=f"{self.folder}/{own['name']}", **own)

    def __len__(self) -> int:
        return len(self.axis_names)

    @overload
    def __getitem__(self, index: int) -> RunStatus: ...
    @overload
    def __getitem__(self, index: slice) -> list[RunStatus]: ...
    def __getitem__(self, index: int | slice) -> RunStatus | list[RunStatus]:
        if isinstance(index, slice):
            return self.made[index]
        row = range(len(self))[index]
        return self.news.get(row) or self._at(row)

    def __iter__(self) -> Iterator[RunStatus]:
        return iter(self.made)

    @cached_property
    def made(self) -> list[RunStatus]:
        """All of them."""
        columns: dict[str, Sequence[Any]] = {name: column.listed() for name, column in self.fields.items()}
        columns["axes"] = self._axes_of_each()
        columns["folder"] = [f"{self.folder}/{name}" for name in columns["name"]]
        made = list(starmap(RunStatus, zip(*(columns[name] for name in RunStatus._fields), strict=True)))
        for row, status in self.news.items():
            made[row] = status
        return made

    def _axes_of_each(self) -> list[dict[str, Json]]:
        if len(self.axis_names.values) == 1:  # all runs have the same axes, as nearly always
            names: list[str] = self.axis_names.values[0]
            values = zip(*(self.axes[name].listed() for name in names), strict=True)
            return [dict(zip(names, own, strict=True)) for own in values] if names else [{} for _ in self.axis_names]
        listed = {name: column.listed() for name, column in self.axes.items()}
        return [{name: listed[name][row] for name in names} for row, names in enumerate(self.axis_names.listed())]


def chosen(statuses: Sequence[RunStatus], rows: Sequence[int]) -> list[RunStatus]:
    """Return some runs; where they are many, all are made at once."""
    many = len(rows) * _ONE_BY_ONE > len(statuses)
    source = list(statuses) if many else statuses
    return [source[row] for row in rows]

"""The shapes of the records that cross a process border: what a worker is told, and what it tells.

All are plain JSON on disk; every whole-file record carries ``schema``.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict, TypeGuard

from slurmkit.states import Reason, State

SCHEMA = 1
"""Version of all records. Raised when an old reader could misread a new record."""

TRY_AGAIN_EXIT_CODE = 75
"""A command that was asked to stop, saved a checkpoint and wants to go on later (sysexits.h: EX_TEMPFAIL)."""

Json = Any
"""A value of JSON: None, bool, int, float, str, list or dict."""


def is_mapping(value: Json) -> TypeGuard[dict[str, Json]]:
    """Whether a value is a JSON object; its keys are text by construction."""
    return isinstance(value, dict)


def is_list(value: Json) -> TypeGuard[list[Json]]:
    """Whether a value is a JSON array."""
    return isinstance(value, list)


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """All that a worker needs to carry out one attempt of one run.

    Attributes:
        collection: name of the collection.
        run_id, run_name: the run.
        run_dir: its directory, absolute; the worker makes it.
        attempt: number of this attempt, from 1.
        command: the program and its arguments, all placeholders filled in.
        config: the resolved config, all placeholders filled in; the worker writes it to ``config.json``.
        config_sha256: of the config with the changes of this attempt (placeholders still open).
        env: environment variables that the definition adds.
        checkout: folder with the files of the pinned commit, absolute.
        commit: the pinned commit, 40 hex digits.
        resources: `Resources.to_json`.
        changes: what this attempt changes against the definition: ``{"set": {dotted key: value}, "resources": {...},
            "why": "oom_host"}``; None for none.
        requeue: reason to how often the attempt may go back to the queue for it by itself; what is not in it is as
            `states.REQUEUES` says.
    """

    collection: str
    run_id: str
    run_name: str
    run_dir: str
    attempt: int
    command: list[str]
    config: dict[str, Json]
    config_sha256: str
    env: dict[str, str]
    checkout: str
    commit: str
    resources: dict[str, Json]
    changes: dict[str, Json] | None = None
    requeue: dict[str, int] = field(default_factory=dict[str, int])

    def to_json(self) -> dict[str, Json]:
        """Return the order as a record."""
        return {"schema": SCHEMA, **{name: getattr(self, name) for name in self.__slots__}}

    @classmethod
    def from_json(cls, record: dict[str, Json]) -> "WorkOrder":
        """Read what `to_json` wrote."""
        return cls(**{key: value for key, value in record.items() if key != "schema"})


class RunStatus(NamedTuple):
    """One run and where it stands: what status, selection and aggregation work on.

    A named tuple, as there may be 100,000 of them and it is made several times faster than a frozen dataclass.

    Attributes:
        id, name: of the run.
        axes: axis name to value, in the definition's order; the seed axis among them.
        state, reason: where it stands, and why it failed.
        evidence: what shows the reason, one line.
        attempt: number of the latest attempt; 0 before the first.
        job_id: of the latest attempt; empty before the first.
        commit: what it is pinned to.
        config_sha256: of its config.
        folder: its directory, absolute, which exists once a worker has started (see `run_dir`).
        metrics_sha256: of ``metrics.json`` when it was observed complete.
        duration_s: of the latest finished attempt.
        peak_rss_mb: likewise.
        changed: config keys that retries have set otherwise than the definition, as ``key=value``.
    """

    id: str
    name: str
    axes: dict[str, Json]
    state: State
    reason: Reason | None
    evidence: str
    attempt: int
    job_id: str
    commit: str
    config_sha256: str
    folder: str
    metrics_sha256: str | None = None
    duration_s: float | None = None
    peak_rss_mb: float | None = None
    changed: tuple[str, ...] = ()

    @property
    def run_dir(self) -> Path:
        """The run's directory."""
        return Path(self.folder)


class Row(NamedTuple):
    """One line of ``runs.jsonl``: a run as it was frozen (see `RunStatus` for why a named tuple).

    Attributes:
        id, name: of the run.
        axes: axis name to value.
        set: dotted config key to value: what differs from the collection's shared config.
        config_sha256: of the resolved config.
        resources: what differs from the collection's shared resources.
        needs: alias to ``[collection, run id, run name]`` of the run that this one needs.
        commit: the pin, where it is not the collection's.
        retired: why the run no longer counts (``removed`` or ``changed`` by an extension); empty: it counts.
    """

    id: str
    name: str
    axes: dict[str, Json]
    set: dict[str, Json]
    config_sha256: str
    resources: dict[str, Json]
    needs: dict[str, tuple[str, str, str]]
    commit: str = ""
    retired: str = ""

    def to_json(self) -> dict[str, Json]:
        """Return the line's record; what is empty is left out."""
        record: dict[str, Json] = {"id": self.id, "name": self.name, "axes": self.axes}
        optional = {
            "set": self.set,
            "sha": self.config_sha256,
            "resources": self.resources,
            "needs": self.needs,
            "commit": self.commit,
            "retired": self.retired,
        }
        return record | {key: value for key, value in optional.items() if value}

    @classmethod
    def from_json(cls, record: dict[str, Json]) -> "Row":
        """Read what `to_json` wrote."""
        get = record.get
        return cls(
            record["id"],
            record["name"],
            record["axes"],
            get("set") or {},
            get("sha") or "",
            get("resources") or {},
            get("needs") or {},
            get("commit") or "",
            get("retired") or "",
        )


class PinProof(TypedDict):
    """What the files that a run really imported say about its pin."""

    proved: bool | None
    """True: all of the project's modules came from the checkout, unchanged. None: the command left no list."""
    checked: int
    """How many imported files were compared with the commit."""
    foreign: dict[str, str]
    """Module name to the file it came from instead."""
    imported: NotRequired[list[str]]
    """The files of the commit that were imported, sorted; not there: not known, or far too many."""


class Outcome(TypedDict):
    """``outcome.json``: what an attempt's worker recorded of its end."""

    schema: int
    run_id: str
    attempt: int
    restart: int
    """How often this attempt had been queued again when this start of it ended."""
    job_id: str
    outcome: str
    """``completed``, ``failed``, ``cancelled`` or ``requeue`` (it saved a checkpoint and goes on later)."""
    reason: str | None
    evidence: list[str]
    exit_code: int | None
    signal: int | None
    started_at: str
    ended_at: str
    duration_s: float
    peak_rss_mb: float
    metrics_sha256: str | None
    pin: PinProof
    host: str
    error: NotRequired[dict[str, Json]]
    """The command's own ``error.json``."""


class Progress(TypedDict):
    """``progress.json``: where the running attempt stands; written by the command, if it likes."""

    step: int
    of: int
    metrics: dict[str, float]
    time: str

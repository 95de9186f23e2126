"""Hand a plan to a scheduler: write the intent, submit, write the job ids; lose and double nothing.

Everything happens under the collection's lock. A command that dies between intent and job ids leaves an open intent,
which the next command settles by asking the scheduler for the token (see `poll.settle`).
"""

import secrets
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slurmkit import pin
from slurmkit.collection.backends import scheduler
from slurmkit.collection.submit import Item, SubmitPlan, config_of
from slurmkit.errors import LimitReachedError, SchedulerError, UsageError
from slurmkit.expand import config_sha256, resolve_config
from slurmkit.files import json_line
from slurmkit.names import label_text
from slurmkit.project import Project
from slurmkit.records import Json, WorkOrder
from slurmkit.schedulers import JobRequest, Scheduler
from slurmkit.store import CollectionStore
from slurmkit.template import fill


@dataclass(frozen=True, slots=True)
class Batch:
    """Runs that go to the scheduler in one submission.

    Attributes:
        token: its name.
        items: the runs.
        requests: what is asked for each.
    """

    token: str
    items: list[Item]
    requests: list[JobRequest]


@dataclass(frozen=True, slots=True)
class Preview:
    """What would be handed over in one submission.

    Attributes:
        items: the runs.
        text: the scheduler's script; empty where it needs none.
    """

    items: list[Item]
    text: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """What would be handed over.

    Attributes:
        previews: submission by submission.
        words: what all that may use up, and which known limits it breaks, a line each.
    """

    previews: list[Preview]
    words: list[str]


def hand_over(project: Project, records: CollectionStore, plan: SubmitPlan, backend: str) -> None:
    """Carry out a plan. The caller holds the collection's lock and has just polled.

    What the scheduler does not take is moved from the plan's items to `SubmitPlan.not_taken`.

    Raises:
        SchedulerError: the scheduler refused the first submission; nothing was submitted.
        UsageError: a request that can never be fulfilled.
    """
    if not plan.items:
        return
    target = scheduler(backend, project.store)
    batches = _Batches(project, records, plan, target)
    for batch in batches:
        try:
            jobs = _submit(records, batch, target, backend)
        except LimitReachedError as error:
            batches.leave_out(batch, str(error))
        except SchedulerError as error:
            if not batches.jobs:
                raise
            batches.leave_out(batch, str(error))
        else:
            batches.took(batch, jobs)
    plan.items = [item for item in plan.items if item.row.id in batches.jobs]
    if plan.items:
        target.wake()


def forecast(project: Project, records: CollectionStore, plan: SubmitPlan, backend: str) -> Forecast:
    """Return what `hand_over` would hand over, made by the same code; job ids to come stand as ``ARRAY1_0``."""
    target = scheduler(backend, project.store)
    batches = _Batches(project, records, plan, target, dry_run=True)
    previews: list[Preview] = []
    for batch in batches:
        previews.append(Preview(batch.items, target.preview(batch.token, batch.requests, records.jobs)))
        batches.took(batch, [f"ARRAY{len(previews)}_{task}" for task in range(len(batch.items))])
    plan.items = [item for item in plan.items if item.row.id in batches.jobs]
    return Forecast(previews, _forecast_words(plan.items, target))


def _forecast_words(items: Sequence[Item], target: Scheduler) -> list[str]:
    alike: dict[bytes, list[Item]] = {}
    for item in items:
        alike.setdefault(json_line(item.resources.to_json()), []).append(item)
    return [line for group in alike.values() for line in target.forecast(group[0].resources, len(group))]


def order_of(project: Project, records: CollectionStore, item: Item) -> WorkOrder:
    """Return what the worker of one planned attempt is told."""
    return Orders(project, records).order(item)


def _submit(records: CollectionStore, batch: Batch, target: Scheduler, backend: str) -> list[str]:
    """Submit one batch between its two journal entries."""
    intent: dict[str, Json] = {
        "event": "intent",
        "token": batch.token,
        "backend": backend,
        "attempts": {item.row.id: item.attempt for item in batch.items},
        "changes": {item.row.id: item.changes for item in batch.items if item.changes},
    }
    canaries = {item.row.id: list(item.canaries) for item in batch.items if item.canaries}
    records.append(intent | ({"canaries": canaries} if canaries else {}))
    try:
        jobs = target.submit(batch.token, batch.requests, records.jobs)
    except (SchedulerError, UsageError) as error:
        if target.find(batch.token, records.jobs) is None:
            records.append({"event": "abandoned", "token": batch.token, "why": str(error)})
        raise
    records.append({"event": "submitted", "token": batch.token, "jobs": jobs})
    return jobs


class _Batches:
    """The batches of a plan, one after the other: each is made when those before it have their job ids.

    Attributes:
        jobs: run id to job id, of those taken.
    """

    def __init__(
        self, project: Project, records: CollectionStore, plan: SubmitPlan, target: Scheduler, *, dry_run: bool = False
    ) -> None:
        self._records, self._plan, self._target, self._dry_run = records, plan, target, dry_run
        self.jobs: dict[str, str] = {}
        orders = Orders(project, records)
        position = {item.row.id: index for index, item in enumerate(plan.items)}
        self._requests = [
            JobRequest(orders.order(item), item.resources, item.after, tuple(position[run] for run in item.after_runs))
            for item in plan.items
        ]

    def __iter__(self) -> Iterator[Batch]:
        for positions in self._target.split(self._requests):
            inside = self._with_room(self._whose_needs_are_taken(positions))
            if inside:
                yield self._batch(inside)

    def took(self, batch: Batch, jobs: Sequence[str]) -> None:
        """Note the job ids of a batch."""
        self.jobs.update(zip((item.row.id for item in batch.items), jobs, strict=True))

    def leave_out(self, batch: Batch, why: str) -> None:
        """Note that a batch was not taken."""
        self._plan.not_taken.update(dict.fromkeys((item.row.name for item in batch.items), why))

    def _whose_needs_are_taken(self, positions: Sequence[int]) -> list[int]:
        """Leave out the runs that would wait for one of the plan that was not taken."""
        items = self._plan.items
        together = set(positions)
        kept: list[int] = []
        for position in positions:
            missing = [
                items[other].row.name
                for other in self._requests[position].after_index
                if other not in together and items[other].row.id not in self.jobs
            ]
            if missing:
                self._plan.not_taken[items[position].row.name] = f"waits for {missing[0]}, which is not submitted"
            else:
                kept.append(position)
        return kept

    def _with_room(self, positions: list[int]) -> list[int]:
        """Cut a batch to what the scheduler lets in now."""
        if not positions:
            return positions
        resources = self._requests[positions[0]].resources
        room = self._target.room(resources)
        if room is None:
            return positions
        pack = resources.pack
        planned = -(-len(self.jobs) // pack) if self._dry_run else 0
        most = max(0, room.jobs - planned) * pack
        for position in positions[most:]:
            self._plan.not_taken[self._plan.items[position].row.name] = room.why
        return positions[:most]

    def _batch(self, positions: Sequence[int]) -> Batch:
        items = [self._plan.items[position] for position in positions]
        inside = {position: index for index, position in enumerate(positions)}
        requests: list[JobRequest] = []
        for position in positions:
            request = self._requests[position]
            before = [self.jobs[self._plan.items[i].row.id] for i in request.after_index if i not in inside]
            beside = [inside[i] for i in request.after_index if i in inside]
            requests.append(replace(request, after=(*request.after, *before), after_index=tuple(beside)))
        return Batch(f"{self._records.name.replace('/', '.')}-{secrets.token_hex(6)}", items, requests)


class Orders:
    """Makes work orders; each commit is materialised once."""

    def __init__(self, project: Project, records: CollectionStore) -> None:
        self._project = project
        self._records = records
        self._header = records.header
        self._checkouts: dict[str, Path] = {}

    def _checkout(self, commit: str) -> Path:
        if commit not in self._checkouts:
            repository = Path(self._header["repository"])
            self._checkouts[commit] = pin.materialise(commit, repository, self._project.store.checkouts)
        return self._checkouts[commit]

    def order(self, item: Item) -> WorkOrder:
        """Return all that the worker of one attempt needs."""
        definition, row = self._header["definition"], item.row
        run_dir = self._records.run_dir(row.name)
        values = {
            "config": str(run_dir / "config.json"),
            "run_dir": str(run_dir),
            "run_id": row.id,
            "python": sys.executable,
            **{axis: label_text(value) for axis, value in row.axes.items()},
            **{
                f"needs.{alias}.run_dir": str(self._project.store.collection(collection).run_dir(name))
                for alias, (collection, _, name) in row.needs.items()
            },
        }
        changed: dict[str, Json] = (item.changes or {}).get("set", {})
        config = resolve_config(config_of(row, self._header), changed)
        commit = row.commit or self._header["commit"]
        rules: dict[str, dict[str, Json]] = definition["on_failure"]
        requeue = {word: rule["requeue"] for word, rule in rules.items() if rule.get("requeue") is not None}
        return WorkOrder(
            collection=self._records.name,
            run_id=row.id,
            run_name=row.name,
            run_dir=str(run_dir),
            attempt=item.attempt,
            command=fill(definition["command"], values),
            config=fill(config, values),
            config_sha256=config_sha256(config) if changed else row.config_sha256,
            env=fill(definition["env"], values),
            checkout=str(self._checkout(commit)),
            commit=commit,
            resources=item.resources.to_json(),
            changes=item.changes,
            requeue=requeue,
        )

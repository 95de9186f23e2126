"""A collection at a glance: its overview now, kept for as long as nothing can change it."""

from collections.abc import Sequence
from dataclasses import replace

from slurmkit import files
from slurmkit.collection import Collection
from slurmkit.collection.poll import Snapshot
from slurmkit.errors import StoreError
from slurmkit.overview import OVERVIEW_SCHEMA, Overview, overview
from slurmkit.records import Progress, RunStatus
from slurmkit.states import State


def look(opened: Collection) -> Overview:
    """Return the overview of a collection, the remembered one where that still holds."""
    remembered = _remembered(opened)
    if remembered is not None:
        return remembered
    snapshot = opened.snapshot()
    statuses = snapshot.statuses()
    summary = summarise(opened, snapshot, statuses, read_progress(statuses))
    _remember(opened, summary)
    return summary


def summarise(
    opened: Collection, snapshot: Snapshot, chosen: Sequence[RunStatus], news: dict[str, Progress]
) -> Overview:
    """Sum up the chosen runs of a collection."""
    summary = overview(
        opened.name,
        opened.commit,
        chosen,
        opened.axes,
        opened.seed_axis,
        retired=len(snapshot.retired),
        progress=news,
        on_failure=[
            word for word, rule in opened.records.header["definition"]["on_failure"].items() if rule["changes"]
        ],
    )
    return replace(summary, problem=snapshot.problem)


def read_progress(statuses: Sequence[RunStatus]) -> dict[str, Progress]:
    """Read what the running runs tell of themselves; what cannot be read is no news."""
    news: dict[str, Progress] = {}
    for run in statuses:
        if run.state is State.RUNNING:
            try:
                told = files.read_json(run.run_dir / "progress.json")
                metrics = {k: float(v) for k, v in dict(told.get("metrics", {})).items() if isinstance(v, int | float)}
                news[run.id] = Progress(
                    step=int(told["step"]), of=int(told["of"]), metrics=metrics, time=str(told.get("time", ""))
                )
            except (FileNotFoundError, StoreError, KeyError, TypeError, ValueError, AttributeError):
                continue
    return news


def _remembered(opened: Collection) -> Overview | None:
    """Return the overview made when the collection was last at rest, if nothing has changed since."""
    try:
        record = files.read_json(opened.records.overview_cache)
        if record["schema"] == OVERVIEW_SCHEMA and record["fingerprint"] == opened.records.fingerprint():
            return Overview.from_json(record["overview"])
    except (FileNotFoundError, StoreError, KeyError, TypeError, ValueError):
        pass
    return None


def _remember(opened: Collection, summary: Overview) -> None:
    """Keep the overview of a collection at rest: large ones are then shown in no time."""
    can_be_blocked = bool(opened.records.header["definition"]["needs"])
    if summary.problem or not (summary.settled if can_be_blocked else summary.at_rest):
        return
    record = {"schema": OVERVIEW_SCHEMA, "fingerprint": opened.records.fingerprint(), "overview": summary.to_json()}
    try:
        files.write_atomic(opened.records.overview_cache, files.json_line(record), durable=False)
    except StoreError:  # a full disk or somebody else's collection: the status is shown all the same
        return

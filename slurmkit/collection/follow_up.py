"""A command that runs once all jobs of a collection have ended: one at a time, the latest asked for."""

import secrets
from collections.abc import Sequence

from slurmkit.collection.backends import backend_name, scheduler
from slurmkit.collection.poll import poll
from slurmkit.ledger import replay
from slurmkit.project import Project
from slurmkit.resources import Resources
from slurmkit.store import CollectionStore


def follow_up(project: Project, records: CollectionStore, words: Sequence[str], backend: str) -> tuple[str, int]:
    """Submit a command that starts when all that is under way has ended, in place of an earlier one that waits.

    A command that is killed between submission and record leaves a job that nobody knows of; it does what it was for.

    Args:
        project: the project.
        records: the collection.
        words: the command.
        backend: where to; jobs of others are not waited for.

    Returns:
        its job id, and for how many runs it waits.

    Raises:
        SchedulerError, StoreError: it was not submitted.
    """
    name = backend_name(backend)
    target = scheduler(name, project.store)
    with records.lock():
        under_way = poll(project.store, records, locked=True).ledger.under_way.values()
        after = [attempt.job_id for attempt in under_way if attempt.job_id and attempt.backend == name]
        token = f"{records.name.replace('/', '.')}-then-{secrets.token_hex(6)}"
        like = Resources.from_json(records.header["definition"]["resources"])
        job = target.submit_after(token, words, after, records.jobs, like)
        _cancel(project, records)  # the earlier one, once its successor is accepted
        records.append({"event": "then", "backend": name, "token": token, "job": job, "words": list(words)})
        target.wake()
    return job, len(after)


def cancel_follow_up(project: Project, records: CollectionStore) -> None:
    """Take back the command that waits for the end of all runs, if there is one. The caller holds the lock."""
    if _cancel(project, records):
        records.append({"event": "then", "backend": "", "token": "", "job": "", "words": []})


def _cancel(project: Project, records: CollectionStore) -> bool:
    then = replay(records.events(), where=str(records.journal)).then
    if then is None:
        return False
    scheduler(then.backend, project.store).cancel([then.job_id])
    return True

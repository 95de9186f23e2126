"""One run, taken out of its collection to be worked on by this process."""

from collections.abc import Sequence

from slurmkit.collection import handover
from slurmkit.collection import submit as submission
from slurmkit.collection.backends import backend_name
from slurmkit.collection.poll import poll
from slurmkit.collection.submit import Item
from slurmkit.collection.verbs import Choice
from slurmkit.errors import UsageError
from slurmkit.project import Project
from slurmkit.records import Json, WorkOrder
from slurmkit.states import State
from slurmkit.store import CollectionStore


def take(
    project: Project,
    records: CollectionStore,
    choose: Choice,
    by_hand: Sequence[tuple[str, Json]],
    *,
    completed_too: bool = False,
) -> tuple[Item, WorkOrder]:
    """Write a new attempt of one run down as handed over to this process.

    Args:
        project: the project.
        records: the collection.
        choose: which run; it has to be one.
        by_hand: (target, operation) of ``--set``.
        completed_too: also try again what completed.

    Returns:
        the planned attempt, and the order for the worker.

    Raises:
        UsageError: none or several are chosen, or the run cannot be tried now; nothing was written.
    """
    allowed = {State.PLANNED, State.FAILED, State.CANCELLED, *([State.COMPLETED] if completed_too else [])}
    with records.lock():
        snapshot = poll(project.store, records, locked=True)
        chosen = choose(snapshot.statuses())
        if len(chosen) != 1:
            raise UsageError(f"run: {len(chosen)} runs are chosen. Choose one with --run ID or --where.")
        if chosen[0].state not in allowed:
            raise UsageError(f"run: {chosen[0].name} is {chosen[0].state} {chosen[0].evidence}".rstrip() + ".")
        plan = submission.plan(project, snapshot, chosen, by_hand)
        for why in (*plan.waiting.values(), *plan.refused.values()):
            raise UsageError(f"run: {chosen[0].name}: {why}")
        (item,) = plan.items
        handover.hand_over(project, records, plan, backend_name("foreground"))
        return item, handover.order_of(project, records, item)

"""Pure: which requests go into one job array, and what each of its tasks waits for.

An array has one set of resources and one dependency. What Slurm can say of single tasks is ``aftercorr``: task i waits
for task i of another array. So runs that each need one run of the same earlier array share an array with it in mind.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from slurmkit.files import json_line
from slurmkit.resources import Resources
from slurmkit.schedulers import JobRequest


class Task(NamedTuple):
    """What a request waits for, as one task of an array: a job id or a place among the requests."""

    array: str
    task: int


@dataclass(frozen=True, slots=True)
class Array:
    """One submission.

    Attributes:
        tasks: number of a task to the positions of its requests (several, where they are packed).
        dependency: for ``--dependency``; empty for none.
    """

    tasks: dict[int, list[int]]
    dependency: str

    def indices(self, parallel: int | None) -> str:
        """Return the value of ``--array``."""
        return ranges(self.tasks) + (f"%{parallel}" if parallel else "")


def split(requests: Sequence[JobRequest], largest: int) -> list[list[int]]:
    """Sort requests into arrays: few, each behind those that it waits for.

    Args:
        requests: in their order, each behind those that it waits for.
        largest: how many tasks an array may have (task numbers are below this).

    Returns:
        positions of the requests, array by array.
    """
    levels = _levels(requests)
    groups: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for position, request in enumerate(requests):
        groups[levels[position], _key(request.resources)].append(position)
    arrays: list[list[int]] = []
    place: dict[int, Task] = {}
    for key in sorted(groups, key=lambda key: key[0]):
        for array in _split_group(groups[key], requests, place, largest):
            _remember(array, len(arrays), requests, place)
            arrays.append(array)
    return arrays


def shape(requests: Sequence[JobRequest]) -> Array:
    """Number the tasks of one array of `split`, and say what it waits for; all that is needed has a job id by now."""
    pack = requests[0].resources.pack
    waits = [frozenset(_slurm_id(job) for job in request.after) for request in requests]
    common = frozenset[str].intersection(*waits)
    rest = [wait - common for wait in waits]
    conditions = [f"afterok:{':'.join(sorted(common, key=_by_number))}"] if common else []
    if not any(rest):
        tasks = {
            task: list(range(at, min(at + pack, len(requests)))) for task, at in enumerate(range(0, len(waits), pack))
        }
        return Array(tasks, ",".join(conditions))
    before = [_task_of(next(iter(wait))) for wait in rest]
    return Array(
        {task.task: [position] for position, task in enumerate(before)},
        ",".join([*conditions, f"aftercorr:{before[0].array}"]),
    )


def ranges(numbers: Iterable[int]) -> str:
    """Write numbers as Slurm does: ``0-3,7``."""
    words: list[str] = []
    first = last = -2
    for number in [*sorted(numbers), None]:
        if number is not None and number == last + 1:
            last = number
            continue
        if last >= 0:
            words.append(str(first) if first == last else f"{first}-{last}")
        if number is not None:
            first = last = number
    return ",".join(words)


def _key(resources: Resources) -> bytes:
    return json_line(resources.to_json())


def _levels(requests: Sequence[JobRequest]) -> list[int]:
    """Return for each request how many others of the submission stand one behind the other before it."""
    levels: list[int] = []
    for request in requests:
        levels.append(1 + max((levels[other] for other in request.after_index), default=-1))
    return levels


def _split_group(
    group: Sequence[int], requests: Sequence[JobRequest], place: dict[int, Task], largest: int
) -> list[list[int]]:
    """Split requests with the same resources by what they wait for, then by size."""
    waits = {position: _waits(requests[position], place) for position in group}
    common = frozenset[Task].intersection(*waits.values())
    rest = {position: wait - common for position, wait in waits.items()}
    classes = _by_same_needs(rest)
    pack = requests[group[0]].resources.pack
    if pack == 1 and all(len(wait) == 1 for wait in rest.values()):
        layers = _by_corresponding_task({position: next(iter(wait)) for position, wait in rest.items()})
        classes = min(classes, layers, key=len)
    size = largest * pack
    return [one[at : at + size] for one in classes for at in range(0, len(one), size)]


def _by_same_needs(waits: dict[int, frozenset[Task]]) -> list[list[int]]:
    classes: dict[frozenset[Task], list[int]] = defaultdict(list)
    for position, wait in waits.items():
        classes[wait].append(position)
    return list(classes.values())


def _by_corresponding_task(waits: dict[int, Task]) -> list[list[int]]:
    """Lay the requests so that no two in one array wait for the same task: the first of each, the second, ..."""
    layers: dict[tuple[str, int], list[int]] = defaultdict(list)
    seen: dict[Task, int] = defaultdict(int)
    for position, task in waits.items():
        layers[task.array, seen[task]].append(position)
        seen[task] += 1
    return list(layers.values())


def _waits(request: JobRequest, place: dict[int, Task]) -> frozenset[Task]:
    return frozenset([*(_task_of(_slurm_id(job)) for job in request.after), *(place[i] for i in request.after_index)])


def _remember(array: list[int], number: int, requests: Sequence[JobRequest], place: dict[int, Task]) -> None:
    """Note where the requests of an array will be, for those that wait for them."""
    pack = requests[array[0]].resources.pack
    waits = [_waits(requests[position], place) for position in array]
    common = frozenset[Task].intersection(*waits)
    for count, (position, wait) in enumerate(zip(array, waits, strict=True)):
        rest = wait - common
        task = next(iter(rest)).task if rest and len(rest) == 1 and _one_each(waits, common) else count // pack
        place[position] = Task(f"array {number}", task)


def _one_each(waits: Sequence[frozenset[Task]], common: frozenset[Task]) -> bool:
    return all(len(wait - common) == 1 for wait in waits)


def _slurm_id(job_id: str) -> str:
    """Return what Slurm calls a job: ours without the place in a pack."""
    return job_id.partition("+")[0]


def _task_of(job_id: str) -> Task:
    array, _, task = job_id.partition("_")
    return Task(array, int(task or 0))


def _by_number(job_id: str) -> tuple[str, int]:
    task = _task_of(job_id)
    return task.array.zfill(12), task.task

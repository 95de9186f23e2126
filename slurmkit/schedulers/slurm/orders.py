"""What the tasks of an array shall do: one file for all of them, written before the array is submitted.

<token>.orders      first line: {"schema", "environment", "tasks": {number: [[offset, length], ...]}};
                    then one line a work order; offsets count from the second line
<hash>.env          the submitter's environment variables (mode 600)
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from slurmkit import files
from slurmkit.errors import StoreError
from slurmkit.records import SCHEMA, Json, WorkOrder

_RUNS = "SLURMKIT_RUNS"
"""Where the runs are (see `slurmkit.project`)."""


def write(path: Path, tasks: Mapping[int, Sequence[int]], orders: Sequence[WorkOrder], environment: str) -> None:
    """Write the orders of an array.

    Args:
        path: the file.
        tasks: number of a task to the positions of its orders.
        orders: all of them.
        environment: name of the file of `save_environment`.

    Raises:
        StoreError: it cannot be written.
    """
    lines = [files.json_line(order.to_json()) for order in orders]
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line))
    header = {
        "schema": SCHEMA,
        "environment": environment,
        "tasks": {str(task): [[offsets[p], len(lines[p])] for p in places] for task, places in tasks.items()},
    }
    files.write_atomic(path, files.json_line(header) + b"".join(lines), mode=0o600)


def read(path: Path, task: int) -> tuple[list[dict[str, Json]], dict[str, str]]:
    """Return the orders of one task, and the submitter's environment. Reads no more than these.

    Raises:
        StoreError: the files are not there or not ours.
    """
    try:
        with path.open("rb") as file:
            header = orjson.loads(file.readline())
            start = file.tell()
            found: list[dict[str, Json]] = []
            for offset, length in header["tasks"][str(task)]:
                file.seek(start + offset)
                found.append(orjson.loads(file.read(length)))
        environment = read_environment(path.parent / header["environment"])
    except OSError as error:
        raise StoreError(f"{error.filename}: cannot be read: {error.strerror}. Submit the run again.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: holds no order for task {task}. Submit the run again.") from error
    return found, environment


def read_environment(path: Path) -> dict[str, str]:
    """Read what `save_environment` wrote.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not ours.
    """
    return json.loads(path.read_bytes())


def take_over(environment: Mapping[str, str]) -> None:
    """Add the submitter's variables to those of this process: what Slurm and the node have set themselves wins."""
    os.environ.update({name: value for name, value in environment.items() if _comes_along(name)})


def _comes_along(name: str) -> bool:
    """Say whether a variable of the submitter holds here; none that says which job or run this is."""
    return name not in os.environ and (name == _RUNS or not name.startswith(("SLURM", "SBATCH")))


def job_ids(path: Path, job: str) -> list[str]:
    """Return the ids of an array's jobs in the order of its work orders.

    Args:
        path: the orders file.
        job: number of the array.

    Returns:
        ``5_3``, or ``5_3+1`` for the second of several orders that share a task.
    """
    try:
        with path.open("rb") as file:
            tasks: dict[str, list[list[int]]] = orjson.loads(file.readline())["tasks"]
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{path}: cannot be read: {error}. Restore the file from a backup.") from error
    found = [
        (offset, f"{job}_{task}" + (f"+{place}" if len(members) > 1 else ""))
        for task, members in tasks.items()
        for place, (offset, _) in enumerate(members)
    ]
    return [job_id for _, job_id in sorted(found)]


def save_environment(folder: Path) -> str:
    """Write this process's environment variables where only their owner can read them; return the file's name."""
    content = json.dumps(dict(os.environ), sort_keys=True).encode()  # escapes bytes that are not UTF-8, unlike orjson
    name = hashlib.sha256(content).hexdigest()[:32] + ".env"
    path = folder / name
    if not path.exists():
        files.write_atomic(path, content, mode=0o600)
    return name

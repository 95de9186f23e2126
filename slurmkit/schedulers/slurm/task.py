"""On the node: one task of an array carries out its work orders, and asks to be queued again where that is due.

Called by the batch script as ``python -m slurmkit.schedulers.slurm.task ORDERS``; with a number behind it, it is one
of several side by side in a packed task.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from slurmkit import files
from slurmkit.errors import SlurmkitError, StoreError
from slurmkit.records import TRY_AGAIN_EXIT_CODE, Json
from slurmkit.schedulers.slurm import orders
from slurmkit.states import Reason
from slurmkit.worker import work
from slurmkit.worker.environment import PACK_PLACE

_REQUEUE_TIMEOUT_S = 60


def main(arguments: Sequence[str]) -> int:
    """Carry out the orders of this task.

    Returns:
        exit code of the job: 0 if all its runs completed, 75 if one shall be queued again, else 1.
    """
    path = Path(arguments[0])
    try:
        mine, environment = orders.read(path, int(os.environ["SLURM_ARRAY_TASK_ID"]))
    except SlurmkitError as error:
        print(f"slurmkit: {error}", file=sys.stderr, flush=True)
        return 1
    orders.take_over(environment)
    os.umask(os.umask(0o077) | 0o002)
    if len(arguments) > 1:
        return work(mine[int(arguments[1])])
    code = work(mine[0]) if len(mine) == 1 else _side_by_side(arguments, mine)
    if code == TRY_AGAIN_EXIT_CODE and any(_wants_requeue(order) for order in mine):
        _requeue()
    return code


def _side_by_side(arguments: Sequence[str], mine: Sequence[dict[str, Json]]) -> int:
    """Run each order in a process of its own; signals go to all of them.

    An order that has ended for good (a packed task can be queued again for the sake of another) is left alone.
    """
    workers: list[subprocess.Popen[bytes]] = []
    waiting: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        waiting.append(number)
        for worker in workers:
            worker.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, pass_on)
    codes: list[int] = []
    for place, order in enumerate(mine):
        ended = _ended(order)
        if ended is not None:
            codes.append(ended)
            continue
        command = [sys.executable, "-P", "-m", f"{__package__}.task", *arguments, str(place)]
        workers.append(subprocess.Popen(command, env=os.environ | {PACK_PLACE: str(place)}))
        for number in waiting:  # came while this one was being started
            workers[-1].send_signal(number)
    codes += [worker.wait() for worker in workers]
    if TRY_AGAIN_EXIT_CODE in codes:
        return TRY_AGAIN_EXIT_CODE
    return max(map(abs, codes), default=0) and 1


def _ended(order: dict[str, Json]) -> int | None:
    """Return the exit code of an order that ended for good in an earlier start of this task, else None."""
    outcome = _outcome(order)
    if outcome is None or outcome["outcome"] == "requeue":
        return None
    return 0 if outcome["outcome"] == "completed" else 1


def _wants_requeue(order: dict[str, Json]) -> bool:
    """Say whether a run asked for it itself. Where Slurm sent SIGTERM it requeues by itself, or does not want to."""
    outcome = _outcome(order)
    return outcome is not None and outcome["outcome"] == "requeue" and outcome["reason"] != Reason.PREEMPTED


def _outcome(order: dict[str, Json]) -> dict[str, Json] | None:
    try:
        return files.read_json(Path(order["run_dir"]) / "attempts" / str(order["attempt"]) / "outcome.json")
    except (FileNotFoundError, StoreError):
        return None


def _requeue() -> None:
    """Have Slurm queue this task again. It ends this process for it."""
    job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], timeout=_REQUEUE_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"slurmkit: job {job} could not be queued again: {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The environment of a command: the pinned code, its share of the threads, and who it is."""

import os
from collections.abc import Mapping
from pathlib import Path

from slurmkit.records import WorkOrder
from slurmkit.resources import Resources
from slurmkit.schedulers.local.processes import MARK
from slurmkit.worker.imports import import_folders, python_path

PACK_PLACE = "SLURMKITPACK_PLACE"
"""Set where several runs share a Slurm job: which of them this one is."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def command_environment(order: WorkOrder, inherited: Mapping[str, str], imports: Path) -> dict[str, str]:
    """Return the whole environment of an attempt's command.

    Threads follow the CPUs that the run asked for, and wait without spinning: two runs that each take all CPUs of a
    machine are tens of times slower than two that share them. What the definition or the person has set stays.

    Args:
        order: the attempt.
        inherited: the worker's environment.
        imports: folder in which Python processes list what they imported.
    """
    checkout = Path(order.checkout)
    threads = dict.fromkeys(_THREADS, str(Resources.from_json(order.resources).cpus))
    env = {**threads, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1", **inherited, **order.env}
    return {
        **env,
        "PYTHONPATH": python_path(checkout, env.get("PYTHONPATH", "")),
        "SLURMKIT_IMPORTS": str(imports),
        "SLURMKIT_CHECKOUT": os.pathsep.join(map(str, import_folders(checkout))),
        "SLURMKIT_RUN_ID": order.run_id,
        "SLURMKIT_RUN_DIR": order.run_dir,
        "SLURMKIT_COMMIT": order.commit,
        "SLURMKIT_ATTEMPT": str(order.attempt),
        "SLURMKIT_COLLECTION": order.collection,
    }


def job_id(env: Mapping[str, str]) -> str:
    """Return the id of the job that a process runs in, as its scheduler writes it; empty outside of a job."""
    if MARK in env:
        return env[MARK]
    if "SLURM_ARRAY_JOB_ID" in env:
        place = f"+{env[PACK_PLACE]}" if PACK_PLACE in env else ""
        return f"{env['SLURM_ARRAY_JOB_ID']}_{env.get('SLURM_ARRAY_TASK_ID', '')}{place}"
    return env.get("SLURM_JOB_ID", "")

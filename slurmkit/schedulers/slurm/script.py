"""The script of an array, made by submitit, and the environment in which sbatch is called.

Against submitit's usual way: no srun (it hides out-of-memory, and keeps SIGUSR2 from the worker), ``exec`` (the worker
is the batch process, so signals reach it), no pickles (see `orders`), and no ``wckey`` that the cluster may not know.
"""

import math
import os
import re
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from slurmkit.errors import SchedulerError, UsageError
from slurmkit.resources import Resources
from slurmkit.schedulers.slurm.arrays import Array

_WARN_S = 60
"""How long before the time limit SIGUSR2 comes, for long jobs. Slurm may send it up to a minute earlier."""

_AFTER_MINUTES = 60
_AFTER_MEMORY = "2G"
"""What a command asks for that runs after a collection."""

_PASSED_ON = frozenset(
    ("HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH", "PYTHONHOME")
) | {"PYTHONPATH", "SLURM_CONF", "SLURM_CLUSTERS", "KRB5CCNAME"}
"""Variables that sbatch, and the interpreter on the node, may need to start. All others travel by file."""

_DEFAULTS = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_PARTITION": "partition",
    "SBATCH_QOS": "qos",
    "SBATCH_CONSTRAINT": "constraint",
}
"""A person's defaults for sbatch, which would win over the script: passed on where the definition is silent."""


def make(token: str, array: Array, resources: Resources, folder: Path, orders: Path) -> str:
    """Return the text of the script.

    Args:
        token: the job's name.
        array: its tasks.
        resources: what one run asks for.
        folder: for the logs of tasks.
        orders: the orders file.

    Raises:
        UsageError: the folder's name cannot stand in a script.
        SchedulerError: Slurm is not on this machine.
    """
    words = [sys.executable, "-P", "-m", f"{__package__}.task", str(orders)]
    return _text(token, words, _array_parameters(array, resources, folder), resources, folder)


def make_after(
    token: str, words: Sequence[str], after: Collection[str], like: Resources, folder: Path, environment: Path
) -> str:
    """Return the script of a command that runs in the current folder once some arrays have ended, however.

    Args:
        token: the job's name.
        words: the command.
        after: numbers of the arrays.
        like: what those asked for: it goes to the same partition, and is charged to the same account.
        folder: for its log.
        environment: file with the variables that it runs with.

    Raises:
        UsageError, SchedulerError: as `make`.
    """
    cwd = Path.cwd()
    _refuse_unprintable(cwd)
    parameters = {
        "time": _AFTER_MINUTES,
        "cpus_per_task": 1,
        "mem": _AFTER_MEMORY,
        "dependency": f"afterany:{':'.join(sorted(after, key=int))}" if after else None,
        "additional_parameters": {"chdir": str(cwd), "output": _log(folder, "%j"), "requeue": True},
    }
    started = [sys.executable, "-P", "-m", f"{__package__}.follow", str(environment), *words]
    return _text(token, started, parameters, like, folder)


def _text(token: str, words: Sequence[str], parameters: dict[str, Any], resources: Resources, folder: Path) -> str:
    _refuse_unprintable(folder)
    from submitit.slurm.slurm import SlurmExecutor

    try:
        executor = SlurmExecutor(folder)
    except RuntimeError as error:
        raise SchedulerError("Slurm's programs (sbatch, srun) are not on PATH. Submit where they are.") from error
    executor.parameters = {
        "job_name": token,
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "wckey": None,
        "stderr_to_stdout": True,
        "use_srun": False,
        **parameters,
    }
    command = f"exec {shlex.join(words)}"
    return executor._make_submission_file_text(command, token)  # pyright: ignore[reportPrivateUsage]


def _refuse_unprintable(folder: Path) -> None:
    if not str(folder).isprintable():
        raise UsageError(f"{folder!r}: a folder with line breaks or control characters cannot be given to sbatch.")


def _log(folder: Path, name: str) -> str:
    """Return a pattern for ``--output``."""
    return f"{str(folder).replace('%', '%%')}/{name}.log"


def _array_parameters(array: Array, resources: Resources, folder: Path) -> dict[str, Any]:
    """Return what submitit makes the script of; what is None gets no line."""
    pack = resources.pack
    return {
        "time": None if resources.time_s is None else math.ceil(resources.time_s / 60),
        "nodes": resources.nodes,
        "cpus_per_task": resources.cpus * pack,
        "gpus_per_node": resources.gpus or None,
        "mem": None if resources.mem_mb is None else f"{resources.mem_mb * pack}M",
        "dependency": array.dependency or None,
        "setup": ["trap '' USR2  # until the worker can hear it"],
        "additional_parameters": {
            **{name: value for name, value in resources.extra.items() if value is not False},
            "array": array.indices(resources.parallel),
            "chdir": str(folder),
            "output": _log(folder, "%A_%a"),
            "requeue": True,
            "signal": f"B:USR2@{_warn_s(resources.time_s)}",
            **({"kill-on-invalid-dep": "yes"} if array.dependency else {}),
        },
    }


def _warn_s(time_s: int | None) -> int:
    return _WARN_S if time_s is None else max(10, min(_WARN_S, time_s // 10))


def environment(resources: Resources, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment for sbatch: nothing that the cluster would have to keep secret.

    Slurm stores what sbatch inherits and gives it to the job. Variables of an allocation that this process may itself
    run in (SLURM_MEM_PER_CPU, ...) would contradict the script.
    """
    kept = {name: value for name, value in inherited.items() if name in _PASSED_ON or name.startswith("LC_")}
    for name, attribute in _DEFAULTS.items():
        if name in inherited and getattr(resources, attribute) is None:
            kept[name] = inherited[name]
    return kept


def job_number(answer: str) -> str | None:
    """Return the job id in what ``sbatch --parsable`` said (``id`` or ``id;cluster``), or None."""
    match = re.search(r"^(\d+)(;\S+)?$", answer, re.MULTILINE)
    return match[1] if match else None

"""Runs Slurm's own programs, with output that does not depend on who asks."""

import os
import re
import subprocess
from collections.abc import Iterable

from slurmkit.errors import SchedulerError
from slurmkit.schedulers import OutOfReachError

_PINNED = {
    "LC_ALL": "C",
    "SLURM_TIME_FORMAT": "%s",  # seconds since 1970: squeue and sacct both take a strftime format
    "SLURM_BITSTR_LEN": "0",  # a folded array is written out whole, however many ranges it has
}
"""What is set for every program (``man squeue``, ``man sacct``, ENVIRONMENT VARIABLES)."""

_PERSONAL = ("SQUEUE_", "SACCT_", "SINFO_", "SCONTROL_", "SCANCEL_")
"""Prefixes of variables by which a person changes what these programs print and do."""

_OUT_OF_REACH = re.compile(
    r"unable to contact|connection (refused|reset|timed out)|timed out|connection failure|not connected|"
    r"zero bytes were transmitted|no route to host|network is unreachable|problem talking to the database|"
    r"unable to connect to database|standby mode|authentication error|munge encode failed|unknown host|"
    r"temporarily unavailable|could not establish a configuration source",
    re.IGNORECASE,
)
"""What Slurm's programs say when a daemon does not answer; taken from 22.05 and from slurm_errno.c."""

_SPEAKER = re.compile(r"^\w+: (?:(?:error|fatal): )?")
"""``squeue: error: `` before each line."""


def call(*command: str, timeout_s: float = 60.0) -> str:
    """Run one of Slurm's programs and return what it prints.

    Args:
        command: the program and its arguments; no shell reads them.
        timeout_s: after this it is ended.

    Returns:
        its standard output; bytes that are not UTF-8 are replaced.

    Raises:
        OutOfReachError: the daemon that it asks does not answer.
        SchedulerError: it is not installed here, or it refused; Slurm's own words are in the message.
    """
    program = command[0]
    try:
        done = subprocess.run(
            command,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
    except FileNotFoundError as error:
        raise SchedulerError(
            f"{program}: not found. Slurm's programs must be on PATH: use a login node, or another backend."
        ) from error
    except OSError as error:
        raise SchedulerError(f"{program}: cannot be run: {error.strerror}.") from error
    except subprocess.TimeoutExpired as error:
        raise OutOfReachError(f"{program}: no answer in {timeout_s:g} s") from error
    if done.returncode == 0:
        return done.stdout
    words = _one_line(done.stderr) or _one_line(done.stdout) or f"exit code {done.returncode}"
    kind = OutOfReachError if _OUT_OF_REACH.search(words) else SchedulerError
    raise kind(f"{program}: {words}")


def environment() -> dict[str, str]:
    """Return the environment for Slurm's programs: the person's own, without what changes their output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_PERSONAL)}
    return {**kept, **_PINNED}


def _one_line(text: str) -> str:
    """Join the lines of a message, each once, without the program's name before it."""
    lines = (_SPEAKER.sub("", line.strip()) for line in text.splitlines())
    return "; ".join(_unique(line for line in lines if line))


def _unique(lines: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(lines))

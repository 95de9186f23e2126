"""Call sbatch so that its answer outlives whoever called it, and read that answer later.

sbatch writes straight into ``<token>.answer`` and holds a lock on it while it lives. A submitter that is killed leaves
it running; the next command waits for the lock, reads the answer, and knows what became of the submission.
"""

import fcntl
import os
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from slurmkit.errors import SchedulerError
from slurmkit.schedulers.slurm.script import job_number

_PATIENCE_S = 120.0
"""How long a command waits for the sbatch of another, which gives up by itself long before."""

_REFUSAL = re.compile(r"^(sbatch: )?(error|fatal): ", re.M)
"""A message without this may be a site's greeting, and sbatch was ended before it could say more."""

_UNCLEAR = re.compile(
    r"timed out|Unable to contact|connect failure|Connection (refused|reset)|Zero Bytes|interrupted|retrying", re.I
)
"""sbatch cannot say whether the controller took the job."""


class Fate(Enum):
    """What became of a submission."""

    NEVER_CALLED = "never called"
    TAKEN = "taken"
    REFUSED = "refused"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Answer:
    """What sbatch said.

    Attributes:
        fate: what that means.
        job: number of the array; empty unless it was taken.
        words: its own, on one line.
        age_s: time since it last said something.
    """

    fate: Fate
    job: str = ""
    words: str = ""
    age_s: float = 0.0


def call_sbatch(script: Path, answer: Path, environment: Mapping[str, str]) -> None:
    """Submit a script. A Ctrl-C does not reach sbatch; what it says goes to `answer`.

    Raises:
        SchedulerError: sbatch cannot be started, or `answer` not be written.
    """
    try:
        descriptor = os.open(answer, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_APPEND, 0o600)
    except OSError as error:
        raise SchedulerError(f"{answer}: cannot be written: {error.strerror}. Nothing was submitted.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        process = subprocess.Popen(
            ["sbatch", "--parsable", str(script)],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            env=dict(environment),
            start_new_session=True,
        )
    except OSError as error:
        answer.unlink(missing_ok=True)
        raise SchedulerError(f"sbatch cannot be started: {error.strerror}. Submit where Slurm is installed.") from error
    finally:
        os.close(descriptor)
    process.wait()


def read_answer(answer: Path) -> Answer:
    """Return what became of a submission, once no sbatch is at work on it.

    Raises:
        SchedulerError: another command's sbatch does not come to an end.
    """
    try:
        descriptor = os.open(answer, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return Answer(Fate.NEVER_CALLED)
    try:
        _wait_for_lock(descriptor, answer)
        text = os.read(descriptor, 65536).decode(errors="replace")
        age_s = time.time() - os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
    job = job_number(text)
    words = "; ".join(
        line.removeprefix("sbatch: ").removeprefix("error: ") for line in text.split("\n") if line.strip()
    )
    if job is not None:
        return Answer(Fate.TAKEN, job, words, age_s)
    if not _REFUSAL.search(text) or _UNCLEAR.search(words):
        return Answer(Fate.UNCLEAR, "", words, age_s)
    return Answer(Fate.REFUSED, "", words, age_s)


def _wait_for_lock(descriptor: int, answer: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise SchedulerError(f"{answer}: an sbatch is still at work on it. Try again later.") from None
            time.sleep(0.02)
        else:
            return

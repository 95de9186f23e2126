"""How a supervisor comes to life: ``python -m slurmkit.schedulers.local.daemon QUEUE`` returns once it stands."""

import contextlib
import gc
import importlib
import os
import signal
import sys
from pathlib import Path

from slurmkit import files
from slurmkit.errors import SchedulerError, StoreError
from slurmkit.schedulers.local.child import mark_address, run
from slurmkit.schedulers.local.journal import now
from slurmkit.schedulers.local.launch import interpreter_fingerprint, lock_if_unsupervised
from slurmkit.schedulers.local.machine import this_machine
from slurmkit.schedulers.local.processes import read_process
from slurmkit.schedulers.local.supervisor import Supervisor

_STANDS = b"."


def main(queue: Path) -> None:
    """Be the supervisor of a queue, if it has none."""
    base_path = _base_path()
    stands = _detach(queue / "supervisor.log")
    try:
        lock = lock_if_unsupervised(queue)
    except (SchedulerError, OSError) as error:
        _tell(stands, str(error).encode(errors="replace"))
        raise
    if lock is None:
        _tell(stands, _STANDS)  # another one stands
        return
    _preload()
    supervisor = Supervisor(
        queue,
        this_machine(gpus=True),
        lock,
        like=interpreter_fingerprint(),
        base_path=base_path,
        mark_address=mark_address(),
    )
    try:
        supervisor.adopt()
        me = read_process(os.getpid())
        assert me is not None, "a process sees itself"
        record = {"pid": me.pid, "ticks": me.ticks, "started_at": now(), "python": sys.executable}
        files.write_json(queue / "supervisor.json", record, mode=0o600, durable=False)
    except (StoreError, OSError) as error:  # on a full disk the log does not take it
        _tell(stands, str(error).encode(errors="replace"))
        raise
    _tell(stands, _STANDS)
    os.close(stands)
    child = supervisor.run()
    if child is not None:
        run(child)


def _base_path() -> tuple[str, ...]:
    """Return ``sys.path`` without what ``python -m`` and PYTHONPATH put in front."""
    added = {folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder}
    return tuple(folder for folder in sys.path[1:] if folder not in added)


def _detach(log: Path) -> int:
    """Go on in a session of our own, without a terminal.

    Returns:
        a descriptor; the process that was started exits 0 once the one that goes on has written `_STANDS` to it, and
        prints anything else as the reason why it does not stand.
    """
    reader, writer = os.pipe()
    if os.fork() > 0:
        os.close(writer)
        told = os.read(reader, 4096)
        if told != _STANDS:
            os.write(2, told)
        os._exit(0 if told == _STANDS else 1)
    os.setsid()
    os.chdir("/")
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, target)
    os.closerange(3, writer)
    os.closerange(writer + 1, 65536)
    return writer


def _tell(stands: int, what: bytes) -> None:
    """Write to who waits for the supervisor, unless that was killed meanwhile: there is work all the same."""
    with contextlib.suppress(BrokenPipeError):
        os.write(stands, what)


def _preload() -> None:
    """Import what every job needs, so that a fork has it: the time of a job's start is mostly that of imports."""
    # submitit imports numpy if it is there; here it would start threads, and read its thread variables too early.
    blocked = "numpy" not in sys.modules
    if blocked:
        sys.modules["numpy"] = None  # pyright: ignore[reportArgumentType] (the import system's word for "not there")
    try:
        importlib.import_module("submitit.core.submission")
        importlib.import_module("submitit.core.plugins").get_job_environments()
    finally:
        if blocked:
            del sys.modules["numpy"]
    with contextlib.suppress(ImportError):
        importlib.import_module("slurmkit.worker")
    gc.collect()
    gc.freeze()  # a collection in a fork would copy every page that it looks at


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Hold one throw-away Slurm cluster for trying things by hand: ``make slurm-up``, ``make slurm-down``.

Usage: slurm_by_hand.py up KIND | down
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
from slurm_cluster import Cluster, ClusterError, lacking
from slurm_config import KINDS

RECORD = Path(".slurm-cluster")  # in the current folder: the checkout
DOWN_TIMEOUT_S = 120


def up(kind: str) -> None:
    """Start a cluster that stays, and say how to use it."""
    if kind not in KINDS:
        sys.exit(f"no such kind of cluster: {kind!r}. Kinds: {', '.join(KINDS)}.")
    if why := lacking(kind):
        sys.exit(f"{why}. Slurm on Debian: apt-get install slurm-wlm slurmdbd munge mariadb-server.")
    with _one_at_a_time():
        if _holder():
            print("A cluster is up already. `make slurm-down` ends it.")
        else:
            holder = subprocess.Popen(
                [sys.executable, __file__, "hold", kind],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # it outlives this command and its terminal
            )
            assert holder.stdout is not None
            if holder.stdout.readline() != "up\n":
                sys.exit(f"the cluster did not start:\n{holder.communicate()[0]}")
        print(f"export SLURM_CONF={json.loads(RECORD.read_text())['SLURM_CONF']}")


def down() -> None:
    """End the cluster, and say so once nothing of it is left."""
    with _one_at_a_time():
        holder = _holder()
        if holder is None:
            print("No cluster is up.")
            return
        holder.send_signal(signal.SIGTERM)
        try:
            holder.wait(DOWN_TIMEOUT_S)
        except psutil.TimeoutExpired:
            sys.exit(f"process {holder.pid} holds the cluster, and has not ended within {DOWN_TIMEOUT_S} s")
        print("The cluster is down.")


def hold(kind: str) -> None:
    """Be the process that owns the cluster, until told to end."""
    ends = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    with Cluster(kind) as cluster:
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)
        RECORD.write_text(json.dumps({"kind": kind, "pid": os.getpid(), **cluster.env}))
        print("up", flush=True)
        signal.sigwait(ends)
        RECORD.unlink()


def _holder() -> psutil.Process | None:
    """Return the process that holds the cluster; None if no cluster is up."""
    try:
        record = json.loads(RECORD.read_text())
        holder = psutil.Process(record["pid"])
        return holder if holder.cmdline()[-2:] == ["hold", record["kind"]] else None
    except (FileNotFoundError, psutil.NoSuchProcess):  # the second: it was killed, and its keeper has cleaned up
        return None


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    folder = os.open(".", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def main() -> None:
    match sys.argv[1:]:
        case ["up", kind]:
            up(kind)
        case ["down"]:
            down()
        case ["hold", kind]:
            try:
                hold(kind)
            except ClusterError as error:
                sys.exit(str(error))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()

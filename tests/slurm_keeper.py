"""The parent of a test cluster's daemons: starts and ends them as told, and leaves nothing when told no more.

It makes a folder, and prints its path. Then it reads one order a line (JSON) from standard input, and answers each
with one line. Standard input ends when the cluster is stopped, and also when its owner dies, however it dies: then the
keeper kills everything below it, removes the folder and the cgroups of the nodes named, and exits.

    {"start": NAME, "command": [...], "environment": {...}}    answer: its process id
    {"end": NAME, "signal": NUMBER}                            answer, once it is gone: its exit code
    {"end_jobs": NODE}                                         kill all jobs on a node; answer, once gone: how many
    {"fallen": true}                                           answer: the daemons that ended untold

Usage: slurm_keeper.py [NODE...]
"""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h: orphans below become our children: slurmd's steps, and what jobs leave
CGROUPS = Path("/sys/fs/cgroup")
END_TIMEOUT_S = 120


class Keeper:
    """All daemons of one cluster, as children of this process."""

    def __init__(self, folder: Path, nodes: list[str]) -> None:
        self.folder = folder
        self.nodes = nodes
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def serve(self) -> None:
        """Carry out orders until standard input ends."""
        pending = b""
        while True:
            self._reap()
            if not select.select([0], [], [], 0.2)[0]:
                continue
            received = os.read(0, 65536)
            if not received:
                return
            *lines, pending = (pending + received).split(b"\n")
            for line in lines:
                print(json.dumps(self._carry_out(json.loads(line))), flush=True)

    def end(self) -> None:
        """Kill every process below this one, then remove the cgroups and the folder."""
        deadline = time.monotonic() + END_TIMEOUT_S
        while below := _living_below():
            for process in below:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._thaw()
            self._reap()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{below}: alive {END_TIMEOUT_S} s after SIGKILL")
            time.sleep(0.02)
        self._remove_cgroups()
        shutil.rmtree(self.folder)

    def _carry_out(self, order: dict[str, Any]) -> int | list[str]:
        if "start" in order:
            with (self.folder / "log" / order["start"]).open("ab") as log:
                daemon = subprocess.Popen(
                    order["command"],
                    env={**os.environ, **order["environment"]},
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self.daemons[order["start"]] = daemon
            return daemon.pid
        if "end" in order:
            daemon = self.daemons.pop(order["end"])
            daemon.send_signal(order["signal"])
            return daemon.wait(END_TIMEOUT_S)
        if "end_jobs" in order:
            return self._end_jobs(order["end_jobs"])
        return [name for name, daemon in self.daemons.items() if daemon.poll() is not None]

    def _end_jobs(self, node: str) -> int:
        """Kill the processes of all jobs on a node, and the slurmstepd above each first, as a power cut would."""
        jobs: list[psutil.Process] = []
        steps: list[psutil.Process] = []
        for process in _living_below():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.environ().get("SLURMD_NODENAME") == node:
                    jobs.append(process)
                    above = process.parent()
                    if above and above.name() == "slurmstepd":
                        steps.append(above)
        for process in dict.fromkeys(steps + jobs):  # those above come first: none sees another end
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        deadline = time.monotonic() + END_TIMEOUT_S
        while left := {*steps, *jobs}.intersection(_living_below()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{left}: alive {END_TIMEOUT_S} s after SIGKILL")
            self._reap()
            time.sleep(0.01)
        return len(jobs)

    def _cgroups(self, controller: str) -> Iterator[Path]:
        """Yield the cgroups that Slurm made for the nodes, the innermost first."""
        for node in self.nodes:
            for top in CGROUPS.glob(f"{controller}/slurm_{node}"):
                yield from (Path(path) for path, _, _ in os.walk(top, topdown=False))

    def _thaw(self) -> None:
        """Let suspended jobs run: a frozen process does not die of SIGKILL."""
        for path in self._cgroups("freezer"):
            with contextlib.suppress(FileNotFoundError):  # slurmstepd removes them too
                (path / "freezer.state").write_text("THAWED")

    def _remove_cgroups(self) -> None:
        deadline = time.monotonic() + END_TIMEOUT_S
        while left := list(self._cgroups("*")):
            for path in left:
                with contextlib.suppress(OSError):  # busy for a moment after its last process was killed
                    path.rmdir()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{left[-1]}: in use {END_TIMEOUT_S} s after all processes were killed")
            time.sleep(0.01)

    def _reap(self) -> None:
        """Collect orphans that ended; a daemon's own exit code stays for its Popen."""
        daemons = {daemon.pid: daemon for daemon in self.daemons.values()}
        with contextlib.suppress(ChildProcessError):  # there is no child
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if ended.si_pid in daemons:
                    daemons[ended.si_pid].poll()
                else:
                    os.waitpid(ended.si_pid, 0)


def _living_below() -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    keeper = Keeper(Path(tempfile.mkdtemp(prefix="sk-")), sys.argv[1:])  # short: a socket's path has at most 107 bytes
    try:
        print(keeper.folder, flush=True)
        keeper.serve()
    finally:
        keeper.end()


if __name__ == "__main__":
    main()

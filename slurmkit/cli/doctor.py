"""`slurmkit doctor`: what works here, and what to do about what does not."""

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click

from slurmkit import __version__, files, pin
from slurmkit.cli.common import narrate, plural
from slurmkit.errors import SchedulerError, SlurmkitError
from slurmkit.project import RUNS_VARIABLE, Project
from slurmkit.resources import format_memory
from slurmkit.schedulers import OutOfReachError
from slurmkit.schedulers.slurm import probe
from slurmkit.schedulers.slurm.probe import Finding

_LEFT_BEHIND_S = 3600.0
"""Longer than any look takes."""


@click.command()
@click.option("--no-job", is_flag=True, help="Do not run the tiny job array on Slurm.")
@click.option(
    "--wait",
    "wait_s",
    type=click.IntRange(1),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for what the job array shows.",
)
@click.option("--partition", metavar="NAME", help="Run it there; else where jobs go that name no partition.")
def doctor(*, no_job: bool, wait_s: int, partition: str | None) -> None:
    """Check git, the runs folder, the local queue, the machine and Slurm.

    Where Slurm answers, a tiny job array (3 tasks, 1 CPU each, at most 2 minutes) shows whether signals, requeueing,
    memory limits, accounting and the shared folder work as runs need them; it is cancelled at the end.

    Exits with 1 if something would keep runs from working.
    """
    project = Project.discover()
    slurm = partial(_slurm, job=not no_job, wait_s=wait_s, partition=partition)
    checks: list[Callable[[Project], Iterator[Finding]]] = [_versions, _git, _runs, _queue, slurm]
    worst = 0
    for check in checks:
        for verdict, what, found in check(project):
            colour = {"ok": "green", "warning": "yellow", "problem": "red"}[verdict]
            click.echo(f"{click.style(f'{verdict:<8}', fg=colour)} {what}: {found}")
            worst |= verdict == "problem"
    sys.exit(worst)


def _versions(_project: Project) -> Iterator[Finding]:
    yield "ok", "slurmkit", f"{__version__}, Python {platform.python_version()} ({sys.executable})"
    yield "ok", "submitit", importlib.metadata.version("submitit")
    plugins = {entry.value for entry in importlib.metadata.entry_points(group="submitit")}
    if any("slurmkit" in value for value in plugins):
        yield "ok", "submitit plugin", "registered as cluster slurmkit_local"
    else:
        yield "problem", "submitit plugin", "not registered. Install slurmkit again: pip install -e ."


def _git(project: Project) -> Iterator[Finding]:
    if shutil.which("git") is None:
        yield "problem", "git", "not on PATH. Install it: slurmkit pins every run to a commit"
        return
    try:
        repository = pin.find_repository(project.root)
        commit = pin.resolve(
            repository, "HEAD", collection="", allow_dirty=False, ignore=[project.runs], keep=False
        ).commit
        yield "ok", "git", f"{repository} at {commit[:12]}"
    except SlurmkitError as error:
        yield "problem", "git", str(error)


def _runs(project: Project) -> Iterator[Finding]:
    folder = project.runs if project.runs.exists() else project.root
    for left in folder.glob(".doctor-*"):  # by one that was killed
        if time.time() - left.stat().st_mtime > _LEFT_BEHIND_S:
            shutil.rmtree(left, ignore_errors=True)
    where = f"{project.runs}" + (f" (from {RUNS_VARIABLE})" if project.runs != project.root / "runs" else "")
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as scratch, files.lock(Path(scratch) / "lock"):
            files.write_json(Path(scratch) / "record.json", {"schema": 1})
        yield "ok", "runs folder", f"{where}: can be written and locked"
    except (OSError, SlurmkitError) as error:
        yield "problem", "runs folder", f"{where}: {error}"
    free_gb = shutil.disk_usage(folder).free / 2**30
    yield ("ok" if free_gb > 1 else "warning"), "free space", f"{free_gb:.1f} GB"


def _queue(project: Project) -> Iterator[Finding]:
    from slurmkit.schedulers.local.machine import this_machine

    try:
        machine = this_machine(gpus=True)
    except SlurmkitError as error:
        yield "problem", "local queue", str(error)
        return
    gives = f"{plural(machine.cpus, 'CPU')}, {format_memory(machine.mem_mb)}, {plural(len(machine.gpu_ids), 'GPU')}"
    lock = project.store.queue / "supervisor.lock"
    descriptor = files.try_lock(lock) if lock.exists() else None
    alive = lock.exists() and descriptor is None
    if descriptor is not None:
        os.close(descriptor)
    yield "ok", "local queue", f"{gives} for runs side by side; its supervisor {'is at work' if alive else 'rests'}"


def _slurm(project: Project, *, job: bool, wait_s: int, partition: str | None) -> Iterator[Finding]:
    if shutil.which("sbatch") is None:
        yield "ok", "Slurm", "not on this machine; runs go to the local queue"
        return
    folder = project.runs if project.runs.exists() else project.root
    try:
        # An attempt to clean up that comes while a node still writes must not hide what was found.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-", ignore_cleanup_errors=True) as scratch:
            yield from probe.cluster(Path(scratch))
            if job:
                yield from probe.jobs(Path(scratch), partition, wait_s, narrate)
    except OutOfReachError as error:
        yield "warning", "Slurm", f"out of reach: {error}; runs can go to the local queue"
    except SchedulerError as error:
        yield "problem", "Slurm", str(error)
    except OSError as error:
        yield "problem", "Slurm", f"not looked at, for it needs a folder: {error}"

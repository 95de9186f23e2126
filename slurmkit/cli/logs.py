"""`slurmkit logs`: a run's output."""

import codecs
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from slurmkit.cli.common import collection_argument, narrate, open_collection, select, selection_options
from slurmkit.collection import Collection
from slurmkit.errors import UsageError
from slurmkit.records import RunStatus
from slurmkit.states import State

_STREAMS = ("stdout", "stderr")
_FOLLOW_INTERVAL_S = 0.2
_POLL_INTERVAL_S = 2.0


@click.command()
@collection_argument
@selection_options
@click.option("-f", "--follow", is_flag=True, help="Go on printing until the run ends.")
@click.option("--attempt", type=int, help="An earlier attempt.")
@click.option("--stderr", "only", flag_value="stderr", help="Only stderr.")
@click.option("--stdout", "only", flag_value="stdout", help="Only stdout.")
@click.option("-n", "--lines", type=int, default=40, show_default=True, help="Lines from the end; 0: all.")
def logs(
    name: str | None,
    where: tuple[str, ...],
    states: tuple[str, ...],
    reasons: tuple[str, ...],
    runs: tuple[str, ...],
    follow: bool,
    attempt: int | None,
    only: str | None,
    lines: int,
) -> None:
    """Print the output of runs, or follow one.

    Without a choice of runs: the one that is running, or else the first that failed.
    """
    opened = open_collection(name)
    statuses = opened.statuses()
    chosen = select(statuses, where, states=states, reasons=reasons, runs=runs)
    if not (where or states or reasons or runs):
        chosen = [_most_telling(statuses)]
    if follow and len(chosen) > 1:
        raise UsageError(f"--follow: {len(chosen)} runs are chosen. Choose one with --run.")
    streams: Sequence[str] = [only] if only else _STREAMS
    if follow:
        _follow(opened, chosen[0], attempt, streams, lines)
        return
    for status in chosen:
        folder = _folder_of(status, attempt)
        if not folder.is_dir():
            narrate(f"{status.name}: {_absent(status, attempt)}")
            continue
        narrate(f"== {status.name}, attempt {folder.name}: {status.state} {status.evidence}".rstrip())
        for stream in streams:
            _print_tail(folder / f"{stream}.log", lines, title=not only)


def _folder_of(status: RunStatus, attempt: int | None) -> Path:
    return status.run_dir / "attempts" / str(status.attempt if attempt is None else attempt)


def _absent(status: RunStatus, attempt: int | None) -> str:
    if attempt is not None and attempt != status.attempt:
        return f"there is no output of an attempt {attempt}; the last one is {status.attempt}"
    return f"has not started yet ({status.state} {status.evidence}".rstrip() + ")"


def _most_telling(statuses: Sequence[RunStatus]) -> RunStatus:
    for state in (State.RUNNING, State.FAILED, State.COMPLETED):
        for status in statuses:
            if status.state is state:
                return status
    raise UsageError("no run has started yet, so there is no output. See: slurmkit status")


def _print_tail(path: Path, lines: int, *, title: bool) -> int:
    """Print the end of a file; return the offset behind it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if lines > 0:  # look at no more of a large log than the lines can take
                file.seek(max(0, size - lines * 1000))
            content = file.read(size - file.tell())
    except FileNotFoundError:
        return 0
    shown = content.decode(errors="replace").splitlines()
    shown = shown[-lines:] if lines > 0 else shown
    if title and shown:
        narrate(f"-- {path.name}")
    for line in shown:
        click.echo(line)
    return size


def _follow(opened: Collection, status: RunStatus, attempt: int | None, streams: Sequence[str], lines: int) -> None:
    """Print what there is and what is appended, until the attempt has ended; wait for its start."""
    if not _folder_of(status, attempt).is_dir():
        narrate(f"{status.name}: {_absent(status, attempt)}; waiting")
    while not _folder_of(status, attempt).is_dir():
        if status.state.terminal or attempt is not None:
            return
        time.sleep(_POLL_INTERVAL_S)
        status = _again(opened, status)
    folder = _folder_of(status, attempt)
    paths = [folder / f"{stream}.log" for stream in streams]
    ends = [_print_tail(path, lines, title=len(paths) > 1) for path in paths]
    decoders = [codecs.getincrementaldecoder("utf-8")(errors="replace") for _ in paths]
    next_poll = time.monotonic()
    while True:
        if time.monotonic() >= next_poll:  # a worker that was killed leaves no outcome: only a poll tells
            status = _again(opened, status)
            next_poll = time.monotonic() + _POLL_INTERVAL_S
        ended = (folder / "outcome.json").exists() or not status.state.active
        for index, path in enumerate(paths):
            try:
                with path.open("rb") as file:
                    file.seek(ends[index])
                    news = file.read()
            except FileNotFoundError:
                continue
            ends[index] += len(news)
            click.echo(decoders[index].decode(news), nl=False)
        sys.stdout.flush()
        if ended:
            narrate(f"{status.name}: {_again(opened, status).state}")
            return
        time.sleep(_FOLLOW_INTERVAL_S)


def _again(opened: Collection, status: RunStatus) -> RunStatus:
    """Return where the same run stands now."""
    return next(other for other in opened.statuses() if other.id == status.id)

"""`slurmkit logs`: a run's output."""

import sys
import time
from pathlib import Path

import click

from slurmkit.cli.common import collection_argument, narrate, open_collection, select, selection_options
from slurmkit.errors import UsageError
from slurmkit.records import RunStatus
from slurmkit.states import State

_STREAMS = ("stdout", "stderr")
_FOLLOW_INTERVAL_S = 0.2


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
    for status in chosen:
        folder = status.run_dir / "attempts" / str(attempt or status.attempt)
        if not folder.is_dir():
            narrate(f"{status.name}: no attempt {attempt or status.attempt} has started yet ({status.state})")
            continue
        paths = [folder / f"{stream}.log" for stream in ([only] if only else _STREAMS)]
        narrate(f"== {status.name}, attempt {folder.name}: {status.state} {status.evidence}".rstrip())
        ends = [_print_tail(path, lines, title=not only) for path in paths]
        if follow:
            _follow(status, paths, ends)


def _most_telling(statuses: list[RunStatus]) -> RunStatus:
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


def _follow(status: RunStatus, paths: list[Path], ends: list[int]) -> None:
    """Print what is appended until the attempt has an outcome."""
    outcome = paths[0].parent / "outcome.json"
    while True:
        ended = outcome.exists() or status.state.terminal
        for index, path in enumerate(paths):
            try:
                with path.open("rb") as file:
                    file.seek(ends[index])
                    news = file.read()
            except FileNotFoundError:
                continue
            ends[index] += len(news)
            click.echo(news.decode(errors="replace"), nl=False)
        sys.stdout.flush()
        if ended:
            return
        time.sleep(_FOLLOW_INTERVAL_S)

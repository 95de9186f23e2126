"""What commands share: which collection is meant, and which of its runs."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from slurmkit.cli import printable
from slurmkit.collection import Collection
from slurmkit.collection.backends import BACKENDS
from slurmkit.collection.selection import select as _select
from slurmkit.records import RunStatus

F = TypeVar("F", bound=Callable[..., Any])


def complete_name(_context: click.Context, _parameter: click.Parameter, word: str) -> list[str]:
    """Complete a collection's name for the shell."""
    from slurmkit.project import Project

    return [name for name in Project.discover().store.names() if name.startswith(word)]


collection_argument = click.argument("name", required=False, shell_complete=complete_name)

where_option = click.option(
    "--where",
    multiple=True,
    metavar="AXIS=VALUE",
    help="Only runs with this axis value; repeat for several (another axis: both must hold; the same: either).",
)

backend_option = click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="local",
    show_default=True,
    envvar="SLURMKIT_BACKEND",
    show_envvar=True,
    help="Where runs go: `local` is the bounded queue of this machine.",
)


run_option = click.option(
    "--run", "runs", multiple=True, metavar="ID", help="Only this run: its name, or its id's beginning."
)

state_option = click.option("--state", "states", multiple=True, help="Only runs in this state (failed, running, ...).")


def selection_options(command: F, reason_help: str = "Only runs that failed so (oom, timeout, error, ...).") -> F:
    """Add --where, --state, --reason and --run to a command."""
    reason_option = click.option("--reason", "reasons", multiple=True, help=reason_help)
    for option in (run_option, reason_option, state_option, where_option):
        command = option(command)
    return command


def narrate(message: str) -> None:
    """Tell the person at the terminal something that is not data."""
    click.echo(printable(message), err=True)


def open_collection(name: str | None) -> Collection:
    """Open the collection that is meant; without a name the one last touched, and say so.

    Raises:
        UsageError: there is no such collection.
    """
    collection = Collection.load(name)
    if name is None:
        narrate(f"collection {collection.name} (the one last touched)")
    else:
        collection.project.store.touch(collection.name)
    return collection


def select(
    statuses: Sequence[RunStatus],
    where: Sequence[str] = (),
    *,
    states: Sequence[str] = (),
    reasons: Sequence[str] = (),
    runs: Sequence[str] = (),
) -> list[RunStatus]:
    """Choose runs; where the words are right and no run fits them, say so and go on with none."""
    chosen = _select(statuses, where, states=states, reasons=reasons, runs=runs)
    if not chosen:
        given = [f"--where {w}" for w in where] + [f"--state {s}" for s in states] + [f"--reason {r}" for r in reasons]
        narrate(f"no run matches {' '.join(given)}")
    return chosen


def plural(count: int, word: str) -> str:
    """Write a count with its noun: ``1 run``, ``24 runs``."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"

"""`slurmkit run`: one run in the foreground."""

import os
import sys
import threading
import time
from functools import partial
from pathlib import Path

import click

from slurmkit.cli.common import collection_argument, narrate, open_collection, select, selection_options
from slurmkit.records import WorkOrder


@click.command()
@collection_argument
@selection_options
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a config key or a resource for this attempt."
)
@click.option("--force", is_flag=True, help="Even if the run has completed.")
def run(
    name: str | None,
    where: tuple[str, ...],
    states: tuple[str, ...],
    reasons: tuple[str, ...],
    runs: tuple[str, ...],
    changes: tuple[str, ...],
    force: bool,
) -> None:
    """Run one run here in the foreground, as a new attempt, with its output on the terminal.

    The same checkout, config and records as in the queue. Ctrl-C ends it (its trainer is asked to save a checkpoint).
    """
    from slurmkit.cli.submit import parse_changes
    from slurmkit.collection.foreground import take

    opened = open_collection(name)
    choose = partial(select, where=where, states=states, reasons=reasons, runs=runs)
    item, order = take(opened.project, opened.records, choose, parse_changes(changes), completed_too=force)
    narrate(f"{item.row.name}, attempt {item.attempt}, in {order.checkout}")
    exit_code = _work_aloud(order, opened.records.attempt_dir(item.row.name, item.attempt))
    status = next(s for s in opened.statuses() if s.id == item.row.id)
    narrate(f"{status.name}: {status.state} {status.evidence}".rstrip())
    sys.exit(0 if exit_code == 0 else 1)


def _work_aloud(order: WorkOrder, folder: Path) -> int:
    """Work in this process, the main thread (signals go there), and copy its logs to the terminal meanwhile."""
    from slurmkit.worker import work

    done = threading.Event()
    copier = threading.Thread(target=_copy, args=(folder, done), daemon=True)
    copier.start()
    try:
        return work(order.to_json())
    finally:
        done.set()
        copier.join(timeout=5)


def _copy(folder: Path, done: threading.Event) -> None:
    streams = {"stdout.log": (sys.stdout.fileno(), 0), "stderr.log": (sys.stderr.fileno(), 0)}
    while True:
        last = done.is_set()
        for file_name, (descriptor, offset) in streams.items():
            try:
                content = (folder / file_name).read_bytes()[offset:]
            except FileNotFoundError:
                continue
            os.write(descriptor, content)
            streams[file_name] = (descriptor, offset + len(content))
        if last:
            return
        time.sleep(0.1)

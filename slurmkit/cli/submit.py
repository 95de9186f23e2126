"""`slurmkit submit`, `resubmit` and `cancel`."""

import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial

import click

from slurmkit.cli.common import (
    backend_option,
    collection_argument,
    narrate,
    open_collection,
    plural,
    run_option,
    select,
    selection_options,
    state_option,
    where_option,
)
from slurmkit.collection import Collection, verbs
from slurmkit.collection.handover import Forecast, order_of
from slurmkit.collection.submit import Item
from slurmkit.errors import UsageError
from slurmkit.records import Json, RunStatus

_DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
_THEN = click.option(
    "--then",
    type=click.Choice(["report"]),
    help="When all has ended, however it ended, write the collection's report: a job of its own, after the others.",
)
_WAIT = click.option("--wait", is_flag=True, help="Follow until all has ended (Ctrl-C detaches; the runs go on).")


@click.command()
@collection_argument
@where_option
@state_option
@run_option
@click.option(
    "--canary",
    type=click.IntRange(1),
    metavar="N",
    help="Let N runs go first; the others start when these completed, and are cancelled if one does not.",
)
@_THEN
@_DRY_RUN
@_WAIT
@backend_option
def submit(
    name: str | None,
    where: tuple[str, ...],
    states: tuple[str, ...],
    runs: tuple[str, ...],
    canary: int | None,
    then: str | None,
    dry_run: bool,
    wait: bool,
    backend: str,
) -> None:
    """Submit the runs that have not been submitted.

    Runs that need a run which is not done yet wait for it in the queue; those whose need failed stay blocked until it
    is tried again. What the cluster's limits do not let in now stays planned: submit again later.

    With --dry-run the batch scripts go to stdout, made by the same code that submits.
    """
    opened = open_collection(name)

    def choose(statuses: list[RunStatus]) -> list[RunStatus]:
        return select(statuses, where, states=states, runs=runs)

    done = verbs.submit(opened.project, opened.records, choose, backend=backend, dry_run=dry_run, canary=canary or 0)
    _report(opened, done, "submit", dry_run=dry_run)
    if then and not dry_run:
        _follow_up(opened, then, backend)
    if wait and not dry_run:
        _follow(opened)


def submit_all(name: str, *, backend: str, wait: bool) -> None:
    """Submit all runs of a collection just created or extended."""
    opened = Collection.load(name)
    done = verbs.submit(opened.project, opened.records, list, backend=backend, dry_run=False)
    _report(opened, done, "submit", dry_run=False)
    if wait:
        _follow(opened)
    else:
        narrate(f"next: slurmkit status {name} --watch")


@click.command()
@collection_argument
@click.option("--failed", is_flag=True, help="All runs that failed.")
@selection_options
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change resources.mem, or a config key (x2, /2, or a value).",
)
@click.option("--force", is_flag=True, help="Also try again runs that completed.")
@_THEN
@_DRY_RUN
@_WAIT
@backend_option
def resubmit(
    name: str | None,
    failed: bool,
    where: tuple[str, ...],
    states: tuple[str, ...],
    reasons: tuple[str, ...],
    runs: tuple[str, ...],
    changes: tuple[str, ...],
    force: bool,
    then: str | None,
    dry_run: bool,
    wait: bool,
    backend: str,
) -> None:
    """Try again what failed, with the changes of `on_failure` and --set.

    Each try is a new attempt: the logs and outcomes of the old ones stay. Where the trainer left a checkpoint, it goes
    on from there.

    \b
    slurmkit resubmit --failed
    slurmkit resubmit --reason oom --set resources.mem=8G
    slurmkit resubmit --run 3f2a --set train.batch_size=/2 --set train.accumulation=x2
    """  # noqa: D301 -- \b is click's mark for lines that are not to be joined
    if not (failed or where or states or reasons or runs):
        raise UsageError("which runs? Give --failed, --reason, --state, --where or --run.")
    opened = open_collection(name)
    wanted = (*states, "failed") if failed else states

    def choose(statuses: list[RunStatus]) -> list[RunStatus]:
        return select(statuses, where, states=wanted, reasons=reasons, runs=runs)

    done = verbs.resubmit(
        opened.project,
        opened.records,
        choose,
        parse_changes(changes),
        backend=backend,
        dry_run=dry_run,
        completed_too=force,
    )
    _report(opened, done, "resubmit", dry_run=dry_run)
    if then and not dry_run:
        _follow_up(opened, then, backend)
    if wait and not dry_run:
        _follow(opened)


def parse_changes(changes: Sequence[str]) -> list[tuple[str, Json]]:
    """Read ``key=value`` pairs: ``x2``, ``/2`` and ``+2`` change a number, all else is a value as YAML has it."""
    import os
    import re

    from slurmkit.definition.yaml_source import read_yaml

    parsed: list[tuple[str, Json]] = []
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {change}: expected key=value.")
        operation = re.fullmatch(r"[x/+]\d+(\.\d+)?", text)
        parsed.append((key, text if operation else read_yaml(os.fsencode(text), f"--set {key}").value))
    return parsed


@click.command()
@collection_argument
@click.option("--all", "everything", is_flag=True, help="All runs that have not ended.")
@partial(selection_options, reason_help="Only runs that are tried again because they failed so (oom, ...).")
@_DRY_RUN
def cancel(
    name: str | None,
    everything: bool,
    where: tuple[str, ...],
    states: tuple[str, ...],
    reasons: tuple[str, ...],
    runs: tuple[str, ...],
    dry_run: bool,
) -> None:
    """End runs with all their processes, and take those not started out of the queue."""
    if not (everything or where or states or reasons or runs):
        raise UsageError("which runs? Give --all, --reason, --state, --where or --run.")
    opened = open_collection(name)

    def choose(statuses: list[RunStatus]) -> list[RunStatus]:
        return select(statuses, where, states=states, reasons=reasons, runs=runs)

    cancelled = verbs.cancel(opened.project, opened.records, choose, dry_run=dry_run, with_causes=bool(reasons))
    for status in cancelled:
        click.echo(f"{status.id}  {status.state:<9}  {status.name}")
    narrate(f"{'would cancel' if dry_run else 'cancelled'} {plural(len(cancelled), 'run')}")


def _report(opened: Collection, done: verbs.Done, verb: str, *, dry_run: bool) -> None:
    """Say what was done: data, one line a run, to stdout; the rest to stderr."""
    plan = done.plan
    for item in plan.items:
        change = f"  ({'; '.join(item.phrases)})" if item.phrases else ""
        click.echo(f"{item.row.id}  attempt {item.attempt}  {item.row.name}{change}")
    did = f"would {verb}" if dry_run else "submitted" if verb == "submit" else "resubmitted"
    narrate(f"{did} {plural(len(plan.items), 'run')} of {opened.name}")
    if dry_run and plan.items:
        _describe_first(opened, plan.items[0])
        _show_forecast(done.forecast)
    _warn_of_science(plan.items)
    _report_rest(opened, done, verb)
    if plan.refused and not plan.items:
        sys.exit(1)


def _report_rest(opened: Collection, done: verbs.Done, verb: str) -> None:
    """Say of which runs nothing came, and what else there is to know."""
    plan = done.plan
    stays, later = ("stay planned", "") if verb == "submit" else ("are not tried again now", "the same ")
    for why, names in _grouped(plan.waiting).items():
        narrate(f"{plural(len(names), 'run')} not submitted: {why}")
    for why, names in _grouped(plan.not_taken).items():
        narrate(f"{plural(len(names), 'run')} {stays}: {why}. Later: {later}slurmkit {verb} {opened.name}")
    for why, names in _grouped(plan.refused).items():
        narrate(f"{plural(len(names), 'run')} not tried again ({', '.join(names[:3])}): {why}")
    for state, count in done.left_alone.items():
        narrate(f"{plural(count, 'run')} left alone: {state}")
    for other, count in done.rearmed.items():
        narrate(f"also submitted {plural(count, 'run')} of {other} that wait for these")
    for line in done.advice:
        narrate(line)
    for note in done.notes:
        narrate(f"warning: {note}")


def _describe_first(opened: Collection, item: Item) -> None:
    """Show what one worker would be told, made by the same code."""
    from slurmkit.files import json_line

    order = order_of(opened.project, opened.records, item)
    narrate(f"the first, {item.row.name}:")
    narrate(f"  command    {' '.join(order.command)}")
    narrate(f"  in         {order.checkout}")
    narrate(f"  resources  {json_line(order.resources).decode().strip()}")
    narrate(f"  config     {json_line(order.config).decode().strip()}")


def _show_forecast(forecast: Forecast | None) -> None:
    """Print the scripts, and what all of them together may use."""
    if forecast is None:
        return
    for number, one in enumerate(forecast.previews, start=1):
        if one.text:
            click.echo(f"\n# array {number}: {plural(len(one.items), 'run')}, from {one.items[0].row.name}\n{one.text}")
    for line in forecast.words:
        narrate(line)


def _follow_up(opened: Collection, then: str, backend: str) -> None:
    """Let a command follow all that is under way."""
    from slurmkit.collection.follow_up import follow_up

    words = [sys.executable, "-P", "-m", "slurmkit", then, opened.name]
    job, count = follow_up(opened.project, opened.records, words, backend)
    narrate(f"then: slurmkit {then} {opened.name}, as job {job}, after {plural(count, 'run')}")


def _warn_of_science(items: Sequence[Item]) -> None:
    for phrase, count in Counter(phrase for item in items for phrase in item.science).items():
        narrate(f"warning: this changes the science, not only the resources, of {plural(count, 'run')}: {phrase}")


def _grouped(reasons: dict[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, why in reasons.items():
        groups.setdefault(why, []).append(name)
    return groups


def _follow(opened: Collection) -> None:
    from slurmkit.cli.watch import follow

    follow(opened)

"""`slurmkit status`: where everything stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from slurmkit import files
from slurmkit.cli.common import collection_argument, narrate, open_collection, select, selection_options
from slurmkit.collection import Collection
from slurmkit.collection.look import look, read_progress, summarise
from slurmkit.errors import SchedulerError, SlurmkitError, UsageError
from slurmkit.overview import OVERVIEW_SCHEMA, Overview
from slurmkit.project import Project
from slurmkit.records import Json, Progress, RunStatus

if TYPE_CHECKING:
    from slurmkit.collection.poll import Snapshot
    from slurmkit.usage import Usage


@click.command()
@collection_argument
@selection_options
@click.option(
    "--watch", is_flag=True, help="Keep showing it until all has ended (Ctrl-C stops watching, not the runs)."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON (versioned: the key `schema`).")
@click.option("--list", "as_list", is_flag=True, help="Print one line a run: id, state, reason, attempt, name.")
@click.option("--resources", "of_resources", is_flag=True, help="Show memory and time: asked, used, and what would do.")
@click.option(
    "--per", metavar="AXIS", help="With --resources: a row for each value of this axis.  [default: the first]"
)
def status(
    name: str | None,
    where: tuple[str, ...],
    states: tuple[str, ...],
    reasons: tuple[str, ...],
    runs: tuple[str, ...],
    watch: bool,
    as_json: bool,
    as_list: bool,
    of_resources: bool,
    per: str | None,
) -> None:
    """Show what is done, running or failed, and why.

    First the counts, then the grid of cells (`2/3`: two of three seeds are done), then failures by reason with their
    evidence, and what to type next. Without a name, also a line for each other collection.

    With --resources: the memory and time that runs asked for and used, and what would have been enough.
    """
    opened = open_collection(name)
    filtered = bool(where or states or reasons or runs)
    plain = not (filtered or as_json or as_list or of_resources)
    _refuse_together(watch=watch, plain=plain, as_list=as_list, of_resources=of_resources, per=per)
    if watch:
        from slurmkit.cli.watch import follow

        follow(opened)
        return
    if plain:
        summary = look(opened)
        _print(summary)
    else:
        snapshot = opened.snapshot()
        everyone = snapshot.statuses()
        chosen = select(everyone, where, states=states, reasons=reasons, runs=runs) if filtered else everyone
        if as_list:
            for run in chosen:
                click.echo(f"{run.id}  {run.state:<9}  {run.reason or '-':<12}  {run.attempt:>2}  {run.name}")
            _fail_for(snapshot.problem)
            return
        if of_resources and not as_json:
            _print_usage(opened.name, *_usage(opened, snapshot, chosen, per))
            return
        news = read_progress(chosen)
        summary = summarise(opened, snapshot, chosen, news)
        if as_json:
            record = to_json(summary, chosen, news)
            if of_resources:
                axis, rows = _usage(opened, snapshot, chosen, per)
                record["resources"] = {"axis": axis, "values": [row.to_json() for row in rows]}
            click.echo(files.json_line(record), nl=False)
        else:
            _print(summary)
    if name is None and plain:
        print_lines(opened.project, as_json=False, leave_out=opened.name)
    _fail_for(summary.problem)


def _fail_for(problem: str) -> None:
    """End the command, once all is shown, with what keeps it from being up to date.

    Raises:
        SchedulerError: there is such a problem.
    """
    if problem:
        raise SchedulerError(problem)


def _refuse_together(*, watch: bool, plain: bool, as_list: bool, of_resources: bool, per: str | None) -> None:
    """Refuse options that do not go together.

    Raises:
        UsageError: some do not; says which.
    """
    if watch and not plain:
        raise UsageError("--watch shows the whole collection: leave out the choice of runs and all other options.")
    if as_list and of_resources:
        raise UsageError("--list and --resources: choose one.")
    if per is not None and not of_resources:
        raise UsageError(f"--per {per}: goes with --resources.")


def to_json(summary: Overview, chosen: Sequence[RunStatus], news: dict[str, Progress]) -> dict[str, Json]:
    """Return ``status --json``: stable keys under a version."""
    return {
        "schema": OVERVIEW_SCHEMA,
        "collection": summary.name,
        "commit": summary.commit,
        "total": summary.total,
        "retired": summary.retired,
        "states": summary.states,
        "failures": [
            {
                "reason": group.reason,
                "count": group.size,
                "cases": [{"count": c.size, "evidence": c.evidence, "runs": c.runs} for c in group.cases],
            }
            for group in summary.failures
        ],
        "blocked": summary.blocked,
        "eta_s": summary.eta_s,
        "next_command": summary.next_command,
        "problem": summary.problem,
        "runs": [
            {
                "id": run.id,
                "name": run.name,
                "axes": run.axes,
                "state": run.state,
                "reason": run.reason,
                "evidence": run.evidence,
                "attempt": run.attempt,
                "job_id": run.job_id,
                "duration_s": run.duration_s,
                "peak_rss_mb": run.peak_rss_mb,
                "progress": news.get(run.id),
            }
            for run in chosen
        ],
    }


def _print(summary: Overview) -> None:
    import shutil
    import sys

    from slurmkit.cli.render import pipe_lines, styled, terminal_lines

    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        click.echo("\n".join(styled(line) for line in terminal_lines(summary, width)))
    else:
        click.echo("\n".join(pipe_lines(summary)))


def _usage(
    opened: Collection, snapshot: Snapshot, chosen: Sequence[RunStatus], per: str | None
) -> tuple[str, list[Usage]]:
    """Return the axis of the rows (empty: there is none), and the rows.

    Raises:
        UsageError: the collection has no axis `per`.
    """
    from slurmkit.collection.spent import main_axis, usage_along
    from slurmkit.names import did_you_mean

    axes = opened.axes
    if per is not None and per not in axes:
        raise UsageError(f"--per {per}: {opened.name} has no axis of that name. {did_you_mean(per, axes)}")
    axis = per or main_axis(axes, opened.seed_axis)
    return axis, usage_along(snapshot, chosen, axis)


def _print_usage(name: str, axis: str, rows: Sequence[Usage]) -> None:
    import shutil
    import sys

    from slurmkit.cli.render import styled
    from slurmkit.cli.usage import pipe_lines, terminal_lines

    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        click.echo("\n".join(styled(line) for line in terminal_lines(name, axis, rows, width)))
    else:
        click.echo("\n".join(pipe_lines(name, axis, rows)))


def print_lines(project: Project, *, as_json: bool, leave_out: str = "") -> None:
    """Print a line a collection: its headline, or why it cannot be read."""
    found: list[dict[str, Any]] = []
    names = [name for name in project.store.names() if name != leave_out]
    for name in names:
        try:
            opened = Collection(project, project.store.existing(name))
            summary = look(opened)
        except SlurmkitError as error:
            narrate(f"{name}: {error}")
            continue
        found.append({"collection": name, "commit": summary.commit, "total": summary.total, "states": summary.states})
        if not as_json:
            click.echo(f"{name}  {summary.headline}  @ {summary.commit[:10]}")
    if as_json:
        click.echo(files.json_line({"schema": OVERVIEW_SCHEMA, "collections": found}), nl=False)
    elif not found and not leave_out:
        narrate("no collection yet. Create one: slurmkit collection create FILE")

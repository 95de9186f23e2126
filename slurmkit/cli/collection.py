"""`slurmkit collection`: create, list, show, diff, extend, delete."""

from pathlib import Path
from typing import Any

import click

from slurmkit.cli import printable
from slurmkit.cli.common import backend_option, collection_argument, narrate, open_collection, plural
from slurmkit.errors import UsageError
from slurmkit.project import Project

_FILE = click.argument("file", type=click.Path(path_type=Path))
_COMMIT = click.option("--commit", "revision", metavar="REV", help="Pin this commit instead of HEAD.")
_DIRTY = click.option("--allow-dirty", is_flag=True, help="Pin the working tree as it is, untracked files included.")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def collection() -> None:
    """Create, list, show, compare, extend and delete collections."""


@collection.command()
@_FILE
@click.option("--name", help="Another name than the definition's.")
@_COMMIT
@_DIRTY
@_DRY_RUN
@click.option("--submit", "submit_too", is_flag=True, help="Submit all runs at once.")
@click.option("--wait", is_flag=True, help="With --submit: follow until all has ended (Ctrl-C detaches).")
@backend_option
def create(
    file: Path,
    name: str | None,
    revision: str | None,
    allow_dirty: bool,
    dry_run: bool,
    submit_too: bool,
    wait: bool,
    backend: str,
) -> None:
    """Expand the definition FILE into runs pinned to one commit.

    A tree with uncommitted changes is refused: commit them, or pin them as they are with --allow-dirty.
    """
    from slurmkit.collection.create import carry_out, plan_create

    project = Project.discover()
    plan = plan_create(project, file, name=name, revision=revision, allow_dirty=allow_dirty, dry_run=dry_run)
    for note in plan.notes:
        narrate(f"note: {note}")
    sizes = " x ".join(f"{len(values)} {axis}" for axis, values in plan.expansion.axes.items())
    pinned = f"pinned to {plan.pin.commit[:12]}" if plan.pin else "pinned to a snapshot of the working tree"
    if plan.pin and plan.pin.dirty_files:
        pinned += f" (a snapshot with {plural(len(plan.pin.dirty_files), 'uncommitted file')})"
    if dry_run:
        narrate(f"would create {plan.name}: {sizes} = {plural(len(plan.rows), 'run')}, {pinned}")
        for row in plan.rows:
            click.echo(f"{row.id}  {row.name}")
        return
    carry_out(project, plan)
    narrate(f"created {plan.name}: {sizes} = {plural(len(plan.rows), 'run')}, {pinned}")
    if submit_too:
        from slurmkit.cli.submit import submit_all

        submit_all(plan.name, backend=backend, wait=wait)
    else:
        narrate(f"next: slurmkit submit {plan.name}")


@collection.command("list")
@_JSON
def list_collections(as_json: bool) -> None:
    """List all collections, a line each."""
    from slurmkit.cli.status import print_lines

    print_lines(Project.discover(), as_json=as_json)


@collection.command()
@collection_argument
@_JSON
@click.option("--definition", is_flag=True, help="Print the definition as it was, byte for byte.")
def show(name: str | None, as_json: bool, definition: bool) -> None:
    """Show what a collection is: its pin, its axes and its runs."""
    opened = open_collection(name)
    if definition:
        click.echo(opened.records.definition_file.read_bytes(), nl=False)
        return
    header, snapshot = opened.records.header, opened.snapshot()
    statuses = snapshot.statuses()
    if as_json:
        from slurmkit.files import json_line

        runs = [
            {"id": s.id, "name": s.name, "axes": s.axes, "state": s.state, "reason": s.reason, "attempt": s.attempt}
            for s in statuses
        ]
        click.echo(json_line({**header, "runs": runs}), nl=False)
        return
    _say(f"collection  {opened.name}")
    if header["definition"]["description"]:
        _say(f"about       {header['definition']['description'].strip()}")
    _say(f"created     {header['created_at']}")
    snapshot_note = (
        f" (snapshot, {plural(len(header['dirty_files']), 'uncommitted file')})" if header["dirty_files"] else ""
    )
    _say(f"commit      {header['commit']}{snapshot_note}")
    _say(f"definition  {header['source']}")
    _say(f"command     {' '.join(header['definition']['command'])}")
    for axis, values in opened.axes.items():
        _say(f"axis        {axis}: {', '.join(map(str, values))}")
    for alias, need in header["definition"]["needs"].items():
        _say(f"needs       {alias}: runs of {need['collection'] or opened.name}")
    _say(f"runs        {len(statuses)}" + (f", and {len(snapshot.retired)} retired" if snapshot.retired else ""))
    for status in statuses:
        _say(f"{status.id}  {status.state:<9}  {status.name}")


def _say(text: str) -> None:
    click.echo(printable(text))


@collection.command()
@click.argument("words", nargs=-1, required=True, metavar="[NAME] FILE|COLLECTION")
def diff(words: tuple[str, ...]) -> None:
    """Compare a collection with an edited definition FILE, or with another collection.

    Shows cells that are added, removed and changed, with the config keys that differ. Without NAME, a FILE is compared
    with the collection that it names, a COLLECTION with the one last touched.
    """
    from slurmkit.collection.create import freeze_rows, read_definition
    from slurmkit.collection.extend import compare
    from slurmkit.expand import expand

    match words:
        case (other,):
            name = None
        case (name, other):
            pass
        case _:
            raise UsageError("diff: takes [NAME] and a definition file or another collection.")
    if name is None and Path(other).is_file():
        name = read_definition(Path(other))[0].name
    left = open_collection(name)
    old = [row for row in left.records.rows() if not row.retired]
    old_config = left.records.header["definition"]["config"]
    if Path(other).is_file():
        definition = read_definition(Path(other))[0].renamed(left.name)
        frozen = definition.to_json()
        rows, config = freeze_rows(left.project, left.name, frozen, expand(definition)), frozen["config"]
    else:
        right = left.project.store.existing(other)
        rows = [row for row in right.rows() if not row.retired]
        config = right.header["definition"]["config"]
        if right.header["commit"] != left.commit:
            click.echo(f"commit   {left.commit[:12]} -> {right.header['commit'][:12]}")
    _print_difference(compare(old, rows, old_config, config))


def _print_difference(difference: Any) -> None:
    for row in difference.added:
        click.echo(f"added    {row.name}")
    for row in difference.removed:
        click.echo(f"removed  {row.name}")
    for old, _, keys in difference.changed:
        shown = ", ".join(f"{key} {before} -> {after}" for key, (before, after) in sorted(keys.items()))
        _say(f"changed  {old.name}: {shown or 'the command, env or needs'}")
    for row in difference.updated:
        click.echo(f"updated  {row.name}: resources or axes; its results stay valid")
    counts = (len(difference.added), len(difference.removed), len(difference.changed), len(difference.kept))
    narrate("{} added, {} removed, {} changed, {} kept".format(*counts))


@collection.command()
@_FILE
@click.option("--name", help="The collection to extend, if it is not the definition's name.")
@_COMMIT
@_DIRTY
@_DRY_RUN
@click.option("--submit", "submit_too", is_flag=True, help="Submit the new runs at once.")
@backend_option
def extend(
    file: Path,
    name: str | None,
    revision: str | None,
    allow_dirty: bool,
    dry_run: bool,
    submit_too: bool,
    backend: str,
) -> None:
    """Bring a collection up to the edited definition FILE: add its new runs, and lose none.

    New runs are pinned to the collection's own commit unless --commit or --allow-dirty says otherwise. Runs whose cell
    is gone, or has another config now, are retired: they no longer count, and their records stay.
    """
    import contextlib

    from slurmkit.collection.create import read_definition
    from slurmkit.collection.extend import carry_out, plan_extend, refuse_empty

    opened = open_collection(name or read_definition(file)[0].name)
    records = opened.records
    with contextlib.nullcontext() if dry_run else records.lock():
        plan = plan_extend(opened.project, records, file, revision=revision, allow_dirty=allow_dirty, dry_run=dry_run)
        for note in plan.notes:
            narrate(f"note: {note}")
        _print_difference(plan.difference)
        refuse_empty(plan, records.header["definition"])
        if dry_run:
            return
        carry_out(records, plan)
    if plan.commit != opened.commit:
        narrate(f"new runs are pinned to {plan.commit[:12]}, the others to {opened.commit[:12]}")
    if submit_too:
        from slurmkit.cli.submit import submit_all

        submit_all(opened.name, backend=backend, wait=False)
    else:
        narrate(f"next: slurmkit submit {opened.name}")


@collection.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Even if another collection needs its runs.")
def delete(name: str, yes: bool, force: bool) -> None:
    """Delete a collection: its records, and all results of its runs."""
    from slurmkit.collection.verbs import delete as carry_out

    opened = open_collection(name)
    completed = sum(status.state == "completed" for status in opened.statuses())
    if not yes:
        click.confirm(
            f"Delete {opened.name} with {plural(completed, 'completed run')} ({opened.records.folder})?",
            abort=True,
            err=True,
        )
    carry_out(opened.project, opened.records, force=force)
    narrate(f"deleted {opened.name}")

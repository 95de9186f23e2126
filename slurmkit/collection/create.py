"""Create a collection: expand, match needs, pin, check, and write it all or nothing."""

import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from slurmkit import __version__, files, pin
from slurmkit.collection.needs import match_needs
from slurmkit.definition.model import Definition, parse_definition
from slurmkit.errors import DefinitionError, PinError, SlurmkitError, UsageError
from slurmkit.expand import Expansion, expand, resolve_config
from slurmkit.project import Project
from slurmkit.records import SCHEMA, Json, Row
from slurmkit.store import CollectionStore, now, sha256
from slurmkit.template import fill


@dataclass(frozen=True)
class CreatePlan:
    """What creating a collection would write.

    Attributes:
        name: of the collection.
        source: the definition file.
        content: its bytes.
        definition: the frozen definition (`Definition.to_json`).
        expansion: its runs.
        rows: the lines of ``runs.jsonl``.
        pin: the commit; None in a dry run of a dirty tree.
        notes: what is worth saying (sampling, axes without effect, ...).
    """

    name: str
    source: Path
    content: bytes
    definition: dict[str, Json]
    expansion: Expansion
    rows: list[Row]
    pin: "pin.Pin | None"
    notes: list[str]


def read_definition(path: Path) -> tuple[Definition, bytes]:
    """Read and validate a definition file.

    Raises:
        DefinitionError: all of its problems.
        UsageError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(20 * 2**20)  # the parser says what is wrong with a file that large
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}. Give the path of a definition.") from error
    return parse_definition(content, str(path)), content


def plan_create(
    project: Project,
    path: Path,
    *,
    name: str | None = None,
    revision: str | None = None,
    allow_dirty: bool = False,
    dry_run: bool = False,
) -> CreatePlan:
    """Work out what `carry_out` would write; with `dry_run`, write nothing at all, not even a git ref.

    Raises:
        DefinitionError, UsageError, PinError: it cannot be created.
    """
    definition, content = read_definition(path)
    if name is not None:
        definition = definition.renamed(name)
    records = project.store.collection(definition.name)
    if records.exists():
        raise UsageError(
            f"collection {definition.name!r}: exists already. To add runs: slurmkit collection extend {path}; "
            f"for a second one: --name OTHER; to start over: slurmkit collection delete {definition.name}.",
        )
    expansion = expand(definition)
    frozen = definition.to_json()
    rows = freeze_rows(project, definition.name, frozen, expansion)
    notes = list(expansion.notes)
    pinned = pin_for(project, definition.name, revision, allow_dirty=allow_dirty, dry_run=dry_run, notes=notes)
    folder = pin.materialise(pinned, pinned.repository, project.store.checkouts) if pinned and not dry_run else None
    notes += check_configs(frozen, rows, folder or pin.find_repository(project.root))
    return CreatePlan(definition.name, path, content, frozen, expansion, rows, pinned, notes)


def pin_for(
    project: Project, name: str, revision: str | None, *, allow_dirty: bool, dry_run: bool, notes: list[str]
) -> "pin.Pin | None":
    """Resolve the commit to pin; in a dry run say what would happen instead of writing a snapshot.

    No reference keeps the commit yet: a collection that its check refuses shall leave none (see `kept`).
    """
    repository = pin.find_repository(project.root)
    try:
        return pin.resolve(
            repository,
            revision,
            collection=name,
            allow_dirty=allow_dirty and not dry_run,
            ignore=[project.runs],
            keep=False,
        )
    except PinError as error:
        if not (dry_run and allow_dirty):
            raise
        notes.append(f"the working tree as it is would be snapshot ({str(error).splitlines()[0]})")
        return None


def freeze_rows(project: Project, name: str, frozen: dict[str, Json], expansion: Expansion) -> list[Row]:
    """Turn expanded runs into lines of ``runs.jsonl``, each with the runs that it needs."""
    needs = match_needs(project.store, name, frozen["needs"], expansion.runs, list(expansion.axes))
    shared = frozen["resources"]
    own: dict[int, dict[str, Json]] = {}  # runs share their Resources: each is written out once
    rows: list[Row] = []
    for run, needed in zip(expansion.runs, needs, strict=True):
        key = id(run.resources)
        if key not in own:
            asked = run.resources.to_json()
            own[key] = asked if asked != shared else {}
        rows.append(Row(run.id, run.name, run.axes, run.set, run.config_sha256, own[key], needed))
    return rows


def carry_out(project: Project, plan: CreatePlan) -> None:
    """Write the collection.

    Raises:
        UsageError: another shell created it in the meantime.
        StoreError: it cannot be written.
    """
    assert plan.pin is not None  # only dry runs have none, and they are not carried out
    records = project.store.collection(plan.name)
    with kept(records, plan.pin) as ref:
        records.create(header(project, plan, plan.pin, ref), plan.content, plan.rows)
    project.store.touch(plan.name)


@contextlib.contextmanager
def kept(records: CollectionStore, pinned: "pin.Pin") -> Generator[str]:
    """Keep a commit from garbage collection by a git reference, which goes again if the collection cannot be written.

    Yields:
        the reference.

    Raises:
        PinError: git cannot make it.
    """
    ref = pin.resolve(pinned.repository, pinned.commit, collection=records.name).ref
    assert ref is not None  # it was asked for
    try:
        yield ref
    except SlurmkitError:
        written = CollectionStore(records.folder, records.name)  # as it is now: another shell may have made it
        if not written.exists() or ref not in written.header["refs"]:
            pin.release(pinned.repository, ref)
        raise


def header(project: Project, plan: CreatePlan, pinned: "pin.Pin", ref: str) -> dict[str, Json]:
    """Return ``collection.json``."""
    return {
        "schema": SCHEMA,
        "name": plan.name,
        "created_at": now(),
        "commit": pinned.commit,
        "refs": [ref],
        "dirty_files": list(pinned.dirty_files),
        "repository": str(pinned.repository),
        "source": path_text(plan.source),
        "definition_sha256": sha256(plan.content),
        "slurmkit_version": __version__,
        "environment": {
            "python": platform.python_version(),
            "executable": sys.executable,
            "platform": platform.platform(),
            "host": platform.node(),
            "runs": str(project.runs),
        },
        "axes": {axis: list(values) for axis, values in plan.expansion.axes.items()},
        "definition": plan.definition,
    }


def path_text(path: Path) -> str:
    """Write a path for people to read; bytes that are not UTF-8 are escaped, as JSON cannot hold them."""
    return os.fsencode(path.absolute()).decode(errors="backslashreplace")


def check_configs(frozen: dict[str, Json], rows: Sequence[Row], folder: Path) -> list[str]:
    """Let the definition's own `check` look at every config before anything is queued.

    Args:
        frozen: the definition.
        rows: its runs.
        folder: where to run the check: the pinned checkout.

    Returns:
        warnings: swept axes that change nothing.

    Raises:
        DefinitionError: configs that the check refuses, or a check that does not keep the contract.
    """
    if not frozen["check"] or not rows:
        return []
    from slurmkit.worker.imports import python_path

    command: list[str] = fill(frozen["check"], {"python": sys.executable})
    own = {**os.environ, "PYTHONPATH": python_path(folder, os.environ.get("PYTHONPATH", ""))}
    shared = frozen["config"]
    lines = b"".join(files.json_line(resolve_config(shared, row.set)) for row in rows)
    try:
        done = subprocess.run(
            command,
            input=lines,
            capture_output=True,
            cwd=folder,
            env=own,
            check=False,
            timeout=600,
        )
    except OSError as error:
        raise DefinitionError([f"check: {command[0]}: cannot be started: {error.strerror}. Mend `check`."]) from error
    except subprocess.TimeoutExpired as error:
        raise DefinitionError(
            [f"check: {' '.join(command)}: no answer after 600 s. Mend it, or leave it out."]
        ) from error
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["It wrote nothing to stderr."]
        raise DefinitionError([f"check: {' '.join(command)}: exit {done.returncode} in {folder}. {last[0]}"])
    answers = _answers(done.stdout, len(rows))
    names: dict[str, list[str]] = {}
    for row, answer in zip(rows, answers, strict=True):
        for error in answer["errors"]:
            names.setdefault(error, []).append(row.name)
    if names:
        problems = [f"check: {_whose(runs, len(rows))}: {error}" for error, runs in names.items()]
        rest = len(problems) - 20
        raise DefinitionError(problems[:20] + ([f"... and {rest} more."] if rest > 0 else []))
    return _inactive_axes(rows, answers)


def _whose(runs: Sequence[str], total: int) -> str:
    """Name the runs that have one problem: one of them, and how many."""
    if len(runs) == 1:
        return f"run {runs[0]}"
    return f"{'all' if len(runs) == total else len(runs)} runs, first {runs[0]}"


def _answers(output: bytes, wanted: int) -> list[dict[str, list[str]]]:
    lines = output.splitlines()
    if len(lines) != wanted:
        raise DefinitionError(
            [f"check: answered {len(lines)} lines for {wanted} configs. It must print one JSON object a config."],
        )
    answers: list[dict[str, list[str]]] = []
    for number, line in enumerate(lines, start=1):
        try:
            answer = json.loads(line)
            answers.append({key: [str(item) for item in answer.get(key, [])] for key in ("errors", "inactive")})
        except (ValueError, AttributeError, TypeError) as error:
            raise DefinitionError(
                [f'check: line {number} of its answer: expected {{"errors": [], "inactive": []}}, got {line[:80]!r}.'],
            ) from error
    return answers


def _inactive_axes(rows: Sequence[Row], answers: Sequence[dict[str, list[str]]]) -> list[str]:
    """Name the swept config keys that have no effect, in all runs or in some."""
    swept = {key for row in rows for key in row.set}
    counts = dict.fromkeys(sorted(swept), 0)
    for row, answer in zip(rows, answers, strict=True):
        for key in set(answer["inactive"]) & row.set.keys():
            counts[key] += 1
    return [
        f"{key} is swept but has no effect in {'any run' if count == len(rows) else f'{count} of {len(rows)} runs'}: "
        f"their results will differ by chance at most."
        for key, count in counts.items()
        if count
    ]

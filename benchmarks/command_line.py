"""The command line as a person meets it, whole processes by the clock: start-up, creation, and status at rest.

Beside each stands its floor: bare Python, or bare Python that reads or writes the same records with orjson.

    python benchmarks/command_line.py [--runs 10000] [--runs 100000]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from _table import Table, best_command

from slurmkit.project import Project
from slurmkit.states import State
from slurmkit.store import CollectionStore

SLURMKIT = str(Path(sys.executable).parent / "slurmkit")
HELP_LIMIT_S = 0.060
CREATE_LIMITS_S = {10_000: 0.4, 100_000: 2.0}
STATUS_LIMITS_S = {10_000: 0.15, 100_000: 0.5}
OBSERVED_AT_ONCE = 100
"""How many ends one look at a moving collection finds."""

DEFINITION = """\
name: sweep
command: ["{{python}}", train.py, "{{config}}", "{{run_dir}}"]
config: {{task: none, pv: 0.0, rmkl: 0.0, seed: 0, train: {{steps: 1000, lr: 1e-3, batch_size: 32}}}}
axes:
  task: {{key: task, values: [addition, conversion, copy, equations, maximum, parity, paths, reversal, sorting, sums]}}
  pv: {{key: pv, values: {pv}}}
  rmkl: {{key: rmkl, values: [0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]}}
  seed: {{key: seed, values: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}}
"""
READ_AND_PARSE = "import sys, orjson\nfor path in sys.argv[1:]:\n    [orjson.loads(line) for line in open(path, 'rb')]"
PARSE_AND_WRITE = """\
import os, sys, orjson
records = [orjson.loads(line) for line in open(sys.argv[1], "rb")]
with open(sys.argv[2], "wb") as file:
    file.write(b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records))
    os.fsync(file.fileno())
"""


def make_project(folder: Path) -> None:
    """Make a git repository with a trainer that is never called."""
    (folder / "train.py").write_text("raise SystemExit('not to be run')\n")
    (folder / ".gitignore").write_text("/runs/\n")
    for count in CREATE_LIMITS_S:
        (folder / f"sweep-{count}.yaml").write_text(definition(count))
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    who = ["-c", "user.name=bench", "-c", "user.email=bench@example.org"]
    for words in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "--quiet", "--message", "Start"]):
        subprocess.run(["git", *words], cwd=folder, env=environment, check=True)


def definition(count: int) -> str:
    """Write a definition of so many runs (a multiple of 1,000)."""
    return DEFINITION.format(pv=[number / 100 for number in range(count // 1000)])


def complete(records: CollectionStore) -> None:
    """Bring a collection to rest: the events of one submission, and of all its runs observed complete."""
    runs = [row.id for row in records.rows()]
    with records.lock():
        records.append(
            {"event": "intent", "token": "t1", "backend": "local", "attempts": dict.fromkeys(runs, 1)},
            {"event": "submitted", "token": "t1", "jobs": [str(job) for job in range(len(runs))]},
        )
        end = [1, State.COMPLETED, None, "", 812.4, 1210.5, "0" * 64]
        batches = [runs[start : start + OBSERVED_AT_ONCE] for start in range(0, len(runs), OBSERVED_AT_ONCE)]
        records.append(*[{"event": "observed", "runs": dict.fromkeys(batch, end)} for batch in batches])


def third_party_modules(folder: Path) -> set[str]:
    """Return the installed packages that `slurmkit --help` imports."""
    words = [sys.executable, "-X", "importtime", SLURMKIT, "--help"]
    told = subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stderr
    names = {line.rpartition("|")[2].strip().partition(".")[0] for line in told.splitlines() if "|" in line}
    return names - set(sys.stdlib_module_names) - {"imported package", "_distutils_hack", "sitecustomize"}


def measure_start(table: Table, folder: Path) -> None:
    bare = best_command(lambda _: [sys.executable, "-c", "pass"], cwd=folder, repeats=10)
    click = best_command(lambda _: [sys.executable, "-c", "import click"], cwd=folder, repeats=10)
    ours = best_command(lambda _: [SLURMKIT, "--help"], cwd=folder, repeats=10)
    table.time("slurmkit --help", ours, bare.wall_s, "bare Python", HELP_LIMIT_S)
    table.time("slurmkit --help", ours, click.wall_s, "import click")
    heavier = ", ".join(sorted(third_party_modules(folder) - {"click", "slurmkit"})) or "none"
    table.text("packages it imports beside click", heavier, wanted="none")


def measure_runs(table: Table, folder: Path, count: int) -> None:
    repeats = 4 if count < 50_000 else 3
    source = f"sweep-{count}.yaml"
    created = best_command(
        lambda repeat: [SLURMKIT, "collection", "create", source, "--name", f"n{count}-{repeat}"],
        cwd=folder,
        repeats=repeats,
    )
    records = Project.discover(folder).store.existing(f"n{count}-0")
    runs_file, copy = str(records.runs_file), str(folder / "runs" / ".copy.jsonl")
    written = best_command(lambda _: [sys.executable, "-c", PARSE_AND_WRITE, runs_file, copy], cwd=folder)
    table.time(f"create, {count:,} runs", created, written.wall_s, "orjson, write", CREATE_LIMITS_S.get(count))
    directories = sum(entry.is_dir() for entry in records.folder.iterdir()) - 1
    table.text("directories made for its runs", str(directories), wanted="0")

    complete(records)
    files = [runs_file, str(records.journal)]
    read = best_command(lambda _: [sys.executable, "-c", READ_AND_PARSE, *files], cwd=folder)

    def first_look(_: int) -> list[str]:
        records.overview_cache.unlink(missing_ok=True)
        return [SLURMKIT, "status", records.name]

    first = best_command(first_look, cwd=folder, repeats=repeats)
    later = best_command(lambda _: [SLURMKIT, "status", records.name], cwd=folder, repeats=repeats)
    limit = STATUS_LIMITS_S.get(count)
    table.time(f"status at rest, {count:,} runs, first look", first, read.wall_s, "orjson, read", limit)
    table.time(f"status at rest, {count:,} runs, later looks", later, read.wall_s, "orjson, read", limit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--runs",
        type=int,
        action="append",
        choices=list(CREATE_LIMITS_S),
        help="how many runs (repeatable; default: all)",
    )
    table = Table("command line: whole processes")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_project(folder)
        measure_start(table, folder)
        for count in parser.parse_args().runs or CREATE_LIMITS_S:
            measure_runs(table, folder, count)
    table.print()


if __name__ == "__main__":
    main()

"""Reads commands, a line of JSON each, runs each in a fork of itself, and answers by a line.

What a command imports is there by then: it costs hundredths of a second, not a whole one. See `forked_commands`.
"""

import gc
import importlib
import json
import os
import sys
import tempfile

import kill_at

MODULES = (
    "slurmkit.aggregate.aggregation",
    "slurmkit.aggregate.deltas",
    "slurmkit.aggregate.history",
    "slurmkit.aggregate.text",
    "slurmkit.aggregate.views",
    "slurmkit.aggregate.write",
    "slurmkit.cli.aggregate",
    "slurmkit.cli.collection",
    "slurmkit.cli.compare",
    "slurmkit.cli.logs",
    "slurmkit.cli.run",
    "slurmkit.cli.status",
    "slurmkit.cli.submit",
    "slurmkit.collection.create",
    "slurmkit.collection.extend",
    "slurmkit.comparison.build",
    "slurmkit.comparison.document",
    "slurmkit.comparison.text",
    "slurmkit.schedulers.local.scheduler",
    "slurmkit.schedulers.slurm.scheduler",
    "submitit.slurm.slurm",
)
"""What takes long to import, and what most commands import."""


def serve() -> None:
    """Read commands, and answer each by exit code, stdout and stderr."""
    for module in MODULES:
        importlib.import_module(module)
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps(answer(*json.loads(line))), flush=True)


def answer(words: list[str], cwd: str, env: dict[str, str]) -> tuple[int, str, str]:
    """Run one command in a fork."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(env)
            sys.argv = ["slurmkit", *words]
            command()
        _, status = os.waitpid(child, 0)
        told: list[str] = []
        for file in (out, err):
            file.seek(0)
            told.append(file.read().decode(errors="replace"))
        return os.waitstatus_to_exitcode(status), told[0], told[1]


def command() -> None:
    """Be the command; an exception that is none of its own ends the fork with a traceback."""
    from slurmkit.cli import main

    killed_at = json.loads(os.environ.pop("KILL_AT", "[]"))
    try:
        if killed_at:
            kill_at.run(*killed_at)
        else:
            main()
    except SystemExit as end:
        sys.stdout.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)  # unloading pandas takes longer than a command


if __name__ == "__main__":
    serve()

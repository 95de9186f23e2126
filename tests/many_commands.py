"""Run many command lines, each in a fork of one process that has imported the command: JSON in, JSON out."""

import gc
import json
import os
import sys
import tempfile

import slurmkit.aggregate.aggregation
import slurmkit.aggregate.deltas
import slurmkit.aggregate.text
import slurmkit.aggregate.write
import slurmkit.cli
import slurmkit.cli.aggregate
import slurmkit.cli.collection
import slurmkit.cli.logs
import slurmkit.cli.run
import slurmkit.cli.status
import slurmkit.cli.submit
import slurmkit.collection.create
import slurmkit.collection.extend
import slurmkit.schedulers.local.scheduler


def run(words: list[str]) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of one command."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.argv = ["slurmkit", *words]
            try:
                slurmkit.cli.main()
            except SystemExit as end:
                sys.stdout.flush()
                os._exit(end.code if isinstance(end.code, int) else 1)  # unloading pandas takes longer than a command
        _, status = os.waitpid(child, 0)
        told: list[str] = []
        for file in (out, err):
            file.seek(0)
            told.append(file.read().decode(errors="replace"))
        return os.waitstatus_to_exitcode(status), told[0], told[1]


if __name__ == "__main__":
    gc.freeze()
    answers = [run(words) for words in json.load(sys.stdin)]
    print(json.dumps(answers))

"""On the node: become the command that follows a collection, in the environment of the person who asked for it.

Called by the batch script as ``python -m slurmkit.schedulers.slurm.follow ENVIRONMENT COMMAND...``.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from slurmkit.schedulers.slurm import orders


def main(arguments: Sequence[str]) -> int:
    """Replace this process by the command.

    Returns:
        exit code of the job where the command cannot be started: 1.
    """
    path, *words = arguments
    try:
        orders.take_over(orders.read_environment(Path(path)))
        os.execvp(words[0], words)
    except (OSError, ValueError) as error:
        print(f"slurmkit: {path}: {words[0]} cannot be started: {error}. Run it by hand.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What jobs of slurmkit do: submitit's payloads, pickled as the name of a function."""

import subprocess
import sys
from typing import Any


def carry_out(order: dict[str, Any]) -> int:
    """Carry out a work order; any exit code but 0 ends the process.

    Args:
        order: `records.WorkOrder` as JSON.
    """
    from slurmkit.worker import work

    code = work(order)
    if code != 0:
        sys.exit(code)
    return code


carry_out.installs_signal_handlers = True  # pyright: ignore[reportFunctionMemberAccess] (read by the job's environment)


def call(words: list[str]) -> int:
    """Run a command in the submitter's folder; any exit code but 0 ends the process.

    Args:
        words: the command.
    """
    code = subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode
    if code != 0:
        sys.exit(code if code > 0 else 128 - code)
    return code

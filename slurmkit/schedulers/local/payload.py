"""What a job of slurmkit does: submitit's payload, pickled as the name of one function."""

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

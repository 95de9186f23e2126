"""One ``history.jsonl``: the points that a run logged, and whether two runs logged the same."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import orjson

from slurmkit.aggregate.metrics_file import Flaw, Problem, leaves
from slurmkit.records import Json, RunStatus, is_mapping

HISTORY_FILE = "history.jsonl"
STEP = "step"

_VARIES = re.compile(
    r"(^|[/_])(seconds|time|timestamp|date|duration|elapsed|wall|rss|memory|mem|host|pid|gpu_util|speed|throughput)($|[/_])"
    r"|_s$|_ms$|_per_s(ec(ond)?)?$|per_core_second|^provenance/"
)
"""Names of what differs between two runs of the very same computation: clocks, memory, machines."""


def varies_by_chance(key: str) -> bool:
    """Whether a metric is, by its name, a time or a machine's doing, which two equal computations do not share."""
    return _VARIES.search(key) is not None


def read_series(status: RunStatus) -> tuple[list[dict[str, Json]], Problem | None]:
    """Read the logged points of one run, in the order of the file; no file is no points.

    A last line without an end is left for later, as the run may be writing it. Other lines that are no JSON objects
    with a whole number as ``step`` are skipped.

    Returns:
        the points, and the first problem with a line, if there is one.
    """
    path = Path(status.folder) / HISTORY_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], None
    except OSError as error:
        return [], Problem(status.name, str(path), Flaw.UNREADABLE, f"cannot be read: {error.strerror}")
    points: list[dict[str, Json]] = []
    wrong: list[int] = []
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            point: Json = orjson.loads(line)
        except orjson.JSONDecodeError:
            point = None
        if is_mapping(point) and type(point.get(STEP)) is int:
            points.append(point)
        elif line.strip():
            wrong.append(number)
    if not wrong:
        return points, None
    what = f"line {wrong[0]} is no JSON object with a whole number as {STEP!r}"
    more = f"; {len(wrong)} such lines were skipped" if len(wrong) > 1 else "; it was skipped"
    return points, Problem(status.name, str(path), Flaw.NOT_JSON, what + more)


def series_digest(status: RunStatus, ignored: Sequence[str] = ()) -> str:
    """Return a hash of what a run logged, to the last digit, without what varies by chance; empty: it logged nothing.

    Args:
        status: the run.
        ignored: last parts of keys to leave out, too.
    """
    points, _ = read_series(status)
    if not points:
        return ""
    kept = [{key: value for key, value in leaves(point) if _is_result(key, ignored)} for point in points]
    return hashlib.sha256(orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _is_result(key: str, ignored: Sequence[str]) -> bool:
    return not varies_by_chance(key) and key.rpartition("/")[2] not in ignored

"""How busy the local queue kept its slots during `make demo`, from the records that the demo left in runs/."""

import json
import os
from datetime import datetime
from pathlib import Path

from _table import Table

COLLECTIONS = ("demo-base", "demo")


def attempts(runs: Path) -> list[tuple[float, float]]:
    """Return (start, end) of every finished attempt, in seconds since the epoch."""
    found: list[tuple[float, float]] = []
    for collection in COLLECTIONS:
        for path in sorted((runs / collection).glob("*/attempts/*/outcome.json")):
            outcome = json.loads(path.read_text())
            found.append(
                (
                    datetime.fromisoformat(outcome["started_at"]).timestamp(),
                    datetime.fromisoformat(outcome["ended_at"]).timestamp(),
                )
            )
    return found


def main() -> None:
    times = attempts(Path(__file__).parent.parent / "runs")
    if not times:
        print("demo occupancy: no records of the demo. Run it first: make demo")
        return
    slots = len(os.sched_getaffinity(0))
    whole_s = max(end for _, end in times) - min(start for start, _ in times)
    busy_s = sum(end - start for start, end in times)
    share = busy_s / (slots * whole_s)
    table = Table("the demo's queue")
    table.text(f"{len(times)} runs on {slots} slots, share busy", f"{share:.3f}", "1.000 always busy", "", ">= 0.90")
    table.text("first start to last end", f"{whole_s:.0f} s", f"{busy_s / slots:.0f} s of runs a slot")
    table.print()


if __name__ == "__main__":
    main()

"""Aggregation of many runs, beside its floor: reading the same bytes and doing nothing with them.

python benchmarks/aggregate.py [--runs 10000] [--runs 100000]
"""

import argparse
import hashlib
import os
import random
import tempfile
from itertools import product
from pathlib import Path

import orjson
from _table import Table, best, fast_folder

from slurmkit.aggregate import matched_deltas, read_metrics, summarise, suspected_noops, to_frame
from slurmkit.aggregate.aggregation import Aggregation, aggregate
from slurmkit.files import write_atomic
from slurmkit.records import RunStatus
from slurmkit.states import State

METRICS_A_RUN = 40
LIMITS_S = {10_000: 0.4, 100_000: 2.0}
LIMITS_AGAIN_S = {100_000: 0.5}
TASKS = ("base_conversion", "grid_pathfinding", "linear_equations", "list_summation", "multidigit", "sorting")


def make_runs(folder: Path, count: int) -> tuple[list[RunStatus], dict[str, tuple[object, ...]]]:
    """Write metrics files of about 2 KB and return the completed runs that they belong to."""
    rng = random.Random(0)
    seeds = tuple(range(-(-count // (len(TASKS) * 4))))
    axes: dict[str, tuple[object, ...]] = {"task": TASKS, "pv": (0.0, 0.1), "rmkl": (0.0, 0.1), "seed": seeds}
    statuses: list[RunStatus] = []
    for number, values in enumerate(product(*axes.values())):
        if number == count:
            break
        run_dir = folder / f"run-{number}"
        run_dir.mkdir()
        run_id = f"{number:012x}"
        metrics: dict[str, object] = {f"controlled_test_final/rate_{i:02}": rng.random() for i in range(METRICS_A_RUN)}
        metrics |= {"loss/val/total": rng.random(), "loss/val/total__comparable": False, "provenance/run_id": run_id}
        content = orjson.dumps(metrics)
        (run_dir / "metrics.json").write_bytes(content)
        statuses.append(
            RunStatus(
                id=run_id,
                name=run_dir.name,
                axes=dict(zip(axes, values, strict=True)),
                state=State.COMPLETED,
                reason=None,
                evidence="",
                attempt=1,
                job_id=str(number),
                commit="0" * 40,
                config_sha256="0" * 64,
                folder=str(run_dir),
                metrics_sha256=hashlib.sha256(content).hexdigest(),
            ),
        )
    return statuses, axes


def read_bytes(statuses: list[RunStatus]) -> None:
    """The floor: every file opened and read, the bytes dropped."""
    for status in statuses:
        descriptor = os.open(f"{status.folder}/metrics.json", os.O_RDONLY)
        os.read(descriptor, 65536)
        os.close(descriptor)


def measure(table: Table, folder: Path, count: int) -> None:
    """Add a row for each stage, and one for all beside the floor."""
    statuses, axes = make_runs(folder, count)
    floor_s, _ = best(lambda: read_bytes(statuses))
    reading_s, metrics = best(lambda: read_metrics(statuses))
    framing_s, frame = best(lambda: to_frame(statuses, axes, metrics=metrics))
    shown = list(metrics.numbers)[:6]
    summing_s, _ = best(lambda: summarise(frame, ["task", "pv", "rmkl"], shown, "seed", axes=axes))
    pairing_s, _ = best(lambda: matched_deltas(frame, {"pv": 0.0, "rmkl": 0.0}, shown, axes=axes))
    table.time(f"{count:,} metrics.json: read and check", reading_s, floor_s, "read the bytes")
    table.time("  into a DataFrame", framing_s, None, "")
    table.time("  means and intervals", summing_s, None, "")
    table.time("  matched differences", pairing_s, None, "")
    noops_s, _ = best(lambda: suspected_noops(frame, statuses, axes))
    table.time("  equal results", noops_s, None, "")
    total_s = reading_s + framing_s + summing_s + pairing_s + noops_s
    table.time("  all of it", total_s, floor_s, "read the bytes", LIMITS_S.get(count))
    measure_again(table, folder, statuses, axes)


def measure_again(table: Table, folder: Path, statuses: list[RunStatus], axes: dict[str, tuple[object, ...]]) -> None:
    """Add what all tables of the command take where an index knows all files but a few."""
    index_file = folder / "metrics.index"

    def tables() -> Aggregation:
        return aggregate("bench", statuses, axes, "seed", by=["task", "pv", "rmkl"], index_file=index_file)

    first_s, made = best(tables, 1)
    floor_s, _ = best(index_file.read_bytes)
    table.time("  all, and write an index", first_s, None, "")
    times: list[float] = []
    for turn in range(3):
        change(statuses, 100, turn)
        again_s, made = best(tables, 1)
        times.append(again_s)
    assert not made.problems
    limit_s = LIMITS_AGAIN_S.get(len(statuses))
    table.time("  again, 100 of them changed", min(times), floor_s, "read the index", limit_s)


def change(statuses: list[RunStatus], count: int, turn: int) -> None:
    """Write some metrics files anew, as runs that are tried again do."""
    for number in random.Random(turn).sample(range(len(statuses)), count):
        path = Path(statuses[number].folder) / "metrics.json"
        content = orjson.dumps({**orjson.loads(path.read_bytes()), "controlled_test_final/rate_00": turn})
        write_atomic(path, content, durable=False)
        statuses[number] = statuses[number]._replace(attempt=2, metrics_sha256=hashlib.sha256(content).hexdigest())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, action="append", help="how many runs (repeatable; default 10000, 100000)")
    counts = parser.parse_args().runs or list(LIMITS_S)
    table = Table("aggregate: beyond imports")
    for count in counts:
        with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
            measure(table, Path(folder), count)
    table.print()


if __name__ == "__main__":
    main()

"""Aggregation of many runs, beside its floor: reading the same bytes and doing nothing with them.

First the stages, from metrics files to tables; then the way of the command, from records on disk to tables: at first,
again, and again when 100 runs were tried again since.

python benchmarks/aggregate.py [--runs 10000] [--runs 100000]
"""

import argparse
import gc
import hashlib
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path

import orjson
from _table import Table, Took, fast_folder

from slurmkit.aggregate import matched_deltas, read_metrics, summarise, suspected_noops, to_frame
from slurmkit.aggregate.aggregation import Aggregation, aggregate
from slurmkit.collection.poll import poll
from slurmkit.files import write_atomic
from slurmkit.records import SCHEMA, Row, RunStatus
from slurmkit.states import State
from slurmkit.store import CollectionStore, Store

METRICS_A_RUN = 40
LIMITS_S = {10_000: 0.4, 100_000: 2.0}
LIMITS_AGAIN_S = {100_000: 0.5}
CHANGED = 100
OBSERVED_AT_ONCE = 100
"""How many ends one look at a moving collection finds."""
TASKS = ("base_conversion", "grid_pathfinding", "linear_equations", "list_summation", "multidigit", "sorting")


def make_collection(root: Path, count: int) -> CollectionStore:
    """Write a collection of completed runs, as commands and workers do, with metrics files of about 2 KB."""
    records = CollectionStore(root / "sweep", "sweep")
    seeds = tuple(range(-(-count // (len(TASKS) * 4))))
    axes: dict[str, tuple[object, ...]] = {"task": TASKS, "pv": (0.0, 0.1), "rmkl": (0.0, 0.1), "seed": seeds}
    rows: list[Row] = []
    for _, (task, pv, rmkl, seed) in zip(range(count), product(*axes.values()), strict=False):
        name = f"task-{task}_pv{pv}_rmkl{rmkl}_s{seed}"
        sets = {"task": task, "train.pv": pv, "train.rmkl": rmkl, "seed": seed}
        sha256 = hashlib.sha256(name.encode()).hexdigest()
        rows.append(Row(sha256[:12], name, dict(zip(axes, (task, pv, rmkl, seed), strict=True)), sets, sha256, {}, {}))
    header = {"schema": SCHEMA, "commit": "0" * 40, "axes": axes, "definition": {"seed_axis": "seed", "needs": {}}}
    records.create(header, b"", rows)
    rng = random.Random(0)
    observed = {row.id: write_metrics(records, row.id, row.name, rng) for row in rows}
    submit_and_observe(records, observed, 1)
    return records


def write_metrics(records: CollectionStore, run: str, name: str, rng: random.Random) -> str:
    """Write the metrics file of a run, and return its SHA-256."""
    metrics: dict[str, object] = {f"controlled_test_final/rate_{i:02}": rng.random() for i in range(METRICS_A_RUN)}
    metrics |= {"loss/val/total": rng.random(), "loss/val/total__comparable": False, "provenance/run_id": run}
    content = orjson.dumps(metrics)
    records.run_dir(name).mkdir(exist_ok=True)
    write_atomic(records.run_dir(name) / "metrics.json", content, durable=False)
    return hashlib.sha256(content).hexdigest()


def submit_and_observe(records: CollectionStore, observed: dict[str, str], attempt: int) -> None:
    """Write the events of an attempt of some runs, given the SHA-256 of their metrics."""
    token, runs = f"t{attempt}", list(observed)
    jobs = [f"{attempt}_{job}" for job in range(len(runs))]
    ends = {run: [attempt, State.COMPLETED, None, "", 812.4, 1210.5, sha256] for run, sha256 in observed.items()}
    batches = [runs[start : start + OBSERVED_AT_ONCE] for start in range(0, len(runs), OBSERVED_AT_ONCE)]
    records.append(
        {"event": "intent", "token": token, "backend": "local", "attempts": dict.fromkeys(runs, attempt)},
        {"event": "submitted", "token": token, "jobs": jobs},
        *[{"event": "observed", "runs": {run: ends[run] for run in batch}} for batch in batches],
    )


def try_again(records: CollectionStore, turn: int) -> None:
    """Make another attempt of some runs, each with other metrics."""
    rng = random.Random(turn)
    rows = rng.sample(records.rows(), CHANGED)
    submit_and_observe(records, {row.id: write_metrics(records, row.id, row.name, rng) for row in rows}, turn)


def tables(root: Path) -> Aggregation:
    """Do what the command does between its imports and its output."""
    store = Store(root)
    records = store.existing("sweep")
    statuses = poll(store, records).table()
    return aggregate("sweep", statuses, records.header["axes"], "seed", index_file=records.metrics_index)


def timed(work: Callable[[], object], before: Iterable[Callable[[], object]] = (None,) * 3) -> Took:
    """Return the best times of some work, which is done once after each of some preparations."""
    walls, cpus = [], []
    for prepare in before:
        if prepare is not None:
            prepare()
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return Took(min(walls), min(cpus))


def read_bytes(paths: Sequence[str]) -> None:
    """The floor: every file opened and read, the bytes dropped."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        while os.read(descriptor, 1 << 24):
            pass
        os.close(descriptor)


def measure_stages(table: Table, statuses: Sequence[RunStatus], axes: dict[str, list[object]]) -> None:
    """Add a row for each stage from metrics files to tables, and one for all beside the floor."""
    paths = [f"{status.folder}/metrics.json" for status in statuses]
    floor = timed(lambda: read_bytes(paths)).wall_s
    metrics = read_metrics(statuses)
    frame = to_frame(statuses, axes, metrics=metrics)
    shown = list(metrics.numbers)[:6]
    stages: dict[str, Callable[[], object]] = {
        f"{len(statuses):,} metrics.json: read and check": lambda: read_metrics(statuses),
        "  into a DataFrame": lambda: to_frame(statuses, axes, metrics=metrics),
        "  means and intervals": lambda: summarise(frame, ["task", "pv", "rmkl"], shown, "seed", axes=axes),
        "  matched differences": lambda: matched_deltas(frame, {"pv": 0.0, "rmkl": 0.0}, shown, axes=axes),
        "  equal results": lambda: suspected_noops(frame, statuses, axes),
    }
    times = {name: timed(work) for name, work in stages.items()}
    for name, took in times.items():
        table.time(name, took, floor if "metrics.json" in name else None, "read the bytes")
    total = Took(sum(took.wall_s for took in times.values()), sum(took.cpu_s for took in times.values()))
    table.time("  all of it", total, floor, "read the bytes", LIMITS_S.get(len(statuses)))


def measure_command(table: Table, records: CollectionStore, count: int) -> None:
    """Add what the way from records to tables takes: with no cache, with all known, and when some runs have changed."""
    root = records.folder.parent
    sources = [str(path) for path in (records.runs_file, records.journal)]
    records.runs_index.unlink(missing_ok=True)
    records.metrics_index.unlink(missing_ok=True)
    first = timed(lambda: tables(root), [None])
    caches = [str(path) for path in (records.runs_index, records.metrics_index) if path.exists()]
    floor = timed(lambda: read_bytes([*sources, *caches])).wall_s
    limit = LIMITS_AGAIN_S.get(count)
    table.time(f"records of {count:,} runs to tables, and write caches", first, None, "")
    table.time("  again", timed(lambda: tables(root)), floor, "read the bytes", limit)
    turns = [lambda turn=turn: try_again(records, turn) for turn in range(2, 6)]
    table.time(f"  again, {CHANGED} tried again", timed(lambda: tables(root), turns), floor, "read the bytes", limit)
    made = tables(root)
    assert not made.problems
    assert made.frame["attempt"].max() == len(turns) + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, action="append", help="how many runs (repeatable; default 10000, 100000)")
    counts = parser.parse_args().runs or list(LIMITS_S)
    gc.set_threshold(100_000, 20, 100)  # as the command line does
    table = Table("aggregate: beyond imports")
    for count in counts:
        with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
            records = make_collection(Path(folder), count)
            measure_stages(table, poll(Store(Path(folder)), records).table(), records.header["axes"])
            measure_command(table, records, count)
    table.print()


if __name__ == "__main__":
    main()

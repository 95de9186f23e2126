"""What squeue and sacct print is read whole, whatever people call their jobs. The texts are those of real clusters."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from slurmkit.schedulers.slurm.listing import Exit, memory_mb, parse_sacct, parse_squeue
from slurmkit.schedulers.slurm.verdict import Evidence, reports_of

CAPTURED = Path(__file__).parent / "golden" / "slurm"
ODD_NAME = "odd|[]name;\\ x|"


def squeue_row(job_id: str, state: str = "PENDING", name: str = "mine", nodes: str = "") -> str:
    return f"{job_id}|{state}|0|0|1700000000|1700000001|1700000002|{nodes}|None|{name}|\n"


def sacct_rows(job_id: str, state: str = "COMPLETED", name: str = "mine") -> str:
    times = "1700000000|1700000001|1700000002"
    return (
        f"{job_id}|{state}|0:0|0:0|{times}||50M|60|n1|None|{name}\n"
        f"{job_id}.batch|{state}|0:0||{times}|3132K|||n1||batch\n"
    )


def test_queue_row_is_read_field_by_field():
    row = parse_squeue((CAPTURED / "nodes.squeue").read_text()).rows("45_0")[0]
    assert (row.name, row.state, row.reason, row.restarts) == ("swept", "CANCELLED", "None", 0)
    assert (row.exit, row.submit, row.start, row.end, row.nodes) == (
        Exit(0, 15),
        1795273016,
        1795273016,
        1795273020,
        "n3",
    )


def test_folded_tasks_are_found_one_by_one_and_others_are_not():
    queue = parse_squeue((CAPTURED / "nodes.squeue").read_text())
    found = [task for task in range(20) if any(queue.rows(f"44_{task}"))]
    assert found == [3, 4, 5, 6, 7, 8, 9, 12]
    assert [task for task in range(12) if any(queue.rows(f"45_{task}"))] == [0, 2, 4, 6, 8]
    assert not any(queue.rows("44"))


@pytest.mark.parametrize(
    ("folded", "tasks"),
    [
        ("[3-9,12%4]", [3, 4, 5, 6, 7, 8, 9, 12]),
        ("[0-8:2%1]", [0, 2, 4, 6, 8]),
        ("[7]", [7]),
        ("[1,3-4,...]", [1, 3, 4]),  # cut short by a Slurm that does not know SLURM_BITSTR_LEN=0
    ],
)
def test_folded_ranges_are_read_as_slurm_writes_them(folded: str, tasks: list[int]):
    queue = parse_squeue(squeue_row(f"5_{folded}"))
    assert [task for task in range(20) if any(queue.rows(f"5_{task}"))] == tasks


def test_names_with_separators_brackets_and_newlines_break_no_other_row():
    queue = parse_squeue((CAPTURED / "nodes.squeue").read_text())
    assert queue.rows("44_3")[0].name == ODD_NAME
    assert queue.rows("64")[0].name == "two"
    assert queue.rows("39")[0].state == "PENDING"
    accounting = parse_sacct((CAPTURED / "nodes.sacct").read_text())
    assert accounting.rows("44_3")[0].name == ODD_NAME
    assert accounting.rows("44_12")[0].state == "PENDING"
    assert accounting.rows("65")[0].exit == Exit(0, 53)


def test_steps_belong_to_the_start_of_the_job_that_they_follow():
    starts = list(parse_sacct((CAPTURED / "later.sacct").read_text()).rows("61"))
    assert [row.state for row in starts] == ["PREEMPTED", "PENDING"]
    assert [[step.step for step in row.steps] for row in starts] == [["batch"], []]


def test_step_says_how_much_memory_it_took_and_how_it_ended():
    job = parse_sacct((CAPTURED / "memory.sacct").read_text()).rows("2")[0]
    assert (job.memory_mb, job.derived_exit) == (50.0, Exit(0, 125))
    assert [(step.step, step.state, step.exit) for step in job.steps] == [
        ("batch", "FAILED", Exit(1, 0)),
        ("0", "OUT_OF_MEMORY", Exit(0, 125)),
    ]
    assert job.steps[0].max_rss_mb == pytest.approx(10916 / 1024)


def test_lines_that_are_no_rows_are_left_out():
    text = "CLUSTER: other\nslurm_load_jobs: a warning | with bars\n" + squeue_row("7") + squeue_row("7+1") + "\n"
    assert parse_squeue(text).rows("7")[0].name == "mine"
    assert not any(parse_squeue(text).rows("7+1"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3132K", 3132 / 1024), ("8000M", 8000), ("4Gn", 4096), ("2Gc", 2048), ("1048576", 1), ("0", None), ("", None)],
)
def test_memory_is_read_in_every_form_that_slurm_writes(text: str, expected: float | None):
    assert memory_mb(text) == expected


def least_s(*works: Callable[[], object]) -> list[float]:
    """Return the least CPU time of each of some works in five rounds: to be compared, for it depends on the machine."""
    spent_s: list[list[float]] = [[] for _ in works]
    for _ in range(5):
        for work, times in zip(works, spent_s, strict=True):
            begin = time.process_time()
            work()
            times.append(time.process_time() - begin)
    return [min(times) for times in spent_s]


def test_two_thousand_tasks_cost_some_tens_of_times_what_splitting_their_rows_does():
    """Ended ones are the worst case: a row in squeue, two in accounting, for each. It takes 50 ms; splitting, 5 ms."""
    tasks = [f"9_{number}" for number in range(2000)]
    squeue = "".join(squeue_row(task, "COMPLETED", nodes="n1") for task in tasks)
    sacct = "".join(sacct_rows(task) for task in tasks)

    def report() -> None:
        evidence = Evidence(parse_squeue(squeue), parse_sacct(sacct), 1_700_000_010.0)
        assert len(reports_of(dict.fromkeys(tasks, "mine"), evidence)) == 2000

    whole_s, split_s = least_s(report, lambda: [row.split("|") for row in (squeue + sacct).splitlines()])
    assert whole_s < 40 * split_s


def test_cost_grows_with_rows_and_not_with_ranges():
    """Every other task of 100,000 in one row, and 4,000 asked for: ten times what reading its numbers once costs."""
    numbers = ",".join(str(task) for task in range(0, 100_000, 2))

    def look() -> None:
        queue = parse_squeue(squeue_row(f"9_[{numbers}]"))
        assert all(any(queue.rows(f"9_{task}")) for task in range(0, 4000, 2))
        assert not any(any(queue.rows(f"9_{task}")) for task in range(1, 4000, 2))

    look_s, read_s = least_s(look, lambda: [int(number) for number in numbers.split(",")])
    assert look_s < 50 * read_s

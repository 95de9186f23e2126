"""`status --resources`: what runs asked for, what they used, and what would have been enough."""

import json

import pytest
from workplace import SWEEP

from slurmkit.cli.usage import pipe_lines, terminal_lines
from slurmkit.definition.yaml_source import read_yaml
from slurmkit.records import RunStatus
from slurmkit.resources import Resources, parse_memory_mb, parse_time_s
from slurmkit.states import Reason, State
from slurmkit.usage import as_definition, as_memory, as_time, usage

ASKED = Resources(mem_mb=4096, time_s=7200)


def run(number, task="sorting", state=State.COMPLETED, reason=None, peak=None, took=None, attempt=1) -> RunStatus:
    axes = {"task": task, "seed": number}
    return RunStatus(
        f"r{number}", f"r{number}", axes, state, reason, "", attempt, "7", "c", "s", "/x", None, took, peak
    )


def summed(*runs, asked=ASKED):
    return usage(runs, {one.id: asked for one in runs}, "task")


def test_enough_is_the_most_that_was_used_and_some_more():
    (row,) = summed(run(1, peak=1000.0, took=1000.0), run(2, peak=1500.0, took=1400.0), run(3, peak=1100.0, took=900.0))
    assert (row.memory.median, row.memory.most) == (1100.0, 1500.0)
    assert row.memory.suggested == 2048  # 1800 would do
    assert row.time.suggested == 35 * 60
    assert row.memory.asked == (4096, 4096)


def test_rows_are_the_values_of_the_axis_in_their_order():
    rows = summed(run(1, "b"), run(2, "a"), run(3, "b", State.RUNNING))
    assert [(row.value, row.completed, row.total) for row in rows] == [("b", 1, 2), ("a", 1, 1)]


def test_a_killed_run_says_only_that_it_needs_more():
    killed = [run(n, state=State.FAILED, reason=Reason.OOM_HOST, peak=2.8) for n in (1, 2)]
    (row,) = summed(*killed)
    assert row.memory.suggested is None
    assert row.memory.note == "2 killed for memory at up to 4 GB: they need more, and no peak says how much"


def test_siblings_that_used_less_than_killed_runs_had_suggest_nothing():
    killed = run(1, state=State.FAILED, reason=Reason.OOM_HOST, peak=4090.0)
    assert summed(killed, run(2, peak=1000.0))[0].memory.suggested is None
    assert summed(killed, run(2, peak=5000.0))[0].memory.suggested == 6144


def test_a_run_ended_at_its_time_limit_says_only_that_it_needs_more():
    late = run(1, state=State.FAILED, reason=Reason.TIMEOUT, took=7201.0, peak=100.0)
    (row,) = summed(late, run(2, took=600.0, peak=100.0))
    assert row.time.suggested is None
    assert "1 ended at their limit, of up to 2h00m" in row.time.note
    assert row.memory.suggested == 150


def test_runs_that_failed_early_suggest_nothing_alone():
    (row,) = summed(run(1, state=State.FAILED, reason=Reason.ERROR, peak=30.0, took=1.0))
    assert (row.memory.suggested, row.time.suggested) == (None, None)
    assert row.memory.most == 30.0


def test_the_duration_of_a_second_attempt_may_be_the_rest_only():
    (row,) = summed(run(1, took=60.0, peak=100.0, attempt=2))
    assert row.time.suggested is None
    assert "checkpoint" in row.time.note


def test_runs_that_asked_for_nothing_have_no_range():
    (row,) = summed(run(1, peak=100.0), asked=Resources())
    assert row.memory.asked is None


@pytest.mark.parametrize("mem_mb", [50, 1000, 1536, 4096, 5632, 9216, 72 * 1024])
def test_a_suggested_size_reads_back_as_itself(mem_mb):
    assert parse_memory_mb(as_memory(mem_mb)) == mem_mb


@pytest.mark.parametrize("time_s", [60, 1800, 5400, 7200, 129600])
def test_a_suggested_time_reads_back_as_itself(time_s):
    assert parse_time_s(as_time(time_s)) == time_s


@pytest.mark.parametrize(
    "label", ["sorting", "a: b", "0.1", "true", "yes", "no", "off", "on", "null", "~", 0.5, 3, True, None, "-"]
)
def test_the_line_for_the_definition_reads_back(label):
    (row,) = summed(run(1, label, peak=1000.0, took=100.0))
    (read,) = read_yaml(as_definition(row, "task").encode(), "sweep.yaml").value
    assert read == {"where": {"task": [label]}, "resources": {"mem": "1.5G", "time": "3m"}}


ROWS = summed(
    run(1, peak=1000.0, took=1000.0),
    run(2, "grid", State.FAILED, Reason.OOM_HOST, peak=4000.0, took=3.0),
)


def test_a_pipe_gets_one_fact_a_line():
    assert pipe_lines("demo", "task", ROWS) == [
        "collection demo",
        "mem task=sorting: done 1/1; asked 4 GB; used 0.977 GB, 0.977 GB; enough 1.5G",
        "time task=sorting: done 1/1; asked 2h00m; used 16m40s, 16m40s; enough 25m",
        "mem task=grid: done 0/1; asked 4 GB; used 3.91 GB, 3.91 GB; enough -",
        "time task=grid: done 0/1; asked 2h00m; used 3s, 3s; enough -",
        "note task=grid: 1 killed for memory at up to 4 GB: they need more, and no peak says how much",
        "definition: - {where: {task: [sorting]}, resources: {mem: 1.5G, time: 25m}}",
    ]


@pytest.mark.parametrize("width", [80, 140])
def test_a_terminal_gets_a_table_within_its_width(width):
    lines = ["".join(text for text, _ in line) for line in terminal_lines("demo", "task", ROWS, width)]
    table = lines[: lines.index("")]
    assert max(len(line) for line in table) <= width
    assert len(table) == (3 if width == 140 else 6)
    assert "  - {where: {task: [sorting]}, resources: {mem: 1.5G, time: 25m}}" in lines


def test_nothing_is_to_be_changed_where_just_that_was_asked_for():
    rows = summed(run(1, peak=1000.0, took=1000.0), asked=Resources(mem_mb=1536, time_s=1500))
    assert not any(line.startswith("definition") for line in pipe_lines("demo", "task", rows))


def test_the_command_shows_it_for_a_real_sweep(workplace):
    file = workplace.define(SWEEP)
    workplace.slurmkit("collection", "create", str(file), "--submit")
    workplace.wait("sweep")
    workplace.slurmkit(
        "resubmit", "sweep", "--where", "task=add", "--where", "seed=1", "--force", "--set", "resources.mem=400M"
    )
    workplace.wait("sweep")
    shown = workplace.slurmkit("status", "sweep", "--resources").stdout.splitlines()
    assert shown[1].startswith("mem task=add: done 2/2; asked 300 MB to 400 MB; used ")
    assert any(line.startswith("definition: - {where: {task: [add]}, resources: {mem: ") for line in shown)
    record = json.loads(workplace.slurmkit("status", "sweep", "--resources", "--per", "seed", "--json").stdout)
    assert record["resources"]["axis"] == "seed"
    assert [value["value"] for value in record["resources"]["values"]] == [1, 2]
    wrong = workplace.slurmkit("status", "sweep", "--resources", "--per", "tusk", exit_code=2).stderr
    assert "Did you mean task?" in wrong
    workplace.slurmkit("status", "sweep", "--per", "task", exit_code=2)
    workplace.slurmkit("status", "sweep", "--list", "--resources", exit_code=2)

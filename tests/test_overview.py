"""The status: counts, grid, failures, and how they are drawn."""

from collections import Counter

import orjson

from slurmkit.cli.render import pipe_lines, square_text, styled, terminal_lines
from slurmkit.files import json_line
from slurmkit.overview import Overview, Square, overview
from slurmkit.records import RunStatus
from slurmkit.states import Reason, State

AXES = {"task": ("sorting", "grid"), "pv": (0.0, 0.1), "seed": (1, 2)}
COMMIT = "017e5e4" + "0" * 33


def run(task, pv, seed, state, reason=None, evidence="", duration_s=None) -> RunStatus:
    name = f"{task}-{pv}-{seed}"
    axes = {"task": task, "pv": pv, "seed": seed}
    return RunStatus(name, name, axes, state, reason, evidence, 1, "7", COMMIT, "s", "/x", None, duration_s)


RUNS = [
    run("sorting", 0.0, 1, State.FAILED, Reason.OOM_HOST, "limit 4 GB, peak 3.98 GB"),
    run("sorting", 0.0, 2, State.COMPLETED, duration_s=100.0),
    run("sorting", 0.1, 1, State.FAILED, Reason.OOM_HOST, "limit 4 GB, peak 3.98 GB"),
    run("sorting", 0.1, 2, State.FAILED, Reason.ERROR, "KeyError"),
    run("grid", 0.0, 1, State.COMPLETED, duration_s=40.0),
    run("grid", 0.0, 2, State.COMPLETED, duration_s=60.0),
    run("grid", 0.1, 1, State.RUNNING),
    run("grid", 0.1, 2, State.QUEUED),
]
NEWS = {"grid-0.1-1": {"step": 30, "of": 120, "metrics": {"loss": 0.512}, "time": ""}}


def summed(runs=RUNS, **more) -> Overview:
    return overview("demo", COMMIT, runs, AXES, "seed", **more)


def text(summary: Overview, width: int = 100) -> str:
    return "\n".join("".join(piece for piece, _ in line) for line in terminal_lines(summary, width))


def test_the_counts_come_first_in_the_order_people_ask():
    assert summed().headline == "3/8 complete, 3/8 failed, 1/8 running, 1/8 queued"


def test_nothing_complete_is_said_too():
    assert summed([run("grid", 0.0, 1, State.PLANNED)]).headline == "0/1 complete, 1/1 planned"


def test_a_cell_counts_its_seeds_and_shows_progress_and_loss():
    shown = text(summed(progress=NEWS))
    rows = {line.split()[0]: line for line in shown.splitlines() if line}
    assert "1/2 oom_host" in rows["sorting"]
    assert "0/2 error+oom_host" in rows["sorting"]
    assert "0/2 25% 0.512" in rows["grid"]


def test_failures_are_grouped_by_reason_with_count_and_evidence():
    groups = summed().failures
    assert [(group.reason, group.size) for group in groups] == [("oom_host", 2), ("error", 1)]
    assert "2 failed: oom_host  limit 4 GB, peak 3.98 GB" in text(summed())


def test_different_evidence_of_one_reason_is_told_apart_and_its_numbers_are_not():
    runs = [
        run("grid", 0.0, 1, State.FAILED, Reason.ERROR, "stderr line 7: KeyError: 'a'"),
        run("grid", 0.0, 2, State.FAILED, Reason.ERROR, "stderr line 9: KeyError: 'a'"),
        run("grid", 0.1, 1, State.FAILED, Reason.ERROR, "stderr line 7: ValueError"),
    ]
    (group,) = summed(runs).failures
    assert [(case.size, case.evidence) for case in group.cases] == [
        (2, "stderr line 7: KeyError: 'a'"),
        (1, "stderr line 7: ValueError"),
    ]
    assert "2 of them:  stderr line 7: KeyError" in text(summed(runs))


def test_true_and_none_are_written_as_in_the_definition():
    axes = {"task": ("sorting", "grid"), "pv": (True, None), "seed": (1,)}
    shown = text(overview("demo", COMMIT, [run("grid", pv, 1, State.PLANNED) for pv in (True, None)], axes, "seed"))
    assert "pv=true" in shown
    assert "pv=null" in shown


def test_the_estimate_comes_from_finished_runs_of_the_same_task():
    """grid takes 50 s: 75 % of one run and one whole run are left, one after the other."""
    assert summed(progress=NEWS).eta_s == 0.75 * 50 + 50
    assert summed([run("grid", 0.0, 1, State.RUNNING)]).eta_s is None


def test_a_narrow_terminal_gets_further_blocks_and_no_long_lines():
    axes = {"task": ("a", "b", "c"), "pv": tuple(range(12)), "seed": (1,)}
    runs = [run(task, pv, 1, State.COMPLETED) for task in axes["task"] for pv in axes["pv"]]
    lines = terminal_lines(overview("demo", COMMIT, runs, axes, "seed"), 44)
    grid = ["".join(piece for piece, _ in line) for line in lines]
    assert max(len(line) for line in grid[2:-1]) <= 44
    assert sum("done" in line for line in grid) >= 6


def test_ten_thousand_cells_are_summed_up_by_row():
    axes = {"task": tuple(f"t{n}" for n in range(100)), "pv": tuple(range(100)), "seed": (1,)}
    runs = [
        run(task, pv, 1, State.FAILED if task == "t7" and pv == 3 else State.COMPLETED)
        for task in axes["task"]
        for pv in axes["pv"]
    ]
    shown = text(overview("demo", COMMIT, runs, axes, "seed"))
    assert "task t7: 99 completed, 1 failed" in shown
    assert "99 of 100 task rows are complete" in shown
    assert len(shown.splitlines()) < 15


def test_colour_is_never_the_only_sign(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in "\n".join(styled(line) for line in terminal_lines(summed(), 80))
    monkeypatch.delenv("NO_COLOR")
    coloured = "\n".join(styled(line) for line in terminal_lines(summed(), 80))
    assert "\x1b[31m" in coloured
    assert "oom_host" in coloured


def test_a_pipe_gets_one_fact_a_line():
    lines = pipe_lines(summed())
    assert lines[0] == f"collection demo {COMMIT}"
    assert "cell task=sorting pv0.1: failed=2 reasons=error,oom_host" in lines
    assert "failed oom_host 2: limit 4 GB, peak 3.98 GB [sorting-0.0-1, sorting-0.1-1]" in lines


def test_a_remembered_overview_shows_the_same():
    summary = summed()
    record = orjson.loads(json_line(summary.to_json()))
    assert Overview.from_json(record) == summary


def test_one_seed_cells_show_words():
    assert square_text(Square(1, Counter({State.COMPLETED: 1})))[0] == "done"


def test_what_to_type_next_follows_what_stands_in_the_way():
    planned = run("grid", 0.0, 1, State.PLANNED)
    bug = run("grid", 0.0, 1, State.FAILED, Reason.ERROR, "KeyError")
    memory = run("grid", 0.0, 2, State.FAILED, Reason.OOM_HOST, "limit")
    blocked = run("grid", 0.0, 1, State.BLOCKED, None, "needs base/task-grid, which is failed: error")
    done = run("grid", 0.0, 1, State.COMPLETED)
    assert summed([planned]).next_command == "slurmkit submit demo"
    assert summed([bug]).next_command == "slurmkit logs demo --run grid-0"
    assert summed([bug, memory]).next_command == "slurmkit resubmit demo --reason oom_host --set resources.mem=x2"
    assert summed([memory], on_failure=["oom"]).next_command == "slurmkit resubmit demo --reason oom_host"
    assert summed([blocked]).next_command == "slurmkit status base"
    assert summed([done]).next_command == "slurmkit aggregate demo"


def test_what_waits_for_a_person_and_what_was_cancelled_is_said_with_the_reason():
    held = run(
        "grid", 0.0, 1, State.QUEUED, None, "JobHeldUser: held by its owner; `scontrol release 5_1` lets it start"
    )
    waiting = run("grid", 0.0, 2, State.QUEUED, None, "Priority")
    canary = [run("grid", 0.1, seed, State.CANCELLED, None, f"cancelled: x, after {seed}s") for seed in (1, 2)]
    never = RunStatus("n", "n", canary[0].axes, State.CANCELLED, None, "", 0, "", COMMIT, "s", "/x", None, None)
    summary = summed([held, waiting, *canary, never])
    assert summary.stuck == {held.evidence: 1}
    assert summary.cancelled == {"cancelled: x, after 1s": 2}
    assert f"queued 1: {held.evidence}" in pipe_lines(summary)
    assert "2 cancelled  cancelled: x, after 1s" in text(summary)

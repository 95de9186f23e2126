"""Runs that need each other, in one collection and across several: submitted, refused, armed again and told of."""

import pytest
from forked_commands import ForkedCommands, ForkedWorkplace
from workplace import Workplace

from slurmkit.collection.needs import needed_first
from slurmkit.records import Row

STAGES = """\
name: chain
command: ["{python}", "train.py", "{config}", "{run_dir}"]
config: {act: bug, stage: none}
axes: {stage: [second, first]}
needs: {before: {where: {stage: first}, when: {stage: second}}}
on_failure: {error: {resources.time: x2, limit: 1}}
resources: {cpus: 1, mem: 300M, time: 60s}
"""

A = """\
name: a
command: ["{python}", "train.py", "{config}", "{run_dir}"]
config: {act: bug, seed: 0, of: a}
axes: {seed: {key: seed, values: [1]}}
resources: {cpus: 1, mem: 300M, time: 60s}
"""


@pytest.fixture
def workplace(workplace: Workplace, forked_commands: ForkedCommands) -> ForkedWorkplace:
    return ForkedWorkplace(workplace.root, forked_commands)


def row(number: int, *needed: int) -> Row:
    """Return a run that needs others by number."""
    needs = {f"n{other}": ("chain", str(other), str(other)) for other in needed}
    return Row(str(number), str(number), {}, {}, "", {}, needs)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_chain_of_any_length_is_ordered(backwards):
    stages = [row(number, *([number - 1] if number else [])) for number in range(3000)]
    ordered = needed_first(stages[::-1] if backwards else stages)
    assert ordered == stages


def test_what_needs_nothing_keeps_its_place():
    rows = [row(1), row(2, 4, 9), row(3), row(4)]
    assert [each.id for each in needed_first(rows)] == ["1", "4", "2", "3"]


def test_a_run_is_not_submitted_with_one_that_has_no_retries_left(workplace):
    """Second stands before first in the definition, and is chosen with it."""
    path = workplace.define(STAGES)
    workplace.slurmkit("collection", "create", str(path), "--submit")
    workplace.wait("chain")
    workplace.slurmkit("resubmit", "chain", "--run", "stage-first")
    assert workplace.wait("chain") == {"stage-second": "blocked", "stage-first": "failed"}
    workplace.slurmkit("cancel", "chain", "--run", "stage-second")
    told = workplace.slurmkit("resubmit", "chain", "--state", "failed", "--state", "cancelled", exit_code=None).stderr
    assert "resubmitted 0 runs" in told
    assert "on_failure.error.limit: 1 retries are used up" in told
    assert "1 run not submitted: needs chain/stage-first, which is failed" in told


def three(workplace) -> None:
    """Make a <- b <- c, and let a fail so that b and c wait."""
    for name, needed in (("a", ""), ("b", "a"), ("c", "b")):
        text = A.replace("name: a", f"name: {name}").replace("of: a", f"of: {name}")
        if needed:
            text = text.replace("act: bug", "act: complete") + f"needs: {{before: {{collection: {needed}}}}}\n"
        workplace.slurmkit("collection", "create", str(workplace.define(text, f"{name}.yaml")), "--submit")
    workplace.wait("a")
    assert [workplace.wait(name) for name in "abc"] == [
        {"seed-1": "failed"},
        {"seed-1": "blocked"},
        {"seed-1": "blocked"},
    ]


def test_a_new_try_arms_the_whole_chain_again(workplace):
    three(workplace)
    told = workplace.slurmkit("resubmit", "a", "--failed", "--set", "act=complete").stderr
    assert "also submitted 1 run of b" in told
    assert "also submitted 1 run of c" in told
    assert [workplace.wait(name) for name in "abc"] == [{"seed-1": "completed"}] * 3


def test_who_needs_a_blocked_run_is_told_which_run_to_try_again(workplace):
    three(workplace)
    told = workplace.slurmkit("submit", "c").stderr
    assert "needs b/seed-1, which is blocked by a/seed-1, which is failed: slurmkit resubmit a --failed" in told
    workplace.slurmkit("cancel", "b", "--all")
    told = workplace.slurmkit("submit", "c").stderr
    assert "needs b/seed-1, which is cancelled: slurmkit resubmit b --state cancelled" in told


def test_a_damaged_neighbour_does_not_make_a_new_try_look_failed(workplace):
    three(workplace)
    (workplace.runs / "b/.slurmkit/journal.jsonl").write_text("")
    told = workplace.slurmkit("resubmit", "a", "--failed", "--set", "act=complete").stderr
    assert "resubmitted 1 run of a" in told
    assert "runs of b that may wait for these are not submitted" in told
    assert "journal.jsonl: is missing or empty" in told
    assert workplace.wait("a") == {"seed-1": "completed"}
    (workplace.runs / "b/.slurmkit/collection.json").write_text("{}")
    assert "not a collection's record" in workplace.slurmkit("resubmit", "a", "--run", "seed-1", "--force").stderr

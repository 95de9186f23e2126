"""Runs that need each other, in one collection and across several: submitted, refused, armed again and told of."""

import pytest

from slurmkit.collection.needs import needed_first
from slurmkit.store import Row

STAGES = """\
name: chain
command: ["{python}", "train.py", "{config}", "{run_dir}"]
config: {act: bug, stage: none}
axes: {stage: [second, first]}
needs: {before: {where: {stage: first}, when: {stage: second}}}
on_failure: {error: {resources.time: x2, limit: 1}}
resources: {cpus: 1, mem: 300M, time: 60s}
"""


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
    told = workplace.slurmkit("resubmit", "chain", "--state", "failed", "--state", "cancelled").stderr
    assert "resubmitted 0 runs" in told
    assert "on_failure.error.limit: 1 retries are used up" in told
    assert "1 run not submitted: needs chain/stage-first, which is failed" in told

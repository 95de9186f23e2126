"""Choosing runs."""

import pytest

from slurmkit.collection.selection import select
from slurmkit.errors import UsageError
from slurmkit.records import RunStatus
from slurmkit.states import Reason, State


def status(number: int, task: str, pv: float, state: State = State.PLANNED, reason: Reason | None = None) -> RunStatus:
    axes = {"task": task, "pv": pv}
    return RunStatus(f"{number:03d}abc", f"{task}-{pv}", axes, state, reason, "", 1, "", "c" * 40, "s" * 64, "x", None)


RUNS = [
    status(1, "sorting", 0.0, State.FAILED, Reason.OOM_HOST),
    status(2, "sorting", 0.1, State.FAILED, Reason.OOM_GPU),
    status(3, "grid", 0.0, State.COMPLETED),
    status(4, "grid", 0.1, State.FAILED, Reason.DIVERGED),
]


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ({"where": ["task=grid"]}, ["grid-0.0", "grid-0.1"]),
        ({"where": ["task=grid", "pv=0.10"]}, ["grid-0.1"]),
        ({"where": ["pv=0"]}, ["sorting-0.0", "grid-0.0"]),
        ({"where": ["task=grid,sorting", "pv=0.1"]}, ["sorting-0.1", "grid-0.1"]),
        ({"states": ["completed"]}, ["grid-0.0"]),
        ({"reasons": ["oom"]}, ["sorting-0.0", "sorting-0.1"]),
        ({"reasons": ["diverged", "oom_gpu"]}, ["sorting-0.1", "grid-0.1"]),
        ({"runs": ["003"]}, ["grid-0.0"]),
        ({"runs": ["grid-0.1"]}, ["grid-0.1"]),
        ({}, ["sorting-0.0", "sorting-0.1", "grid-0.0", "grid-0.1"]),
    ],
)
def test_conditions_of_different_kinds_hold_together(chosen, names):
    assert [run.name for run in select(RUNS, **chosen)] == names


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"where": ["tsk=grid"]}, "no axis 'tsk'. Did you mean task?"),
        ({"where": ["task=gird"]}, "no run has 'gird'. Did you mean grid?"),
        ({"where": ["task"]}, "expected axis=value"),
        ({"states": ["done"]}, "no such state"),
        ({"reasons": ["oom_hst"]}, "Did you mean oom_host?"),
        ({"runs": ["0"]}, "4 runs have ids that begin so"),
        ({"runs": ["zzz"]}, "no run has that name"),
        ({"runs": [""]}, "no run has that name"),
    ],
)
def test_what_does_not_exist_is_named_with_what_does(chosen, message):
    with pytest.raises(UsageError) as caught:
        select(RUNS, **chosen)
    assert message in str(caught.value)

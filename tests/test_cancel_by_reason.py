"""`cancel --reason`: what is tried again because it failed so."""

from workplace import Workplace

SWEEP = """\
name: sweep
command: ["{python}", train.py, "{config}", "{run_dir}"]
config: {until: /}
axes: {act: {key: act, values: [bug, diverge, complete]}}
resources: {mem: 300M}
"""


def test_the_reason_of_a_run_that_is_tried_again_is_why_it_failed_before(workplace: Workplace) -> None:
    workplace.slurmkit("collection", "create", str(workplace.define(SWEEP)), "--submit")
    workplace.wait("sweep")
    never = workplace.root / "never"
    workplace.slurmkit("resubmit", "sweep", "--failed", "--set", f"until={never}")
    assert workplace.slurmkit("cancel", "sweep", "--reason", "oom").stdout == ""
    chosen = workplace.slurmkit("cancel", "sweep", "--reason", "diverged", "--dry-run").stdout
    assert chosen.split()[-1] == "act-diverge"
    assert len(chosen.splitlines()) == 1
    workplace.slurmkit("cancel", "sweep", "--reason", "diverged")
    never.touch()
    assert workplace.wait("sweep") == {"act-bug": "failed", "act-diverge": "cancelled", "act-complete": "completed"}


def test_what_failed_and_is_not_tried_again_is_left_as_it_is(workplace: Workplace) -> None:
    workplace.slurmkit("collection", "create", str(workplace.define(SWEEP)), "--submit")
    before = workplace.wait("sweep")
    assert "cancelled 0 runs" in workplace.slurmkit("cancel", "sweep", "--reason", "error").stderr
    assert workplace.states("sweep") == before

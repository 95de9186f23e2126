"""The installed command drives a small real sweep from the definition to the table; smaller questions go to forks."""

import csv
import json
import os
import signal
import time

import pytest
from forked_commands import ForkedCommands, ForkedWorkplace
from local_queue import PATIENT, start_supervisor
from workplace import Workplace

from slurmkit.project import Project


@pytest.fixture
def forked(workplace: Workplace, forked_commands: ForkedCommands) -> ForkedWorkplace:
    return ForkedWorkplace(workplace.root, forked_commands)


MIXED = """\
name: mixed
command: ["{python}", "train.py", "{config}", "{run_dir}"]
config: {act: complete, megabytes: 400, score: 0.25, train: {batch_size: 8}}
axes:
  kind:
    values:
      fine: {act: complete}
      hungry: {act: oom}
      steep: {act: diverge}
      buggy: {act: bug}
resources: {cpus: 1, mem: 200M, time: 60s}
on_failure:
  oom: {resources.mem: x4, limit: 2}
"""


def test_four_endings_are_told_apart_and_more_memory_completes_the_hungry_run(workplace):
    """One run completes, one is killed for memory, one diverges, one has a bug."""
    path = workplace.define(MIXED)
    start_supervisor(Project.discover(workplace.root).store.queue, PATIENT)
    workplace.slurmkit("collection", "create", str(path), "--submit")
    workplace.wait("mixed")
    told = workplace.status("mixed")
    assert told["states"] == {"completed": 1, "failed": 3}
    reasons = {run["axes"]["kind"]: run["reason"] for run in told["runs"]}
    assert reasons == {"fine": None, "hungry": "oom_host", "steep": "diverged", "buggy": "error"}
    evidence = {run["axes"]["kind"]: run["evidence"] for run in told["runs"]}
    assert "200 MB" in evidence["hungry"]
    assert "step 12" in evidence["steep"]
    assert "KeyError: 'no such strategy'" in evidence["buggy"]
    shown = workplace.slurmkit("status", "mixed").stdout
    assert shown.splitlines()[1] == "1/4 complete, 3/4 failed"

    plan = workplace.slurmkit("resubmit", "mixed", "--reason", "oom", "--dry-run").stdout
    assert "attempt 2" in plan
    assert "mem 200 MB -> 800 MB" in plan
    assert workplace.status("mixed")["states"] == {"completed": 1, "failed": 3}

    workplace.slurmkit("resubmit", "mixed", "--failed")
    workplace.wait("mixed")
    assert workplace.status("mixed")["states"] == {"completed": 2, "failed": 2}
    hungry = next(run for run in workplace.status("mixed")["runs"] if run["axes"]["kind"] == "hungry")
    attempts = workplace.runs / "mixed" / hungry["name"] / "attempts"
    assert json.loads((attempts / "1" / "outcome.json").read_text())["outcome"] == "failed"
    assert json.loads((attempts / "2" / "changes.json").read_text())["resources"] == {"mem_mb": 800}

    table = workplace.root / "table.csv"
    workplace.slurmkit("aggregate", "mixed", "--metric", "score", "--output", str(table))
    with table.open() as file:
        rows = {row["kind"]: row for row in csv.DictReader(file)}
    assert float(rows["fine"]["score"]) == 0.25
    assert "hungry" in rows


NEEDY = """\
name: needy
command: ["{python}", "train.py", "{config}", "{run_dir}"]
config: {act: complete, base: "{needs.base.run_dir}/metrics.json", score: 0.5}
axes:
  task: {key: task, values: [add, sort]}
  pv: {key: pv, values: [0.0, 0.1]}
needs:
  base: {collection: base, match: [task]}
resources: {mem: 300M, time: 60s}
"""

BASE = """\
name: base
command: ["{python}", "train.py", "{config}", "{run_dir}"]
config: {act: complete, score: 0.5}
axes:
  task: {key: task, values: [add, sort]}
overrides:
  - {where: {task: sort}, set: {act: bug}}
resources: {mem: 300M, time: 60s}
"""


def test_runs_wait_for_what_they_need_and_are_armed_again_when_it_is_retried(forked):
    base = forked.define(BASE, "base.yaml")
    needy = forked.define(NEEDY, "needy.yaml")
    forked.slurmkit("collection", "create", str(base), "--submit")
    forked.slurmkit("collection", "create", str(needy), "--submit")
    forked.wait("base")
    states = forked.wait("needy")
    assert sorted(states.values()) == ["blocked", "blocked", "completed", "completed"]
    shown = forked.slurmkit("status", "needy").stdout
    assert "blocked 2: needs base/" in shown
    assert "which is failed: error" in shown

    retried = forked.slurmkit("resubmit", "base", "--failed", "--set", "act=complete")
    assert "changes the science" in retried.stderr
    assert "also submitted 2 runs of needy" in retried.stderr
    forked.wait("base")
    assert set(forked.wait("needy").values()) == {"completed"}
    table = forked.slurmkit("aggregate", "base")
    assert "retried with another config than their cell's (act=complete): task-sort" in table.stdout + table.stderr
    config = json.loads(next(forked.runs.glob("needy/*add*/config.json")).read_text())
    assert config["base"].startswith(str(forked.runs / "base"))
    assert config["base"].endswith("/metrics.json")


def test_cancel_ends_the_running_and_takes_out_the_waiting(forked):
    path = forked.define(
        """\
        name: slow
        command: ["{python}", "train.py", "{config}", "{run_dir}"]
        config: {act: sleep}
        axes: {seed: {key: seed, values: [1, 2, 3, 4]}}
        resources: {mem: 300M}
        """
    )
    forked.slurmkit("collection", "create", str(path), "--submit")
    cancelled = forked.slurmkit("cancel", "slow", "--all")
    assert "cancelled 4 runs" in cancelled.stderr
    assert set(forked.wait("slow").values()) == {"cancelled"}
    forked.slurmkit("resubmit", "slow", "--state", "cancelled", "--set", "act=complete")
    assert set(forked.wait("slow").values()) == {"completed"}


def test_run_works_in_the_foreground_with_its_output_on_the_terminal(workplace):
    path = workplace.define(MIXED)
    workplace.slurmkit("collection", "create", str(path))
    failed = workplace.slurmkit("run", "mixed", "--where", "kind=buggy", exit_code=1)
    assert "KeyError: 'no such strategy'" in failed.stderr.replace("Traceback", "")
    workplace.slurmkit("run", "mixed", "--where", "kind=fine")
    assert workplace.status("mixed")["states"] == {"completed": 1, "failed": 1, "planned": 2}


def test_a_dirty_tree_is_refused_with_its_files_and_pinned_when_allowed(forked):
    path = forked.define(MIXED)
    (forked.root / "train.py").write_text((forked.root / "train.py").read_text().replace("1.0", "2.0"))
    (forked.root / "helper.txt").write_text("new")
    refused = forked.slurmkit("collection", "create", str(path), exit_code=2)
    assert "train.py" in refused.stderr
    assert "helper.txt" in refused.stderr
    assert "--allow-dirty" in refused.stderr
    forked.slurmkit("collection", "create", str(path), "--allow-dirty")
    header = json.loads((forked.runs / "mixed/.slurmkit/collection.json").read_text())
    checkout = forked.runs / ".checkouts" / header["commit"]
    assert (checkout / "helper.txt").read_text() == "new"
    assert "2.0" in (checkout / "train.py").read_text()


def test_the_commit_runs_and_not_the_working_tree(forked):
    path = forked.define(MIXED)
    forked.slurmkit("collection", "create", str(path))
    (forked.root / "train.py").write_text("raise SystemExit('the working tree ran')")
    forked.slurmkit("submit", "mixed", "--where", "kind=fine")
    states = forked.wait("mixed")
    assert states["kind-fine"] == "completed"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status", "nosuch"], "not found"),
        (["collection", "create", "missing.yaml"], "cannot be read"),
        (["submt"], "Did you mean submit?"),
        (["resubmit"], "which runs?"),
        (["cancel", "--where", "task=x"], "no collection"),
        (["collection", "extend", "missing.yaml"], "cannot be read"),
        (["aggregate"], "no collection"),
    ],
)
def test_a_request_that_makes_no_sense_exits_2_with_what_to_do(forked, words, message):
    assert message in forked.slurmkit(*words, exit_code=2).stderr


def test_run_says_how_its_run_ended(workplace):
    path = workplace.define(MIXED)
    workplace.slurmkit("collection", "create", str(path))
    assert "kind-fine: completed" in workplace.slurmkit("run", "mixed", "--where", "kind=fine").stderr
    failed = workplace.slurmkit("run", "mixed", "--where", "kind=steep", exit_code=1)
    assert "kind-steep: failed" in failed.stderr
    assert "step 12" in failed.stderr


def test_following_a_log_ends_when_its_worker_is_killed(workplace):
    """A killed worker leaves no outcome: only asking tells that it is over."""
    path = workplace.define(
        """\
        name: slow
        command: ["{python}", "train.py", "{config}", "{run_dir}"]
        config: {act: sleep}
        resources: {mem: 300M}
        axes: {seed: {key: seed, values: [1]}}
        """
    )
    workplace.slurmkit("collection", "create", str(path), "--submit")
    started = workplace.runs / "slow/seed-1/attempts/1/started.json"
    while not started.exists():
        time.sleep(0.05)
    (started.parent / "stdout.log").write_text("what it said\n")
    follower = workplace.start("logs", "slow", "-f")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "what it said\n"  # it follows
    os.kill(json.loads(started.read_text())["pid"], signal.SIGKILL)
    _, told = follower.communicate()
    assert follower.returncode == 0
    assert "seed-1: failed" in told


def test_a_choice_that_fits_no_run_is_an_empty_answer(forked):
    path = forked.define(MIXED)
    forked.slurmkit("collection", "create", str(path))
    told = json.loads(forked.slurmkit("status", "mixed", "--state", "running", "--json").stdout)
    assert told["runs"] == []
    assert "no run matches --state failed" in forked.slurmkit("resubmit", "mixed", "--failed").stderr


def test_diff_takes_a_file_alone(forked):
    path = forked.define(MIXED)
    forked.slurmkit("collection", "create", str(path))
    forked.define(MIXED.replace("score: 0.25", "score: 0.5"))
    assert "score 0.25 -> 0.5" in forked.slurmkit("collection", "diff", str(path)).stdout

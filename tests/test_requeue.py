"""A run that needs more time than its limit goes back to the queue by itself, and its series has no gap."""

import json
from pathlib import Path

from local_queue import Queue
from workplace import Workplace

from slurmkit.project import Project

SLOW = '''\
"""Counts up to a number of steps, 40 in a start unless it is asked to stop before, and goes on from its checkpoint."""
import json, os, pathlib, signal, sys, time

asked = []
signal.signal(signal.SIGUSR2, lambda *_: asked.append(1))
config = json.loads(pathlib.Path(sys.argv[1]).read_text())
run_dir = pathlib.Path(sys.argv[2])
checkpoint = run_dir / "checkpoint"
first = step = int(checkpoint.read_text()) if checkpoint.exists() else 0
with open(run_dir / "history.jsonl", "a") as history:
    while step < config["steps"] and not asked:
        if step == first + 40:
            time.sleep(0.01)
            continue
        step += 1
        print(json.dumps({"step": step, "pid": os.getpid()}), file=history, flush=True)
checkpoint.write_text(str(step))
if step < config["steps"]:
    sys.exit(75)
(run_dir / "metrics.json").write_text(json.dumps({"steps": step}))
'''

SWEEP = """\
name: slow
command: ["{python}", slow.py, "{config}", "{run_dir}"]
config: {steps: 160}
resources: {cpus: 1, time: 1h}
on_failure:
  timeout: {requeue: 2, resources.time: x2, limit: 1}
"""


def steps(workplace: Workplace) -> list[str]:
    """Return the whole lines of the run's history; none before it has one."""
    return [line for path in workplace.runs.glob("slow/*/history.jsonl") for line in path.read_text().split("\n")[:-1]]


def test_a_time_limit_is_met_by_going_on_until_it_is_a_failure_and_a_retry_has_more(
    workplace: Workplace, tmp_path: Path
) -> None:
    """A start does 40 of 160 steps before its time is nearly over: three are not enough, and one more is."""
    (workplace.root / "slow.py").write_text(SLOW)
    workplace.slurmkit("collection", "create", str(workplace.define(SWEEP)), "--submit")
    queue = Queue(tmp_path, Project.discover(workplace.root).store.queue)
    (job,) = queue.jobs()
    for start in range(3):
        queue.wait(lambda start=start: len(steps(workplace)) == 40 * (start + 1))
        assert queue.job(job).restarts == start
        queue.let_time_pass(job, 3590)
    assert set(workplace.wait("slow").values()) == {"failed"}
    (run,) = workplace.status("slow")["runs"]
    assert (run["reason"], run["attempt"]) == ("timeout", 1)
    assert "queued again 2 times already (on_failure.timeout.requeue: 2)" in run["evidence"]
    (folder,) = [path.parent for path in workplace.runs.glob("slow/*/attempts")]
    outcomes = [json.loads(path.read_text()) for path in sorted(folder.glob("attempts/1/outcome*.json"))]
    assert [(one["restart"], one["outcome"]) for one in outcomes] == [(0, "requeue"), (1, "requeue"), (2, "failed")]
    assert "resubmit slow --reason timeout" in workplace.slurmkit("status", "slow").stdout

    told = workplace.slurmkit("resubmit", "slow", "--failed")
    assert "time 1h00m -> 2h00m" in told.stdout + told.stderr
    assert set(workplace.wait("slow").values()) == {"completed"}
    history = [json.loads(line) for line in steps(workplace)]
    assert [one["step"] for one in history] == list(range(1, 161))
    assert len({one["pid"] for one in history}) == 4
    assert json.loads((folder / "attempts/2/started.json").read_text())["attempt"] == 2

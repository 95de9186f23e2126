"""A run that needs more time than its limit goes back to the queue by itself, and its series has no gap."""

import itertools
import json

SLOW = '''\
"""Counts up to a number of steps, one a twentieth of a second, and goes on from its checkpoint."""
import json, os, pathlib, signal, sys, time

asked = []
signal.signal(signal.SIGUSR2, lambda *_: asked.append(1))
config = json.loads(pathlib.Path(sys.argv[1]).read_text())
run_dir = pathlib.Path(sys.argv[2])
checkpoint = run_dir / "checkpoint"
step = int(checkpoint.read_text()) if checkpoint.exists() else 0
with open(run_dir / "history.jsonl", "a") as history:
    while step < config["steps"] and not asked:
        time.sleep(0.05)
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
resources: {cpus: 1, time: 3s}
on_failure:
  timeout: {requeue: 2, resources.time: x2, limit: 1}
"""


def test_a_time_limit_is_met_by_going_on_until_it_is_a_failure_and_a_retry_has_more(workplace):
    """8 s of steps: three starts of 2.25 s up to the warning are not enough, and one more of 4.5 s is."""
    (workplace.root / "slow.py").write_text(SLOW)
    workplace.slurmkit("collection", "create", str(workplace.define(SWEEP)), "--submit")
    assert set(workplace.wait("slow").values()) == {"failed"}
    (run,) = workplace.status("slow")["runs"]
    assert (run["reason"], run["attempt"]) == ("timeout", 1)
    assert "queued again 2 times already (on_failure.timeout.requeue: 2)" in run["evidence"]
    (folder,) = [path.parent for path in workplace.runs.glob("slow/*/attempts")]
    outcomes = [json.loads(path.read_text()) for path in sorted(folder.glob("attempts/1/outcome*.json"))]
    assert [(one["restart"], one["outcome"]) for one in outcomes] == [(0, "requeue"), (1, "requeue"), (2, "failed")]
    assert "resubmit slow --reason timeout" in workplace.slurmkit("status", "slow").stdout

    told = workplace.slurmkit("resubmit", "slow", "--failed")
    assert "time 3s -> 6s" in told.stdout + told.stderr
    assert set(workplace.wait("slow").values()) == {"completed"}
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [one["step"] for one in history] == list(range(1, 161))
    starts = [len(list(steps)) for _, steps in itertools.groupby(history, key=lambda one: one["pid"])]
    assert len(starts) >= 4
    assert json.loads((folder / "attempts/2/started.json").read_text())["attempt"] == 2

"""Runs on a real Slurm, through the installed command: submitted once, followed by evidence, tried again."""

import contextlib
import json
import stat
import time
from collections import Counter
from pathlib import Path

import pytest
from slurm_cluster import Cluster
from slurm_project import OnCluster, counted, create, place
from workplace import TRAINER

SWEEP = """\
name: sweep
command: ["{python}", trainer.py, "{config}", "{run_dir}"]
config: {seed: 0, act: complete}
axes:
  seed: [0, 1, 2, 3, 4, 5, 6, 7]
resources: {cpus: 1, mem: 100M, time: 5m}
"""


@pytest.fixture
def nodes(tmp_path: Path, nodes_cluster: Cluster) -> OnCluster:
    return place(tmp_path, nodes_cluster)


@pytest.fixture
def memory(tmp_path: Path, memory_cluster: Cluster) -> OnCluster:
    return place(tmp_path, memory_cluster)


def test_stages_and_the_runs_whose_need_fails(nodes: OnCluster) -> None:
    text = SWEEP.replace("axes:", "axes:\n  stage: {key: stage, values: [base, tune]}")
    text = text.replace("[0, 1, 2, 3, 4, 5, 6, 7]", "[0, 1, 2]")
    text += "overrides:\n  - {where: {stage: base, seed: 1}, set: {act: bug}}\n"
    create(nodes, text + "needs: {start: {where: {stage: base}, when: {stage: tune}}}\n")
    nodes.submit("sweep")
    assert len(nodes.jobs()) == 2, "one array a stage"
    states = nodes.wait("sweep")
    assert states["stage-base_seed-1"] == "failed"
    assert states["stage-tune_seed-1"] == "blocked"
    assert Counter(states.values()) == {"completed": 4, "failed": 1, "blocked": 1}
    nodes.slurmkit("resubmit", "sweep", "--failed", "--set", "act=complete", "--backend", "slurm")
    assert set(nodes.wait("sweep").values()) == {"completed"}, "the blocked one goes with the one that it needs"


def test_canaries_go_first_and_what_waits_for_them_is_cancelled_with_the_cause(nodes: OnCluster) -> None:
    create(nodes, SWEEP + "overrides:\n  - {where: {seed: 0}, set: {act: bug}}\n")
    nodes.submit("sweep", "--canary", "2")
    states = nodes.wait("sweep")
    assert Counter(states.values()) == {"failed": 1, "completed": 1, "cancelled": 6}
    why = next(run["evidence"] for run in nodes.runs_of("sweep") if run["state"] == "cancelled")
    assert "seed-0, which went first on trial, failed" in why
    assert "KeyError" in why
    again = ["--state", "cancelled", "--failed", "--set", "act=complete", "--backend", "slurm"]
    nodes.slurmkit("resubmit", "sweep", *again)
    assert set(nodes.wait("sweep").values()) == {"completed"}


def test_packed_runs_end_each_for_itself(nodes: OnCluster) -> None:
    text = SWEEP.replace("mem: 100M", "mem: 100M, pack: 4")
    create(nodes, text + "overrides:\n  - {where: {seed: 2}, set: {act: bug}}\n")
    nodes.submit("sweep")
    assert sum(nodes.jobs().values()) == 2, "eight runs in two allocations"
    states = nodes.wait("sweep")
    assert Counter(states.values()) == {"completed": 7, "failed": 1}
    assert states["seed-2"] == "failed"
    assert {run["job_id"].partition("+")[2] for run in nodes.runs_of("sweep")} == {"0", "1", "2", "3"}


def test_what_the_qos_does_not_let_in_stays_planned_and_goes_later(nodes: OnCluster) -> None:
    create(nodes, SWEEP.replace("time: 5m", "time: 5m, qos: few"))
    told = nodes.submit("sweep").stderr
    assert "3 runs stay planned: QOS few" in told
    nodes.wait("sweep")
    nodes.submit("sweep")
    assert set(nodes.wait("sweep").values()) == {"completed"}
    again = nodes.slurmkit("resubmit", "sweep", "--state", "completed", "--force", "--backend", "slurm").stderr
    assert "3 runs are not tried again now: QOS few" in again
    assert "Later: the same slurmkit resubmit sweep" in again
    assert Counter(nodes.wait("sweep").values()) == {"completed": 8}


def test_a_dry_run_prints_the_scripts_that_a_submission_hands_over(nodes: OnCluster) -> None:
    create(nodes, SWEEP)
    printed = nodes.submit("sweep", "--dry-run").stdout
    assert not nodes.jobs()
    assert set(nodes.states("sweep").values()) == {"planned"}
    nodes.submit("sweep")
    (script,) = (nodes.runs / "sweep/.slurmkit/jobs").glob("*.sh")
    shown = printed.partition("#!")[2].splitlines()
    differing = {a for a, b in zip(shown, script.read_text().removeprefix("#!").splitlines(), strict=False) if a != b}
    assert all("sweep-" in line for line in differing), f"only the token may differ: {differing}"


def test_nothing_secret_reaches_slurm_and_the_runs_have_it_all_the_same(nodes: OnCluster) -> None:
    nodes.extra["WANDB_API_KEY"] = "s3cret-value"
    trainer = nodes.root / "trainer.py"
    trainer.write_text(TRAINER + "assert os.environ['WANDB_API_KEY'] == 's3cret-value'\n")
    create(nodes, SWEEP)
    nodes.submit("sweep")
    assert set(nodes.wait("sweep").values()) == {"completed"}
    jobs = nodes.runs / "sweep/.slurmkit/jobs"
    holding = {path.suffix for path in jobs.iterdir() if b"s3cret" in path.read_bytes()}
    assert holding == {".env"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in jobs.glob("*.env"))
    nodes.cluster.stop_controller()  # it has written all that it keeps
    state = nodes.cluster.folder / "state"
    kept = [path for path in state.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    assert not kept, "Slurm keeps no copy"
    writable = [path for path in nodes.runs.rglob("*") if path.lstat().st_mode & stat.S_IWOTH and not path.is_symlink()]
    assert not writable


def test_memory_killed_runs_are_out_of_memory_and_the_ladder_completes_them(memory: OnCluster) -> None:
    text = SWEEP.replace("act: complete", "act: complete, megabytes: 150").replace("mem: 100M", "mem: 80M")
    text += "overrides:\n  - {where: {seed: 3}, set: {act: oom}}\n  - {where: {seed: 4}, set: {act: bug}}\n"
    create(memory, text + "on_failure: {oom: {resources.mem: x4, limit: 2}}\n")
    memory.submit("sweep")
    states = memory.wait("sweep")
    assert Counter(states.values()) == {"completed": 6, "failed": 2}
    reasons = {run["name"]: (run["reason"], run["evidence"]) for run in memory.runs_of("sweep") if run["reason"]}
    assert reasons["seed-3"][0] == "oom_host", reasons
    assert "OUT_OF_MEMORY" in reasons["seed-3"][1]
    assert reasons["seed-4"][0] == "error"
    memory.slurmkit("resubmit", "sweep", "--reason", "oom", "--backend", "slurm")
    assert Counter(memory.wait("sweep").values()) == {"completed": 7, "failed": 1}


def test_cancelling_ends_the_jobs_by_one_scancel(nodes: OnCluster, tmp_path: Path) -> None:
    calls = counted(nodes, tmp_path, "scancel")
    create(nodes, SWEEP.replace("act: complete", "act: sleep, seconds: 3600"))
    nodes.submit("sweep")
    nodes.slurmkit("cancel", "sweep", "--all")
    assert set(nodes.wait("sweep").values()) == {"cancelled"}
    assert len(calls.read_text().splitlines()) == 1


def test_sbatch_that_takes_the_job_but_reports_a_timeout_makes_one_job(nodes: OnCluster, tmp_path: Path) -> None:
    counted(nodes, tmp_path, "sbatch")
    wrapper = tmp_path / "bin/sbatch"
    lost = (
        ">/dev/null\necho 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2\n"
    )
    wrapper.write_text(wrapper.read_text().replace("exec ", "").rstrip("\n") + f" {lost}exit 1\n")
    create(nodes, SWEEP)
    nodes.submit("sweep")
    assert set(nodes.wait("sweep").values()) == {"completed"}
    assert list(nodes.jobs().values()) == [8]
    assert set(nodes.starts("sweep").values()) == {1}


def test_eight_shells_submit_each_run_once_and_try_it_again_once(nodes: OnCluster) -> None:
    create(nodes, SWEEP + "overrides:\n  - {where: {seed: [0, 1, 2]}, set: {act: bug}}\n")
    for words in (["submit", "sweep"], ["resubmit", "sweep", "--failed", "--set", "act=complete"]):
        shells = [nodes.start(*words, "--backend", "slurm") for _ in range(8)]
        for shell in shells:
            _, said = shell.communicate()
            assert "Traceback" not in said
        nodes.wait("sweep")
    assert set(nodes.states("sweep").values()) == {"completed"}
    assert sum(nodes.jobs().values()) == 11
    assert set(nodes.starts("sweep").values()) == {1}


def test_a_status_costs_two_calls_at_most_and_five_watchers_share_one_poll(nodes: OnCluster, tmp_path: Path) -> None:
    """The one that asks is kept waiting until all have come."""
    create(nodes, SWEEP)
    nodes.submit("sweep")
    nodes.cluster.wait(lambda: not nodes.cluster.run("squeue", "--noheader").strip(), "an empty queue")
    go = tmp_path / "go"
    calls = [counted(nodes, tmp_path, "squeue", then=f"until [ -e {go} ]; do sleep 0.1; done; exec")]
    calls += [counted(nodes, tmp_path, "sacct")]
    shells = [nodes.start("status", "sweep", "--json") for _ in range(5)]
    lock = nodes.runs / ".slurm" / "poll.lock"
    nodes.cluster.wait(lambda: all(has_open(shell.pid, lock) for shell in shells), "one asks, and four wait for it")
    go.touch()
    answers = [json.loads(shell.communicate()[0]) for shell in shells]
    assert all(answer["states"] == {"completed": 8} for answer in answers)
    assert [len(notes.read_text().splitlines()) for notes in calls] == [1, 1]


def has_open(pid: int, path: Path) -> bool:
    """Say whether a process has a file open, such as a lock that it waits for."""
    opened: list[Path] = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            opened.append(descriptor.readlink())
    return path in opened


def test_a_controller_that_is_down_is_said_with_the_time_of_what_is_shown(nodes: OnCluster) -> None:
    create(nodes, SWEEP.replace("act: complete", "act: sleep, seconds: 3600").replace("time: 5m", "time: 2h"))
    nodes.submit("sweep")
    nodes.cluster.wait(lambda: set(nodes.states("sweep").values()) == {"running"}, "running runs")
    nodes.cluster.stop_controller()
    time.sleep(2.1)  # until the last answer is not used again
    told = nodes.slurmkit("status", "sweep", exit_code=3)
    assert "8/8 running" in told.stdout
    assert "Slurm cannot be asked" in told.stderr
    assert "Shown is what was seen at" in told.stderr
    refused = nodes.slurmkit("submit", "sweep", "--backend", "slurm", exit_code=3)
    assert "Slurm cannot be asked" in refused.stderr
    nodes.cluster.start_controller()
    nodes.cluster.wait(lambda: nodes.slurmkit("status", "sweep", exit_code=None).returncode == 0, "the controller")
    assert set(nodes.states("sweep").values()) == {"running"}

"""What becomes of jobs on a real cluster is what the watch reports."""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from slurm_cluster import Cluster

from slurmkit import files
from slurmkit.schedulers import JobReport, OutOfReachError
from slurmkit.schedulers.slurm import watch
from slurmkit.schedulers.slurm.watch import Watch
from slurmkit.states import JobState

PYTHON = f"{sys.executable} -S -c"
TAKE_300_MB = f"{PYTHON} 'x = bytearray(300 << 20); x[::4096] = x[::4096]; import time; time.sleep(2)'"


class Shell:
    """A person's shell on a cluster: submits jobs and looks at them."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.watch = Watch(folder)
        self.names: dict[str, str] = {}

    def submit(self, name: str, script: str, *options: str) -> str:
        job = self.cluster.submit(script, "--job-name", name, *options)
        self.names[job] = name
        return job

    def look(self, *jobs: str) -> dict[str, JobReport]:
        """Return a fresh report of jobs; a task goes by the name of its array."""
        self.watch.forget()
        return self.watch.reports({job: self.names[job.partition("_")[0].partition("+")[0]] for job in jobs})

    def wait(self, job: str, holds: Callable[[JobReport], object]) -> JobReport:
        """Look until a report is as wanted, and return it."""
        last: list[JobReport | None] = [None]

        def seen() -> object:
            last[0] = self.look(job).get(job)
            return last[0] is not None and holds(last[0])

        try:
            self.cluster.wait(seen, f"job {job}")
        except RuntimeError as error:
            error.add_note(f"last report: {last[0]}")
            raise
        assert last[0] is not None
        return last[0]

    def wait_for(self, job: str, state: JobState) -> JobReport:
        return self.wait(job, lambda report: report.state is state)

    def wait_end(self, job: str) -> JobReport:
        """Wait for an end; unless all was well, for what accounting tells of it, however long that takes."""
        return self.wait(job, lambda report: report.state is JobState.COMPLETED or told(report))


def told(report: JobReport) -> bool:
    """Say whether a job has ended, and not only by squeue's word, which is taken where accounting lags for long."""
    return report.state.ended and "not in accounting" not in report.evidence


@pytest.fixture
def nodes(nodes_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return shell(nodes_cluster, tmp_path, monkeypatch)


@pytest.fixture
def memory(memory_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return shell(memory_cluster, tmp_path, monkeypatch)


@pytest.fixture
def bare(bare_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return shell(bare_cluster, tmp_path, monkeypatch)


def shell(cluster: Cluster, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SQUEUE_FORMAT2", "JobID")  # the person's own taste, which must not matter
    monkeypatch.setenv("SACCT_FORMAT", "jobid")
    return Shell(cluster, folder / "watch")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Return a function that lists the calls of squeue and sacct so far, in order."""
    programs, log = tmp_path / "programs", tmp_path / "calls.log"
    programs.mkdir()
    log.touch()
    for name in ("squeue", "sacct"):
        wrapper = programs / name
        wrapper.write_text(f'#!/bin/sh\necho {name} >> {log}\nexec {shutil.which(name)} "$@"\n')
        wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return lambda: log.read_text().split()


def test_ends_by_exit_code_and_signal(nodes: Shell):
    fine = nodes.submit("fine", "true")
    bug = nodes.submit("bug", "exit 3")
    killed = nodes.submit("killed", "kill -9 $$")
    assert nodes.wait_end(fine).state is JobState.COMPLETED
    report = nodes.wait_end(bug)
    assert (report.state, report.exit_code, report.signal) == (JobState.FAILED, 3, None)
    report = nodes.wait_end(killed)
    assert (report.state, report.exit_code, report.signal) == (JobState.FAILED, None, 9)
    assert "SIGKILL" in report.evidence


def test_requeued_job_is_pending_again_and_counts_its_restarts(nodes: Shell):
    job = nodes.submit("again", "sleep 600", "--requeue")
    assert nodes.wait_for(job, JobState.RUNNING).restarts == 0
    with nodes.cluster.nothing_starts():
        nodes.cluster.run("scontrol", "requeue", job)
        report = nodes.wait_for(job, JobState.PENDING)
    assert report.restarts == 1
    assert "queued again 1x" in report.why_pending


def test_preempted_job_goes_back_to_the_queue_or_ends_as_preempted(nodes: Shell):
    alone = ("--exclusive", "--nodes=1", "--mem=0")
    back = nodes.submit("back", "sleep 600", "--requeue", "--nodelist", nodes.cluster.nodes[0], *alone)
    nodes.wait_for(back, JobState.RUNNING)
    nodes.submit("first", "sleep 600", "--partition=urgent", "--nodelist", nodes.cluster.nodes[0], *alone)
    report = nodes.wait_for(back, JobState.PENDING)
    assert report.restarts == 1
    gone = nodes.submit("gone", "sleep 600", "--no-requeue", "--nodelist", nodes.cluster.nodes[1], *alone)
    nodes.wait_for(gone, JobState.RUNNING)
    nodes.submit("second", "sleep 600", "--partition=urgent", "--nodelist", nodes.cluster.nodes[1], *alone)
    assert nodes.wait_end(gone).state is JobState.PREEMPTED


def test_job_on_a_dead_node_fails_or_goes_back_to_the_queue(nodes: Shell):
    node = nodes.cluster.nodes[3]
    ended = nodes.submit("ended", "sleep 600", "--no-requeue", "--nodelist", node)
    back = nodes.submit("back", "sleep 600", "--requeue", "--nodelist", node)
    for job in (ended, back):
        nodes.wait_for(job, JobState.RUNNING)
    nodes.cluster.kill_node(node)
    report = nodes.wait_end(ended)
    assert report.state is JobState.NODE_FAIL
    assert f"on {node}" in report.evidence
    assert nodes.wait_for(back, JobState.PENDING).restarts == 1


def test_pending_jobs_say_why(nodes: Shell):
    held = nodes.submit("held", "true", "--hold")
    later = nodes.submit("later", "true", "--begin=now+1hour")
    long = nodes.submit("long", "true", "--partition=short", "--time=10")
    for job, word in [(held, "JobHeldUser: held by its owner"), (later, "BeginTime"), (long, "Partition")]:
        report = nodes.wait(job, lambda report, word=word: report.why_pending.startswith(word))
        assert report.state is JobState.PENDING


def test_cancelled_jobs_name_who_cancelled_them(nodes: Shell):
    waiting = nodes.submit("waiting", "true", "--hold")
    running = nodes.submit("running", "sleep 600")
    nodes.wait_for(running, JobState.RUNNING)
    nodes.cluster.run("scancel", waiting, running)
    for job in (waiting, running):
        report = nodes.wait_end(job)
        assert report.state is JobState.CANCELLED
        assert "CANCELLED by root" in report.evidence
    assert "before it started" in nodes.look(waiting)[waiting].evidence


def test_tasks_that_wait_in_a_fold_are_each_found_also_when_cancelled(nodes: Shell):
    array = nodes.submit("folded", "sleep 600", "--array=3-9,12%2")
    tasks = [f"{array}_{number}" for number in (3, 4, 5, 6, 7, 8, 9, 12)]
    nodes.wait_for(tasks[1], JobState.RUNNING)
    reports = nodes.look(*tasks, f"{array}_10")
    assert list(reports) == tasks
    assert [report.state for report in reports.values()] == [JobState.RUNNING] * 2 + [JobState.PENDING] * 6
    nodes.cluster.run("scancel", array)
    for task in (tasks[0], tasks[7]):
        assert nodes.wait_end(task).state is JobState.CANCELLED


def test_dependency_that_cannot_be_satisfied_is_told_for_jobs_and_for_single_tasks(nodes: Shell):
    first = nodes.submit("first", '[ "$SLURM_ARRAY_TASK_ID" != 1 ]', "--array=0-2", "--hold")
    after = ("--kill-on-invalid-dep=yes",)
    job = nodes.submit("job", "true", f"--dependency=afterok:{first}", *after)
    array = nodes.submit("array", "true", "--array=0-2", f"--dependency=aftercorr:{first}", *after)
    stuck = nodes.submit("stuck", "true", f"--dependency=afterok:{first}", "--kill-on-invalid-dep=no")
    nodes.cluster.run("scontrol", "release", first)
    for lost in (job, f"{array}_1"):
        report = nodes.wait_end(lost)
        assert report.state is JobState.DEPENDENCY_FAILED
        assert "before it started" in report.evidence
    for task in (f"{array}_0", f"{array}_2"):
        assert nodes.wait_end(task).state is JobState.COMPLETED
    nodes.wait(stuck, lambda report: report.why_pending.startswith("DependencyNeverSatisfied: a job that it waits for"))


def test_same_id_with_another_name_is_not_ours(nodes: Shell):
    job = nodes.submit("ours", "sleep 600")
    nodes.wait_for(job, JobState.RUNNING)
    nodes.watch.forget()
    assert nodes.watch.reports({job: "of the cluster before its reset"}) == {}


def test_packed_runs_share_the_report_of_their_allocation(nodes: Shell):
    array = nodes.submit("packed", "sleep 600", "--array=0")
    nodes.wait_for(f"{array}_0", JobState.RUNNING)
    reports = nodes.look(f"{array}_0+0", f"{array}_0+3")
    assert [(report.state, report.shared) for report in reports.values()] == [(JobState.RUNNING, True)] * 2


def test_out_of_memory_is_seen_with_srun_and_without(memory: Shell):
    plain = memory.submit("plain", f"exec {TAKE_300_MB}", "--mem=50M")
    in_srun = memory.submit("in-srun", f"srun {TAKE_300_MB}", "--mem=50M")
    node = memory.cluster.nodes[0]
    for job, step in [(plain, "batch"), (in_srun, "0")]:
        report = memory.wait_end(job)
        assert report.state is JobState.OUT_OF_MEMORY
        assert report.evidence == f"Slurm: OUT_OF_MEMORY, step {step} exit 0:125, limit 50 MB, on {node}"


def test_without_accounting_squeue_tells_ends_and_the_evidence_says_so(bare: Shell):
    fine = bare.submit("fine", "true")
    bug = bare.submit("bug", "exit 3")
    waiting = bare.submit("waiting", "true", "--hold")
    bare.cluster.run("scancel", waiting)
    for job, state in [(fine, JobState.COMPLETED), (bug, JobState.FAILED), (waiting, JobState.CANCELLED)]:
        report = bare.wait_end(job)
        assert report.state is state
        assert "by squeue alone (Slurm accounting storage is disabled)" in report.evidence


def test_while_accounting_is_down_squeue_is_believed(nodes: Shell):
    nodes.cluster.stop_accounting()
    bug = nodes.submit("bug", "exit 3")
    report = nodes.wait_end(bug)
    assert (report.state, report.exit_code) == (JobState.FAILED, 3)
    assert "Connection refused" in report.evidence


def test_unreachable_controller_is_an_error_with_what_was_seen_and_when(
    bare: Shell, calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
):
    job = bare.submit("seen", "sleep 600")
    bare.wait_for(job, JobState.RUNNING)
    begin = time.time()
    before = bare.look(job)
    end = time.time()
    bare.cluster.stop_controller()
    with pytest.raises(OutOfReachError, match=r"^Slurm cannot be asked: .*controller.*seen at .* ago\)\.$") as caught:
        bare.look(job)
    assert caught.value.last == before
    assert caught.value.since is not None
    assert begin <= caught.value.since.timestamp() <= end
    asked = len(calls())
    monkeypatch.setattr(watch, "POLL_INTERVAL_S", 3600.0)
    with pytest.raises(OutOfReachError):  # the next shell need not find out for itself
        Watch(bare.watch.folder).reports({job: "seen"})
    assert len(calls()) == asked
    bare.cluster.start_controller()
    assert bare.wait_for(job, JobState.RUNNING).state is JobState.RUNNING


def test_two_thousand_tasks_cost_two_calls_a_poll(nodes: Shell, calls: Callable[[], list[str]]):
    arrays = [nodes.submit("many", "true", "--array=0-999", "--hold") for _ in range(2)]
    tasks = [f"{array}_{number}" for array in arrays for number in range(1000)]
    assert {report.state for report in nodes.look(*tasks).values()} == {JobState.PENDING}
    assert calls() == ["squeue"]
    nodes.cluster.run("scancel", *arrays)
    nodes.cluster.wait(lambda: not nodes.cluster.run("squeue", "--noheader"), "all are cancelled")
    before = len(calls())
    reports = nodes.look(*tasks)
    assert len(reports) == 2000
    assert calls()[before:] == ["squeue", "sacct"]


def test_shells_that_wait_for_one_poll_share_it_however_long_it_takes(
    nodes: Shell, calls: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Also where its answer is old when a shell comes to read it: here each is from the first moment."""
    job = nodes.submit("watched", "sleep 600")
    nodes.wait_for(job, JobState.RUNNING)
    squeue, go = tmp_path / "programs" / "squeue", tmp_path / "go"
    squeue.write_text(squeue.read_text().replace("exec", f"until [ -e {go} ]; do sleep 0.1; done\nexec"))
    monkeypatch.setattr(watch, "POLL_INTERVAL_S", 0.0)
    nodes.watch.forget()
    before = len(calls())
    with ThreadPoolExecutor(5) as shells:
        looks = [shells.submit(Watch(nodes.watch.folder).reports, {job: "watched"}) for _ in range(5)]
        nodes.cluster.wait(lambda: waiting_at(nodes.watch.folder / "poll.lock") == 5, "one asks, and four wait for it")
        go.touch()
    assert [look.result()[job].state for look in looks] == [JobState.RUNNING] * 5
    assert calls()[before:] == ["squeue"]


def waiting_at(lock: Path) -> int:
    """Return how often this process has a file open."""
    opened: list[Path] = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            opened.append(descriptor.readlink())
    return opened.count(lock)


def test_poll_covers_what_another_shell_asked_just_before(
    nodes: Shell, calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
):
    jobs = {nodes.submit(name, "sleep 600"): name for name in ("one", "two")}
    for job in jobs:
        nodes.wait_for(job, JobState.RUNNING)
    shells = [Watch(nodes.watch.folder), Watch(nodes.watch.folder)]
    before = len(calls())
    monkeypatch.setattr(watch, "POLL_INTERVAL_S", 3600.0)
    monkeypatch.setattr(watch, "_ASKED_RECENTLY_S", 3600.0)
    for _ in range(2):
        for shell, (job, name) in zip(shells, jobs.items(), strict=True):
            assert shell.reports({job: name})[job].state is JobState.RUNNING
    assert len(calls()) - before <= 1


def test_answer_of_two_seconds_ago_is_not_used_again(nodes: Shell, calls: Callable[[], list[str]]):
    job = nodes.submit("watched", "sleep 600")
    nodes.wait_for(job, JobState.RUNNING)
    kept = files.read_json(nodes.watch.folder / "poll.json")
    files.write_json(nodes.watch.folder / "poll.json", {**kept, "answered_at": time.time() - watch.POLL_INTERVAL_S})
    before = len(calls())
    assert Watch(nodes.watch.folder).reports({job: "watched"})[job].state is JobState.RUNNING
    assert calls()[before:] == ["squeue"]


def test_accounting_is_not_asked_again_for_what_another_shell_saw_end(nodes: Shell, calls: Callable[[], list[str]]):
    ended, running = nodes.submit("brief", "true"), nodes.submit("long", "sleep 600")
    nodes.wait_end(ended)
    before = len(calls())
    assert nodes.look(running)[running].state in {JobState.PENDING, JobState.RUNNING}
    assert calls()[before:] == ["squeue"]


def test_controller_out_of_reach_leaves_what_was_last_seen_of_jobs_that_nobody_asked_for(bare: Shell):
    ended = bare.submit("brief", "exit 3")
    bare.wait_end(ended)
    running = bare.submit("long", "sleep 600")
    before = bare.wait_for(running, JobState.RUNNING)
    other = bare.submit("other", "sleep 600")
    bare.cluster.wait(lambda: bare.cluster.states(other) == ["RUNNING"], "the other runs")
    seen = bare.look(running)
    assert seen == {running: before}
    bare.cluster.stop_controller()
    with pytest.raises(OutOfReachError) as caught:
        bare.look(other, ended)
    assert caught.value.last[other].state is JobState.RUNNING
    assert ended not in caught.value.last or not caught.value.last[ended].state.ended, "accounting may know more of it"
    bare.cluster.start_controller()


@contextlib.contextmanager
def blocked(folder: Path) -> Iterator[None]:
    """Put a file where the folder should be: nothing can be kept there, even by root."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_text("not a folder")
    yield
    folder.unlink()


def test_poll_answers_where_nothing_can_be_kept(nodes: Shell):
    job = nodes.submit("seen", "sleep 600")
    with blocked(nodes.watch.folder):
        assert nodes.wait_for(job, JobState.RUNNING).evidence.startswith("Slurm: RUNNING, on ")

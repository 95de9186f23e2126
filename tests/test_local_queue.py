"""The bounded local queue, with real processes."""

import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import local_queue as jobs
import pytest
import submitit
from local_queue import PATIENT, Queue
from submitit.core.utils import DelayedSubmission, FailedJobError

from slurmkit.errors import SchedulerError
from slurmkit.files import read_lines
from slurmkit.schedulers.local import processes, watch
from slurmkit.schedulers.local.executor import Ask, LocalQueueExecutor, LocalQueueJob
from slurmkit.schedulers.local.order import MAX_PASSES
from slurmkit.states import JobState


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    monkeypatch.setenv("SLURMKIT_LOCAL_CPUS", "2")
    monkeypatch.setenv("SLURMKIT_LOCAL_MEM", "4G")
    monkeypatch.setenv("SLURMKIT_LOCAL_GPUS", "")
    queue = Queue(tmp_path)
    yield queue
    queue.close()


def submit(queue: Queue, asks: list[Ask], function, *arguments, token: str | None = None) -> list[str]:
    functions = [DelayedSubmission(function, *arguments) for _ in asks]
    return [job.job_id for job in queue.executor.submit_batch(functions, asks, token)]


def test_submitit_users_get_results_states_errors_and_arrays(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURMKIT_LOCAL_QUEUE", str(queue.path))
    executor = submitit.AutoExecutor(queue.folder, cluster="slurmkit_local")
    executor.update_parameters(timeout_min=3, mem_gb=1, cpus_per_task=2, gpus_per_node=0, nodes=1, tasks_per_node=1)
    one = executor.submit(divmod, 7, 2)
    assert one.result() == (3, 1)
    assert one.state == "COMPLETED"
    assert [job.result() for job in executor.map_array(pow, [2, 3], [5, 2])] == [32, 9]
    with executor.batch():
        batch = [executor.submit(abs, -n) for n in range(3)]
    assert [job.result() for job in batch] == [0, 1, 2]
    wrong = executor.submit(divmod, 1, 0)
    with pytest.raises(FailedJobError, match="ZeroDivisionError"):
        wrong.result()
    assert wrong.state == "FAILED"
    assert LocalQueueJob(queue.folder, one.job_id).state == "COMPLETED"  # as another process would ask


def events_of(queue: Queue, event: str) -> list[str]:
    """Return the jobs of which the journal tells an event, in its order."""
    records, _ = read_lines(queue.path / "journal.jsonl")
    return [record["job"] for record in records if record["event"] == event]


def test_jobs_start_in_order_and_never_more_than_there_are_slots(queue: Queue, tmp_path: Path) -> None:
    """The first of eight stays while the others, which wait for it to begin, take turns beside it."""
    log, go = tmp_path / "log", tmp_path / "go"
    first = DelayedSubmission(jobs.hold, str(log), "0", str(go))
    others = [DelayedSubmission(jobs.hold, str(log), f"{n}", str(log)) for n in range(1, 8)]
    ids = [job.job_id for job in queue.executor.submit_batch([first, *others], [Ask()] * 8)]
    queue.wait(lambda: len(events_of(queue, "ended")) == 7)
    go.write_text("go\n")
    queue.wait_ended()
    assert events_of(queue, "started") == ids
    running, most = set(), 0
    for line in log.read_text().splitlines():
        number, what = line.split()
        running ^= {number}
        assert (what == "began") == (number in running)
        most = max(most, len(running))
    assert most == 2
    records, _ = read_lines(queue.path / "journal.jsonl")
    steps = [{"started": 1, "ended": -1}.get(record["event"], 0) for record in records]
    assert max(itertools.accumulate(steps)) == 2


def test_a_large_job_lets_small_ones_pass_a_bounded_number_of_times(queue: Queue, tmp_path: Path) -> None:
    """It needs the slot of the first job too, which ends when as many as may pass have passed."""
    go = tmp_path / "go"
    functions = [DelayedSubmission(jobs.hold, str(tmp_path / "log"), "first", str(go)), *[DelayedSubmission(int)] * 24]
    ids = [job.job_id for job in queue.executor.submit_batch(functions, [Ask(), Ask(cpus=2), *[Ask()] * 23])]
    queue.wait(lambda: len(events_of(queue, "ended")) >= MAX_PASSES)
    go.write_text("go\n")
    queue.wait_ended()
    passing = ids[2 : 2 + MAX_PASSES]
    assert events_of(queue, "started") == [ids[0], *passing, ids[1], *ids[2 + MAX_PASSES :]]


def test_a_job_starts_after_those_it_needs_completed_and_never_if_one_failed(queue: Queue, tmp_path: Path) -> None:
    log, go = str(tmp_path / "log"), tmp_path / "go"
    functions = [DelayedSubmission(jobs.note, log, "second"), DelayedSubmission(jobs.hold, log, "first", str(go))]
    functions += [DelayedSubmission(sys.exit, 3), DelayedSubmission(jobs.note, log, "never")]
    functions += [DelayedSubmission(jobs.note, log, "never")]
    asks = [Ask(after_index=(1,)), Ask(), Ask(), Ask(after_index=(1, 2)), Ask(after_index=(3,))]
    batch = [job.job_id for job in queue.executor.submit_batch(functions, asks)]
    queue.wait(lambda: queue.job(batch[2]).state.ended)
    assert queue.job(batch[0]).state is JobState.PENDING  # there is a slot for it
    go.write_text("go\n")
    ended = queue.wait_ended()
    assert Path(log).read_text().splitlines() == ["first began", "first ends", "second"]
    assert [ended[job_id].state for job_id in batch[2:]] == [
        JobState.FAILED,
        JobState.DEPENDENCY_FAILED,
        JobState.DEPENDENCY_FAILED,
    ]
    assert ended[batch[2]].exit_code == 3
    assert batch[2] in ended[batch[3]].evidence
    assert batch[3] in ended[batch[4]].evidence
    later = submit(queue, [Ask(after=(batch[1],)), Ask(after=(batch[2],)), Ask(after=("nobody_0",))], int)
    ended = queue.wait_ended()
    states = [ended[job_id].state for job_id in later]
    assert states == [JobState.COMPLETED, JobState.DEPENDENCY_FAILED, JobState.DEPENDENCY_FAILED]


def test_a_job_that_can_never_run_is_refused_with_what_the_machine_has(queue: Queue) -> None:
    for ask, what in [(Ask(cpus=3), "gives 2"), (Ask(mem_mb=5000), "gives 4 GB"), (Ask(gpus=1), "gives 0")]:
        with pytest.raises(SchedulerError, match=what):
            submit(queue, [Ask(), ask], int)
    assert list(queue.folder.iterdir()) == []
    assert not queue.path.exists()


def test_a_job_sees_what_a_fresh_interpreter_would_see(queue: Queue, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SLURMKIT_LOCAL_GPUS", "4,7")
    monkeypatch.setenv("CANARY", "né\udcff")
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o027)
    try:
        queue.executor.update_parameters(cpus_per_task=2, gpus_per_node=1)
        executed = LocalQueueExecutor(queue.folder, python=f"{sys.executable} -X dev", queue=queue.path)
        executed.update_parameters(cpus_per_task=1, gpus_per_node=1)
        forked_view = queue.executor.submit(jobs.environment).result()
        executed_view = executed.submit(jobs.environment).result()
    finally:
        os.umask(before)
    assert forked_view["variables"]["OMP_NUM_THREADS"] == forked_view["variables"]["MKL_NUM_THREADS"] == "2"
    assert forked_view["variables"]["OMP_WAIT_POLICY"] == "PASSIVE"
    assert forked_view["variables"]["CUDA_VISIBLE_DEVICES"] == "4"
    assert forked_view["variables"]["CANARY"] == "né\udcff"
    assert forked_view["session"]
    own = {"SLURMKIT_JOB", "SLURMKIT_CPUS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
    for view in (forked_view, executed_view):
        view["variables"] = {key: value for key, value in view["variables"].items() if key not in own}
        del view["pid"], view["parent"], view["session"]
    assert forked_view == executed_view
    assert forked_view["umask"] == 0o027
    assert forked_view["cwd"] == forked_view["path"] == str(tmp_path)
    assert forked_view["held_back"] == []


def test_cancel_ends_the_whole_tree_and_pending_jobs(queue: Queue, tmp_path: Path) -> None:
    log = tmp_path / "log"
    running = queue.executor.submit(jobs.family, str(log))
    queue.executor.update_parameters(cpus_per_task=2)
    pending = queue.executor.submit(jobs.note, str(log), "never")
    queue.wait(lambda: jobs.has_line(log))
    assert len(queue.processes()) == 4
    pending.cancel()
    assert pending.state == "CANCELLED"
    running.cancel()
    queue.wait_ended()
    assert running.state == "CANCELLED"
    assert queue.job(running.job_id).exit_code == 128 + signal.SIGTERM  # it was asked, and not killed after its grace
    assert queue.processes() == set()
    assert log.read_text() == "up\n"
    running.cancel()  # once more: nothing
    assert running.state == "CANCELLED"


def test_what_a_job_leaves_behind_is_ended_with_it(queue: Queue) -> None:
    job = queue.executor.submit(subprocess.Popen, ["setsid", "sleep", "300"])
    queue.wait_ended()
    assert queue.processes() == set()
    assert queue.job(job.job_id).state is JobState.FAILED  # a Popen cannot be pickled as a result


@pytest.mark.parametrize("python", [None, f"{sys.executable} -X dev"], ids=["forked", "executed"])
def test_a_job_over_its_memory_is_ended_and_says_so(queue: Queue, python: str | None) -> None:
    queue.supervise(PATIENT)
    executor = LocalQueueExecutor(queue.folder, python=python, queue=queue.path)
    in_child, in_worker = DelayedSubmission(jobs.fill, 300), DelayedSubmission(jobs.fill_myself, 300)
    ids = [job.job_id for job in executor.submit_batch([in_child, in_worker], [Ask(mem_mb=150)] * 2)]
    ended = queue.wait_ended()
    for job_id in ids:
        job = ended[job_id]
        assert job.state is JobState.OUT_OF_MEMORY, job.evidence
        assert job.evidence.endswith("limit 150 MB")
        assert job.peak_rss_mb is not None
        assert 150 < job.peak_rss_mb < 700  # made as bytes, then copied
    # The first one's worker had the time to write down what became of its child.
    assert LocalQueueJob(queue.folder, ids[0], queue=queue.path).result() == -signal.SIGKILL
    assert queue.processes() == set()


def test_a_job_that_takes_too_much_again_has_no_time_left(queue: Queue, tmp_path: Path) -> None:
    log = tmp_path / "log"
    queue.supervise(PATIENT)
    (job_id,) = submit(queue, [Ask(mem_mb=150)], jobs.fill_again, str(log), 300)
    ended = queue.wait_ended()[job_id]
    assert (ended.state, ended.signal) == (JobState.OUT_OF_MEMORY, signal.SIGKILL)
    assert log.read_text().splitlines() == ["first", "again"]
    assert queue.processes() == set()


GRACE, SHORT_GRACE = "schedulers.local.watch.GRACE_S", "schedulers.local.watch.SHORT_GRACE_S"

SHARING = """
import os, time
held = bytearray(b"x" * (100 << 20))
os.fork(), os.fork()
os.write(1, b".")
time.sleep(300)
"""


def test_shared_memory_is_not_counted_twice(queue: Queue) -> None:
    """Four processes with the same 100 MB are under a limit of 250 MB, and over one of 50 MB."""
    parent = subprocess.Popen([sys.executable, "-c", SHARING], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert parent.stdout is not None
        assert parent.stdout.read(4) == b"...."
        worker = processes.read_process(parent.pid)
        assert worker is not None
        (job_id,) = submit(queue, [Ask(mem_mb=250)], int)
        running = watch.Running(queue.job(job_id), 0, worker, ours=True)
        assert watch.sample_memory([running]) == []
        assert 100 < running.peak_mb < 200
        running.job.mem_mb = 50
        ((_, verdict),) = watch.sample_memory([running])
        assert verdict["evidence"].endswith("used by 4 processes, limit 50 MB")
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.communicate()


def test_a_time_limit_warns_then_asks_then_kills(queue: Queue, tmp_path: Path) -> None:
    log = tmp_path / "log"
    (job_id,) = submit(queue, [Ask(time_s=3600, warn_s=600)], jobs.listen, str(log))
    queue.wait(lambda: jobs.has_line(log, "began"))
    queue.let_time_pass(job_id, 3100)
    queue.wait(lambda: jobs.has_line(log, "SIGUSR2"))
    queue.let_time_pass(job_id, 3700, {GRACE: 600})
    queue.wait(lambda: jobs.has_line(log, "SIGTERM"))
    assert log.read_text().splitlines() == ["began", "SIGUSR2", "SIGTERM"]
    assert not queue.job(job_id).state.ended
    queue.let_time_pass(job_id, 3700, {GRACE: 0, SHORT_GRACE: 0})
    ended = queue.wait_ended()[job_id]
    assert (ended.state, ended.exit_code) == (JobState.TIMEOUT, None)  # it would have gone on for ever
    assert queue.processes() == set()
    assert re.fullmatch(r"ran 1h0\dm, limit 1h00m", ended.evidence)


def test_the_clock_warns_in_the_last_quarter_at_most_and_judges_at_the_limit(queue: Queue, monkeypatch) -> None:
    ids = submit(queue, [Ask(time_s=2.0), Ask(time_s=3600.0), Ask()], int)
    queue.wait_ended()
    limited = {1.49: None, 1.51: "warned", 1.99: "warned", 2.01: "verdict"}
    hour = {3569.9: None, 3570.1: "warned", 3599.9: "warned", 3600.1: "verdict"}
    for job_id, told in zip(ids, (limited, hour, {1e6: None}), strict=True):
        worker = processes.Process(0, 0, 0, 0, 0.0, zombie=True)
        one = watch.Running(queue.job(job_id), 0, worker, ours=True)
        for ran_s, event in told.items():
            monkeypatch.setattr(watch, "time", SimpleNamespace(time=lambda at=one.began + ran_s: at))
            record = watch.judge_time(one)
            assert (record and record["event"]) == event, ran_s


def test_exit_75_queues_a_job_again_and_counts(queue: Queue, tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = queue.executor.submit(jobs.again, str(log), 3)
    assert job.result() == "3"
    assert log.read_text().split() == ["0", "1", "2", "3"]
    assert queue.job(job.job_id).restarts == 3


def test_submitit_checkpoints_are_queued_again(queue: Queue, tmp_path: Path) -> None:
    log = tmp_path / "log"
    (job,) = queue.executor.submit_batch([DelayedSubmission(jobs.Counter(str(log)))], [Ask(time_s=3600)])
    queue.wait(lambda: jobs.has_line(log))
    queue.let_time_pass(job.job_id, 3590)
    assert job.result() == 7
    assert log.read_text().splitlines() == ["from 0", "from 7"]
    assert queue.job(job.job_id).restarts == 1


def test_a_worker_that_is_killed_is_lost_with_its_tree(queue: Queue, tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = queue.executor.submit(jobs.family, str(log))
    queue.wait(lambda: jobs.has_line(log))
    os.kill(queue.claim(job.job_id).pid, signal.SIGKILL)
    ended = queue.wait_ended()[job.job_id]
    assert (ended.state, ended.signal) == (JobState.LOST, signal.SIGKILL)
    assert queue.processes() == set()


def test_the_same_token_submits_once(queue: Queue, tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = submit(queue, [Ask()] * 2, jobs.note, str(log), token="t")
    assert submit(queue, [Ask()] * 2, jobs.note, str(log), token="t") == first
    queue.wait_ended()
    assert log.read_text() == "\n\n"
    assert len(list(queue.folder.glob("*_submitted.pkl"))) == 2


def test_records_are_for_their_owner_alone(queue: Queue) -> None:
    queue.executor.submit(int).result()
    assert queue.path.stat().st_mode & 0o777 == 0o700
    for path in [queue.path / "journal.jsonl", *(queue.path / "environments").iterdir()]:
        assert path.stat().st_mode & 0o077 == 0

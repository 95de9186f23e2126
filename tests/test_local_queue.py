"""The bounded local queue, with real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import local_queue as jobs
import pytest
import submitit
from local_queue import Queue
from submitit.core.utils import DelayedSubmission, FailedJobError

from slurmkit.errors import SchedulerError
from slurmkit.schedulers.local.executor import Ask, LocalQueueExecutor, LocalQueueJob
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


def test_jobs_start_in_order_and_never_more_than_there_are_slots(queue: Queue, tmp_path: Path) -> None:
    spans = tmp_path / "spans"
    queue.executor.map_array(jobs.span, [str(spans)] * 8, [0.15] * 8)
    ended = list(queue.wait_ended().values())
    times = [tuple(map(float, line.split())) for line in spans.read_text().splitlines()]
    assert len(times) == 8
    assert max(sum(begin <= at < end for begin, end in times) for at, _ in times) == 2
    assert [job.started_at for job in ended] == sorted(job.started_at or "" for job in ended)


def test_a_large_job_lets_small_ones_pass_a_bounded_number_of_times(queue: Queue) -> None:
    asks = [Ask(cpus=1), Ask(cpus=2), *[Ask(cpus=1)] * 40]
    ids = submit(queue, asks, time.sleep, 0.05)
    ended = queue.wait_ended()
    started = sorted(ids, key=lambda job_id: ended[job_id].started_at or "")
    assert 2 <= started.index(ids[1]) <= 18


def test_a_job_starts_after_those_it_needs_completed_and_never_if_one_failed(queue: Queue, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    functions = [DelayedSubmission(jobs.note, log, "second"), DelayedSubmission(jobs.note, log, "first", 0.3)]
    functions += [DelayedSubmission(sys.exit, 3), DelayedSubmission(jobs.note, log, "never")]
    functions += [DelayedSubmission(jobs.note, log, "never")]
    asks = [Ask(after_index=(1,)), Ask(), Ask(), Ask(after_index=(1, 2)), Ask(after_index=(3,))]
    batch = [job.job_id for job in queue.executor.submit_batch(functions, asks)]
    ended = queue.wait_ended()
    assert Path(log).read_text().split() == ["first", "second"]
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
    queue.wait(log.exists)
    assert len(queue.processes()) == 4
    pending.cancel()
    assert pending.state == "CANCELLED"
    began = time.monotonic()
    running.cancel()
    queue.wait_ended()
    assert time.monotonic() - began < 3
    assert running.state == "CANCELLED"
    assert queue.processes() == set()
    assert log.read_text() == "up\n"
    running.cancel()  # once more: nothing
    assert running.state == "CANCELLED"


def test_what_a_job_leaves_behind_is_ended_with_it(queue: Queue) -> None:
    job = queue.executor.submit(subprocess.Popen, ["setsid", "sleep", "300"])
    queue.wait_ended()
    assert queue.processes() == set()
    assert queue.job(job.job_id).state is JobState.FAILED  # a Popen cannot be pickled as a result


def test_a_job_over_its_memory_is_ended_and_says_so(queue: Queue) -> None:
    in_child, in_worker = DelayedSubmission(jobs.fill, 300), DelayedSubmission(jobs.fill_myself, 300)
    ids = [job.job_id for job in queue.executor.submit_batch([in_child, in_worker], [Ask(mem_mb=150)] * 2)]
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


def test_shared_memory_is_not_counted_twice(queue: Queue) -> None:
    code = "import os, time; x = bytearray(b'x' * (100 << 20)); [os.fork() for _ in range(2)]; time.sleep(1)"
    job = queue.executor.submit_batch(
        [DelayedSubmission(subprocess.run, [sys.executable, "-c", code])], [Ask(mem_mb=250)]
    )
    assert queue.wait_ended()[job[0].job_id].state is JobState.COMPLETED


def test_a_time_limit_warns_then_asks_then_kills(queue: Queue, tmp_path: Path, monkeypatch) -> None:
    log = tmp_path / "log"
    (job_id,) = submit(queue, [Ask(time_s=2.0)], jobs.listen, str(log))
    queue.wait(lambda: "SIGTERM" in (log.read_text() if log.exists() else ""))
    told = {line.split()[0]: float(line.split()[1]) for line in log.read_text().splitlines()}
    assert list(told) == ["began", "SIGUSR2", "SIGTERM"]
    assert 1.2 < told["SIGUSR2"] - told["began"] < 1.95
    assert 1.8 < told["SIGTERM"] - told["began"] < 2.6
    ended = queue.wait_ended()[job_id]
    assert (ended.state, ended.evidence) == (JobState.TIMEOUT, "ran 2s, limit 2s")
    assert ended.signal == signal.SIGKILL


def test_exit_75_queues_a_job_again_and_counts(queue: Queue, tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = queue.executor.submit(jobs.again, str(log), 3)
    assert job.result() == "3"
    assert log.read_text().split() == ["0", "1", "2", "3"]
    assert queue.job(job.job_id).restarts == 3


def test_submitit_checkpoints_are_queued_again(queue: Queue, tmp_path: Path) -> None:
    log = tmp_path / "log"
    (job,) = queue.executor.submit_batch([DelayedSubmission(jobs.Counter(str(log)))], [Ask(time_s=3.0)])
    assert job.result() == 7
    assert log.read_text().splitlines() == ["from 0", "from 7"]
    assert queue.job(job.job_id).restarts == 1


def test_a_worker_that_is_killed_is_lost_with_its_tree(queue: Queue, tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = queue.executor.submit(jobs.family, str(log))
    queue.wait(log.exists)
    os.kill(min(queue.processes()), signal.SIGKILL)
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

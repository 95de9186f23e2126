"""The local queue when processes die, disks are full, and everybody comes at once: nothing lost, nothing doubled."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import local_queue as jobs
import pytest
from local_queue import Queue
from submitit.core.utils import DelayedSubmission

from slurmkit.errors import SchedulerError, StoreError
from slurmkit.schedulers.local import launch, processes
from slurmkit.schedulers.local.claims import Claims
from slurmkit.schedulers.local.executor import Ask, LocalQueueJob
from slurmkit.schedulers.local.journal import Journal
from slurmkit.states import JobState

TESTS = Path(__file__).parent


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    monkeypatch.setenv("SLURMKIT_LOCAL_CPUS", "2")
    monkeypatch.setenv("SLURMKIT_LOCAL_GPUS", "")
    queue = Queue(tmp_path)
    yield queue
    queue.close()


def hammer(queue: Queue, asks: list[Ask], functions: list[DelayedSubmission], pause: Callable[[], object]) -> int:
    """Kill every supervisor after a pause, until all jobs have ended; return how often one was killed."""
    queue.executor.submit_batch(functions, asks)
    kills = 0
    while not all(job.state.ended for job in queue.jobs().values()):
        assert kills < 300
        pause()
        kills += len(queue.supervisors())
        queue.kill_supervisor()
        with contextlib.suppress(SchedulerError):  # the supervisor that was starting is the one that was killed
            launch.wake_supervisor(queue.path)
    return kills


def test_a_supervisor_killed_after_each_record_loses_and_doubles_no_job(queue: Queue, tmp_path: Path) -> None:
    log = tmp_path / "log"
    functions = [DelayedSubmission(jobs.note, str(log), f"run {n}", 0.1) for n in range(12)]
    functions += [DelayedSubmission(jobs.again, str(log), 2)]
    journal = queue.path / "journal.jsonl"
    seen = [0]

    def until_it_writes() -> None:
        queue.wait(lambda: journal.stat().st_size > seen[0])
        seen[0] = journal.stat().st_size
        time.sleep(random.choice([0, 0, 0.001, 0.002, 0.004, 0.01]))

    kills = hammer(queue, [*[Ask()] * 12, Ask(after_index=(9,))], functions, until_it_writes)
    assert kills >= 3  # as many as the machine is quick enough for: usually ten and more
    expected = {**{f"run {n}": 1 for n in range(12)}, "0": 1, "1": 1, "2": 1}
    assert Counter(log.read_text().splitlines()) == expected
    assert {job.state for job in queue.jobs().values()} == {JobState.COMPLETED}
    queue.wait(lambda: not list((queue.path / "claims").iterdir()))  # removed after the last record


def test_supervisors_killed_at_any_time_even_as_they_start_lose_and_double_no_job(queue: Queue, tmp_path: Path) -> None:
    log = tmp_path / "log"
    functions = [DelayedSubmission(jobs.note, str(log), f"run {n}", 0.05) for n in range(60)]
    launch.make_queue(queue.path)
    stop = threading.Event()

    def wake() -> None:
        while not stop.is_set():
            with contextlib.suppress(SchedulerError):
                launch.wake_supervisor(queue.path)
            time.sleep(0.01)

    thread = threading.Thread(target=wake)
    thread.start()
    try:
        kills = hammer(queue, [Ask()] * 60, functions, lambda: time.sleep(random.uniform(0.01, 0.4)))
    finally:
        stop.set()
        thread.join()
    assert kills >= 1
    assert Counter(log.read_text().splitlines()) == {f"run {n}": 1 for n in range(60)}
    assert {job.state for job in queue.jobs().values()} == {JobState.COMPLETED}


def test_a_running_job_outlives_its_supervisor_and_is_adopted(queue: Queue, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for number, text in ((signal.SIGKILL, "one"), (signal.SIGTERM, "two")):
        job = queue.executor.submit(jobs.note, str(log), text, 1.0)
        queue.wait(lambda job=job: queue.job(job.job_id).state is JobState.RUNNING)
        queue.kill_supervisor(number)
        assert len(queue.processes()) == 1
        launch.wake_supervisor(queue.path)
        assert queue.job(job.job_id).state is JobState.RUNNING
        ended = queue.wait_ended()[job.job_id]
        assert (ended.state, ended.exit_code, ended.restarts) == (JobState.COMPLETED, 0, 0)
    assert log.read_text().split() == ["one", "two"]


def test_exit_codes_of_workers_that_ended_without_a_supervisor_are_known(queue: Queue, tmp_path: Path) -> None:
    functions = [
        DelayedSubmission(jobs.note, str(tmp_path / "log"), "done", 0.3),
        DelayedSubmission(jobs.again, str(tmp_path / "again"), 1),
        DelayedSubmission(time.sleep, 60),
    ]
    queue.executor.update_parameters(cpus_per_task=1)
    first = [job.job_id for job in queue.executor.submit_batch(functions[:1], [Ask()])]
    lost = [job.job_id for job in queue.executor.submit_batch(functions[2:], [Ask()])]
    queue.wait(lambda: queue.job(lost[0]).state is JobState.RUNNING)
    queue.wait(
        lambda: any(
            claim.pid for (job_id, _), claim in Claims(queue.path / "claims").all().items() if job_id == lost[0]
        )
    )
    queue.kill_supervisor()
    claim = Claims(queue.path / "claims").all()[lost[0], 0]
    os.kill(claim.pid, signal.SIGKILL)
    queue.wait(lambda: queue.processes() == set())
    launch.wake_supervisor(queue.path)
    ended = queue.wait_ended()
    assert (ended[first[0]].state, ended[first[0]].exit_code) == (JobState.COMPLETED, 0)
    assert ended[lost[0]].state is JobState.LOST
    assert ended[lost[0]].evidence == f"worker {claim.pid} vanished without an exit code"


def test_a_job_of_before_a_reboot_is_lost_and_its_process_id_is_left_alone(queue: Queue) -> None:
    job = queue.executor.submit(time.sleep, 0.5)
    queue.wait(lambda: queue.job(job.job_id).state is JobState.RUNNING)
    queue.kill_supervisor()
    journal = queue.path / "journal.jsonl"
    journal.write_text(journal.read_text().replace(processes.boot_id(), "another"))
    launch.wake_supervisor(queue.path)
    assert queue.wait_ended()[job.job_id].state is JobState.LOST


def test_only_one_of_two_processes_runs_a_start(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "claims")
    assert not claims.take("x_0", 0, 7, 70)  # never offered, or its end is on record
    claims.offer("x_0", 0)
    assert claims.take("x_0", 0, 7, 70)
    assert not claims.take("x_0", 0, 8, 80)
    claims.finish("x_0", 0, 7, 70, 75)
    (claim,) = claims.all().values()
    assert (claim.pid, claim.ticks, claim.exit_code) == (7, 70, 75)
    claims.clear("x_0", 0, claim)
    assert not claims.take("x_0", 0, 9, 90)
    assert claims.all() == {}


SUBMITTER = """
import sys
from pathlib import Path
import local_queue as jobs
from slurmkit.schedulers.local.executor import LocalQueueExecutor
executor = LocalQueueExecutor(sys.argv[1], queue=Path(sys.argv[2]))
for n in range(4):
    executor.map_array(jobs.note, [sys.argv[3]] * 2, [f"{sys.argv[4]} {n} {m}" for m in range(2)])
"""


def test_eight_processes_submit_at_once_to_one_supervisor(queue: Queue, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", SUBMITTER, str(queue.folder), str(queue.path), str(log)]
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    submitters = [subprocess.Popen([*command, str(n)], env=environment) for n in range(8)]
    assert [submitter.wait(timeout=40) for submitter in submitters] == [0] * 8
    assert len(queue.wait_ended()) == 64
    assert len(set(log.read_text().splitlines())) == len(log.read_text().splitlines()) == 64
    assert queue.supervisors() == [queue.supervisor()]


FULL = """
import resource, sys
from pathlib import Path
import local_queue as jobs
from slurmkit.errors import StoreError
from slurmkit.schedulers.local.executor import LocalQueueExecutor
queue = Path(sys.argv[2])
room = (queue / "journal.jsonl").stat().st_size + 40
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))  # as if the disk were full
try:
    LocalQueueExecutor(sys.argv[1], queue=queue).map_array(jobs.note, [sys.argv[3]] * 3)
except StoreError as error:
    print(error)
"""


def test_a_full_disk_at_submission_leaves_nothing_half(queue: Queue, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    queue.executor.map_array(jobs.note, [log] * 60)
    queue.wait_ended()
    before = (queue.path / "journal.jsonl").read_bytes()
    arguments = [str(queue.folder), str(queue.path), log]
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    answer = subprocess.run([sys.executable, "-c", FULL, *arguments], env=environment, capture_output=True, text=True)
    assert "journal.jsonl: cannot be written" in answer.stdout, answer.stderr
    assert (queue.path / "journal.jsonl").read_bytes() == before
    assert len(list(queue.folder.glob("*_submitted.pkl"))) == 60
    queue.executor.submit(jobs.note, log).result()


def test_a_submission_shows_whole_or_not_at_all(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.path.mkdir()
    (queue.path / "lock").mkdir()  # cannot be locked
    with pytest.raises(StoreError):
        queue.executor.map_array(int, [1, 2])
    assert list(queue.folder.glob("*.pkl")) == []
    (queue.path / "lock").rmdir()
    with (queue.path / "journal.jsonl").open("w") as file:
        file.write('{"event":"submit","batch":"tor')  # its writer was killed: no line
    assert [job.result() for job in queue.executor.map_array(int, [1, 2])] == [1, 2]


def test_removing_the_folder_of_a_queue_ends_its_jobs_and_its_supervisor(queue: Queue, tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = queue.executor.submit(jobs.family, str(log))
    queue.wait(log.exists)
    shutil.rmtree(queue.path)

    def left() -> set[int]:
        return processes.marked(processes.all_processes(), {job.job_id})[job.job_id]

    assert left()
    queue.wait(lambda: not left() and not queue.supervisors())


def test_an_idle_supervisor_uses_next_to_nothing_and_ends(queue: Queue) -> None:
    queue.executor.submit(int).result()
    pid = queue.supervisor()
    before = sum(_cpu_ticks(pid))
    time.sleep(2)
    assert sum(_cpu_ticks(pid)) - before <= 0.05 * 2 * os.sysconf("SC_CLK_TCK")
    queue.wait(lambda: pid not in processes.all_processes() or processes.all_processes()[pid].zombie, timeout_s=15)
    again = queue.executor.submit(int)
    assert again.result() == 0
    assert queue.supervisor() != pid


def _cpu_ticks(pid: int) -> list[int]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(fields[11]), int(fields[12])]


def test_ended_batches_move_to_the_archive_and_are_still_known(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slurmkit.schedulers.local.journal.COMPACT_BYTES", 0)
    monkeypatch.setenv("SLURMKIT_LOCAL_CPUS", "1")
    done = [DelayedSubmission(int, 3), DelayedSubmission(sys.exit, 4)]
    old = [job.job_id for job in queue.executor.submit_batch(done, [Ask()] * 2, "old")]
    queue.wait_ended()
    queue.executor.submit(time.sleep, 1)
    pending = queue.executor.submit_batch([DelayedSubmission(int)] * 2, [Ask(after=(old[0],)), Ask(after=(old[1],))])
    reader = Journal(queue.path)
    reader.refresh()
    assert Journal(queue.path).compact()
    assert reader.refresh()
    assert old[0] not in reader.state.jobs
    assert reader.batch_of("old") == old
    reports = reader.reports(set(old))
    assert [reports[job_id].state for job_id in old] == [JobState.COMPLETED, JobState.FAILED]
    assert reports[old[1]].exit_code == 4
    assert LocalQueueJob(queue.folder, old[0], queue=queue.path).result() == 3
    assert queue.executor.submit_batch(done, [Ask()] * 2, "old")[0].job_id == old[0]
    ended = queue.wait_ended()
    assert ended[pending[0].job_id].state is JobState.COMPLETED
    assert ended[pending[1].job_id].state is JobState.DEPENDENCY_FAILED

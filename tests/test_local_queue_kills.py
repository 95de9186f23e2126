"""The local queue when processes die, disks are full, and everybody comes at once: nothing lost, nothing doubled."""

import contextlib
import fcntl
import os
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


@contextlib.contextmanager
def dying_supervisors(queue: Queue) -> Iterator[Callable[[int], None]]:
    """Give a function that starts a supervisor, to be killed at a point, and returns once that stands or is dead."""
    with subprocess.Popen(
        [sys.executable, str(TESTS / "supervisors_killed_at.py"), str(queue.path)],
        env=os.environ | {processes.MARK: launch.MARK_PLACEHOLDER},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:

        def start(at: int) -> None:
            assert starter.stdin is not None
            assert starter.stdout is not None
            starter.stdin.write(f"{at}\n")
            starter.stdin.flush()
            assert starter.stdout.readline() == "\n"

        yield start


def all_ended(queue: Queue) -> bool:
    return all(job.state.ended for job in queue.jobs().values())


def test_supervisors_killed_at_any_of_their_points_lose_and_double_no_job(queue: Queue, tmp_path: Path) -> None:
    """The N-th of them dies at its N-th change of the queue's files: as it starts, between two records, in one."""
    log, go = tmp_path / "log", tmp_path / "go"
    functions = [DelayedSubmission(jobs.hold, str(log), "first", str(go))]
    functions += [DelayedSubmission(jobs.note, str(log), f"run {n}") for n in range(20)]
    functions += [DelayedSubmission(jobs.again, str(log), 2)]
    queue.executor.submit_batch(functions, [Ask(), *[Ask(after_index=(0,))] * 20, Ask(after_index=(9,))])
    queue.wait(lambda: jobs.has_line(log))
    queue.kill_supervisor()
    go.write_text("go\n")
    killed = 0
    with dying_supervisors(queue) as start:
        while not all_ended(queue):
            killed += 1
            start(killed)
            queue.wait(lambda: not queue.supervisors() or all_ended(queue))
    assert killed > 10  # these have 55 points together, and each of the jobs has six and more
    expected = {f"run {n}": 1 for n in range(20)} | dict.fromkeys(("first began", "first ends", "0", "1", "2"), 1)
    assert Counter(log.read_text().splitlines()) == expected
    assert {job.state for job in queue.jobs().values()} == {JobState.COMPLETED}
    launch.wake_supervisor(queue.path)
    queue.wait(lambda: not list((queue.path / "claims").iterdir()))  # removed after the last record


def test_supervisors_killed_whenever_they_begin_lose_and_double_no_job(queue: Queue, tmp_path: Path) -> None:
    """Started by two at once, as commands start them; how far each of them comes before it dies is left to chance."""
    log = tmp_path / "log"
    queue.executor.submit_batch(
        [DelayedSubmission(jobs.note, str(log), f"run {n}", 0.05) for n in range(30)], [Ask()] * 30
    )
    stop = threading.Event()

    def wake() -> None:
        while not stop.is_set():
            with contextlib.suppress(SchedulerError):  # the supervisor that was starting is the one that was killed
                launch.wake_supervisor(queue.path)
            time.sleep(0.01)

    threads = [threading.Thread(target=wake) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for n in range(10):
            time.sleep(0.06 * n)
            queue.kill_supervisor()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    launch.wake_supervisor(queue.path)
    assert {job.state for job in queue.wait_ended().values()} == {JobState.COMPLETED}
    assert Counter(log.read_text().splitlines()) == {f"run {n}": 1 for n in range(30)}


def test_a_lock_that_no_supervisor_holds_is_waited_for(queue: Queue) -> None:
    """A supervisor that is killed as it forks leaves the lock to the fork, for the moment until that lets go of it."""
    queue.executor.submit(int).result()
    killed = queue.supervisor()
    queue.kill_supervisor()
    inherited = os.open(queue.path / "supervisor.lock", os.O_RDWR)
    fcntl.flock(inherited, fcntl.LOCK_EX)
    waking = threading.Thread(target=launch.wake_supervisor, args=[queue.path])
    waking.start()
    waking.join(0.2)
    still_waiting = waking.is_alive()
    os.close(inherited)
    waking.join()
    assert still_waiting
    assert queue.supervisor() != killed


KILLED_STARTER = """
import os, signal, sys
from pathlib import Path
from slurmkit.schedulers.local import daemon, supervisor

supervisor.IDLE_S = 600
starter, read = os.getpid(), os.read
os.read = lambda *asked: os.kill(starter, signal.SIGKILL) if os.getpid() == starter else read(*asked)
daemon.main(Path(sys.argv[1]))
"""


def test_a_supervisor_stands_though_who_waited_for_it_was_killed(queue: Queue) -> None:
    launch.make_queue(queue.path)
    environment = os.environ | {processes.MARK: launch.MARK_PLACEHOLDER}
    starter = subprocess.run([sys.executable, "-c", KILLED_STARTER, str(queue.path)], env=environment, check=False)
    assert starter.returncode == -signal.SIGKILL
    queue.wait(queue.supervisor)
    first = queue.supervisor()
    assert queue.executor.submit(int).result() == 0
    assert queue.supervisor() == first


def test_a_running_job_outlives_its_supervisor_and_is_adopted(queue: Queue, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for number, text in ((signal.SIGKILL, "one"), (signal.SIGTERM, "two")):
        go = tmp_path / text
        job = queue.executor.submit(jobs.hold, str(log), text, str(go))
        queue.wait(lambda text=text: jobs.has_line(log, f"{text} began"))
        queue.kill_supervisor(number)
        assert len(queue.processes()) == 1
        launch.wake_supervisor(queue.path)
        assert queue.job(job.job_id).state is JobState.RUNNING
        go.write_text("go\n")
        ended = queue.wait_ended()[job.job_id]
        assert (ended.state, ended.exit_code, ended.restarts) == (JobState.COMPLETED, 0, 0)
    assert log.read_text().splitlines() == ["one began", "one ends", "two began", "two ends"]


def test_exit_codes_of_workers_that_ended_without_a_supervisor_are_known(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURMKIT_LOCAL_CPUS", "3")
    log, go = tmp_path / "log", str(tmp_path / "go")
    functions = [DelayedSubmission(jobs.hold, str(log), f"{code}", go, code) for code in (0, 3)]
    functions += [DelayedSubmission(jobs.hold, str(log), "lost", str(tmp_path / "never"))]
    good, bad, lost = [job.job_id for job in queue.executor.submit_batch(functions, [Ask()] * 3)]
    queue.wait(lambda: all(jobs.has_line(log, f"{text} began") for text in ("0", "3", "lost")))
    queue.kill_supervisor()
    claim = queue.claim(lost)
    os.kill(claim.pid, signal.SIGKILL)
    (tmp_path / "go").write_text("go\n")
    queue.wait(lambda: queue.processes() == set())
    launch.wake_supervisor(queue.path)
    ended = queue.wait_ended()
    assert (ended[good].state, ended[good].exit_code) == (JobState.COMPLETED, 0)
    assert (ended[bad].state, ended[bad].exit_code) == (JobState.FAILED, 3)
    assert ended[lost].state is JobState.LOST
    assert ended[lost].evidence == f"worker {claim.pid} vanished without an exit code"


def test_a_job_of_before_a_reboot_is_lost_and_its_process_id_is_left_alone(queue: Queue, tmp_path: Path) -> None:
    """Also where another process has the id of its worker, and began as long after the start of the machine."""
    log = tmp_path / "log"
    job = queue.executor.submit(jobs.hold, str(log), "job", str(tmp_path / "never"))
    queue.wait(lambda: jobs.has_line(log))
    queue.kill_supervisor()
    claim = queue.claim(job.job_id)
    os.kill(claim.pid, signal.SIGKILL)
    journal = queue.path / "journal.jsonl"
    journal.write_text(journal.read_text().replace(processes.boot_id(), "another"))
    with subprocess.Popen(["sleep", "300"]) as stranger:
        now = processes.read_process(stranger.pid)
        assert now is not None
        taken = queue.path / "claims" / f"{job.job_id}.0"
        taken.with_name(f"{taken.name}.{claim.pid}.{claim.ticks}").rename(f"{taken}.{now.pid}.{now.ticks}")
        launch.wake_supervisor(queue.path)
        state = queue.wait_ended()[job.job_id].state
        left_alone = stranger.poll() is None
        stranger.kill()
    assert (state, left_alone) == (JobState.LOST, True)


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
    assert [submitter.wait() for submitter in submitters] == [0] * 8
    assert len(queue.wait_ended()) == 64
    assert len(set(log.read_text().splitlines())) == len(log.read_text().splitlines()) == 64
    go = tmp_path / "go"
    queue.executor.submit(jobs.hold, str(log), "one more", str(go))  # with a job to watch, no supervisor leaves
    queue.wait(lambda: queue.supervisors() == [queue.supervisor()])  # those that came too late to be it may still end
    go.write_text("go\n")


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
    queue.wait(lambda: jobs.has_line(log))

    def left() -> set[int]:
        return processes.marked(processes.all_processes(), {job.job_id})[job.job_id]

    assert left()
    shutil.rmtree(queue.path)
    queue.wait(lambda: not left() and not queue.supervisors())


def test_an_idle_supervisor_uses_next_to_nothing(queue: Queue) -> None:
    queue.supervise({})
    queue.executor.submit(int).result()
    pid = queue.supervisor()
    began, before = time.monotonic(), sum(_cpu_ticks(pid))
    time.sleep(1.5)
    used_s = (sum(_cpu_ticks(pid)) - before) / os.sysconf("SC_CLK_TCK")
    assert used_s <= 0.05 * (time.monotonic() - began)


def test_an_idle_supervisor_ends_and_the_next_job_has_another(queue: Queue) -> None:
    queue.supervise({jobs.IDLE: 0.1})
    first = queue.supervisor()
    queue.executor.submit(int).result()
    queue.wait(lambda: queue.supervisors() == [])
    again = queue.executor.submit(int)
    assert again.result() == 0
    assert queue.supervisor() != first


def _cpu_ticks(pid: int) -> list[int]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(fields[11]), int(fields[12])]


def test_ended_batches_move_to_the_archive_and_are_still_known(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slurmkit.schedulers.local.journal.COMPACT_BYTES", 0)
    monkeypatch.setenv("SLURMKIT_LOCAL_CPUS", "1")
    done = [DelayedSubmission(int, 3), DelayedSubmission(sys.exit, 4)]
    old = [job.job_id for job in queue.executor.submit_batch(done, [Ask()] * 2, "old")]
    queue.wait_ended()
    go = tmp_path / "go"
    queue.executor.submit(jobs.hold, str(tmp_path / "log"), "before them", str(go))
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
    go.write_text("go\n")
    ended = queue.wait_ended()
    assert ended[pending[0].job_id].state is JobState.COMPLETED
    assert ended[pending[1].job_id].state is JobState.DEPENDENCY_FAILED

"""The local queue as slurmkit's scheduler: work orders through the real worker."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kill_at import Killer
from local_queue import PATIENT, Queue, has_line

from slurmkit.errors import SchedulerError
from slurmkit.files import read_json
from slurmkit.records import WorkOrder
from slurmkit.resources import Resources
from slurmkit.schedulers import JobRequest, Scheduler
from slurmkit.schedulers.local import launch
from slurmkit.schedulers.local.scheduler import LocalScheduler
from slurmkit.states import JobState

COMPLETE = """
import json, pathlib, sys
pathlib.Path(sys.argv[1], "metrics.json").write_text(json.dumps({"loss": 1.0}))
"""
SLEEP = "import time; time.sleep(300)"
SAVE_WHEN_ASKED = """
import json, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
if (folder / "checkpoint").exists():
    (folder / "metrics.json").write_text(json.dumps({"loss": 1.0}))
    sys.exit(0)
def save(*_):
    (folder / "checkpoint").write_text("")
    sys.exit(75)
signal.signal(signal.SIGUSR2, save)
print("ready", flush=True)
time.sleep(300)
"""
TAKE_MEMORY = "import time; x = bytearray(b'x' * (300 << 20)); time.sleep(300)"


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    monkeypatch.setenv("SLURMKIT_LOCAL_CPUS", "2")
    monkeypatch.setenv("SLURMKIT_LOCAL_GPUS", "")
    queue = Queue(tmp_path)
    yield queue
    queue.close()


@pytest.fixture
def scheduler(queue: Queue) -> Scheduler:
    return LocalScheduler(queue.path)


def request(tmp_path: Path, name: str, code: str, *, after_index: tuple[int, ...] = (), **asked: Any) -> JobRequest:
    checkout = tmp_path / "checkout"
    checkout.mkdir(exist_ok=True)
    run_dir = tmp_path / "runs" / name
    resources = Resources(**asked)
    order = WorkOrder(
        collection="c",
        run_id=name,
        run_name=name,
        run_dir=str(run_dir),
        attempt=1,
        command=[sys.executable, "-c", code, str(run_dir)],
        config={},
        config_sha256="0" * 64,
        env={},
        checkout=str(checkout),
        commit="0" * 40,
        resources=resources.to_json(),
    )
    return JobRequest(order=order, resources=resources, after_index=after_index)


def attempt(tmp_path: Path, name: str) -> Path:
    return tmp_path / "runs" / name / "attempts" / "1"


def outcome(tmp_path: Path, name: str) -> dict[str, Any]:
    return read_json(attempt(tmp_path, name) / "outcome.json")


def test_a_submission_of_different_requests_is_one_batch_found_by_its_token(
    queue: Queue, scheduler: Scheduler, tmp_path: Path
) -> None:
    requests = [
        request(tmp_path, "good", COMPLETE),
        request(tmp_path, "bad", "raise ValueError('no')", cpus=2, mem_mb=500, time_s=60),
        request(tmp_path, "later", COMPLETE, after_index=(0,)),
        request(tmp_path, "never", COMPLETE, after_index=(1,)),
    ]
    assert scheduler.find("t1", queue.folder) is None
    assert scheduler.query({"unknown_0": "t"}) == {}
    ids = scheduler.submit("t1", requests, queue.folder)
    assert scheduler.submit("t1", requests, queue.folder) == ids == scheduler.find("t1", queue.folder)
    queue.wait_ended()
    reports = scheduler.query(dict.fromkeys([*ids, "unknown_0"], "t"))
    assert [reports[job_id].state for job_id in ids] == [
        JobState.COMPLETED,
        JobState.FAILED,
        JobState.COMPLETED,
        JobState.DEPENDENCY_FAILED,
    ]
    assert "unknown_0" not in reports
    assert reports[ids[1]].exit_code == 1
    assert (reports[ids[0]].peak_rss_mb or 0) > 1
    assert outcome(tmp_path, "good")["outcome"] == "completed"
    assert outcome(tmp_path, "good")["job_id"] == ids[0]
    assert outcome(tmp_path, "bad")["reason"] == "error"


def test_a_command_killed_after_its_submission_left_a_record_to_adopt(
    queue: Queue, scheduler: Scheduler, tmp_path: Path
) -> None:
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            LocalScheduler(queue.path).submit("t2", [request(tmp_path, "a", COMPLETE)], queue.folder)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (job_id,) = scheduler.find("t2", queue.folder) or [""]
    queue.wait_ended()
    assert scheduler.query({job_id: "t"})[job_id].state is JobState.COMPLETED


def test_a_submitter_killed_at_any_of_its_points_submits_all_or_none(
    queue: Queue, scheduler: Scheduler, tmp_path: Path
) -> None:
    launch.make_queue(queue.path)
    code, points = 1, 0
    while code != 0:
        points += 1
        child = os.fork()
        if child == 0:
            killer = Killer(signal.SIGKILL, str(tmp_path), points)
            sys.addaudithook(killer.audit)
            os.write = killer.write  # type: ignore[assignment]
            with contextlib.suppress(BaseException):
                requests = [request(tmp_path, f"{points}-{n}", COMPLETE) for n in range(3)]
                LocalScheduler(queue.path).submit(f"t{points}", requests, queue.folder)
                os._exit(0)
            os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in {0, -signal.SIGKILL}
    found = [scheduler.find(f"t{number}", queue.folder) for number in range(1, points + 1)]
    submitted = [ids for ids in found if ids is not None]
    assert 0 < len(submitted) < points
    assert {len(ids) for ids in submitted} == {3}
    scheduler.wake()
    ended = queue.wait_ended()
    assert len(ended) == 3 * len(submitted)
    assert {job.state for job in ended.values()} == {JobState.COMPLETED}


def test_a_time_limit_saves_and_goes_on_in_the_same_attempt(queue: Queue, scheduler: Scheduler, tmp_path: Path) -> None:
    (job_id,) = scheduler.submit("t3", [request(tmp_path, "a", SAVE_WHEN_ASKED, time_s=3600)], queue.folder)
    queue.wait(lambda: has_line(attempt(tmp_path, "a") / "stdout.log"))
    queue.let_time_pass(job_id, 3590)
    queue.wait_ended()
    report = scheduler.query({job_id: "t"})[job_id]
    assert (report.state, report.restarts) == (JobState.COMPLETED, 1)
    assert outcome(tmp_path, "a")["restart"] == 1


def test_too_much_memory_is_an_outcome_with_the_limit(queue: Queue, scheduler: Scheduler, tmp_path: Path) -> None:
    queue.supervise(PATIENT)
    (job_id,) = scheduler.submit("t4", [request(tmp_path, "a", TAKE_MEMORY, mem_mb=200)], queue.folder)
    queue.wait_ended()
    report = scheduler.query({job_id: "t"})[job_id]
    assert report.state is JobState.OUT_OF_MEMORY
    assert "limit 200 MB" in report.evidence
    assert outcome(tmp_path, "a")["reason"] == "oom_host"


def test_cancel_ends_a_run_and_its_worker_says_so(queue: Queue, scheduler: Scheduler, tmp_path: Path) -> None:
    requests = [request(tmp_path, "a", SLEEP), request(tmp_path, "b", SLEEP, after_index=(0,))]
    ids = scheduler.submit("t5", requests, queue.folder)
    queue.wait((attempt(tmp_path, "a") / "started.json").exists)
    assert scheduler.query(dict.fromkeys(ids, "t"))[ids[0]].state is JobState.RUNNING
    scheduler.cancel(ids)
    assert scheduler.query(dict.fromkeys(ids, "t"))[ids[1]].state.ended
    queue.wait_ended()
    assert scheduler.query(dict.fromkeys(ids, "t"))[ids[0]].state is JobState.CANCELLED
    assert queue.processes() == set()
    assert (attempt(tmp_path, "a") / "outcome.json").exists()


def test_query_after_the_death_of_everything_says_lost_and_not_running(
    queue: Queue, scheduler: Scheduler, tmp_path: Path
) -> None:
    (job_id,) = scheduler.submit("t6", [request(tmp_path, "a", SLEEP)], queue.folder)
    queue.wait((attempt(tmp_path, "a") / "started.json").exists)
    assert scheduler.query({job_id: "t"})[job_id].state is JobState.RUNNING
    queue.close()
    queue.wait(lambda: queue.processes() == set())
    queue.wait(lambda: scheduler.query({job_id: "t"})[job_id].state is not JobState.RUNNING)
    assert scheduler.query({job_id: "t"})[job_id].state is JobState.LOST


def test_a_request_that_can_never_fit_is_refused_whole(queue: Queue, scheduler: Scheduler, tmp_path: Path) -> None:
    requests = [request(tmp_path, "a", COMPLETE), request(tmp_path, "b", COMPLETE, cpus=3)]
    with pytest.raises(SchedulerError, match=r"job 2 of 2 asks for 3 CPUs, and this machine gives 2"):
        scheduler.submit("t7", requests, queue.folder)
    assert scheduler.find("t7", queue.folder) is None


def test_jobs_outlive_the_shell_of_their_submitter(queue: Queue, tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    code = (
        "import sys, time; from pathlib import Path; import local_queue\n"
        "from slurmkit.schedulers.local.executor import LocalQueueExecutor\n"
        "executor = LocalQueueExecutor(sys.argv[1], queue=Path(sys.argv[2]))\n"
        "executor.submit(local_queue.hold, sys.argv[3], 'job', sys.argv[4]); time.sleep(300)"
    )
    command = [sys.executable, "-c", code, str(queue.folder), str(queue.path), str(log), str(go)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    shell = subprocess.Popen(command, env=environment, start_new_session=True)
    queue.wait(lambda: has_line(log))
    os.killpg(shell.pid, signal.SIGINT)
    os.killpg(shell.pid, signal.SIGHUP)
    shell.wait()
    go.write_text("go\n")
    assert {job.state for job in queue.wait_ended().values()} == {JobState.COMPLETED}


def test_the_queue_of_another_machine_is_read_and_never_run_here(
    queue: Queue, scheduler: Scheduler, tmp_path: Path
) -> None:
    (job_id,) = scheduler.submit("t8", [request(tmp_path, "a", SLEEP)], queue.folder)
    queue.wait((attempt(tmp_path, "a") / "started.json").exists)
    queue.close()
    journal = queue.path / "journal.jsonl"
    journal.write_text(journal.read_text().replace(f'"host":"{socket.gethostname()}"', '"host":"elsewhere"'))
    there = LocalScheduler(queue.path)
    assert there.query({job_id: "t"})[job_id].state is JobState.RUNNING
    with pytest.raises(SchedulerError, match="belongs to elsewhere"):
        there.submit("t9", [request(tmp_path, "b", SLEEP)], queue.folder)
    there.cancel([job_id])
    assert queue.job(job_id).cancelled
    assert queue.supervisors() == []

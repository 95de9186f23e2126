"""The worker: real commands in real checkouts, and the records that they leave."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from slurmkit import pin
from slurmkit.records import WorkOrder
from slurmkit.worker import work

PACKAGE = """\
import json, os, pathlib, sys

run_dir = pathlib.Path(os.environ["SLURMKIT_RUN_DIR"])

def finish(metrics={"loss": 0.5}):
    (run_dir / "metrics.json").write_text(json.dumps(metrics))
"""

GOOD = "import package; package.finish()"


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=A Person", "-c", "user.email=person@example.org"]
    done = subprocess.run(["git", *who, "-C", folder, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@dataclass(frozen=True)
class Bench:
    """A committed project with a package, its checkout, and a way to run commands in it."""

    repository: Path
    order: WorkOrder

    @property
    def run_dir(self) -> Path:
        return Path(self.order.run_dir)

    @property
    def attempt(self) -> Path:
        return self.run_dir / "attempts" / str(self.order.attempt)

    @property
    def outcome(self) -> dict[str, Any]:
        return json.loads((self.attempt / "outcome.json").read_bytes())

    def having(self, *command: str, **changes: Any) -> "Bench":
        return replace(self, order=replace(self.order, command=list(command) or self.order.command, **changes))

    def run(self, *command: str, **changes: Any) -> tuple[int, dict[str, Any]]:
        bench = self.having(*command, **changes)
        code = work(bench.order.to_json(), grace_s=0.5)
        return code, bench.outcome

    def python(self, code: str, **changes: Any) -> tuple[int, dict[str, Any]]:
        return self.run(sys.executable, "-c", code, **changes)


def make_bench(repository: Path, tmp_path: Path) -> Bench:
    pinned = pin.resolve(repository, None, collection="demo", ignore=[repository / "runs"])
    checkout = pin.materialise(pinned, repository, repository / "runs" / ".checkouts")
    order = WorkOrder(
        collection="demo",
        run_id="r1",
        run_name="run one",
        run_dir=str(tmp_path / "runs" / "demo" / "run one"),
        attempt=1,
        command=["true"],
        config={"lr": 0.1, "nested": {"name": "ü"}},
        config_sha256="0" * 64,
        env={"FROM_DEFINITION": "yes"},
        checkout=str(checkout),
        commit=pinned.commit,
        resources={},
    )
    return Bench(repository, order)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    top = tmp_path / "project"
    (top / "package").mkdir(parents=True)
    git(top, "init", "-q")
    (top / "package" / "__init__.py").write_text(PACKAGE)
    (top / "package" / "part.py").write_text("WHERE = __file__\n")
    (top / ".gitignore").write_text("/runs/\n")
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "One")
    return top


@pytest.fixture
def bench(repository: Path, tmp_path: Path) -> Bench:
    return make_bench(repository, tmp_path)


@contextlib.contextmanager
def once(ready: Callable[[], bool], do: Callable[[], object]):
    """Do something in a thread as soon as a condition holds, while the block runs in this one."""

    def wait() -> None:
        deadline = time.monotonic() + 20
        while not ready():
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)
        do()

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()


def has_line(path: Path, count: int = 1) -> Callable[[], bool]:
    return lambda: path.exists() and path.read_bytes().count(b"\n") >= count


def wait_until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not claim():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_completed_run_leaves_all_records(bench: Bench) -> None:
    code, outcome = bench.python(f"print('hello'); {GOOD}", changes={"set": {"lr": 0.1}, "why": "oom_host"})
    assert code == 0
    metrics = (bench.run_dir / "metrics.json").read_bytes()
    assert outcome["outcome"] == "completed"
    assert outcome["metrics_sha256"] == hashlib.sha256(metrics).hexdigest()
    assert outcome["pin"] == {"proved": True, "checked": 1, "foreign": {}}
    assert outcome["evidence"] == []
    assert outcome["peak_rss_mb"] > 1
    started = json.loads((bench.attempt / "started.json").read_bytes())
    assert started["command"][0] == sys.executable
    assert (started["run_id"], started["attempt"], started["restart"], started["pid"]) == ("r1", 1, 0, os.getpid())
    assert json.loads((bench.run_dir / "config.json").read_bytes()) == bench.order.config
    assert json.loads((bench.attempt / "changes.json").read_bytes())["why"] == "oom_host"
    assert sorted(path.name for path in bench.attempt.iterdir()) == [
        "changes.json", "config.json", "outcome.json", "started.json", "stderr.log", "stdout.log",
    ]  # fmt: skip
    assert (bench.attempt / "stdout.log").read_text() == "hello\n"


def test_the_command_gets_its_place_its_name_and_its_share_of_threads(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    bench.python(
        "import json, os, sys; print(json.dumps([dict(os.environ), os.getcwd(), sys.path]))", resources={"cpus": 3}
    )
    env, folder, path = json.loads((bench.attempt / "stdout.log").read_bytes())
    assert folder == bench.order.checkout
    assert env["PYTHONPATH"].split(":")[0] == bench.order.checkout
    assert path[1] == bench.order.checkout
    assert "/somewhere" in path
    assert (env["OMP_NUM_THREADS"], env["MKL_NUM_THREADS"], env["OPENBLAS_NUM_THREADS"]) == ("3", "7", "3")
    assert env["OMP_WAIT_POLICY"] == "PASSIVE"
    assert env["FROM_DEFINITION"] == "yes"
    assert (env["SLURMKIT_RUN_ID"], env["SLURMKIT_RUN_DIR"]) == ("r1", bench.order.run_dir)
    assert (env["SLURMKIT_COMMIT"], env["SLURMKIT_ATTEMPT"]) == (bench.order.commit, "1")
    assert (env["SLURMKIT_COLLECTION"], env["PYTHONUNBUFFERED"]) == ("demo", "1")


FAILURES = {
    "exception": (
        "import package\nraise ValueError('bad\\x1b[31m value')",
        "error",
        "stderr line 3: ValueError: bad value",
    ),
    "exit code": ("import sys; sys.exit(3)", "error", "exit code 3 after 0s"),
    "last words": ("import sys; print('a\\nfatal: b', file=sys.stderr); sys.exit(3)", "error", "line 2: fatal: b"),
    "gpu memory": (
        "class OutOfMemoryError(RuntimeError): __module__ = 'torch'\n"
        "raise OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')",
        "oom_gpu",
        "torch.OutOfMemoryError: CUDA out of memory",
    ),
    "host memory": ("raise MemoryError", "oom_host", "MemoryError"),
    "no metrics": ("pass", "no_metrics", "metrics.json: was not written"),
    "metrics that are NaN": (
        "import package; package.finish({'loss': {'val': float('nan')}})",
        "no_metrics",
        "loss/val is nan",
    ),
    "metrics that are empty": ("import package; open(package.run_dir / 'metrics.json', 'w')", "no_metrics", "is empty"),
    "metrics cut short": (
        "import package; (package.run_dir / 'metrics.json').write_text('{\"a\": 1,')",
        "no_metrics",
        "metrics.json: line 1, column 9: not JSON",
    ),
    "divergence": (
        "import package, json, sys\n"
        "error = {'kind': 'diverged', 'type': 'DivergedError', 'message': 'kl is nan', 'step': 12, 'term': 'kl'}\n"
        "(package.run_dir / 'error.json').write_text(json.dumps(error)); sys.exit(1)",
        "diverged",
        "error.json: diverged at step 12 in kl: DivergedError: kl is nan",
    ),
    "segmentation fault": (
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "error",
        "ended by SIGSEGV after 0s",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_told_with_its_reason_and_evidence(bench: Bench, failure: str) -> None:
    code, reason, evidence = FAILURES[failure]
    exit_code, outcome = bench.python(code)
    assert (exit_code, outcome["outcome"], outcome["reason"]) == (1, "failed", reason)
    assert evidence in "; ".join(outcome["evidence"])
    assert outcome["metrics_sha256"] is None


def test_what_the_command_says_of_its_failure_is_kept_with_the_attempt(bench: Bench) -> None:
    _, outcome = bench.python(FAILURES["divergence"][0])
    assert outcome["error"]["step"] == 12
    assert json.loads((bench.attempt / "error.json").read_bytes()) == outcome["error"]
    assert not (bench.run_dir / "error.json").exists()
    _, outcome = bench.python("import package; (package.run_dir / 'error.json').write_text('{'); 1 / 0", attempt=2)
    assert outcome["error"]["message"].startswith("error.json is not JSON: ")
    assert "ZeroDivisionError" in "; ".join(outcome["evidence"])


def test_a_command_killed_at_its_memory_limit_ran_out_of_memory(bench: Bench) -> None:
    code = "import os, signal, time\nblock = b'x' * 60_000_000\ntime.sleep(0.4)\nos.kill(os.getpid(), signal.SIGKILL)"
    _, outcome = bench.python(code, resources={"mem_mb": 64})
    assert outcome["reason"] == "oom_host"
    assert outcome["signal"] == signal.SIGKILL
    assert 60 < outcome["peak_rss_mb"] < 90
    assert f"limit 64 MB, peak {outcome['peak_rss_mb']:.0f} MB" in outcome["evidence"]
    _, outcome = bench.python(code, resources={"mem_mb": 4096}, attempt=2)
    assert outcome["reason"] == "error"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["no-such-program"], "no-such-program: No such file or directory"),
        (["./package"], "Permission denied"),
        (["true", "a\0b"], "embedded null byte"),
    ],
)
def test_a_command_that_cannot_start_is_told(bench: Bench, command: list[str], words: str) -> None:
    code, outcome = bench.run(*command)
    assert (code, outcome["reason"], outcome["exit_code"]) == (1, "error", None)
    assert words in outcome["evidence"][0]


def test_a_checkout_that_is_gone_is_told(bench: Bench) -> None:
    _, outcome = bench.run("true", checkout=bench.order.checkout + "x")
    assert "the checkout is gone" in outcome["evidence"][0]


def test_arguments_reach_the_command_as_they_are(bench: Bench, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    words = [f"$(touch {canary})", f"; touch {canary}", "'\"\n", "-x", "../..", "ü", "y" * 10_000]
    bench.run(sys.executable, "-c", "import sys, json; print(json.dumps(sys.argv[1:]))", *words)
    assert json.loads((bench.attempt / "stdout.log").read_bytes()) == words
    assert not canary.exists()


STOPPABLE = """
import os, signal, sys, time, package
def stop(number, frame):
    print('got', number, file=sys.stderr)
    sys.exit(75)
for number in (signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, stop)
print('ready', os.getpid())
time.sleep(20)
"""


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGUSR2, "timeout"), (signal.SIGTERM, "preempted")])
def test_a_stop_signal_is_passed_on_and_the_run_is_queued_again(bench: Bench, number: int, reason: str) -> None:
    with once(has_line(bench.attempt / "stdout.log"), lambda: os.kill(os.getpid(), number)):
        code, outcome = bench.python(STOPPABLE)
    assert (code, outcome["outcome"], outcome["reason"]) == (75, "requeue", reason)
    assert (bench.attempt / "stderr.log").read_text() == f"got {number:d}\n"


def test_a_restart_goes_on_in_the_same_attempt_and_keeps_what_was_recorded(bench: Bench) -> None:
    ask_again = "import package, sys; print('first', file=sys.stderr); package.finish({'old': 1}); sys.exit(75)"
    code, first = bench.python(ask_again)
    assert (code, first["outcome"], first["reason"], first["restart"]) == (75, "requeue", None, 0)
    _, second = bench.python("raise KeyError('x')")
    assert (second["outcome"], second["restart"]) == ("failed", 1)
    assert "stderr line 4: KeyError: 'x'" in second["evidence"]
    assert (bench.attempt / "stderr.log").read_text().startswith("first\nTraceback")
    _, third = bench.python("pass")
    assert (third["reason"], third["restart"]) == ("no_metrics", 2)
    kept = sorted(path.name for path in bench.attempt.glob("*.[0-9].json"))
    assert kept == ["metrics.0.json", "outcome.0.json", "outcome.1.json", "started.0.json", "started.1.json"]
    assert json.loads((bench.attempt / "outcome.0.json").read_bytes()) == first


@pytest.mark.parametrize(
    ("number", "reason", "requeue", "starts"),
    [(signal.SIGUSR2, "timeout", {"timeout": 1}, 2), (signal.SIGTERM, "preempted", {"timeout": 5, "preempted": 0}, 1)],
)
def test_an_attempt_is_queued_again_for_a_reason_as_often_as_its_order_says(
    bench: Bench, number: int, reason: str, requeue: dict[str, int], starts: int
) -> None:
    codes: list[int] = []
    for start in range(starts):
        with once(has_line(bench.attempt / "stdout.log", start + 1), lambda: os.kill(os.getpid(), number)):
            codes.append(bench.python(STOPPABLE, requeue=requeue)[0])
    assert codes == [75] * (starts - 1) + [1]
    assert (bench.outcome["outcome"], bench.outcome["reason"]) == ("failed", reason)
    assert bench.outcome["evidence"][0].endswith(f"(on_failure.{reason}.requeue: {requeue[reason]})")
    with once(has_line(bench.run_dir / "attempts" / "2" / "stdout.log"), lambda: os.kill(os.getpid(), signal.SIGUSR2)):
        code, next_attempt = bench.having(attempt=2).python(STOPPABLE, requeue={"timeout": 1})
    assert (code, next_attempt["outcome"]) == (75, "requeue")


def test_returns_for_other_reasons_are_not_counted(bench: Bench) -> None:
    bench.run("sh", "-c", "exit 75")
    for start, number in enumerate((signal.SIGTERM, signal.SIGUSR2)):
        with once(
            has_line(bench.attempt / "stdout.log", start + 1), lambda number=number: os.kill(os.getpid(), number)
        ):
            code, outcome = bench.python(STOPPABLE, requeue={"timeout": 1})
        assert (code, outcome["outcome"], outcome["restart"]) == (75, "requeue", start + 1)


def test_an_attempt_that_was_preempted_too_often_is_not_started_again_by_its_scheduler(bench: Bench) -> None:
    with once(has_line(bench.attempt / "stdout.log"), lambda: os.kill(os.getpid(), signal.SIGTERM)):
        bench.python(STOPPABLE, requeue={"preempted": 0})
    before = bench.outcome
    code, outcome = bench.python(GOOD, requeue={"preempted": 0})
    assert (code, outcome) == (1, before)
    assert bench.python(GOOD, attempt=2)[0] == 0


def test_an_order_of_before_these_limits_still_reads(bench: Bench) -> None:
    older = bench.order.to_json()
    del older["requeue"]
    assert WorkOrder.from_json(older) == bench.order


def test_a_command_that_only_ever_asks_to_be_queued_again_fails_in_the_end(bench: Bench) -> None:
    codes = [bench.run("sh", "-c", "exit 75")[0] for _ in range(21)]
    assert codes == [75] * 20 + [1]
    assert "without having been asked" in bench.outcome["evidence"][0]


def test_an_earlier_attempt_s_result_is_never_the_new_one_s(bench: Bench) -> None:
    bench.python(f"{GOOD}; (package.run_dir / 'progress.json').write_text('{{}}'); raise SystemExit(1)")
    _, outcome = bench.python("pass", attempt=2)
    assert outcome["reason"] == "no_metrics"
    assert not (bench.run_dir / "metrics.json").exists()
    assert json.loads((bench.attempt / "metrics.json").read_bytes()) == {"loss": 0.5}
    assert (bench.attempt / "progress.json").exists()
    assert bench.outcome["outcome"] == "failed"


def test_files_that_were_there_before_the_first_attempt_are_put_aside(bench: Bench) -> None:
    bench.run_dir.mkdir(parents=True)
    (bench.run_dir / "metrics.json").write_text('{"loss": 0}')
    _, outcome = bench.run("true")
    assert outcome["reason"] == "no_metrics"
    assert (bench.attempt / "before.metrics.json").exists()


def test_a_completed_attempt_is_not_run_again(bench: Bench) -> None:
    command = f"{GOOD}; print('ran')"
    assert bench.python(command)[0] == 0
    assert bench.python(command)[0] == 0
    assert (bench.attempt / "stdout.log").read_text() == "ran\n"
    (bench.run_dir / "metrics.json").write_text('{"loss": 0.1}')
    assert bench.python(command)[1]["restart"] == 1


def test_a_command_that_does_not_stop_is_killed_with_its_children(bench: Bench) -> None:
    stubborn = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal, time; "
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)'])\n"
        "print(child.pid)\ntime.sleep(60)"
    )
    with once(has_line(bench.attempt / "stdout.log", 2), lambda: os.kill(os.getpid(), signal.SIGTERM)):
        code, outcome = bench.python(stubborn)
    assert (code, outcome["outcome"], outcome["signal"]) == (1, "cancelled", signal.SIGKILL)
    assert "SIGTERM passed on" in outcome["evidence"]
    pids = [int(line) for line in (bench.attempt / "stdout.log").read_text().split() if line != "1"]
    assert len(pids) == 1
    assert not lives(pids[0])


def test_a_signal_that_the_command_does_not_know_ends_it_as_a_timeout(bench: Bench) -> None:
    with once(has_line(bench.attempt / "stdout.log"), lambda: os.kill(os.getpid(), signal.SIGUSR2)):
        code, outcome = bench.run("sh", "-c", "echo ready; exec sleep 20", resources={"time_s": 60})
    assert (code, outcome["outcome"], outcome["reason"]) == (1, "failed", "timeout")
    assert "ended by SIGUSR2 after 0s of 1m00s" in outcome["evidence"]


def test_what_a_command_leaves_running_is_ended(bench: Bench, tmp_path: Path) -> None:
    """Also what it put into a session of its own, whose parent has ended."""
    script = 'setsid sh -c "echo \\$\\$ > {0}; exec sleep 60" & while [ ! -s {0} ]; do sleep 0.01; done; echo 1'
    bench.run("sh", "-c", script.format(tmp_path / "pid"))
    assert (bench.attempt / "stdout.log").read_text() == "1\n"
    assert not lives(int((tmp_path / "pid").read_text()))


def test_other_children_of_the_process_are_left_alone(bench: Bench) -> None:
    other = subprocess.Popen(["sleep", "60"])
    try:
        bench.run("true")
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_handlers_are_as_before_once_the_work_is_done(bench: Bench) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGCHLD)]
    bench.run("true")
    assert before == [
        signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGCHLD)
    ]


def test_the_heartbeat_and_the_peak_count_the_whole_tree(bench: Bench) -> None:
    code = (
        "import subprocess, sys\n"
        "hold = 'import time; block = b\"x\" * 30_000_000; time.sleep(1.3)'\n"
        "children = [subprocess.Popen([sys.executable, '-c', hold]) for _ in range(2)]\n"
        "[child.wait() for child in children]"
    )
    _, outcome = bench.python(code)
    assert 60 < outcome["peak_rss_mb"] < 200
    beat = json.loads((bench.attempt / "heartbeat.json").read_bytes())
    assert 60 < beat["rss_mb"] <= beat["peak_rss_mb"]


def start_worker(bench: Bench) -> "subprocess.Popen[bytes]":
    code = "import json, sys; from slurmkit.worker import work; sys.exit(work(json.load(sys.stdin), grace_s=0.5))"
    worker = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert worker.stdin is not None
    worker.stdin.write(json.dumps(bench.order.to_json()).encode())
    worker.stdin.close()
    return worker


def test_the_command_dies_with_its_worker_and_the_next_start_goes_on(bench: Bench) -> None:
    sleeping = bench.having(sys.executable, "-c", "import os, time; print(os.getpid()); time.sleep(60)")
    worker = start_worker(sleeping)
    wait_until(has_line(bench.attempt / "stdout.log"))
    worker.kill()
    worker.wait()
    pid = int((bench.attempt / "stdout.log").read_text())
    wait_until(lambda: not lives(pid))
    assert not (bench.attempt / "outcome.json").exists()
    code, outcome = bench.python(GOOD)
    assert (code, outcome["restart"]) == (0, 1)


KILLED_WORKER = """
import json, os, signal, sys
from pathlib import Path
from slurmkit.worker import work

calls = 0

def dying(change):
    def changed(*arguments):
        global calls
        for when in ("before", "after"):
            calls += 1
            if calls == int(sys.argv[1]):
                os.kill(os.getpid(), signal.SIGKILL)
            if when == "before":
                result = change(*arguments)
        return result
    return changed

Path.replace, Path.rename = dying(Path.replace), dying(Path.rename)
sys.exit(work(json.load(sys.stdin)))
"""


def test_a_worker_killed_around_any_record_loses_and_doubles_nothing(bench: Bench) -> None:
    """Killed before and after each rename that it makes, in turn; then the attempt is started again."""
    bench.python("import package; package.finish({'loss': 'old'}); raise SystemExit(1)")
    for moment in range(1, 100):
        again = bench.having(sys.executable, "-c", f"print('ran'); {GOOD}", attempt=moment + 1)
        order = json.dumps(again.order.to_json())
        killed = subprocess.run([sys.executable, "-c", KILLED_WORKER, str(moment)], input=order, text=True, check=False)
        if killed.returncode == 0:
            break
        assert killed.returncode == -signal.SIGKILL
        recorded = (again.attempt / "outcome.json").exists()
        assert work(again.order.to_json()) == 0
        assert again.outcome["outcome"] == "completed"
        metrics = (bench.run_dir / "metrics.json").read_bytes()
        assert again.outcome["metrics_sha256"] == hashlib.sha256(metrics).hexdigest()
        ran = (again.attempt / "stdout.log").read_text().count("ran")
        assert ran == 1 if recorded else ran <= 2
    assert 10 < moment < 40
    assert json.loads((bench.attempt / "metrics.json").read_bytes()) == {"loss": "old"}
    assert not list(bench.run_dir.rglob(".imports"))


def test_a_second_worker_of_an_attempt_waits_for_the_first(bench: Bench) -> None:
    slow = bench.having(sys.executable, "-c", f"import time; print('ran'); time.sleep(0.5); {GOOD}")
    first = start_worker(slow)
    wait_until(has_line(bench.attempt / "stdout.log"))
    second = start_worker(slow)
    assert (first.wait(), second.wait()) == (0, 0)
    assert (bench.attempt / "stdout.log").read_text() == "ran\n"
    assert bench.outcome["restart"] == 0


def test_a_signal_before_the_start_keeps_the_command_from_starting(bench: Bench) -> None:
    """The worker is asked to stop while it waits for another one of the same attempt, which then dies."""
    first = start_worker(bench.having("sh", "-c", "echo ran; exec sleep 60"))
    wait_until(has_line(bench.attempt / "stdout.log"))
    second = start_worker(bench.having("sh", "-c", "echo ran"))
    time.sleep(0.4)
    second.send_signal(signal.SIGTERM)
    assert second.wait() == 1
    first.send_signal(signal.SIGTERM)
    assert first.wait() == 1
    assert bench.outcome["outcome"] == "cancelled"
    assert (bench.attempt / "stdout.log").read_text() == "ran\n"


def test_a_run_directory_that_cannot_be_made_is_told_and_nothing_runs(
    bench: Bench, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    order = bench.having("sh", "-c", f"touch {tmp_path}/ran", run_dir=str(tmp_path / "file" / "run")).order
    assert work(order.to_json()) == 1
    assert "cannot be written: Not a directory" in capfd.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_a_pipe_in_place_of_metrics_blocks_nobody(bench: Bench) -> None:
    _, outcome = bench.python("import package, os; os.mkfifo(package.run_dir / 'metrics.json')")
    assert outcome["reason"] == "no_metrics"
    assert "metrics.json: cannot be read: not a regular file" in outcome["evidence"]


def test_an_end_on_a_full_disk_is_recorded_once_there_is_room_again(bench: Bench, tmp_path: Path) -> None:
    """On a real file system of 256 KiB, which the command fills."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("only root can mount a file system")
    try:
        small = bench.having(
            "sh",
            "-c",
            'echo {} > "$SLURMKIT_RUN_DIR/metrics.json"; echo done; cat /dev/zero > "$SLURMKIT_RUN_DIR/filler"; exit 0',
            run_dir=str(disk / "run"),
        )
        filler = small.run_dir / "filler"
        free = filler.unlink
        with once(lambda: _is_full(disk), lambda: _later(free)):
            code = work(small.order.to_json())
        assert (code, small.outcome["outcome"]) == (0, "completed")
    finally:
        subprocess.run(["umount", disk], check=True)


def _is_full(disk: Path) -> bool:
    return os.statvfs(disk).f_bfree == 0


def _later(do: Callable[[], object]) -> None:
    time.sleep(0.4)  # by then the first try to record the end has failed
    do()


class TestProof:
    """What the imported files say about the pin."""

    def test_a_file_of_the_checkout_that_was_changed_is_a_mismatch(self, bench: Bench) -> None:
        part = Path(bench.order.checkout) / "package" / "part.py"
        part.chmod(0o644)
        part.write_text("WHERE = 'changed'\n")
        code, outcome = bench.python(f"import package.part; {GOOD}")
        assert (code, outcome["reason"]) == (1, "pin_mismatch")
        assert outcome["pin"] == {"proved": False, "checked": 2, "foreign": {"package.part": str(part)}}
        assert "not as in the commit" in outcome["evidence"][0]

    def test_a_file_that_is_not_of_the_commit_is_a_mismatch(self, bench: Bench) -> None:
        (Path(bench.order.checkout) / "generated.py").write_text("")
        _, outcome = bench.python(f"import generated; {GOOD}")
        assert outcome["reason"] == "pin_mismatch"
        assert "not a file of the commit" in outcome["evidence"][0]

    def test_code_that_puts_the_work_tree_first_is_a_mismatch(self, bench: Bench) -> None:
        _, outcome = bench.python(f"import sys; sys.path.insert(0, {str(bench.repository)!r}); {GOOD}")
        assert outcome["reason"] == "pin_mismatch"
        assert outcome["pin"]["foreign"] == {"package": str(bench.repository / "package" / "__init__.py")}

    def test_a_script_of_the_work_tree_is_a_mismatch(self, bench: Bench, repository: Path) -> None:
        for path in (repository / "package" / "part.py", Path("../../../package/part.py")):
            _, outcome = bench.run(sys.executable, str(path))
            assert outcome["reason"] == "pin_mismatch"
            assert list(outcome["pin"]["foreign"]) == ["__main__"]

    def test_a_script_of_the_checkout_is_checked(self, bench: Bench) -> None:
        _, outcome = bench.run(sys.executable, "package/part.py")
        assert outcome["pin"] == {"proved": True, "checked": 1, "foreign": {}}

    def test_processes_that_the_command_starts_are_looked_at_too(self, bench: Bench) -> None:
        inner = f"import sys; sys.path.insert(0, {str(bench.repository)!r}); import package"
        _, outcome = bench.python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}]); {GOOD}")
        assert outcome["reason"] == "pin_mismatch"

    def test_a_command_that_is_not_python_proves_nothing(self, bench: Bench) -> None:
        code, outcome = bench.run("sh", "-c", 'echo "{}" > "$SLURMKIT_RUN_DIR/metrics.json"')
        assert code == 0
        assert outcome["pin"] == {"proved": None, "checked": 0, "foreign": {}}

    def test_a_library_of_the_same_name_as_a_plain_folder_is_not_foreign(
        self, repository: Path, tmp_path: Path
    ) -> None:
        (repository / "orjson").mkdir()
        (repository / "orjson" / "notes.txt").touch()
        git(repository, "add", "-A")
        git(repository, "commit", "-q", "-m", "A folder named like a library")
        code, outcome = make_bench(repository, tmp_path).python(f"import orjson; {GOOD}")
        assert (code, outcome["pin"]["proved"]) == (0, True)

    def test_the_projects_own_sitecustomize_still_runs(self, repository: Path, tmp_path: Path) -> None:
        (repository / "sitecustomize.py").write_text("import sys; sys.own_hook = __name__\n")
        git(repository, "add", "-A")
        git(repository, "commit", "-q", "-m", "A hook")
        bench = make_bench(repository, tmp_path)
        _, outcome = bench.python(f"import sys; print(sys.own_hook); {GOOD}")
        assert (bench.attempt / "stdout.log").read_text() == "sitecustomize\n"
        assert outcome["pin"]["proved"] is True

    def test_another_sitecustomize_on_the_path_still_runs(
        self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "hooks").mkdir()
        (tmp_path / "hooks" / "sitecustomize.py").write_text("import sys; sys.own_hook = 1; raise OSError('broken')\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hooks"))
        _, outcome = bench.python(f"import sys; print(sys.own_hook); {GOOD}")
        assert (bench.attempt / "stdout.log").read_text() == "1\n"
        assert "broken" in (bench.attempt / "stderr.log").read_text()
        assert outcome["pin"]["proved"] is True

    @pytest.mark.parametrize("style", ["a path file", "a path file that goes first", "a finder that goes first"])
    def test_an_editable_install_does_not_win_over_the_pin(self, bench: Bench, tmp_path: Path, style: str) -> None:
        """A real environment whose site-packages point to the work tree, in the ways that build tools do it."""
        python = editable_environment(tmp_path / "environment", bench.repository, style)
        outside = subprocess.run(
            [python, "-c", "import package.part; print(package.part.WHERE)"],
            cwd=tmp_path, env={**os.environ, "SLURMKIT_RUN_DIR": "x"}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert outside.stdout.strip() == str(bench.repository / "package" / "part.py")
        code, outcome = bench.run(str(python), "-c", f"import package.part; print(package.part.WHERE); {GOOD}")
        assert (bench.attempt / "stdout.log").read_text().strip() == f"{bench.order.checkout}/package/part.py"
        assert (code, outcome["pin"]) == (0, {"proved": True, "checked": 2, "foreign": {}})

    def test_a_deeper_package_is_found_by_a_relative_path(self, repository: Path, tmp_path: Path) -> None:
        (repository / "python").mkdir()
        git(repository, "mv", "package", "python/package")
        git(repository, "commit", "-q", "-m", "Move")
        bench = make_bench(repository, tmp_path)
        python = str(editable_environment(tmp_path / "environment", repository / "python", "a path file"))
        assert bench.run(python, "-c", GOOD)[1]["reason"] == "pin_mismatch"
        code, outcome = bench.run(python, "-c", GOOD, env={"PYTHONPATH": "python"}, attempt=2)
        assert (code, outcome["pin"]["proved"]) == (0, True)

    def test_a_package_in_src_comes_from_the_checkout(self, repository: Path, tmp_path: Path) -> None:
        (repository / "src").mkdir()
        git(repository, "mv", "package", "src/package")
        git(repository, "commit", "-q", "-m", "Move")
        bench = make_bench(repository, tmp_path)
        python = editable_environment(tmp_path / "environment", repository / "src", "a path file")
        code, outcome = bench.run(str(python), "-c", GOOD)
        assert (code, outcome["pin"]["proved"], outcome["pin"]["checked"]) == (0, True, 1)


def editable_environment(folder: Path, source: Path, style: str) -> Path:
    """Make a virtual environment in which the package of a folder is installed editable; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    finder = f"""
import sys
from importlib.util import spec_from_file_location

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        where = {{"package": "package/__init__.py", "package.part": "package/part.py"}}.get(name)
        return spec_from_file_location(name, {str(source)!r} + "/" + where) if where else None

sys.meta_path.insert(0, Finder)
"""
    (packages / "editable_finder.py").write_text(finder)
    line = {
        "a path file": str(source),
        "a path file that goes first": f"import sys; sys.path.insert(0, {str(source)!r})",
        "a finder that goes first": "import editable_finder",
    }
    (packages / "editable.pth").write_text(line[style] + "\n")
    return folder / "bin" / "python"

"""The processes of a worker: all of them end, none is lost, and a kill anywhere doubles nothing."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from worker_bench import GOOD, Bench, has_line, lives, once, start_worker, wait_until

from slurmkit.worker import work


def test_a_command_that_does_not_stop_is_killed_with_its_children(bench: Bench) -> None:
    stubborn = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal, time; "
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(300)'])\n"
        "print(child.pid)\ntime.sleep(300)"
    )
    with once(has_line(bench.attempt / "stdout.log", 2), lambda: os.kill(os.getpid(), signal.SIGTERM)):
        code, outcome = bench.python(stubborn, grace_s=0.1)
    assert (code, outcome["outcome"], outcome["signal"]) == (1, "cancelled", signal.SIGKILL)
    assert "SIGTERM passed on" in outcome["evidence"]
    pids = [int(line) for line in (bench.attempt / "stdout.log").read_text().split() if line != "1"]
    assert len(pids) == 1
    assert not lives(pids[0])


def test_a_signal_that_the_command_does_not_know_ends_it_as_a_timeout(bench: Bench) -> None:
    with once(has_line(bench.attempt / "stdout.log"), lambda: os.kill(os.getpid(), signal.SIGUSR2)):
        code, outcome = bench.run("sh", "-c", "echo ready; exec sleep 300", resources={"time_s": 3600})
    assert (code, outcome["outcome"], outcome["reason"]) == (1, "failed", "timeout")
    assert any(re.fullmatch(r"ended by SIGUSR2 after \d+s of 1h00m", line) for line in outcome["evidence"])


def test_what_a_command_leaves_running_is_ended(bench: Bench, tmp_path: Path) -> None:
    """Also what it put into a session of its own, whose parent has ended."""
    script = 'setsid sh -c "echo \\$\\$ > {0}; exec sleep 300" & while [ ! -s {0} ]; do sleep 0.01; done; echo 1'
    bench.run("sh", "-c", script.format(tmp_path / "pid"))
    assert (bench.attempt / "stdout.log").read_text() == "1\n"
    assert not lives(int((tmp_path / "pid").read_text()))


def test_other_children_of_the_process_are_left_alone(bench: Bench) -> None:
    other = subprocess.Popen(["sleep", "300"])
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


HOLD_UNTIL_SEEN = """
import json, os, pathlib, subprocess, sys, time
hold = 'import sys; block = b"x" * 30_000_000; print(flush=True); sys.stdin.read()'
pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
children = [subprocess.Popen([sys.executable, "-c", hold], **pipes) for _ in range(2)]
for child in children:
    child.stdout.readline()
beat = pathlib.Path(os.environ["SLURMKIT_RUN_DIR"], "attempts", "1", "heartbeat.json")
while not beat.exists() or (seen := json.loads(beat.read_text()))["rss_mb"] < 60:
    time.sleep(0.02)
print(json.dumps(seen))
for child in children:
    child.communicate()
"""


def test_the_heartbeat_and_the_peak_count_the_whole_tree(bench: Bench) -> None:
    """Two children hold 30 MB each until a beat has both; this ends with the first, unless that came too early."""
    _, outcome = bench.python(HOLD_UNTIL_SEEN)
    assert 60 < outcome["peak_rss_mb"] < 200
    beat = json.loads((bench.attempt / "stdout.log").read_bytes())
    assert 60 < beat["rss_mb"] <= beat["peak_rss_mb"]


def test_the_command_dies_with_its_worker_and_the_next_start_goes_on(bench: Bench) -> None:
    sleeping = bench.having(sys.executable, "-c", "import os, time; print(os.getpid()); time.sleep(300)")
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
    go = bench.repository / "go"
    waiting = f"import os, time\nprint('ran')\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n{GOOD}"
    slow = bench.having(sys.executable, "-c", waiting)
    first = start_worker(slow)
    wait_until(has_line(bench.attempt / "stdout.log"))
    second = start_worker(slow)
    wait_until(lambda: catches(second.pid, signal.SIGTERM))
    go.touch()
    assert (first.wait(), second.wait()) == (0, 0)
    assert (bench.attempt / "stdout.log").read_text() == "ran\n"
    assert bench.outcome["restart"] == 0


def catches(pid: int, number: signal.Signals) -> bool:
    """Say whether a process has a handler for a signal (``man proc``, SigCgt)."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) >> (number - 1) & 1)


def test_a_signal_before_the_start_keeps_the_command_from_starting(bench: Bench) -> None:
    """The worker is asked to stop while it waits for another one of the same attempt, which then dies."""
    first = start_worker(bench.having("sh", "-c", "echo ran; exec sleep 300"))
    wait_until(has_line(bench.attempt / "stdout.log"))
    second = start_worker(bench.having("sh", "-c", "echo ran"))
    wait_until(lambda: catches(second.pid, signal.SIGTERM))
    second.send_signal(signal.SIGTERM)
    assert second.wait() == 1
    first.send_signal(signal.SIGTERM)
    assert first.wait() == 1
    assert bench.outcome["outcome"] == "cancelled"
    assert (bench.attempt / "stdout.log").read_text() == "ran\n"

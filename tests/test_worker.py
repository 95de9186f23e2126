"""The worker: real commands in real checkouts, and the records that they leave."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from worker_bench import GOOD, Bench, start_worker

from slurmkit.worker import work


def test_a_completed_run_leaves_all_records(bench: Bench) -> None:
    code, outcome = bench.python(f"print('hello'); {GOOD}", changes={"set": {"lr": 0.1}, "why": "oom_host"})
    assert code == 0
    metrics = (bench.run_dir / "metrics.json").read_bytes()
    assert outcome["outcome"] == "completed"
    assert outcome["metrics_sha256"] == hashlib.sha256(metrics).hexdigest()
    assert outcome["pin"] == {"proved": True, "checked": 1, "foreign": {}, "imported": ["package/__init__.py"]}
    assert outcome["evidence"] == []
    assert outcome["peak_rss_mb"] > 1
    started = json.loads((bench.attempt / "started.json").read_bytes())
    assert started["command"][0] == sys.executable
    assert (started["run_id"], started["attempt"], started["restart"], started["pid"]) == ("r1", 1, 0, os.getpid())
    assert json.loads((bench.run_dir / "config.json").read_bytes()) == bench.order.config
    assert json.loads((bench.attempt / "changes.json").read_bytes())["why"] == "oom_host"
    left = {path.name for path in bench.attempt.iterdir()} - {"heartbeat.json"}  # only a run of a second has one
    records = {f"{name}.json" for name in ("changes", "config", "outcome", "started")}
    assert left == records | {"stderr.log", "stdout.log"}
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
    "exit code": ("import sys; sys.exit(3)", "error", r"exit code 3 after \d+s"),
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
        r"ended by SIGSEGV after \d+s",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_told_with_its_reason_and_evidence(bench: Bench, failure: str) -> None:
    code, reason, evidence = FAILURES[failure]
    exit_code, outcome = bench.python(code)
    assert (exit_code, outcome["outcome"], outcome["reason"]) == (1, "failed", reason)
    assert re.search(evidence, "; ".join(outcome["evidence"]))
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
    """By the account of the kernel, which is exact for a command that is larger than its worker.

    The worker is a fork of this process, which is larger; samples taken before the block was there are less.
    """
    here = bytearray(b"x" * 300_000_000)
    code = """
import os, signal, time
from pathlib import Path
attempts = Path(os.environ["SLURMKIT_RUN_DIR"], "attempts")
while not (attempts / os.environ["SLURMKIT_ATTEMPT"] / "heartbeat.json").exists():
    time.sleep(0.02)
block = b"x" * 120_000_000
os.kill(os.getpid(), signal.SIGKILL)
"""
    for attempt, limit_mb, reason in ((1, 110, "oom_host"), (2, 4096, "error")):
        killed = bench.having(sys.executable, "-c", code, resources={"mem_mb": limit_mb}, attempt=attempt)
        assert start_worker(killed).wait() == 1
        outcome = killed.outcome
        assert (outcome["reason"], outcome["signal"]) == (reason, signal.SIGKILL)
        assert 114 < outcome["peak_rss_mb"] < 150
        assert (f"limit 110 MB, peak {outcome['peak_rss_mb']:.0f} MB" in outcome["evidence"]) == (attempt == 1)
    del here


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


def test_an_end_on_a_full_disk_is_recorded_once_there_is_room_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real file system of 256 KiB, which the command fills, and which is cleared between two tries."""
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
        pauses: list[float] = []

        def pause(pause_s: float) -> None:
            assert os.statvfs(disk).f_bfree == 0
            pauses.append(pause_s)
            if len(pauses) == 2:
                (small.run_dir / "filler").unlink()

        monkeypatch.setattr("slurmkit.worker.attempt.time", SimpleNamespace(sleep=pause))
        code = work(small.order.to_json())
        assert (code, small.outcome["outcome"]) == (0, "completed")
        assert pauses == [1.0, 5.0]
    finally:
        subprocess.run(["umount", disk], check=True)

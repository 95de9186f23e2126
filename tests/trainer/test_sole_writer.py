"""One trainer a run's directory."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_runs import BASE

from trainer.records import sole_writer

HOLD = """
import sys, time
from pathlib import Path
from trainer.records import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_trainer_in_the_same_folder_is_refused_until_the_first_is_gone(
    tmp_path: Path, run_trainer: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        (tmp_path / "metrics.json").touch()
        assert run_trainer(BASE, tmp_path) == 1
        told = capsys.readouterr().err
        first.send_signal(signal.SIGKILL)
    assert told == f"--run-dir: another trainer is at work in {tmp_path}. Let it end, or name another folder.\n"
    assert (tmp_path / "metrics.json").exists(), "the one that was refused touched the records of the other"
    with sole_writer(tmp_path):
        assert not (tmp_path / "metrics.json").exists()


def test_a_trainer_that_is_dying_is_waited_for(tmp_path: Path) -> None:
    """The first lets go while the second waits: its sleep between two tries is where that happens here."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.sleep", lambda _: fcntl.flock(descriptor, fcntl.LOCK_UN))
        with sole_writer(tmp_path) as records:
            assert records.folder == tmp_path
    os.close(descriptor)

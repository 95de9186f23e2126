"""Runs that are asked to stop, at exact points: they save what they have, end, and go on as if never interrupted."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stopping import StopAfter, StopInside, StopWithin, wait_until
from tiny_runs import disentangle, result, series

from trainer.records import write_json
from trainer.stop import TRY_AGAIN_EXIT_CODE

Run = Callable[..., int]
pytestmark = pytest.mark.timeout(600)  # a new process takes many seconds of computing until its first step


def steps_done(folder: Path) -> int:
    """Return the step of a run's checkpoint."""
    return torch.load(folder / "checkpoint" / "state.pt", weights_only=True)["progress"]["step"]


def begin(folder: Path, *program: str, stdout: int | None = None) -> "subprocess.Popen[str]":
    """Start the trainer as a process of its own, on the configuration that lies in a folder."""
    words = ["run", str(folder / "config.json"), "--run-dir", str(folder)]
    command = [sys.executable, *(program or ("-m", "trainer")), *words]
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True)


def start(raw: dict[str, Any], folder: Path) -> "subprocess.Popen[str]":
    """Start the trainer as a process of its own."""
    write_json(folder / "config.json", raw)
    return begin(folder)


def test_sigterm_saves_a_checkpoint_and_the_run_goes_on(tmp_path: Path, base: Path, run_trainer: Run) -> None:
    """The process is halted when the signal is sent: it gets it at whichever instruction of a step that was."""
    raw = disentangle(base, train={"steps": 100_000, "log_every": 1}, eval={"every": 0})
    process = start(raw, tmp_path)
    try:
        wait_until((tmp_path / "history.jsonl").exists, process)
        process.send_signal(signal.SIGSTOP)
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        logged = (tmp_path / "history.jsonl").read_bytes().count(b"\n")
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        assert process.wait() == TRY_AGAIN_EXIT_CODE
    finally:
        process.kill()
        process.communicate()
    done = steps_done(tmp_path)
    assert logged <= done <= logged + 1, "no further step is begun"
    with pytest.raises(SystemExit):
        run_trainer(raw, tmp_path, StopAfter(3))
    steps = [point["step"] for point in series(tmp_path)]
    assert steps == list(range(1, steps_done(tmp_path) + 1))
    assert steps[-1] > done


def test_a_signal_breaks_off_a_long_step(tmp_path: Path, base: Path, run_trainer: Run) -> None:
    """A step of five hundred micro-batches takes long; what is saved are the steps before it."""
    raw = disentangle(base, train={"accumulation": 500, "steps": 2})
    stop = StopInside(1, passes=1000)
    with stop.listening(), pytest.raises(SystemExit) as end:
        run_trainer(raw, tmp_path, stop)
    assert end.value.code == TRY_AGAIN_EXIT_CODE
    assert stop.later == 0
    assert steps_done(tmp_path) == 0


@pytest.mark.parametrize("data", [{}, {"refresh_every": 2}])
def test_a_signal_breaks_off_what_takes_long(
    tmp_path: Path, base: Path, run_trainer: Run, data: dict[str, Any]
) -> None:
    """A validation, or a redraw of the pairs, is broken off, and done from its start when the run goes on."""
    raw = disentangle(base, data=data)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run_trainer(raw, whole) == 0
    with pytest.raises(SystemExit) as end:
        run_trainer(raw, broken, StopWithin(3 if data else 8))
    assert end.value.code == TRY_AGAIN_EXIT_CODE
    assert run_trainer(raw, broken) == 0
    assert result(broken) == result(whole)
    assert (broken / "history.jsonl").read_bytes() == (whole / "history.jsonl").read_bytes()


def test_a_signal_in_the_midst_of_a_validation_breaks_it_off_and_its_point_is_still_due(
    tmp_path: Path, base: Path, run_trainer: Run
) -> None:
    """The run goes on with that validation and repeats no step. Its second step's point is the fourth such block."""
    raw = disentangle(base, train={"steps": 2, "log_every": 1}, eval={"every": 2})
    stop = StopInside(4, passes=100)
    with stop.listening(), pytest.raises(SystemExit) as end:
        run_trainer(raw, tmp_path, stop)
    assert end.value.code == TRY_AGAIN_EXIT_CODE
    assert stop.later == 0
    state = torch.load(tmp_path / "checkpoint" / "state.pt", weights_only=True)
    assert (state["progress"]["step"], state["progress"]["point_due"]) == (2, True)
    assert [point["step"] for point in series(tmp_path)] == [1]
    assert run_trainer(raw, tmp_path) == 0
    assert [(point["step"], "loss/val/total" in point) for point in series(tmp_path)] == [(1, False), (2, True)]


def test_a_signal_before_the_configuration_is_read_ends_the_process_with_75(tmp_path: Path) -> None:
    """The configuration is a pipe into which nobody writes."""
    os.mkfifo(tmp_path / "config.json")
    process = begin(tmp_path)
    try:
        with (tmp_path / "config.json").open("wb"):  # returns when the process has opened it, too
            process.send_signal(signal.SIGUSR2)
            assert process.wait() == TRY_AGAIN_EXIT_CODE
    finally:
        process.kill()
        process.communicate()


def test_a_signal_while_large_packages_are_imported_ends_the_process_with_75(tmp_path: Path, base: Path) -> None:
    """It comes when torch's library is loaded; should the process have got further by then, it is an end like that."""
    process = start(disentangle(base, train={"steps": 100_000}), tmp_path)
    try:
        wait_until(lambda: "libtorch" in Path(f"/proc/{process.pid}/maps").read_text(), process)
        process.send_signal(signal.SIGUSR2)
        assert process.wait() == TRY_AGAIN_EXIT_CODE
    finally:
        process.kill()
        process.communicate()
    assert not (tmp_path / "error.json").exists()


def test_an_interrupt_ends_the_process_without_a_traceback(tmp_path: Path, base: Path) -> None:
    process = start(disentangle(base, train={"steps": 100_000}), tmp_path)
    try:
        wait_until((tmp_path / "history.jsonl").exists, process)
        process.send_signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT
    finally:
        process.kill()
        _, errors = process.communicate()
    assert "Traceback" not in errors


AT_WORK = """\
import sys
from torch.nn.modules.module import register_module_forward_hook
from trainer.__main__ import main

passes = 0

def count(*_):
    global passes
    passes += 1
    if passes == 1000:
        print("at work", flush=True)

register_module_forward_hook(count)
sys.exit(main())
"""
"""The trainer's command, which says when a model has been at work for a while."""


def test_a_signal_while_a_long_pool_is_made_ends_the_process_there(tmp_path: Path, base: Path) -> None:
    """Nothing is lost: the pool is made again. A hundred thousand answers take minutes."""
    write_json(tmp_path / "config.json", disentangle(base, pool={"train_records": 100_000}))
    process = begin(tmp_path, "-c", AT_WORK, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait() == TRY_AGAIN_EXIT_CODE
    finally:
        process.kill()
        process.communicate()
    assert not list(tmp_path.rglob("*.safetensors*"))
    assert not (tmp_path / "history.jsonl").exists()

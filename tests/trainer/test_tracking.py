"""Trackers beside a run's own records."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tiny_runs import disentangle

from trainer.check import validate
from trainer.records import RunRecords
from trainer.tracking import Tracking, missing_packages, open_tracking

Run = Callable[..., int]


class Full:
    """A tracker whose disk is full."""

    def __init__(self) -> None:
        self.asked = 0

    def log(self, step: int, values: Mapping[str, float]) -> None:  # noqa: ARG002  # a tracker's signature
        self.asked += 1
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        raise AssertionError("it was left out before")


def test_tensorboard_hears_the_whole_series(tmp_path: Path, base: Path, run_trainer: Run) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert run_trainer({**disentangle(base), "report_to": ["tensorboard"]}, tmp_path) == 0
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    points = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    expected = [(p["step"], p["loss/train/total"]) for p in points if "loss/train/total" in p]
    told = [(event.step, event.value) for event in events.Scalars("loss/train/total")]
    assert [step for step, _ in told] == [step for step, _ in expected]
    assert [value for _, value in told] == pytest.approx([value for _, value in expected])
    assert events.Scalars("final/train/step")[0].value == 8


def test_a_tracker_that_fails_is_left_out_and_the_record_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Full()
    records = RunRecords(tmp_path, Tracking([("full", tracker)]))
    for step in (1, 2):
        records.history({"step": step, "loss/train/total": 1.0})
    records.metrics({"status": "completed"})
    assert tracker.asked == 1
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "metrics.json").exists()
    assert capsys.readouterr().err.count("full failed and is left out from now on") == 1


def test_a_tracker_that_does_not_start_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """TensorBoard wants a folder where a file stands."""
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").touch()
    open_tracking(["tensorboard"], tmp_path, {}).point({"step": 1, "loss/train/total": 1.0})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("report_to: tensorboard does not start and is left out: ")


def test_a_tracker_that_is_not_installed_is_found_by_check(monkeypatch: pytest.MonkeyPatch, base: Path) -> None:
    monkeypatch.setattr(sys, "path", [])
    sys.path_importer_cache.clear()
    assert missing_packages(["trackio"]) == [
        "report_to: trackio is asked for, but the package trackio is not installed. pip install trackio, "
        "or leave it out."
    ]
    problems, _ = validate({**disentangle(base), "report_to": ["trackio"]})
    assert any(problem.startswith("report_to: trackio is asked for") for problem in problems)


def test_no_tracker_costs_nothing(tmp_path: Path) -> None:
    before = set(sys.modules)
    open_tracking([], tmp_path, {}).end({"status": "completed"})
    assert set(sys.modules) == before

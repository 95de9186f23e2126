"""Trackers beside a run's own records."""

import json
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from tiny_runs import disentangle

from trainer.check import validate
from trainer.records import RunRecords
from trainer.tracking import Tracking, missing_packages, open_tracking

Run = Callable[..., int]

BLOCK, HEAD = 32768, struct.Struct("<IHB")


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


def test_wandb_hears_the_whole_series_offline(
    tmp_path: Path, base: Path, run_trainer: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert run_trainer({**disentangle(base), "report_to": ["wandb"]}, tmp_path) == 0
    wandb.teardown()  # as the end of the trainer's process does: waits for W&B's own, which writes the file
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    told = list(wandb_points(file))
    points = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    expected = {p["step"]: p["loss/train/total"] for p in points if "loss/train/total" in p}
    assert {p["_step"]: p["loss/train/total"] for p in told if "loss/train/total" in p} == expected
    assert told[-1]["final/train/step"] == 8


def wandb_points(file: Path) -> Iterator[dict[str, float]]:
    """Read the points of W&B's own file.

    It is LevelDB's log: blocks of 32 kB, the first of which begins with 7 bytes of W&B's. A record has a checksum, a
    length and a kind (1 whole, 2 to 4 its first, middle and last part); less than such a head at a block's end is void.
    """
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]  # made at import

    content, at, whole = file.read_bytes(), 7, b""
    while at < len(content):
        if (left := BLOCK - at % BLOCK) < HEAD.size:
            at += left
            continue
        _, length, kind = HEAD.unpack_from(content, at)
        whole += content[at + HEAD.size : at + HEAD.size + length]
        at += HEAD.size + length
        if kind in {1, 4}:
            record, whole = Record.FromString(whole), b""
            if record.HasField("history"):
                items = record.history.item
                yield {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


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

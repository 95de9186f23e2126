"""Whole runs: what they leave, how they end, and that they go on from a checkpoint as if never interrupted."""

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from stopping import StopAfter
from tiny_runs import BASE, disentangle, result, series

from trainer.__main__ import carry_out
from trainer.stop import TRY_AGAIN_EXIT_CODE, StopRequest

Run = Callable[..., int]


def test_a_base_run_leaves_metrics_history_model_and_pool(base_run: Path) -> None:
    metrics = result(base_run)
    assert metrics["status"] == "completed"
    assert metrics["base_test_final/n"] == 40
    assert 0 <= metrics["base_test_final/final_answer_accuracy"] <= 1
    assert metrics["base_test_final/split_policy"] == "heldout"
    assert metrics["provenance/threads"] == 1
    losses = [point["loss/train/total"] for point in series(base_run)]
    assert losses[-1] < losses[0]
    for name in ("model.safetensors", "config.json", "pool.safetensors", "base.json", "state.pt"):
        assert (base_run / "checkpoint" / name).is_file()
    modes = {path.stat().st_mode for path in (base_run / "checkpoint").iterdir()}
    assert len(modes) == 1, "who may read one file of a base may read all"
    assert json.loads((base_run / "progress.json").read_text())["step"] == 40


@pytest.mark.parametrize("adaptation", [{"kind": "full"}, {"kind": "lora", "rank": 4}])
def test_a_disentangling_run_leaves_a_series_for_every_term(
    tmp_path: Path, base: Path, run_trainer: Run, adaptation: dict[str, Any]
) -> None:
    assert run_trainer(disentangle(base, adaptation=adaptation), tmp_path) == 0
    metrics, points = result(tmp_path), series(tmp_path)
    assert [point["step"] for point in points] == [3, 4, 6, 8]
    terms = {"reconstruction", "kl", "posterior_variance", "router_marginal_kl_to_prior"}
    for term in terms:
        assert f"loss/train/weighted/{term}" in points[0]
        assert f"loss/train/fraction/{term}" in points[0]
        assert f"loss/val/weighted/{term}" in points[1]
        assert metrics[f"train/applied_steps/{term}"] == 8
    assert sum(points[0][f"loss/train/fraction/{term}"] for term in terms) == pytest.approx(1)
    assert {"loss/val/kl", "loss/val/posterior_variance", "loss/val/reconstruction_normalized"} <= metrics.keys()
    assert metrics["loss/val/total__comparable"] is False
    assert not (tmp_path / "pool").exists(), "the base's own pool is used"
    for key, value in metrics.items():
        assert value is not None or f"{key}__reason" in metrics


def test_weight_0_logs_the_raw_diagnostics_all_the_same(tmp_path: Path, base: Path, run_trainer: Run) -> None:
    off = {"posterior_variance_weight": 0.0, "router_marginal_kl_to_prior_weight": 0.0}
    assert run_trainer(disentangle(base, objective=off, train={"steps": 2}), tmp_path) == 0
    metrics = result(tmp_path)
    assert metrics["loss/val/posterior_variance"] > 0
    assert metrics["loss/val/weighted/posterior_variance"] == 0
    assert "train/applied_steps/posterior_variance" not in metrics


@pytest.mark.parametrize("kind", ["base", "full", "lora"])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(
    tmp_path: Path, base: Path, run_trainer: Run, kind: str
) -> None:
    """Stopped in the middle of a logging window, twice; metrics, the whole series and all weights are the same."""
    raw = {**BASE, "train": {**BASE["train"], "steps": 12}}
    if kind != "base":
        optimizer = "muon" if kind == "full" else "adamw"
        raw = disentangle(base, adaptation={"kind": kind}, train={"optimizer": optimizer, "accumulation": 2})
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run_trainer(raw, whole) == 0
    for steps in (2, 3):
        with pytest.raises(SystemExit) as end:
            run_trainer(raw, broken, StopAfter(steps))
        assert end.value.code == TRY_AGAIN_EXIT_CODE
        assert not (broken / "metrics.json").exists()
    assert run_trainer(raw, broken) == 0
    assert result(broken) == result(whole)
    assert (broken / "history.jsonl").read_bytes() == (whole / "history.jsonl").read_bytes()
    states = [torch.load(folder / "checkpoint" / "state.pt", weights_only=True) for folder in (whole, broken)]
    for name, tensor in states[0]["parameters"].items():
        assert torch.equal(tensor, states[1]["parameters"][name]), name


def test_points_behind_the_checkpoint_are_written_again_once(tmp_path: Path, base: Path, run_trainer: Run) -> None:
    """A run that was killed after its last checkpoint has logged further than it saved, perhaps half a line."""
    raw = disentangle(base)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run_trainer(raw, whole) == 0
    with pytest.raises(SystemExit):
        run_trainer(raw, broken, StopAfter(4))
    with (broken / "history.jsonl").open("a") as file:
        file.write(json.dumps({"step": 6, "loss/train/total": 1.0}) + '\n{"step": 8, "loss')
    assert run_trainer(raw, broken) == 0
    assert (broken / "history.jsonl").read_bytes() == (whole / "history.jsonl").read_bytes()


def test_another_configuration_starts_anew_and_keeps_the_old_checkpoint(
    tmp_path: Path, base: Path, run_trainer: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A retry with another seed is another series: its points never follow the old ones."""
    with pytest.raises(SystemExit):
        run_trainer(disentangle(base), tmp_path, StopAfter(4))
    old = (tmp_path / "history.jsonl").read_bytes()
    assert run_trainer(disentangle(base, seed=8), tmp_path) == 0
    assert "of another configuration. Kept in" in capsys.readouterr().err
    (kept,) = tmp_path.glob("series-*")
    assert (kept / "history.jsonl").read_bytes() == old
    assert (kept / "checkpoint" / "state.pt").exists()
    assert json.loads((tmp_path / "history.jsonl").read_bytes().splitlines()[0])["step"] == 3


@pytest.mark.parametrize("more", [{}, {"gradient_checkpointing": True, "checkpoint_every_s": 5.0}])
def test_half_the_batch_with_twice_the_accumulation_goes_on(
    tmp_path: Path, base: Path, run_trainer: Run, more: dict[str, Any]
) -> None:
    """What a retry after running out of memory changes does not cost the steps that are done."""
    raw = disentangle(base)
    with pytest.raises(SystemExit):
        run_trainer(raw, tmp_path, StopAfter(4))
    done = (tmp_path / "history.jsonl").read_bytes()
    rows = raw["train"]["batch_size"]
    smaller = disentangle(base, train={"batch_size": rows // 2, "accumulation": 2, **more})
    assert run_trainer(smaller, tmp_path) == 0
    assert (tmp_path / "history.jsonl").read_bytes().startswith(done)


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged(
    tmp_path: Path, base: Path, run_trainer: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = disentangle(base, train={"lr": 1e30, "head_lr": 1e30, "clip": 0.0})
    assert run_trainer(raw, tmp_path) == 1
    record = json.loads((tmp_path / "error.json").read_text())
    assert record["kind"] == "diverged"
    assert record["step"] == 2
    assert record["term"] == "reconstruction_loss"
    assert record["value"] in {"nan", "inf", "-inf"}
    assert record["last_checkpoint"] is None
    assert not (tmp_path / "metrics.json").exists()
    assert capsys.readouterr().err == record["message"] + "\n"


def test_a_divergence_names_the_last_checkpoint_whose_weights_were_good(
    tmp_path: Path, base: Path, run_trainer: Run
) -> None:
    """Saved at every step, but only once its weights have given a finite loss: those of step 1 never do."""
    spoils = {"lr": 1e30, "head_lr": 1e30, "clip": 0.0, "checkpoint_every_s": 1e-9}
    assert run_trainer(disentangle(base, train=spoils), tmp_path) == 1
    record = json.loads((tmp_path / "error.json").read_text())
    path = tmp_path / "checkpoint" / "state.pt"
    assert (record["step"], record["last_checkpoint"]) == (2, {"step": 0, "path": str(path)})
    state = torch.load(path, weights_only=True)
    assert state["progress"]["step"] == 0
    assert all(bool(tensor.isfinite().all()) for tensor in state["parameters"].values())


def test_a_checkpoint_that_diverges_itself_is_not_called_good(tmp_path: Path, base: Path, run_trainer: Run) -> None:
    """Saved when the run was asked to stop, in step 1, whose update spoilt the weights."""
    raw = disentangle(base, train={"lr": 1e30, "head_lr": 1e30, "clip": 0.0})
    with pytest.raises(SystemExit):
        run_trainer(raw, tmp_path, StopAfter(1))
    assert run_trainer(raw, tmp_path) == 1
    record = json.loads((tmp_path / "error.json").read_text())
    assert (record["step"], record["last_checkpoint"]) == (2, None)


@pytest.mark.parametrize("mode", ["base", "disentangle"])
def test_a_last_update_that_spoils_the_weights_is_a_divergence_too(
    tmp_path: Path, base: Path, run_trainer: Run, mode: str
) -> None:
    """No loss is computed in training any more: the validation's is not finite."""
    spoils = {"steps": 1, "lr": 1e30, "head_lr": 1e30, "clip": 0.0, "checkpoint_every_s": 1e-9, "optimizer": "adamw"}
    raw = {**BASE, "train": spoils} if mode == "base" else disentangle(base, train=spoils)
    assert run_trainer(raw, tmp_path) == 1
    record = json.loads((tmp_path / "error.json").read_text())
    assert (record["kind"], record["step"], record["last_checkpoint"]["step"]) == ("diverged", 1, 0)
    assert record["term"].startswith("loss/val/")
    assert not (tmp_path / "metrics.json").exists()


@contextmanager
def limited(what: int, to: int) -> Iterator[None]:
    """Set a real limit on this process for as long as the block runs."""
    before, hard = resource.getrlimit(what)
    resource.setrlimit(what, (to, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (before, hard))


def test_too_little_memory_ends_the_run_as_oom(
    tmp_path: Path, run_trainer: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real limit on the address space, and matrices that do not fit below it."""
    raw = {**BASE, "model": {**BASE["model"], "mlp_width": 2**26}}  # 8 GiB a matrix
    with limited(resource.RLIMIT_AS, psutil.Process().memory_info().vms + 6 * 2**30):
        assert run_trainer(raw, tmp_path) == 1
    errors = capsys.readouterr().err
    record = json.loads((tmp_path / "error.json").read_text())
    assert record["kind"] == "oom"
    assert errors.splitlines()[-1].startswith("out of memory: ")
    assert "Traceback" not in errors
    assert 100 < record["memory"]["peak_rss_mb"] < 20_000, "of this process, in MB"


def test_a_mistake_in_the_config_is_told_in_one_line(
    tmp_path: Path, run_trainer: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_trainer({**BASE, "sead": 1}, tmp_path) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "config.json: sead: unknown key. Did you mean seed?" in lines[0]


def test_a_base_that_is_missing_or_made_for_another_task_is_refused(
    tmp_path: Path, base: Path, run_trainer: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_trainer(disentangle(tmp_path / "nowhere"), tmp_path / "a") == 1
    assert "neither a base run's checkpoint nor a model" in capsys.readouterr().err
    assert run_trainer(disentangle(base, task={"params": {"offset_max": 4}}), tmp_path / "b") == 1
    assert "was trained on" in capsys.readouterr().err
    assert json.loads((tmp_path / "b" / "error.json").read_text())["kind"] == "error"


def test_a_folder_that_cannot_be_written_is_told_in_one_line(
    tmp_path: Path, base: Path, run_trainer: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(disentangle(base)))
    (tmp_path / "taken").touch()
    assert carry_out(tmp_path / "config.json", tmp_path / "taken", StopRequest()) == 1
    told = capsys.readouterr().err
    assert told == f"--run-dir: {tmp_path / 'taken'} cannot be written: File exists. Name another folder.\n"


def test_a_disk_without_room_is_told_in_one_line_and_the_run_goes_on_later(
    tmp_path: Path, base: Path, run_trainer: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real limit on the size of files: checkpoints do not fit below it, and the one that is there stays."""
    raw = disentangle(base)
    with pytest.raises(SystemExit):
        run_trainer(raw, tmp_path, StopAfter(2))
    saved = (tmp_path / "checkpoint" / "state.pt").read_bytes()
    with limited(resource.RLIMIT_FSIZE, len(saved) // 2):
        assert run_trainer(raw, tmp_path) == 1
    errors = capsys.readouterr().err
    assert errors.splitlines()[-1].startswith(f"{tmp_path}: File too large. Make room and start the same command")
    assert "Traceback" not in errors
    assert json.loads((tmp_path / "error.json").read_text())["kind"] == "error"
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == ["state.pt"]
    assert (tmp_path / "checkpoint" / "state.pt").read_bytes() == saved
    assert run_trainer(raw, tmp_path) == 0


@pytest.mark.parametrize("name", ["base.json", "char_tokenizer.json", "model.safetensors", "pool.safetensors"])
@pytest.mark.parametrize("left", [0, 100])
def test_a_base_that_is_damaged_is_named(
    tmp_path: Path, base: Path, run_trainer: Run, capsys: pytest.CaptureFixture[str], name: str, left: int
) -> None:
    damaged = shutil.copytree(base, tmp_path / "damaged")
    os.truncate(damaged / name, left)
    assert run_trainer(disentangle(damaged), tmp_path / "run") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(damaged) in line
    assert "damaged (" in line


@pytest.mark.parametrize("left", [0, 1000])
def test_a_checkpoint_that_is_damaged_is_named_and_kept(
    tmp_path: Path, base: Path, run_trainer: Run, capsys: pytest.CaptureFixture[str], left: int
) -> None:
    with pytest.raises(SystemExit):
        run_trainer(disentangle(base), tmp_path, StopAfter(2))
    saved = tmp_path / "checkpoint" / "state.pt"
    os.truncate(saved, left)
    capsys.readouterr()
    assert run_trainer(disentangle(base), tmp_path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{saved}: the checkpoint is damaged (")
    assert saved.stat().st_size == left


def test_cuda_where_there_is_none_is_told_in_one_line(
    tmp_path: Path, base: Path, run_trainer: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert run_trainer({**disentangle(base), "device": "cuda"}, tmp_path) == 1
    assert capsys.readouterr().err.startswith("device: is cuda, but torch finds no such device here.")

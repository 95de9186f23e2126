"""Pairs that are drawn anew as training goes on, and seeds for single purposes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stopping import StopAfter
from tiny_runs import BASE, disentangle, parsed

from trainer.backbone import load_backbone
from trainer.errors import TrainerError
from trainer.fresh import PairSource
from trainer.pool import build_pool
from trainer.stop import TRY_AGAIN_EXIT_CODE

Run = Callable[..., int]

FRESH: list[dict[str, Any]] = [{"sampling": "each_step"}, {"refresh_every": 3}]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint" / "state.pt", weights_only=True)["parameters"]


def source(base: Path, *, trained: bool = False, **changes: Any) -> PairSource:
    """Return the pairs of a run whose model is `trained` afterwards, beyond recognition."""
    config = parsed(disentangle(base, **changes))
    backbone = load_backbone(str(base), seed=0)
    pool = build_pool(config, backbone.model, backbone.tokenizer, backbone.sha256)
    pairs = PairSource(config, backbone, pool, position_neutral=True)
    if trained:
        with torch.no_grad():
            for parameter in backbone.model.parameters():
                parameter.zero_()
    return pairs


@pytest.mark.parametrize("data", FRESH)
def test_a_run_on_fresh_pairs_goes_on_bit_for_bit(
    tmp_path: Path, base: Path, run_trainer: Run, data: dict[str, Any]
) -> None:
    """Stopped within a redraw's steps, and between two of them."""
    raw = disentangle(base, data=data, train={"accumulation": 2, "batch_size": 4})
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run_trainer(raw, whole) == 0
    for steps in (3, 2):
        with pytest.raises(SystemExit) as end:
            run_trainer(raw, broken, StopAfter(steps))
        assert end.value.code == TRY_AGAIN_EXIT_CODE
    assert run_trainer(raw, broken) == 0
    counts = {json.loads((folder / "metrics.json").read_text())["train/refresh_count"] for folder in (whole, broken)}
    assert counts == {8 if "sampling" in data else 2}  # of 8 steps: before step 4 and step 7
    assert (broken / "history.jsonl").read_bytes() == (whole / "history.jsonl").read_bytes()
    assert all(torch.equal(tensor, weights(broken)[name]) for name, tensor in weights(whole).items())


def test_each_step_has_pairs_of_its_own(base: Path) -> None:
    pairs = source(base, data={"sampling": "each_step"}, train={"accumulation": 2, "batch_size": 4})
    drawn = []
    for i in range(4):
        assert pairs[i].tolist() == ([0, 1, 2, 3] if i % 2 == 0 else [4, 5, 6, 7])
        drawn.append(pairs.rows)
    assert len(drawn[0]) == 8
    assert drawn[0] is drawn[1], "micro-batches of one step share its draw"
    assert drawn[1] is not drawn[2]


def test_the_pool_comes_first_and_is_drawn_anew_every_n_steps(base: Path) -> None:
    pairs = source(base, data={"refresh_every": 3})
    first = pairs.rows
    owners = []
    for step in range(7):
        assert len(pairs[step]) == 8
        owners.append(pairs.rows)
    assert owners[:3] == [first] * 3
    assert owners[3] is owners[5] is not first
    assert owners[6] is not owners[5]
    assert len(owners[6]) == len(first)


def test_pairs_that_are_drawn_anew_are_held_to_a_strategy_where_that_is_asked(base: Path) -> None:
    """Those that strategies write are all kept; a base that has hardly learnt writes none."""
    data = {"refresh_every": 1, "drop_invalid": True}
    written = source(base, data={**data, "source": "groundtruth"})
    written.prepare(2)
    assert len(written.rows) == 80
    with pytest.raises(TrainerError, match=r"data\.drop_invalid: none of 80 pairs"):
        source(base, data=data).prepare(2)


def test_fresh_pairs_come_from_the_base_as_it_was(base: Path) -> None:
    """The generator is trained in place; what writes the pairs stays as it is."""
    one, other = (source(base, trained=trained, data={"refresh_every": 1}) for trained in (True, False))
    one.prepare(2)
    other.prepare(5)
    other.prepare(2)
    assert torch.equal(one.rows.lengths, other.rows.lengths)


def test_a_seed_for_one_purpose_leaves_the_others_alone(tmp_path: Path, base: Path, run_trainer: Run) -> None:
    """The posterior's noise changes; order of batches and new weights do not."""
    points = {}
    for name, seeds in {"plain": {}, "same": {"data": 7, "model": 7, "sampling": 7}, "noise": {"sampling": 8}}.items():
        assert run_trainer(disentangle(base, seeds=seeds, train={"steps": 1, "log_every": 1}), tmp_path / name) == 0
        points[name] = json.loads((tmp_path / name / "history.jsonl").read_text().splitlines()[0])
    assert points["same"] == points["plain"]
    assert points["noise"]["loss/train/kl"] == points["plain"]["loss/train/kl"], "of the same pairs and weights"
    assert points["noise"]["loss/train/reconstruction_loss"] != points["plain"]["loss/train/reconstruction_loss"]


def test_equal_seeds_are_one_series_however_they_are_given() -> None:
    assert parsed(BASE).series() == parsed({**BASE, "seeds": {"data": 5}}).series()
    assert parsed(BASE).series() != parsed({**BASE, "seeds": {"data": 6}}).series()

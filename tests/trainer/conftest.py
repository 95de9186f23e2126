"""What the trainer's tests share: a way to run it in this process, and one tiny base model."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import BASE

from trainer.__main__ import carry_out
from trainer.backbone import Backbone, load_backbone
from trainer.batches import entangled_rows
from trainer.pool import Pairs
from trainer.records import write_json
from trainer.stop import StopRequest
from trainer.tasks import TASKS, sample_records

os.environ["OMP_NUM_THREADS"] = "1"  # also where a run asks how many it may take, and in processes
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def run_trainer() -> Callable[..., int]:
    """Return a function that carries out a raw configuration in this process and returns the exit code."""

    def run(raw: dict[str, Any], folder: Path, stop: StopRequest | None = None) -> int:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", raw)
        return carry_out(folder / "config.json", folder, stop or StopRequest())

    return run


@pytest.fixture(scope="session")
def base_run(tmp_path_factory: pytest.TempPathFactory, run_trainer: Callable[..., int]) -> Path:
    """Return the directory of a tiny base run that has ended."""
    folder = tmp_path_factory.mktemp("base")
    assert run_trainer(BASE, folder) == 0
    return folder


@pytest.fixture
def base(base_run: Path) -> Path:
    """Return the tiny base's checkpoint folder."""
    return base_run / "checkpoint"


@pytest.fixture
def backbone(base: Path) -> Backbone:
    """Return the tiny base model, loaded afresh."""
    return load_backbone(str(base), seed=0)


@pytest.fixture
def pairs(backbone: Backbone) -> Pairs:
    """Twelve ground-truth pairs; their baseline is computed record by record, without padding, from whole logits."""
    records = sample_records(TASKS["grid_pathfinding"], {}, 12, seed=1, split="train", purpose="test")
    x = [backbone.tokenizer.encode(record.x) for record in records]
    y = [backbone.tokenizer.encode(record.y) for record in records]
    nll, entropy = [], []
    with torch.no_grad():
        for one_x, one_y in zip(x, y, strict=True):
            rows = entangled_rows([one_x], [one_y], backbone.tokenizer)
            log_p = backbone.model(input_ids=rows.ids).logits[0].log_softmax(-1)  # (L, V)
            for place in range(1, rows.ids.shape[1]):
                if rows.is_target[0, place]:
                    nll.append(-log_p[place - 1, rows.ids[0, place]])
                    entropy.append(-(log_p[place - 1].exp() * log_p[place - 1]).sum())
    return Pairs(x, y, torch.stack(nll), torch.stack(entropy))

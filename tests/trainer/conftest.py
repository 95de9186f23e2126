"""What the trainer's tests share: a way to run it in this process, and one tiny base model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import BASE

from trainer.__main__ import carry_out
from trainer.records import write_json
from trainer.stop import StopRequest

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

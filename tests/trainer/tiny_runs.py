"""Configurations of tiny runs, and what they leave."""

import json
from pathlib import Path
from typing import Any

from trainer.check import validate
from trainer.config import Config

TASK = {"name": "grid_pathfinding", "params": {}}

BASE = {
    "mode": "base",
    "seed": 5,
    "task": TASK,
    "model": {"width": 32, "layers": 2, "heads": 2, "kv_heads": 2, "mlp_width": 64},
    "data": {"records": 400},
    "pool": {"train_records": 80, "validation_records": 24, "test_records": 40},
    "train": {"steps": 40, "batch_size": 16, "optimizer": "muon", "lr": 0.01, "log_every": 3},
    "eval": {"batch_size": 32},
}


def disentangle(base: Path | str | dict[str, str], **changes: Any) -> dict[str, Any]:
    """Return a raw configuration that factorises a base; sections in `changes` are merged into it."""
    raw: dict[str, Any] = {
        "mode": "disentangle",
        "seed": 7,
        "task": TASK,
        "base": base if isinstance(base, dict) else {"path": str(base)},
        "pool": BASE["pool"],
        "objective": {"posterior_variance_weight": 0.1, "router_marginal_kl_to_prior_weight": 0.1},
        "train": {"steps": 8, "batch_size": 8, "optimizer": "adamw", "lr": 0.003, "log_every": 3},
        "eval": {"batch_size": 32, "every": 4},
    }
    for key, value in changes.items():
        raw[key] = {**raw.get(key, {}), **value} if isinstance(value, dict) else value
    return raw


def parsed(raw: dict[str, Any]) -> Config:
    """Return a configuration that must be right."""
    problems, config = validate(raw)
    assert not problems
    assert config is not None
    return config


TIMINGS = ("core_seconds", "tokens_per_core_second", "peak_rss_mb")


def result(folder: Path) -> dict[str, Any]:
    """Return a run's final metrics without what depends on the clock."""
    metrics = json.loads((folder / "metrics.json").read_text())
    return {key: value for key, value in metrics.items() if not key.endswith(TIMINGS)}


def series(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]

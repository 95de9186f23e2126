"""What a training step of stage 2 costs over one of stage 1, and what a run takes until its first step.

Both stages train the demo's model in full with Muon, on the same records in batches of one size. Stage 1 reads a record
once. Stage 2 reads it as the posterior and as the generator, whose record is 3 tokens longer; with K latents the part
behind the prompt is run K times. Counted in tokens that makes about 2.1 times and, for K = 3, 3.8 times the cost.

Times are process time of one thread; the stages take turns, and each ratio is the median of the rounds.
"""

import argparse
import copy
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from _table import Table
from torch import nn

from trainer.backbone import Backbone, build_from_scratch
from trainer.base import BaseLearner
from trainer.batches import entangled_rows
from trainer.config import Config, ModelConfig
from trainer.disentangle import WHITENING_PAIRS, LatentLearner, with_posterior_rate
from trainer.evaluation.writing import Writer
from trainer.fresh import PairSource
from trainer.latents import build_latent_model
from trainer.loop import Learner, Order, batch_order
from trainer.optimizers import build_optimizers
from trainer.pool import build_pool
from trainer.tasks import TASKS, sample_records
from trainer.tokenizer import CharTokenizer

TASK = "sorting_algorithms"
TRAIN = {"steps": 100, "batch_size": 32, "optimizer": "muon"}
LATENTS = {
    "continuous": ({"kind": "continuous", "dim": 8}, {"posterior_variance_weight": 0.1}, 2.1, "<= 2.4"),
    "K = 3": ({"kind": "discrete", "count": 3}, {"posterior_entropy_weight": 0.1}, 3.8, "<= 4.2"),
}


def stage_1(model: nn.Module, tokenizer: CharTokenizer) -> Callable[[], None]:
    """Return what does one step of a base run."""
    config = Config.model_validate({"mode": "base", "task": {"name": TASK}, "train": TRAIN})
    records = sample_records(TASKS[TASK], {}, 1024, seed=0, split="train", purpose="bench")
    xs, ys = ([tokenizer.encode(text) for text in texts] for texts in zip(*((r.x, r.y) for r in records), strict=True))
    rows = entangled_rows(xs, ys, tokenizer)
    learner = BaseLearner(copy.deepcopy(model), tokenizer, rows, records[:8], config)
    return stepping(learner, batch_order(rows.lengths, config.train, seed=0), config)


def stage_2(
    model: nn.Module, tokenizer: CharTokenizer, latent: dict[str, Any], weights: dict[str, float]
) -> Callable[[], None]:
    """Return what does one step of a run that disentangles."""
    config = Config.model_validate(
        {
            "mode": "disentangle",
            "task": {"name": TASK},
            "latent": latent,
            "objective": {"router_marginal_kl_to_prior_weight": 0.1, **weights},
            "data": {"source": "groundtruth"},
            "pool": {"train_records": 1024, "validation_records": 8, "test_records": 8},
            "train": TRAIN,
        }
    )
    slot = [tokenizer.z_open, tokenizer.z_close, tokenizer.z_empty]
    backbone = Backbone(copy.deepcopy(model), tokenizer, slot, sha256="", pretrained=False)
    pool = build_pool(config, backbone.model, tokenizer, backbone.sha256)
    source = PairSource(config, backbone, pool, position_neutral=True)
    factorised = build_latent_model(backbone, config)
    source.rows.whiten(factorised, torch.arange(WHITENING_PAIRS))
    writer = Writer(factorised, True, pool.max_new_tokens, config.eval.batch_size)
    learner = LatentLearner(factorised, source, writer, pool.pairs["validation"], config)
    config = config.model_copy(update={"train": with_posterior_rate(config)})
    return stepping(learner, source, config)


def stepping(learner: Learner, order: Order, config: Config) -> Callable[[], None]:
    """Return a function that does the next optimiser step, as the training loop does it."""
    parameters = learner.parameters_by_name()
    optimizers = build_optimizers(parameters, config.train, torch.device("cpu"))
    done = 0

    def step() -> None:
        nonlocal done
        total, values = learner.loss(order[done], done + 1, 0)
        torch.stack(list(values.values())).tolist()
        total.backward()
        nn.utils.clip_grad_norm_(parameters.values(), config.train.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        done += 1

    return step


def core_s(step: Callable[[], None], steps: int) -> float:
    """Return process time a step."""
    before = time.process_time()
    for _ in range(steps):
        step()
    return (time.process_time() - before) / steps


def start_up() -> tuple[float, float]:
    """Start a base run of the demo's shape; return its processor time until a step is done, s, and its memory, MB."""
    raw = {"mode": "base", "task": {"name": TASK}, "data": {"records": 2048}, "train": TRAIN}
    with tempfile.TemporaryDirectory() as name:
        config, progress = Path(name) / "config.json", Path(name) / "progress.json"
        config.write_text(json.dumps(raw))
        run = subprocess.Popen([sys.executable, "-m", "trainer", "run", str(config), "--run-dir", name])
        try:
            process = psutil.Process(run.pid)
            while not progress.exists() or json.loads(progress.read_bytes())["step"] == 0:
                time.sleep(0.01)
            times, memory = process.cpu_times(), process.memory_info().rss
        finally:
            run.kill()
            run.wait()
    return times.user + times.system, memory / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8, help="of each stage in a round")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = CharTokenizer()
    model = build_from_scratch(ModelConfig(), tokenizer, seed=0)
    table = Table("trainer: a step of stage 2, and the first step")
    first = stage_1(model, tokenizer)
    for name, (latent, weights, bound, wanted) in LATENTS.items():
        second = stage_2(model, tokenizer, latent, weights)
        for step in (first, second):
            step()  # what is done once: the guard's look at each term
        rounds = [(core_s(second, asked.steps), core_s(first, asked.steps)) for _ in range(asked.rounds)]
        ratios = sorted(b / a for b, a in rounds)
        best, base = (min(times) for times in zip(*rounds, strict=True))
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        beside = f"{1000 * base:.0f} ms of stage 1, bound {bound}"
        table.text(f"{name}: a step, core time", f"{1000 * best:.0f} ms", beside, spread, wanted)
    spent, memory = start_up()
    table.text("a base run until its first step, core time", f"{spent:.1f} s")
    table.text("the run's memory then", f"{memory:,.0f} MB")
    table.print()


if __name__ == "__main__":
    main()

"""Tokens a second of a LoRA training step: this trainer's beside transformers' Trainer with peft.

Two models: the demo's, and one of a pretrained model's shape (width 896, vocabulary 151,936) cut to two layers. Same
model, same adapter, same records in the same batches, float32, same threads, AdamW.
Both learn y from x on entangled records: the Trainer is given labels of -100 outside the targets. Times are process
time, so that other work on the machine disturbs little; the two take turns, and the best of the rounds counts.

Run it with ``python benchmarks/trainer_throughput.py``; it prints a row of a Markdown table.
"""

import argparse
import copy
import logging
import resource
import statistics
import tempfile
import time

import torch
import transformers
from _table import Table
from peft import LoraConfig, get_peft_model
from torch import nn

from trainer.adapters import add_adapters
from trainer.backbone import Parts, build_from_scratch, hidden_states
from trainer.batches import BatchOrder, Rows, entangled_rows
from trainer.config import AdaptationConfig, ModelConfig, TrainConfig
from trainer.likelihood import log_likelihood, target_states, targets
from trainer.optimizers import build_optimizers
from trainer.tasks import TASKS, sample_records
from trainer.tokenizer import CharTokenizer

DEMO = ModelConfig()

HALF_BILLION = ModelConfig(width=896, layers=2, heads=14, kv_heads=2, mlp_width=4864)
"""Shape of Qwen2.5-0.5B, cut to two of its 24 layers."""

VOCABULARY = 151_936
"""Of the same: most of the step is the logits."""

BATCHES = {"demo": 32, "half_billion": 4}


def adapted(model: nn.Module) -> nn.Module:
    """Adapt a copy as peft does."""
    adaptation = AdaptationConfig(kind="lora")
    config = LoraConfig(r=adaptation.rank, lora_alpha=adaptation.alpha, target_modules=list(adaptation.targets))
    return get_peft_model(copy.deepcopy(model), config)


def merged(model: nn.Module) -> nn.Module:
    """Adapt a copy as runs do: small layers are merged (`trainer.merged_lora`)."""
    return add_adapters(
        copy.deepcopy(model), AdaptationConfig(kind="lora"), generator_token_ids=[], posterior_token_ids=[]
    )


def ours(model: nn.Module, rows: Rows, batch_size: int, steps: int) -> float:
    """Train with this trainer's parts and return tokens a second of process time."""
    lm = Parts.of(model.get_base_model())
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizers = build_optimizers(parameters, TrainConfig(steps=steps), torch.device("cpu"))
    order = BatchOrder(rows.lengths, batch_size, seed=0)
    tokens, before = 0, time.process_time()
    for step in range(steps):
        batch = rows.take(order[step])
        hidden = hidden_states(lm.decoder, lm.embed(batch.ids), batch.positions)
        loss = -log_likelihood(target_states(hidden, batch), targets(batch), lm).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        tokens += int(batch.lengths.sum())
    return tokens / (time.process_time() - before)


def theirs(model: nn.Module, rows: Rows, batch_size: int, steps: int) -> float:
    """Train with transformers' Trainer on the same batches and return tokens a second of process time."""
    order = BatchOrder(rows.lengths, batch_size, seed=0)
    batches = [rows.take(order[step]) for step in range(steps)]
    sequence = [row for step in range(steps) for row in order[step].tolist()]

    def collate(features: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        batch = rows.take(torch.tensor([feature["row"] for feature in features]))
        places = torch.arange(batch.ids.shape[1])
        return {
            "input_ids": batch.ids,
            "attention_mask": (places < batch.lengths[:, None]).long(),
            "labels": batch.ids.masked_fill(~batch.is_target, -100),
        }

    class InOrder(transformers.Trainer):
        """Takes the rows in the order that they are given in."""

        def _get_train_sampler(self, *_: object) -> torch.utils.data.Sampler[int]:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    with tempfile.TemporaryDirectory() as folder:
        settings = transformers.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=batch_size,
            max_steps=steps,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=True,
        )
        trainer = InOrder(
            model=model, args=settings, train_dataset=[{"row": row} for row in sequence], data_collator=collate
        )
        trainer.remove_callback(transformers.PrinterCallback)
        before = time.process_time()
        trainer.train()
        spent = time.process_time() - before
    return sum(int(batch.lengths.sum()) for batch in batches) / spent


def padding_share(rows: Rows, batch_size: int) -> float:
    """Return the share of padding among what the model reads in an epoch."""
    order = BatchOrder(rows.lengths, batch_size, seed=0)
    batches = [rows.lengths[order[i]] for i in range(order.batches_per_epoch)]
    return 1 - sum(int(lengths.sum()) for lengths in batches) / sum(int(b.max()) * len(b) for b in batches)


def matmul_peak() -> float:
    """Return the most that products of float32 matrices reach here, FLOP a second of process time."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    best = float("inf")
    for _ in range(20):
        before = time.process_time()
        a @ b
        best = min(best, time.process_time() - before)
    return 2 * 1024**3 / best


def compare(table: Table, name: str, base: nn.Module, rows: Rows, steps: int, rounds: int, wanted: list[str]) -> None:
    """Add the rows of one model."""
    batch_size = BATCHES[name]
    kinds = {"peft's layers": adapted, "as runs do it": merged}
    speeds: dict[str, list[float]] = {kind: [] for kind in kinds}
    peers: list[float] = []
    for _ in range(rounds):
        peers.append(theirs(adapted(base), rows, batch_size, steps))
        for kind, adapt in kinds.items():
            speeds[kind].append(ours(adapt(base), rows, batch_size, steps))
    for (kind, own), limit in zip(speeds.items(), wanted, strict=True):
        ratio = statistics.median(a / b for a, b in zip(own, peers, strict=True))
        what = f"{name}: LoRA step of {batch_size} records, {kind}, tokens/core-s"
        table.text(
            what, f"{max(own):,.0f}", f"{max(peers):,.0f} transformers' Trainer with peft", f"{ratio:.2f}", limit
        )
    best = max(speeds["peft's layers"])
    body = sum(p.numel() for n, p in base.named_parameters() if "embed" not in n)
    head = base.get_output_embeddings().weight.numel() * float(rows.is_target.sum() / rows.lengths.sum())
    share = best * 4 * (body + head) / matmul_peak()  # 2 FLOP a weight each way: frozen weights get no gradient
    table.text(f"{name}: share of the matmul peak", f"{share:.0%}")
    table.text(f"{name}: padding", f"{padding_share(rows, batch_size):.1%}", wanted="<= 10 %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    tokenizer = CharTokenizer()
    records = sample_records(TASKS["sorting_algorithms"], {}, 2048, seed=0, split="train", purpose="bench")
    rows = entangled_rows(
        [tokenizer.encode(record.x) for record in records],
        [tokenizer.encode(record.y) for record in records],
        tokenizer,
    )
    table = Table("trainer: one LoRA step")
    demo = build_from_scratch(DEMO, tokenizer, seed=0)
    compare(table, "demo", demo, rows, asked.steps, asked.rounds, [">= 1.05", ">= 1.4"])
    large = build_from_scratch(HALF_BILLION, tokenizer, seed=0)
    large.resize_token_embeddings(VOCABULARY, mean_resizing=False)
    compare(table, "half_billion", large, rows, 3, 3, [">= 1.0", ">= 1.0"])
    table.text("peak memory of this process", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")
    table.print()


if __name__ == "__main__":
    main()

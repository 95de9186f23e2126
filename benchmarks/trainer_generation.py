"""Writing traces, beside transformers' `generate`: same model, same prompts, greedy, in one batch with a cache.

The model is trained for a moment, so that it ends its traces, at different places as real ones do: `generate` carries
every row to the end of the longest, here rows that are done leave the batch. Times are process time, taken in turns;
the ratio is the median of the rounds.
"""

import argparse
import statistics
import time

import torch
from _table import Table
from torch import Tensor, nn
from transformers import GenerationConfig

from trainer.backbone import Parts, build_from_scratch, hidden_states
from trainer.batches import BatchOrder, entangled_rows, x_prefix
from trainer.config import ModelConfig, TrainConfig
from trainer.likelihood import log_likelihood, target_states, targets
from trainer.optimizers import build_optimizers
from trainer.pool import sample_from_base
from trainer.tasks import TASKS, sample_records
from trainer.tokenizer import CharTokenizer

PROMPTS, MAX_TOKENS = 128, 64


def train_briefly(model: nn.Module, xs: list[list[int]], ys: list[list[int]], steps: int) -> None:
    """Teach a model roughly how traces look and where they end."""
    rows, lm, tokenizer = entangled_rows(xs, ys, CharTokenizer()), Parts.of(model), CharTokenizer()
    assert len(tokenizer) == model.config.vocab_size
    config = TrainConfig(steps=steps, optimizer="muon", lr=5e-3)
    optimizers = build_optimizers(dict(model.named_parameters()), config, torch.device("cpu"))
    order = BatchOrder(rows.lengths, 32, seed=0)
    for step in range(steps):
        batch = rows.take(order[step])
        hidden = hidden_states(lm.decoder, lm.embed(batch.ids), batch.positions)
        (-log_likelihood(target_states(hidden, batch), targets(batch), lm).mean()).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = CharTokenizer()
    model = build_from_scratch(ModelConfig(), tokenizer, seed=0)
    records = sample_records(TASKS["list_summation"], {}, 4096, seed=0, split="train", purpose="bench")
    xs, ys = ([tokenizer.encode(text) for text in texts] for texts in zip(*((r.x, r.y) for r in records), strict=True))
    train_briefly(model, xs, ys, asked.steps)
    length = max(set(map(len, xs)), key=[len(x) for x in xs].count)  # the commonest: `generate` then pads nothing
    chosen = [x for x in xs if len(x) == length][:PROMPTS]
    prompts = torch.tensor([[*x_prefix(x, tokenizer), tokenizer.y_open] for x in chosen])

    def ours() -> list[list[int]]:
        return sample_from_base(model, tokenizer, chosen, MAX_TOKENS, 0.0, torch.Generator(), PROMPTS)

    def theirs() -> Tensor:
        ends = [tokenizer.y_close, tokenizer.eos]
        how = GenerationConfig(
            max_new_tokens=MAX_TOKENS, do_sample=False, eos_token_id=ends, pad_token_id=tokenizer.pad
        )
        return model.generate(prompts, attention_mask=torch.ones_like(prompts), generation_config=how)

    def seconds(work: object) -> float:
        before = time.process_time()
        work()
        return time.process_time() - before

    with torch.no_grad():
        answers, reference = ours(), theirs()[:, prompts.shape[1] :].tolist()
        same = sum(row[: len(answer)] == answer for row, answer in zip(reference, answers, strict=True))
        pairs = [(seconds(ours), seconds(theirs)) for _ in range(asked.rounds)]
    tokens = sum(len(answer) + 1 for answer in answers)
    table = Table("trainer: writing traces")
    table.text(
        f"{len(chosen)} prompts, greedy, tokens/core-s",
        f"{tokens / min(a for a, _ in pairs):,.0f}",
        f"{tokens / min(b for _, b in pairs):,.0f} transformers' generate",
        f"{statistics.median(b / a for a, b in pairs):.2f}",
        ">= 1.2",
    )
    table.text("answers that are the same", f"{same} of {len(chosen)}")
    table.print()


if __name__ == "__main__":
    main()

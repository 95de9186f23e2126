"""The fixed pool of pairs (x, y) that runs are trained and measured on, with the base model's surprise at each token.

It is made once for a base model and shared by all runs that start from it: y ~ p(y|x) costs as much as many steps.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor

from trainer.backbone import Parts, Tokenizer, hidden_states
from trainer.batches import Rows, entangled_rows, x_prefix
from trainer.config import Config
from trainer.errors import TrainerError
from trainer.generate import DynamicCache, equal_length_groups, write_traces
from trainer.likelihood import surprise, target_states, targets
from trainer.randomness import stream
from trainer.records import replacement
from trainer.tasks import TASKS, Split, attribute, sample_records

if TYPE_CHECKING:
    from transformers import PreTrainedModel

POOL_FILE = "pool.safetensors"

EXTRA_TOKENS = 8
"""A sampled trace may be that much longer than the longest of a sample of ground truth."""


@dataclass(frozen=True)
class Pairs:
    """N pairs as token ids, with the z-free base model's view of each target.

    Attributes:
        x, y: N lists of token ids; y without ``</y>``.
        baseline: (n,); negative log-likelihood of each target (y, ``</y>``, ``<eos>``), pair by pair.
        entropy: (n,); entropy of the base model's prediction at each target.
    """

    x: list[list[int]]
    y: list[list[int]]
    baseline: Tensor
    entropy: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def select(self, kept: list[int]) -> "Pairs":
        """Return some of the pairs."""
        counts = [len(y) + 2 for y in self.y]
        parts, entropies = self.baseline.split(counts), self.entropy.split(counts)
        return Pairs(
            [self.x[i] for i in kept],
            [self.y[i] for i in kept],
            torch.cat([parts[i] for i in kept]),
            torch.cat([entropies[i] for i in kept]),
        )


@dataclass(frozen=True)
class Pool:
    """Three sets of pairs and where they come from.

    Attributes:
        pairs: by split.
        description: what the pool was made from; equal descriptions make equal pools.
        sha256: of the pairs.
    """

    pairs: dict[Split, Pairs]
    description: dict[str, object]
    sha256: str

    @property
    def max_new_tokens(self) -> int:
        """Tokens to write at most where a trace like the pool's is expected."""
        return max(len(y) for pairs in self.pairs.values() for y in pairs.y) + EXTRA_TOKENS


def describe(config: Config, weights_sha256: str) -> dict[str, object]:
    """Return what a pool depends on: task, base model, and the configuration's pool section."""
    return {
        "task": config.task.model_dump(mode="json"),
        "pool": config.pool.model_dump(mode="json"),
        "source": config.data.source,
        "weights_sha256": weights_sha256,
    }


@torch.no_grad()
def build_pool(config: Config, model: "PreTrainedModel", tokenizer: Tokenizer, weights_sha256: str) -> Pool:
    """Draw inputs, let the base model (or a strategy) answer them, and measure the base model's surprise."""
    sizes: dict[Split, int] = {
        "train": config.pool.train_records,
        "validation": config.pool.validation_records,
        "test": config.pool.test_records,
    }
    model.eval()
    pairs: dict[Split, Pairs] = {
        split: draw_pairs(
            config,
            model,
            tokenizer,
            draw=Draw(split, size, "pool", config.pool.seed),
            rng=stream(config.pool.seed, "pool", split, device=model.device),
        )
        for split, size in sizes.items()
    }
    return Pool(pairs, describe(config, weights_sha256), _sha256(pairs))


@dataclass(frozen=True)
class Draw:
    """Which inputs are drawn; equal draws give equal inputs.

    Attributes:
        split: of the inputs.
        size: how many.
        purpose: name of the stream.
        seed: of the inputs.
    """

    split: Split
    size: int
    purpose: str
    seed: int


@torch.no_grad()
def draw_pairs(
    config: Config,
    model: "PreTrainedModel",
    tokenizer: Tokenizer,
    *,
    draw: Draw,
    rng: torch.Generator,
    max_tokens: int | None = None,
) -> Pairs:
    """Draw inputs, let the base model (or a strategy) answer them, and measure the base model's surprise.

    Args:
        config: task, source of the answers, temperature.
        model: the base model.
        tokenizer: its tokenizer.
        draw: which inputs.
        rng: of the answers.
        max_tokens: of an answer; None: some more than the longest that a strategy writes for these inputs.
    """
    records = sample_records(
        TASKS[config.task.name],
        config.task.params,
        draw.size,
        seed=draw.seed,
        split=draw.split,
        purpose=draw.purpose,
        policy=config.task.split_policy,
        mix=config.task.strategy_mix,
    )
    x = [tokenizer.encode(record.x) for record in records]
    y = [tokenizer.encode(record.y) for record in records]
    if config.data.source == "model":
        limit = max_tokens or max(map(len, y)) + EXTRA_TOKENS
        y = sample_from_base(model, tokenizer, x, limit, config.pool.temperature, rng, config.eval.batch_size)
    baseline, entropy = _surprise(model, tokenizer, x, y, config.eval.batch_size)
    return Pairs(x, y, baseline, entropy)


@torch.inference_mode()
def sample_from_base(
    model: "PreTrainedModel",
    tokenizer: Tokenizer,
    xs: list[list[int]],
    max_tokens: int,
    temperature: float,
    generator: torch.Generator,
    batch_size: int,
) -> list[list[int]]:
    """Let an entangled model answer inputs: y ~ p(y|x) at a temperature (0: greedy).

    Returns:
        a list of token ids for each input, without ``</y>``.
    """
    lm = Parts.of(model)
    prompts = [[*x_prefix(x, tokenizer), tokenizer.y_open] for x in xs]
    answers: list[list[int]] = [[] for _ in xs]
    for group in equal_length_groups([len(prompt) for prompt in prompts], batch_size):
        ids = torch.tensor([prompts[row] for row in group], device=model.device)  # (B, P)
        positions = torch.arange(ids.shape[1], device=model.device).expand(ids.shape)
        cache = DynamicCache(config=model.config)
        hidden = hidden_states(lm.decoder, lm.embed(ids), positions, cache)[:, -1]
        written = write_traces(
            lm,
            tokenizer,
            hidden=hidden,
            cache=cache,
            position=ids.shape[1],
            max_tokens=max_tokens,
            temperature=temperature,
            generator=generator,
        )
        for row, answer in zip(group, written, strict=True):
            answers[row] = answer
    return answers


def valid_pairs(pairs: Pairs, tokenizer: Tokenizer, task: str) -> list[int]:
    """Return the numbers of the pairs whose trace a strategy writes."""
    verdicts = [
        attribute(TASKS[task], tokenizer.decode(x), tokenizer.decode(y)) for x, y in zip(pairs.x, pairs.y, strict=True)
    ]
    return [i for i, verdict in enumerate(verdicts) if verdict.strategies]


def save_pool(folder: Path, pool: Pool) -> None:
    """Write a pool as one file, at once."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for split, pairs in pool.pairs.items():
        tensors |= {f"{split}/{name}": tensor for name, tensor in _tensors(pairs).items()}
    metadata = {"description": json.dumps(pool.description), "sha256": pool.sha256}
    with replacement(folder / POOL_FILE) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def load_pool(folder: Path, description: dict[str, object]) -> Pool | None:
    """Read a pool; None where there is none, or one that was made from something else.

    Raises:
        TrainerError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / POOL_FILE
    if not path.is_file():
        return None
    pairs: dict[Split, Pairs] = {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            if json.loads(metadata["description"]) != description:
                return None
            for split in get_args(Split):
                x, y = _unpack(file, f"{split}/x"), _unpack(file, f"{split}/y")
                pairs[split] = Pairs(x, y, file.get_tensor(f"{split}/baseline"), file.get_tensor(f"{split}/entropy"))
    except SafetensorError as error:
        raise TrainerError(f"{path}: damaged ({error}). Remove it: runs then make their own pool.") from error
    return Pool(pairs, description, metadata["sha256"])


def _surprise(
    model: "PreTrainedModel", tokenizer: Tokenizer, xs: list[list[int]], ys: list[list[int]], batch_size: int
) -> tuple[Tensor, Tensor]:
    """Return baseline and entropy of all targets, (n,) each, pair by pair."""
    rows = entangled_rows(xs, ys, tokenizer)
    lm = Parts.of(model)
    parts: list[tuple[Tensor, Tensor]] = []
    for index in torch.arange(len(xs)).split(batch_size):
        batch: Rows = rows.take(index).to(model.device)
        hidden = hidden_states(lm.decoder, lm.embed(batch.ids), batch.positions)
        nll, entropy = surprise(target_states(hidden, batch), targets(batch), lm)
        parts.append((nll.cpu(), entropy.cpu()))
    return torch.cat([nll for nll, _ in parts]), torch.cat([entropy for _, entropy in parts])


def _tensors(pairs: Pairs) -> dict[str, Tensor]:
    return {**_pack("x", pairs.x), **_pack("y", pairs.y), "baseline": pairs.baseline, "entropy": pairs.entropy}


def _pack(name: str, sequences: list[list[int]]) -> dict[str, Tensor]:
    return {
        name: torch.tensor([token for sequence in sequences for token in sequence], dtype=torch.int32),
        f"{name}_lengths": torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int32),
    }


def _unpack(file: "object", name: str) -> list[list[int]]:
    flat: Tensor = file.get_tensor(name)  # pyright: ignore[reportAttributeAccessIssue]
    lengths: Tensor = file.get_tensor(f"{name}_lengths")  # pyright: ignore[reportAttributeAccessIssue]
    return [part.tolist() for part in flat.split(lengths.tolist())]


def _sha256(pairs: dict[Split, Pairs]) -> str:
    digest = hashlib.sha256()
    for split in sorted(pairs):
        for name, tensor in sorted(_tensors(pairs[split]).items()):
            digest.update(f"{split}/{name}".encode())
            digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()

"""Mode ``base``: train the entangled model p(y|x) on all strategies at once, and leave it with its pool of pairs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from trainer.backbone import BASE_RECORD, Parts, build_from_scratch, hidden_states, save_base, weights_sha256
from trainer.batches import Rows, entangled_rows
from trainer.config import Config
from trainer.environment import choose_device
from trainer.evaluate import Metrics, answer_quality, judge
from trainer.likelihood import log_likelihood, target_states, targets
from trainer.loop import batch_order, train
from trainer.pool import Pool, build_pool, sample_from_base, save_pool
from trainer.randomness import stream, stream_seed
from trainer.records import RunRecords
from trainer.stop import StopRequest
from trainer.tasks import TASKS, Split, sample_records
from trainer.tokenizer import CharTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class BaseLearner:
    """Maximum likelihood on the targets of ground-truth records; X is random and not learnt."""

    def __init__(self, model: "PreTrainedModel", train_rows: Rows, validation_rows: Rows, config: Config) -> None:
        self._model, self._lm = model, Parts.of(model)
        self._train, self._validation = train_rows, validation_rows
        self._batch_size = config.eval.batch_size

    def parameters_by_name(self) -> Mapping[str, nn.Parameter]:
        """Return all weights."""
        return dict(self._model.named_parameters())

    def loss(self, index: Tensor, step: int, part: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean negative log-likelihood of the batch's targets, nats a token."""
        del step, part  # nothing is drawn here
        loss = -self._log_likelihood(self._train.take(index)).mean()
        value = loss.detach()
        return loss, {"reconstruction_loss": value, "weighted/reconstruction": value, "total": value}

    def tokens(self, index: Tensor) -> int:
        """Return the tokens of the batch, padding left out."""
        return int(self._train.lengths[index].sum())

    @torch.no_grad()
    def validate(self, step: int) -> dict[str, float]:
        """Return the loss on validation inputs."""
        del step
        everything = torch.arange(len(self._validation.ids)).split(self._batch_size)
        values = torch.cat([self._log_likelihood(self._validation.take(index)) for index in everything])
        per_token = -float(values.mean())
        per_sequence = -float(values.sum()) / len(self._validation.ids)
        return {
            "loss/val/total": per_token,
            "loss/val/reconstruction_loss": per_token,
            "loss/val/nll_per_sequence": per_sequence,
        }

    def _log_likelihood(self, rows: Rows) -> Tensor:
        rows = rows.to(self._model.device)
        hidden = hidden_states(self._lm.decoder, self._lm.embed(rows.ids), rows.positions)  # (B, L, d)
        return log_likelihood(target_states(hidden, rows), targets(rows), self._lm)  # (n,)


def run_base(config: Config, records: RunRecords, stop: StopRequest) -> Metrics:
    """Train, evaluate and export a base model.

    Returns:
        the final metrics.
    """
    device = choose_device(config.device)
    tokenizer = CharTokenizer()
    model = build_from_scratch(config.model, tokenizer, stream_seed(config.seed, "weights"))
    model.to(device)  # pyright: ignore[reportArgumentType]  # a decorator in transformers hides self
    train_rows = _ground_truth(config, tokenizer, "train", config.data.records)
    validation_rows = _ground_truth(config, tokenizer, "validation", config.pool.validation_records)
    learner = BaseLearner(model, train_rows, validation_rows, config)
    order = batch_order(train_rows.lengths, config.train, config.seed)
    progress = train(
        learner,
        order,
        config.train,
        validate_every=config.eval.every,
        series=config.series(),
        device=device,
        records=records,
        stop=stop,
    )
    model.eval()
    folder = records.checkpoint_folder
    (folder / BASE_RECORD).unlink(missing_ok=True)  # until model and pool are both whole
    pool = build_pool(config, model, tokenizer, weights_sha256(model))
    save_pool(folder, pool)
    sha256 = save_base(folder, model, tokenizer, config.task)
    metrics: Metrics = {
        **_answers(config, model, tokenizer, pool),
        **learner.validate(progress.step),
        "train/step": progress.step,
        "train/tokens": progress.tokens,
        "train/core_seconds": progress.core_seconds,
        "train/tokens_per_core_second": progress.tokens / max(progress.core_seconds, 1e-9),
        "model/parameters": sum(parameter.numel() for parameter in model.parameters()),
        "provenance/base_sha256": sha256,
        "provenance/pool_sha256": pool.sha256,
    }
    return metrics


def _answers(config: Config, model: "PreTrainedModel", tokenizer: CharTokenizer, pool: Pool) -> Metrics:
    """Judge the model's answers to the test inputs: the pool's own where these were sampled at temperature 1."""
    pairs = pool.pairs["test"]
    answers = pairs.y
    if config.eval.decoding == "greedy" or config.data.source != "model" or config.pool.temperature != 1:
        temperature = 0.0 if config.eval.decoding == "greedy" else 1.0
        generator = stream(config.seed, "answers", device=model.device)
        answers = sample_from_base(
            model, tokenizer, pairs.x, pool.max_new_tokens, temperature, generator, config.eval.batch_size
        )
    verdicts = judge(config.task.name, tokenizer, pairs.x, answers)
    return {
        **answer_quality("base_test_final", verdicts, TASKS[config.task.name].strategies),
        "base_test_final/decoding": config.eval.decoding,
        "base_test_final/split_policy": config.task.split_policy,
    }


def _ground_truth(config: Config, tokenizer: CharTokenizer, split: Split, size: int) -> Rows:
    records = sample_records(
        TASKS[config.task.name],
        config.task.params,
        size,
        seed=config.seed,
        split=split,
        purpose="base",
        policy=config.task.split_policy,
        mix=config.task.strategy_mix,
    )
    return entangled_rows(
        [tokenizer.encode(record.x) for record in records],
        [tokenizer.encode(record.y) for record in records],
        tokenizer,
    )

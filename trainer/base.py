"""Mode ``base``: train the entangled model p(y|x) on all strategies at once, and leave it with its pool of pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from trainer.backbone import (
    BASE_RECORD,
    Parts,
    build_from_scratch,
    checkpoint_layers,
    compiled,
    hidden_states,
    save_base,
    weights_sha256,
)
from trainer.batches import Rows, entangled_rows
from trainer.config import Config
from trainer.environment import choose_device
from trainer.evaluation.during import follow_base
from trainer.evaluation.of_base import evaluate_base
from trainer.evaluation.quality import Metrics
from trainer.likelihood import log_likelihood, target_states, targets
from trainer.loop import batch_order, require_finite, train
from trainer.pool import EXTRA_TOKENS, build_pool, save_pool
from trainer.randomness import stream_seed
from trainer.records import RunRecords
from trainer.stop import StopRequest
from trainer.tasks import TASKS, Record, Split, sample_records
from trainer.tokenizer import CharTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class BaseLearner:
    """Maximum likelihood on the targets of ground-truth records; X is random and not learnt."""

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: CharTokenizer,
        train_rows: Rows,
        validation: Sequence[Record],
        config: Config,
    ) -> None:
        self._model, self._lm, self._tokenizer, self._config = model, Parts.of(model), tokenizer, config
        self._training = self._lm
        if config.train.compile:
            self._training = replace(self._lm, decoder=compiled(self._lm.decoder))
        self._train, self._validation = train_rows, _rows(validation, tokenizer)
        self._inputs = [tokenizer.encode(record.x) for record in validation]
        self._max_tokens = max(len(record.y) for record in validation) + EXTRA_TOKENS

    def parameters_by_name(self) -> Mapping[str, nn.Parameter]:
        """Return all weights."""
        return dict(self._model.named_parameters())

    def loss(self, index: Tensor, step: int, part: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean negative log-likelihood of the batch's targets, nats a token."""
        del step, part  # nothing is drawn here
        loss = -self._log_likelihood(self._training, self._train.take(index)).mean()
        value = loss.detach()
        return loss, {"reconstruction_loss": value, "weighted/reconstruction": value, "total": value}

    def prepare(self, step: int) -> None:
        """Have a step's data ready: it always is."""

    def tokens(self, index: Tensor) -> int:
        """Return the tokens of the batch, padding left out."""
        return int(self._train.lengths[index].sum())

    def validate(self, step: int) -> dict[str, float]:
        """Return the loss on validation inputs, and how good the answers to them are."""
        losses = self.losses()
        require_finite(step, losses)
        answers = follow_base(self._config, self._model, self._tokenizer, self._inputs, self._max_tokens)
        return {**losses, **answers}

    @torch.no_grad()
    def losses(self) -> dict[str, float]:
        """Return the loss on validation inputs."""
        everything = torch.arange(len(self._validation.ids)).split(self._config.eval.batch_size)
        values = torch.cat([self._log_likelihood(self._lm, self._validation.take(index)) for index in everything])
        per_token = -float(values.mean())
        per_sequence = -float(values.sum()) / len(self._validation.ids)
        return {
            "loss/val/total": per_token,
            "loss/val/reconstruction_loss": per_token,
            "loss/val/nll_per_sequence": per_sequence,
        }

    def _log_likelihood(self, lm: Parts, rows: Rows) -> Tensor:
        rows = rows.to(self._model.device)
        hidden = hidden_states(lm.decoder, lm.embed(rows.ids), rows.positions)  # (B, L, d)
        return log_likelihood(target_states(hidden, rows), targets(rows), lm)  # (n,)


def run_base(config: Config, records: RunRecords, stop: StopRequest) -> Metrics:
    """Train, evaluate and export a base model.

    Returns:
        the final metrics.
    """
    device = choose_device(config.device)
    tokenizer = CharTokenizer()
    model = build_from_scratch(config.model, tokenizer, stream_seed(config.seed_of("model"), "weights"))
    model.to(device)  # pyright: ignore[reportArgumentType]  # a decorator in transformers hides self
    train_records = _ground_truth(config, "train", config.data.records)
    train_rows = _rows(train_records, tokenizer)
    validation = _ground_truth(config, "validation", config.pool.validation_records)
    if config.train.gradient_checkpointing:
        checkpoint_layers(model)
    learner = BaseLearner(model, tokenizer, train_rows, validation, config)
    order = batch_order(train_rows.lengths, config.train, config.seed_of("data"))
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
        **evaluate_base(config, model, tokenizer, pool, [tokenizer.encode(record.x) for record in train_records]),
        **learner.losses(),
        "train/step": progress.step,
        "train/tokens": progress.tokens,
        "train/core_seconds": progress.core_seconds,
        "train/tokens_per_core_second": progress.tokens / max(progress.core_seconds, 1e-9),
        "model/parameters": sum(parameter.numel() for parameter in model.parameters()),
        "provenance/base_sha256": sha256,
        "provenance/pool_sha256": pool.sha256,
    }
    return metrics


def _ground_truth(config: Config, split: Split, size: int) -> list[Record]:
    return sample_records(
        TASKS[config.task.name],
        config.task.params,
        size,
        seed=config.seed_of("data"),
        split=split,
        purpose="base",
        policy=config.task.split_policy,
        mix=config.task.strategy_mix,
    )


def _rows(records: Sequence[Record], tokenizer: CharTokenizer) -> Rows:
    return entangled_rows(
        [tokenizer.encode(record.x) for record in records],
        [tokenizer.encode(record.y) for record in records],
        tokenizer,
    )

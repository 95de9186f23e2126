"""Training pairs of the pool, or drawn anew from the base model as training goes on."""

import copy

from torch import Tensor, arange

from trainer.backbone import Backbone
from trainer.batches import BatchOrder
from trainer.config import Config
from trainer.errors import TrainerError
from trainer.loop import batch_order
from trainer.pair_rows import PairRows
from trainer.pool import Draw, Pairs, Pool, draw_pairs, valid_pairs
from trainer.randomness import stream


class PairSource:
    """Which pairs a micro-batch is made of: a function of seeds and step alone, so that a run can go on anywhere.

    The base model that writes fresh pairs is a copy: the one that is given becomes the generator.

    Args:
        config: how often pairs are drawn anew, and how.
        backbone: the base, untouched so far.
        pool: the fixed pool; the first pairs are its own.
        position_neutral: layout of the generator's records.
    """

    def __init__(self, config: Config, backbone: Backbone, pool: Pool, *, position_neutral: bool) -> None:
        self._config, self._tokenizer, self._neutral = config, backbone.tokenizer, position_neutral
        self._max_tokens = pool.max_new_tokens
        self._each_step = config.data.sampling == "each_step"
        self._every = 1 if self._each_step else config.data.refresh_every
        self._base = copy.deepcopy(backbone.model) if self._every is not None else None
        self._generation = 0
        self.rows, self._order = self._arrange(self._valid(pool.pairs["train"]))

    def draws(self, step: int) -> int:
        """Return how often pairs are drawn anew for the steps up to one (from 1)."""
        if self._every is None:
            return 0
        return (step - 1) // self._every + self._each_step  # the pool itself is never a step's own draw

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches until as many pairs were seen as the pool holds, or as an epoch has at most."""
        train = self._config.train
        if not self._each_step:
            return self._order.batches_per_epoch
        epoch_rows = (train.max_sequences_per_epoch if train.epochs else None) or self._config.pool.train_records
        return max(1, epoch_rows // train.batch_size)

    def __getitem__(self, i: int) -> Tensor:
        """Return the numbers in `rows`, (B,), of micro-batch i."""
        train = self._config.train
        self.prepare(i // train.accumulation + 1)
        if self._each_step:
            part = i % train.accumulation
            return arange(part * train.batch_size, (part + 1) * train.batch_size)
        return self._order[i - self._generation * (self._every or 0) * train.accumulation]

    def prepare(self, step: int) -> None:
        """Have the pairs of a step (from 1) ready: draw them if they are not."""
        generation = self.draws(step)
        if generation != self._generation:
            self.rows, self._order = self._arrange(self._valid(self._draw(generation)))
            self._generation = generation

    def _draw(self, generation: int) -> Pairs:
        config = self._config
        assert self._base is not None
        rows_a_step = config.train.batch_size * config.train.accumulation
        size = rows_a_step if self._each_step else config.pool.train_records
        return draw_pairs(
            config,
            self._base,
            self._tokenizer,
            draw=Draw("train", size, f"fresh/{generation}", config.seed_of("data")),
            rng=stream(config.seed_of("sampling"), "fresh", generation, device=self._base.device),
            max_tokens=self._max_tokens,
        )

    def _valid(self, pairs: Pairs) -> Pairs:
        if not self._config.data.drop_invalid:
            return pairs
        kept = valid_pairs(pairs, self._tokenizer, self._config.task.name)
        if not kept:
            raise TrainerError(
                f"data.drop_invalid: none of {len(pairs)} pairs has a trace that a strategy writes. Train the base for "
                "longer, or leave it out."
            )
        return pairs.select(kept)

    def _arrange(self, pairs: Pairs) -> tuple[PairRows, BatchOrder]:
        rows = PairRows(pairs, self._tokenizer, position_neutral=self._neutral)
        return rows, batch_order(rows.lengths, self._config.train, self._config.seed_of("data"))

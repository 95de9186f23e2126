"""Pairs (x, y) as the rows that the factorised model reads."""

import torch
from torch import Tensor

from trainer.backbone import Tokenizer
from trainer.batches import entangled_rows, generator_rows
from trainer.factorised import LatentModel
from trainer.objective import Forward, Surprise
from trainer.pool import Pairs


class PairRows:
    """N pairs in both layouts, with the base model's surprise, ready to be batched.

    Attributes:
        lengths: (N,), tokens of the generator's records.
    """

    def __init__(self, pairs: Pairs, tokenizer: Tokenizer, *, position_neutral: bool) -> None:
        self._entangled = entangled_rows(pairs.x, pairs.y, tokenizer)
        self._generator = generator_rows(pairs.x, pairs.y, tokenizer, position_neutral=position_neutral)
        counts = [len(y) + 2 for y in pairs.y]  # targets
        self._baselines, self._entropies = pairs.baseline.split(counts), pairs.entropy.split(counts)
        self.lengths = self._generator.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def forward(
        self, model: LatentModel, index: Tensor, rng: torch.Generator | None, *, divergence: bool = False
    ) -> Forward:
        """Run the model on some pairs.

        Args:
            model: router, generator and posterior.
            index: (B,), which pairs.
            rng: of the posterior's samples; None: its mode instead.
            divergence: whether to compare the latents' predictions.
        """
        return model(
            self._entangled.take(index).to(model.device),
            self._generator.take(index).to(model.device),
            self._surprise(index, model.device),
            rng,
            divergence=divergence,
        )

    def tokens(self, index: Tensor) -> int:
        """Return the tokens that generator and posterior read for some pairs, padding left out."""
        return int(self._generator.lengths[index].sum() + self._entangled.lengths[index].sum())

    def whiten(self, model: LatentModel, index: Tensor) -> None:
        """Start the posterior head from these pairs."""
        model.whiten_posterior(self._entangled.take(index).to(model.device))

    def _surprise(self, index: Tensor, device: torch.device) -> Surprise:
        chosen = index.tolist()
        counts = torch.tensor([len(self._baselines[i]) for i in chosen])
        return Surprise(
            torch.cat([self._baselines[i] for i in chosen]).to(device),
            torch.cat([self._entropies[i] for i in chosen]).to(device),
            torch.arange(len(chosen)).repeat_interleave(counts).to(device),
        )

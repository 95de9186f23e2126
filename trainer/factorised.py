"""The factorised model: router p(z|x), generator p(y|x,z) and posterior q(z|x,y), what both kinds of latent share.

Router and generator are one adapted copy of the base: the router reads the final state at ``<z>``, which in a causal
model does not depend on what follows.
"""

import copy
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn

from trainer.adapters import GENERATOR, POSTERIOR, add_adapters, switch_to
from trainer.backbone import Backbone, Parts, Tokenizer, embedding_table, hidden_states
from trainer.batches import Rows
from trainer.config import AdaptationConfig
from trainer.distributions import Categoricals, Gaussians
from trainer.objective import Forward, Surprise
from trainer.tokenizer import MAX_LATENTS
from trainer.weights import Kind

if TYPE_CHECKING:
    from peft import PeftModel


MIN_DEVIATION = 1e-6
"""A feature of the posterior that varies less than that, as all do over a single record, is not scaled up."""


class LatentModel(nn.Module, ABC):
    """All that is trained when a base model is disentangled; see `trainer.latents` for how to make one.

    Evaluation needs the following, and nothing of the kind of the latent:

    - ``router(at_z)`` and ``posterior_of(rows)`` return distributions of z (`trainer.distributions`), from which values
      are drawn (``sample(rng)``), or taken (``mode()``: the mean, or the most probable);
    - ``condition(z)`` returns the embeddings of the tokens behind ``<z>`` under B values of z;
    - ``latent_values()`` returns the values to intervene with: all K of a discrete z, none of a continuous one;
    - ``lm`` runs the generator.

    Args:
        backbone: the base model; taken over, not copied.
        adaptation: which of its weights are trained.
        latent_ids: token ids that can stand between ``<z>`` and ``</z>``.
        pooling: ``mean`` over the targets, or ``last``: the state at ``<eos>``.
        seed: of the new weights.
    """

    kind: ClassVar[Kind]
    posterior_scale: ClassVar[float]
    """Standard deviation of the posterior head's outputs over records at the start."""

    posterior_head: nn.Linear

    def __init__(
        self, backbone: Backbone, adaptation: AdaptationConfig, *, latent_ids: list[int], pooling: str, seed: int
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.tokenizer: Tokenizer = backbone.tokenizer
        self.latent_ids, self.pooling, self.adaptation = latent_ids, pooling, adaptation.kind
        _make_slot_neutral(backbone)
        causal = backbone.model.eval()  # evaluation mode throughout: no dropout anywhere
        self.prepare_tokens(embedding_table(causal))
        self.posterior: nn.Module | None = None
        self.acting = ""  # name of the adapter that acts
        if adaptation.kind == "lora":
            slot = {self.tokenizer.z_open, self.tokenizer.z_close, *latent_ids}
            # A pretrained tokenizer has new tokens that no record of this kind holds: they are left alone.
            records = {i for i in backbone.new_token_ids if not self._is_latent_token(i)}
            self.generator: nn.Module = add_adapters(
                backbone.model,
                adaptation,
                generator_token_ids=sorted(records | slot),
                posterior_token_ids=sorted(records - slot),
            )
        else:
            self.generator = causal
            causal.requires_grad_(adaptation.kind == "full")
            if adaptation.kind == "full":
                self.posterior = copy.deepcopy(Parts.of(causal).decoder)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.posterior_head.weight.device

    @property
    def lm(self) -> Parts:
        """The generator, ready to run: with adapters, its own is switched on."""
        self.switch_to(GENERATOR)
        return Parts.of(self._causal())

    def prepare_tokens(self, table: Tensor) -> None:
        """Set the rows of the latent's tokens in the base's embedding, (V, d), before it is copied."""

    @abstractmethod
    def router(self, at_z: Tensor) -> Gaussians | Categoricals:
        """Return p(z|x) from the generator's final states at ``<z>``, (B, d)."""

    @abstractmethod
    def posterior_of(self, rows: Rows) -> Gaussians | Categoricals:
        """Return q(z|x,y) for B entangled records."""

    @abstractmethod
    def latent_embeddings(self, z: Tensor) -> Tensor:
        """Return the embeddings, (..., d), at the one place between ``<z>`` and ``</z>`` for values of z."""

    @abstractmethod
    def latent_values(self) -> Tensor | None:
        """Return all values of z, (K,), or None where they cannot be counted."""

    @abstractmethod
    def forward(
        self,
        entangled: Rows,
        generator: Rows,
        surprise: Surprise,
        rng: torch.Generator | None,
        *,
        divergence: bool = False,
    ) -> Forward:
        """Do all that one value of the objective needs.

        Args:
            entangled: B pairs as the posterior's records.
            generator: the same pairs as the generator's records.
            surprise: of the frozen base, at the n targets.
            rng: of the posterior's samples; None: the reconstruction is that of the posterior's mode.
            divergence: whether to compare the latents' predictions, which needs the whole vocabulary at each target.
        """

    def condition(self, z: Tensor) -> Tensor:
        """Return the embeddings of the three tokens behind ``<z>``: the latent's, that of ``</z>`` and of ``<y>``.

        Args:
            z: B values, as drawn from a distribution.

        Returns:
            (B, 3, d).
        """
        close = self.lm.embed(torch.tensor([self.tokenizer.z_close, self.tokenizer.y_open], device=self.device))
        latent = self.latent_embeddings(z)[:, None].to(close.dtype)
        return torch.cat([latent, close.expand(len(z), -1, -1)], dim=1)

    def posterior_features(self, rows: Rows) -> Tensor:
        """Run the posterior's backbone and pool it.

        Args:
            rows: B entangled records; the posterior sees no latent slot.

        Returns:
            (B, d).
        """
        self.switch_to(POSTERIOR)
        decoder: Any = Parts.of(self._causal()).decoder if self.posterior is None else self.posterior
        hidden = hidden_states(decoder, decoder.get_input_embeddings()(rows.ids), rows.positions)  # (B, L, d)
        if self.pooling == "last":
            return hidden[torch.arange(len(hidden), device=hidden.device), rows.lengths - 1]
        weights = rows.is_target.to(hidden.dtype)
        return (hidden * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)

    @torch.no_grad()
    def whiten_posterior(self, rows: Rows) -> None:
        """Set the posterior head so that its outputs have zero mean and a given spread over the given records.

        W = G / std with G ~ N(0, s^2 / d), bias = -W mean. With a head near zero the KL term ties the posterior to the
        router before z has any meaning.

        Args:
            rows: entangled records, one batch.
        """
        features = self.posterior_features(rows)  # (B, d)
        mean = features.mean(0)
        deviation = features.std(0) if len(features) > 1 else torch.zeros_like(mean)
        deviation = torch.where(deviation > MIN_DEVIATION, deviation, 1.0)  # a constant feature tells records not apart
        scale = self.posterior_scale / features.shape[1] ** 0.5
        weight = self.shape_posterior(torch.randn_like(self.posterior_head.weight) * scale / deviation)
        self.posterior_head.weight.copy_(weight)
        self.posterior_head.bias.copy_(-weight @ mean)

    def shape_posterior(self, weight: Tensor) -> Tensor:
        """Return the posterior head's first weights, (outputs, d), from those of equal spread in every output."""
        return weight

    def acting_as_now(self) -> AbstractContextManager[object]:
        """Return a context in which the adapter that acts now acts again, to be entered any number of times.

        A layer that is computed again on the way back must not run with the adapter that was switched to since.
        """
        return _ActingAs(self, self.acting)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return what is trained, by name: the rest is the base and never changes."""
        self.switch_to(GENERATOR)
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def _is_latent_token(self, token: int) -> bool:
        tokenizer = self.tokenizer
        return token in {tokenizer.z_empty, *(tokenizer.latent(k) for k in range(1, MAX_LATENTS + 1))}

    def _causal(self) -> nn.Module:
        return cast("PeftModel", self.generator).get_base_model() if self.adaptation == "lora" else self.generator

    def switch_to(self, adapter: str) -> None:
        """Make an adapter act, where there are adapters."""
        if self.adaptation == "lora" and self.acting != adapter:  # a switch walks through the whole model
            switch_to(cast("PeftModel", self.generator), adapter)
            self.acting = adapter


class _ActingAs:
    """A context in which one of a model's adapters acts, and then the one that acted before."""

    def __init__(self, model: LatentModel, adapter: str) -> None:
        self._model, self._adapter, self._before = model, adapter, adapter

    def __enter__(self) -> None:
        self._before = self._model.acting
        self._model.switch_to(self._adapter)

    def __exit__(self, *_: object) -> None:
        self._model.switch_to(self._before)


@torch.no_grad()
def _make_slot_neutral(backbone: Backbone) -> None:
    """Give the slot's tokens the embedding of ``</x>``: to the base they then say nothing new."""
    tokenizer = backbone.tokenizer
    weight = embedding_table(backbone.model)  # (V, d)
    weight[[tokenizer.z_open, tokenizer.z_close, tokenizer.z_empty]] = weight[tokenizer.x_close].clone()

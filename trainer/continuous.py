"""A Gaussian z: router and posterior are linear heads, the generator reads E z added to the token ``<z_empty>``."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from trainer.backbone import Backbone, embedding_table
from trainer.batches import Rows
from trainer.config import AdaptationConfig
from trainer.distributions import Gaussians
from trainer.factorised import LatentModel
from trainer.likelihood import log_likelihood, targets
from trainer.objective import Forward, Surprise
from trainer.shared_prefix import run_generator
from trainer.weights import Kind

LOG_VAR_LIMIT = 12.0
"""Log-variances are bent to stay within +-12 (exp(12) = 160,000): for safety only, an explosion remains visible."""

POSTERIOR_LOG_VAR_SCALE = 0.1
"""Spread of the posterior's log-variances at the start, of its means': all near 0, unit variance."""

ROUTER_STD = 0.02
"""Standard deviation of the router head's weights at the start: the router begins near N(0, I)."""

INJECTION_SHARE = 0.1
"""Size of the injected vector at the start, relative to the size of an embedding: the model begins near the base."""


class ContinuousModel(LatentModel):
    """The model with z in R^d_z.

    Args:
        backbone: the base model; taken over, not copied.
        adaptation: which of its weights are trained.
        dim: d_z.
        samples: S, of z a record in `forward`.
        pooling: see `LatentModel`.
        seed: of the new weights.
    """

    kind: ClassVar[Kind] = "continuous"
    posterior_scale: ClassVar[float] = 1.0

    def __init__(
        self, backbone: Backbone, adaptation: AdaptationConfig, *, dim: int, samples: int, pooling: str, seed: int
    ) -> None:
        super().__init__(backbone, adaptation, latent_ids=[backbone.tokenizer.z_empty], pooling=pooling, seed=seed)
        self.dim, self.samples = dim, samples
        table = embedding_table(self._causal()).detach()
        width = table.shape[1]
        self.router_head = nn.Linear(width, 2 * dim)
        self.posterior_head = nn.Linear(width, 2 * dim)
        self.injection = nn.Linear(dim, width, bias=False)  # E, (d, d_z)
        nn.init.normal_(self.router_head.weight, std=ROUTER_STD)
        nn.init.zeros_(self.router_head.bias)
        size = float(table.std())  # of one component of an embedding
        nn.init.normal_(self.injection.weight, std=INJECTION_SHARE * size / dim**0.5)

    def router(self, at_z: Tensor) -> Gaussians:
        """Return p(z|x) from the generator's final states at ``<z>``, (B, d)."""
        return split_gaussian(self.router_head(at_z))

    def posterior_of(self, rows: Rows) -> Gaussians:
        """Return q(z|x,y) for B entangled records."""
        return split_gaussian(self.posterior_head(self.posterior_features(rows)))

    def latent_embeddings(self, z: Tensor) -> Tensor:
        """Return emb(``<z_empty>``) + E z, (..., d), for z of shape (..., d_z)."""
        empty = self.lm.embed(torch.tensor(self.tokenizer.z_empty, device=self.device))  # (d,)
        return empty + self.injection(z)

    def latent_values(self) -> None:
        """Return None: there are no values to count."""
        return

    def shape_posterior(self, weight: Tensor) -> Tensor:
        """Make the log-variances' rows of the posterior head small."""
        weight[self.dim :] *= POSTERIOR_LOG_VAR_SCALE
        return weight

    def forward(
        self,
        entangled: Rows,
        generator: Rows,
        surprise: Surprise,
        rng: torch.Generator | None,
        *,
        divergence: bool = False,
    ) -> Forward:
        """Do all that one value of the objective needs, with S samples of z, or its mean; see `LatentModel.forward`."""
        assert not divergence  # a term of the discrete latent
        q = self.posterior_of(entangled)
        z = q.mu[None]
        if rng is not None:
            noise = torch.randn((self.samples, *q.mu.shape), generator=rng, device=q.mu.device)
            z = q.mu + q.sigma() * noise  # (S, B, d_z)
        lm = self.lm
        at_z, states = run_generator(lm, generator, self.latent_embeddings(z))
        likelihood = log_likelihood(states.flatten(0, 1), targets(generator).repeat(len(z)), lm)
        return Forward(
            log_likelihood=likelihood.view(len(z), -1),
            mixing=torch.full((len(z), len(q)), 1 / len(z), device=z.device, dtype=z.dtype),
            surprise=surprise,
            posterior=q,
            router=self.router(at_z),
        )


def split_gaussian(parameters: Tensor) -> Gaussians:
    """Split a head's output (B, 2 d_z) into means and log-variances, (B, d_z) each, the latter softly limited."""
    mu, log_var = parameters.chunk(2, dim=-1)
    return Gaussians(mu, LOG_VAR_LIMIT * torch.tanh(log_var / LOG_VAR_LIMIT))

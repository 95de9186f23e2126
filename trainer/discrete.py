"""A z of K values, each a token: the router is the next-token distribution, and sums over z are exact."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from trainer.backbone import Backbone, embedding_table, output_table
from trainer.batches import Rows
from trainer.config import AdaptationConfig
from trainer.distributions import Categoricals
from trainer.factorised import LatentModel
from trainer.likelihood import log_likelihood, log_likelihood_and_divergence, targets
from trainer.objective import Forward, Surprise
from trainer.shared_prefix import run_generator
from trainer.weights import Kind

LATENT_NOISE = 1.0
"""Size of the noise that tells the latents' tokens apart at the start, in standard deviations of the embedding."""


class DiscreteModel(LatentModel):
    """The model with z in {1, ..., K}, written as ``<z1>`` ... ``<zK>``.

    With `head_only` adaptation the latents' rows, in and out, are parameters of their own (`injection` and
    `router_head`), since the model's table stays as it is.

    Args:
        backbone: the base model; taken over, not copied.
        adaptation: which of its weights are trained.
        count: K.
        pooling: see `LatentModel`.
        seed: of the new weights.
    """

    kind: ClassVar[Kind] = "discrete"
    posterior_scale: ClassVar[float] = 3.0

    def __init__(
        self, backbone: Backbone, adaptation: AdaptationConfig, *, count: int, pooling: str, seed: int
    ) -> None:
        latent_ids = [backbone.tokenizer.latent(k) for k in range(1, count + 1)]
        super().__init__(backbone, adaptation, latent_ids=latent_ids, pooling=pooling, seed=seed)
        causal = self._causal()
        width = embedding_table(causal).shape[1]
        self.posterior_head = nn.Linear(width, count)
        self.injection = self.router_head = None
        if adaptation.kind == "head_only":
            self.injection = nn.Embedding(count, width)
            self.router_head = nn.Linear(width, count, bias=False)
            self.injection.weight.data.copy_(embedding_table(causal)[latent_ids])
            self.router_head.weight.data.copy_(output_table(causal)[latent_ids])

    @torch.no_grad()
    def prepare_tokens(self, table: Tensor) -> None:
        """Let ``<zk>`` begin as ``</x>``, which says nothing new to the base, each with noise of its own."""
        noise = torch.randn(len(self.latent_ids), table.shape[1]) * float(table.std()) * LATENT_NOISE
        table[self.latent_ids] = table[self.tokenizer.x_close] + noise.to(table)

    def router(self, at_z: Tensor) -> Categoricals:
        """Return p(z|x) from the generator's final states at ``<z>``, (B, d)."""
        return Categoricals(self._latent_logits(at_z)[0].log_softmax(-1))

    def posterior_of(self, rows: Rows) -> Categoricals:
        """Return q(z|x,y) for B entangled records."""
        return Categoricals(self.posterior_head(self.posterior_features(rows)).float().log_softmax(-1))

    def latent_embeddings(self, z: Tensor) -> Tensor:
        """Return emb(``<zk>``), (..., d), for z of shape (...), int64, from 0 on."""
        if self.injection is not None:
            return self.injection(z)
        return self.lm.embed(torch.tensor(self.latent_ids, device=z.device)[z])

    def latent_values(self) -> Tensor:
        """Return 0, ..., K - 1."""
        return torch.arange(len(self.latent_ids), device=self.device)

    def forward(
        self,
        entangled: Rows,
        generator: Rows,
        surprise: Surprise,
        rng: torch.Generator | None,
        *,
        divergence: bool = False,
    ) -> Forward:
        """Do all that one value of the objective needs, with every value of z; see `LatentModel.forward`.

        The sum over z is exact, so nothing is drawn; without `rng` all of the reconstruction is that of the most
        probable z.
        """
        q, values, records = self.posterior_of(entangled), self.latent_values(), len(entangled.ids)
        latents = self.latent_embeddings(values)[:, None].expand(-1, records, -1)  # (K, B, d)
        lm = self.lm
        at_z, states = run_generator(lm, generator, latents)  # (B, d), (K, n, d)
        ids = targets(generator)
        if divergence:
            likelihood, jsd = log_likelihood_and_divergence(states, ids, lm)
        else:
            likelihood = log_likelihood(states.flatten(0, 1), ids.repeat(len(values)), lm).view(len(values), -1)
            jsd = None
        logits, others = self._latent_logits(at_z)
        mixing = q.log_p.exp() if rng is not None else q.value_features(q.mode())
        return Forward(
            log_likelihood=likelihood,
            mixing=mixing.T,
            surprise=surprise,
            posterior=q,
            router=Categoricals(logits.log_softmax(-1)),
            log_support=logits.logsumexp(-1) - torch.logaddexp(logits.logsumexp(-1), others),
            divergence=jsd,
        )

    def _latent_logits(self, at_z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the latents' tokens, (B, K), and the log of the others' summed exponentials, (B,)."""
        logits = self.lm.head(at_z).float()  # (B, V)
        own = logits[:, self.latent_ids] if self.router_head is None else self.router_head(at_z).float()
        ids = torch.tensor(self.latent_ids, device=logits.device)
        others = logits.index_fill(1, ids, float("-inf")).logsumexp(-1)
        return own, others

"""The factorised model: router p(z|x), generator p(y|x,z) and posterior q(z|x,y) with a continuous z.

Router and generator are one adapted copy of the base: the router reads the final state at ``<z>``, which in a causal
model does not depend on what follows, so one pass over the generator's record gives both.
"""

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainer.backbone import Backbone, Parts, embedding_table, hidden_states
from trainer.batches import Rows
from trainer.config import AdaptationConfig
from trainer.likelihood import log_likelihood, target_states, targets
from trainer.objective import Forward

if TYPE_CHECKING:
    from peft import PeftModel

LOG_VAR_LIMIT = 12.0
"""Log-variances are bent to stay within +-12 (exp(12) = 160,000): for safety only, an explosion remains visible."""

POSTERIOR_SCALE = 1.0
"""Standard deviation of the posterior's means over records at the start."""

POSTERIOR_LOG_VAR_SCALE = 0.1
"""The same for its log-variances: all near 0, unit variance."""

ROUTER_STD = 0.02
"""Standard deviation of the router head's weights at the start: the router begins near N(0, I)."""

INJECTION_SHARE = 0.1
"""Size of the injected vector at the start, relative to the size of an embedding: the model begins near the base."""

GENERATOR, POSTERIOR = "generator", "posterior"
"""Names of the two adapters."""


class LatentModel(nn.Module):
    """All that is trained when a base model is disentangled.

    Args:
        backbone: the base model; taken over, not copied.
        adaptation: which of its weights are trained.
        dim: d_z.
        pooling: ``mean`` over the targets, or ``last``: the state at ``<eos>``.
        seed: of the new weights.
    """

    def __init__(self, backbone: Backbone, adaptation: AdaptationConfig, *, dim: int, pooling: str, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        _make_slot_neutral(backbone)
        self.dim, self.pooling = dim, pooling
        causal = backbone.model.eval()  # evaluation mode throughout: no dropout anywhere
        width = embedding_table(causal).shape[1]
        self._peft: PeftModel | None = None
        if adaptation.kind == "lora":
            self.generator = self._peft = _with_two_adapters(backbone, adaptation)
            self.posterior = None
        else:
            self.generator = causal
            self.posterior = copy.deepcopy(Parts.of(causal).decoder)
        self.router_head = nn.Linear(width, 2 * dim)
        self.posterior_head = nn.Linear(width, 2 * dim)
        self.injection = nn.Linear(dim, width, bias=False)  # E, (d, d_z)
        nn.init.normal_(self.router_head.weight, std=ROUTER_STD)
        nn.init.zeros_(self.router_head.bias)
        size = float(embedding_table(causal).detach().std())  # of one component of an embedding
        nn.init.normal_(self.injection.weight, std=INJECTION_SHARE * size / dim**0.5)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.router_head.weight.device

    @property
    def lm(self) -> Parts:
        """The generator, ready to run: with adapters, its own is switched on."""
        self._switch_to(GENERATOR)
        return Parts.of(self._causal())

    def posterior_features(self, rows: Rows) -> Tensor:
        """Run the posterior's backbone and pool it.

        Args:
            rows: B entangled records; the posterior sees no latent slot.

        Returns:
            (B, d).
        """
        self._switch_to(POSTERIOR)
        decoder: Any = Parts.of(self._causal()).decoder if self.posterior is None else self.posterior
        hidden = hidden_states(decoder, decoder.get_input_embeddings()(rows.ids), rows.positions)  # (B, L, d)
        if self.pooling == "last":
            return hidden[torch.arange(len(hidden), device=hidden.device), rows.lengths - 1]
        weights = rows.is_target.to(hidden.dtype)
        return (hidden * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)

    def posterior_parameters(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(z|x,y), (B, d_z) each, for B entangled records."""
        return split_gaussian(self.posterior_head(self.posterior_features(rows)))

    def router_and_likelihood(self, rows: Rows, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the generator over its records with z injected, S samples a record.

        Args:
            rows: B generator records.
            z: (S, B, d_z).

        Returns:
            mean and log-variance of p(z|x), (B, d_z) each, and the targets' log-likelihoods, (S, n).
        """
        samples, records, _ = z.shape
        lm, repeated = self.lm, rows.repeat(samples)
        every = torch.arange(samples * records, device=z.device)
        embeddings = lm.embed(repeated.ids)  # (S B, L, d)
        injected = self.injection(z.flatten(0, 1))  # (S B, d)
        embeddings = embeddings.index_put((every, repeated.slot + 1), injected, accumulate=True)
        hidden = hidden_states(lm.decoder, embeddings, repeated.positions, visible=repeated.visible)  # (S B, L, d)
        mu_p, log_var_p = split_gaussian(self.router_head(hidden[every[:records], rows.slot]))
        likelihood = log_likelihood(target_states(hidden, repeated), targets(repeated), lm)
        return mu_p, log_var_p, likelihood.view(samples, -1)

    def forward(self, entangled: Rows, generator: Rows, baseline: Tensor, noise: Tensor) -> Forward:
        """Do all that one value of the objective needs.

        Args:
            entangled: B pairs as the posterior's records.
            generator: the same pairs as the generator's records.
            baseline: (n,); the base model's negative log-likelihood of the targets.
            noise: (S, B, d_z), standard normal.
        """
        mu_q, log_var_q = self.posterior_parameters(entangled)
        z = mu_q + (log_var_q / 2).exp() * noise
        mu_p, log_var_p, likelihood = self.router_and_likelihood(generator, z)
        return Forward(likelihood, baseline, mu_q, log_var_q, mu_p, log_var_p)

    @torch.no_grad()
    def whiten_posterior(self, rows: Rows) -> None:
        """Set the posterior head so that its means have zero mean and unit variance over the given records.

        W = G / std with G ~ N(0, s^2 / d), bias = -W mean. With a head near zero the KL term ties the posterior to the
        router before z has any meaning.

        Args:
            rows: entangled records, one batch.
        """
        features = self.posterior_features(rows)  # (B, d)
        mean, deviation = features.mean(0), features.std(0).clamp(min=1e-6)
        weight = torch.randn_like(self.posterior_head.weight) * POSTERIOR_SCALE / features.shape[1] ** 0.5 / deviation
        weight[self.dim :] *= POSTERIOR_LOG_VAR_SCALE
        self.posterior_head.weight.copy_(weight)
        self.posterior_head.bias.copy_(-weight @ mean)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return what is trained, by name: the rest is the base and never changes."""
        self._switch_to(GENERATOR)
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def _causal(self) -> nn.Module:
        return self.generator if self._peft is None else self._peft.get_base_model()

    def _switch_to(self, adapter: str) -> None:
        """Make one adapter act, and leave both trainable.

        peft's `set_adapter` freezes all others: a joint backward would then give them no gradient, and no error.
        """
        if self._peft is not None:
            self._peft.set_adapter(adapter)
            self._peft.set_requires_grad([GENERATOR, POSTERIOR])


def split_gaussian(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Split a head's output (..., 2 d_z) into mean and log-variance, (..., d_z) each, the latter softly limited."""
    mu, log_var = parameters.chunk(2, dim=-1)
    return mu, LOG_VAR_LIMIT * torch.tanh(log_var / LOG_VAR_LIMIT)


@torch.no_grad()
def _make_slot_neutral(backbone: Backbone) -> None:
    """Give the slot's tokens the embedding of ``</x>``: to the base they then say nothing new."""
    tokenizer = backbone.tokenizer
    weight = embedding_table(backbone.model)  # (V, d)
    weight[[tokenizer.z_open, tokenizer.z_close, tokenizer.z_empty]] = weight[tokenizer.x_close].clone()


def _with_two_adapters(backbone: Backbone, adaptation: AdaptationConfig) -> "PeftModel":
    """Put two LoRA adapters on one set of frozen weights; each also trains its own rows for the new tokens it reads."""
    from peft import LoraConfig, get_peft_model

    def config(new_token_ids: list[int]) -> "LoraConfig":
        return LoraConfig(
            r=adaptation.rank,
            lora_alpha=adaptation.alpha,  # pyright: ignore[reportArgumentType]  # any number will do
            target_modules=list(adaptation.targets),
            lora_dropout=0.0,
            trainable_token_indices=new_token_ids or None,
        )

    tokenizer = backbone.tokenizer
    slot = {tokenizer.z_open, tokenizer.z_empty, tokenizer.z_close}  # the posterior never reads these
    model = get_peft_model(backbone.model, config(backbone.new_token_ids), adapter_name=GENERATOR)
    model.add_adapter(POSTERIOR, config([i for i in backbone.new_token_ids if i not in slot]))
    return model.eval()

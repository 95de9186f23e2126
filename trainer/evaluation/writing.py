"""What a factorised model says of inputs and pairs at evaluation: p(z|x), q(z|x,y), and answers under given latents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from trainer.backbone import hidden_states
from trainer.batches import Rows, entangled_rows, generator_rows, slot_positions, slot_visible, x_prefix
from trainer.distributions import Distributions, concatenate
from trainer.factorised import LatentModel
from trainer.generate import drop_hidden_keys, equal_length_groups, write_traces
from trainer.pool import Pairs


@dataclass(frozen=True)
class Writer:
    """A model ready to be asked, and how its records are laid out.

    Attributes:
        model: router, generator and posterior.
        position_neutral: see `slot_positions`.
        max_tokens: of an answer.
        batch_size: records at once.
    """

    model: LatentModel
    position_neutral: bool
    max_tokens: int
    batch_size: int

    @torch.no_grad()
    def router(self, xs: Sequence[list[int]]) -> Distributions:
        """Return p(z|x) for N inputs, in the host's memory."""
        rows = generator_rows(xs, [[]] * len(xs), self.model.tokenizer, position_neutral=self.position_neutral)
        return concatenate([self._router(batch) for batch in self._batches(rows)])

    @torch.no_grad()
    def posterior(self, pairs: Pairs) -> Distributions:
        """Return q(z|x,y) for N pairs, in the host's memory."""
        rows = entangled_rows(pairs.x, pairs.y, self.model.tokenizer)
        return concatenate([self.model.posterior_of(batch).cpu() for batch in self._batches(rows)])

    @torch.no_grad()
    def write(self, xs: Sequence[list[int]], z: Tensor, *, temperature: float, rng: torch.Generator) -> list[list[int]]:
        """Let the generator answer N inputs, each under a value of z.

        Args:
            xs: N inputs, lists of token ids.
            z: N values of z.
            temperature: of the answers; 0: greedy.
            rng: of the answers; belongs to the model's device.

        Returns:
            N lists of token ids, without ``</y>``.
        """
        answers: list[list[int]] = [[] for _ in xs]
        for group in equal_length_groups([len(x) for x in xs], self.batch_size):
            written = self._write([xs[row] for row in group], z[group], temperature, rng)
            for row, answer in zip(group, written, strict=True):
                answers[row] = answer
        return answers

    def _batches(self, rows: Rows) -> Iterator[Rows]:
        for index in torch.arange(len(rows.ids)).split(self.batch_size):
            yield rows.take(index).to(self.model.device)

    def _router(self, rows: Rows) -> Distributions:
        lm = self.model.lm
        hidden = hidden_states(lm.decoder, lm.embed(rows.ids), rows.positions, visible=rows.visible)  # (B, L, d)
        return self.model.router(hidden[torch.arange(len(hidden), device=hidden.device), rows.slot]).cpu()

    def _write(self, xs: Sequence[list[int]], z: Tensor, temperature: float, rng: torch.Generator) -> list[list[int]]:
        """Answer B inputs of one length; see `write`."""
        model, lm, device = self.model, self.model.lm, self.model.device
        prompts = [[*x_prefix(x, model.tokenizer), model.tokenizer.z_open] for x in xs]
        length = len(prompts[0]) + 3  # L, with the latent, </z> and <y>
        places = torch.arange(length, device=device)
        positions = slot_positions(places, length - 4, position_neutral=self.position_neutral).expand(len(xs), -1)
        visible = slot_visible(places, length - 4, position_neutral=self.position_neutral)  # (L,)
        embeddings = torch.cat([lm.embed(torch.tensor(prompts, device=device)), model.condition(z.to(device))], dim=1)
        cache = DynamicCache(config=lm.config)
        hidden = hidden_states(lm.decoder, embeddings, positions, cache, visible.expand(len(xs), -1))  # (B, L, d)
        drop_hidden_keys(cache, visible)
        return write_traces(
            lm,
            model.tokenizer,
            hidden=hidden[:, -1],
            cache=cache,
            position=int(positions[0, -1]) + 1,
            max_tokens=self.max_tokens,
            temperature=temperature,
            generator=rng,
        )

"""What a factorised model says at evaluation, against one whole pass over the records that it wrote."""

import pytest
import torch

from trainer.backbone import Backbone, hidden_states
from trainer.batches import Rows, entangled_rows, generator_rows
from trainer.config import AdaptationConfig
from trainer.continuous import ContinuousModel
from trainer.discrete import DiscreteModel
from trainer.evaluation.writing import Writer
from trainer.factorised import LatentModel
from trainer.pool import Pairs

MAX_TOKENS = 12


@pytest.fixture(params=["continuous", "discrete"])
def model(request: pytest.FixtureRequest, backbone: Backbone) -> LatentModel:
    adaptation = AdaptationConfig()
    if request.param == "discrete":
        return DiscreteModel(backbone, adaptation, count=3, pooling="mean", seed=3)
    return ContinuousModel(backbone, adaptation, dim=4, samples=1, pooling="mean", seed=3)


@pytest.fixture(params=[True, False], ids=["neutral slot", "ordinary slot"])
def writer(request: pytest.FixtureRequest, model: LatentModel) -> Writer:
    return Writer(model, request.param, MAX_TOKENS, batch_size=5)


@pytest.fixture
def xs(pairs: Pairs) -> list[list[int]]:
    """Return inputs of several lengths, mixed."""
    return [x * (1 + i % 3) for i, x in enumerate(pairs.x)]


@torch.no_grad()
def whole_pass(model: LatentModel, rows: Rows, z: torch.Tensor) -> torch.Tensor:
    """Return the final states, (N, L, d), of records whose latent's embedding is put in by hand."""
    embeddings = model.lm.embed(rows.ids)
    embeddings[torch.arange(len(z)), rows.slot + 1] = model.latent_embeddings(z)
    return hidden_states(model.lm.decoder, embeddings, rows.positions, visible=rows.visible)


def test_a_greedy_answer_under_a_z_is_the_choice_of_a_whole_pass_and_stops_at_its_end(
    writer: Writer, xs: list[list[int]]
) -> None:
    model, tokenizer = writer.model, writer.model.tokenizer
    z = writer.router(xs).sample(torch.Generator().manual_seed(1))
    answers = writer.write(xs, z, temperature=0.0, rng=torch.Generator())
    rows = generator_rows(xs, answers, tokenizer, position_neutral=writer.position_neutral)
    choices = model.lm.head(whole_pass(model, rows, z)).argmax(-1)  # (N, L)
    for row, answer in enumerate(answers):
        start = int(rows.slot[row]) + 3  # `<y>`
        chosen = choices[row, start : start + len(answer) + 1].tolist()
        assert chosen[: len(answer)] == answer
        assert len(answer) == MAX_TOKENS or chosen[-1] in (tokenizer.y_close, tokenizer.eos)


def test_an_answer_depends_on_its_own_input_and_z_alone(writer: Writer, xs: list[list[int]]) -> None:
    z = writer.router(xs).sample(torch.Generator().manual_seed(1))
    together = writer.write(xs, z, temperature=0.0, rng=torch.Generator())
    for row in (0, 4, len(xs) - 1):
        alone = writer.write([xs[row]], z[row : row + 1], temperature=0.0, rng=torch.Generator())
        assert alone == [together[row]]
    order = torch.arange(len(xs)).flip(0)
    turned = writer.write([xs[row] for row in order], z[order], temperature=0.0, rng=torch.Generator())
    assert turned[::-1] == together


def test_router_and_posterior_come_in_the_order_of_the_inputs(
    writer: Writer, xs: list[list[int]], pairs: Pairs
) -> None:
    model, tokenizer = writer.model, writer.model.tokenizer
    rows = generator_rows(xs, pairs.y, tokenizer, position_neutral=writer.position_neutral)
    z = writer.router(xs).mode()
    states = whole_pass(model, rows, z)[torch.arange(len(xs)), rows.slot]
    with torch.no_grad():
        router, posterior = model.router(states), model.posterior_of(entangled_rows(pairs.x, pairs.y, tokenizer))
    torch.testing.assert_close(writer.router(xs).features(), router.features(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(writer.posterior(pairs).features(), posterior.features(), rtol=1e-4, atol=1e-5)

"""The factorised models of both kinds, under every adaptation, against slow computations and the base itself."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from trainer import discrete, terms
from trainer.adapters import GENERATOR, POSTERIOR
from trainer.backbone import Backbone, checkpoint_layers, hidden_states
from trainer.batches import Rows, entangled_rows, generator_rows
from trainer.config import AdaptationConfig, ObjectiveConfig
from trainer.continuous import ContinuousModel
from trainer.discrete import DiscreteModel
from trainer.distributions import Categoricals, Gaussians
from trainer.factorised import LatentModel
from trainer.likelihood import log_likelihood, targets
from trainer.objective import Forward, Surprise, evaluate_objective
from trainer.pool import Pairs
from trainer.shared_prefix import run_generator

RECORDS = 12
ADAPTATIONS = {
    "full": AdaptationConfig(kind="full"),
    "lora": AdaptationConfig(kind="lora", rank=4),
    "head_only": AdaptationConfig(kind="head_only"),
}
MODES = list(product(("continuous", "discrete"), ADAPTATIONS))
every_mode = pytest.mark.parametrize(("kind", "adaptation"), MODES)
ALL_TERMS = {
    "continuous": {"posterior_variance_weight": 0.1},
    "discrete": {
        "posterior_entropy_weight": 0.1,
        "router_support_weight": 0.01,
        "inter_latent_divergence_weight": 0.1,
    },
}


def make(backbone: Backbone, kind: str, adaptation: str = "full", pooling: str = "mean") -> LatentModel:
    if kind == "discrete":
        return DiscreteModel(backbone, ADAPTATIONS[adaptation], count=3, pooling=pooling, seed=3)
    return ContinuousModel(backbone, ADAPTATIONS[adaptation], dim=4, samples=2, pooling=pooling, seed=3)


def rows_of(pairs: Pairs, backbone: Backbone, *, neutral: bool = True) -> tuple[Rows, Rows]:
    return (
        entangled_rows(pairs.x, pairs.y, backbone.tokenizer),
        generator_rows(pairs.x, pairs.y, backbone.tokenizer, position_neutral=neutral),
    )


def surprise_of(pairs: Pairs) -> Surprise:
    counts = torch.tensor([len(y) + 2 for y in pairs.y])
    return Surprise(pairs.baseline, pairs.entropy, torch.arange(len(pairs)).repeat_interleave(counts))


def run(model: LatentModel, pairs: Pairs, backbone: Backbone, *, seed: int | None = 0) -> Forward:
    rng = None if seed is None else torch.Generator().manual_seed(seed)
    return model(*rows_of(pairs, backbone), surprise_of(pairs), rng, divergence=model.kind == "discrete")


def some_latents(model: LatentModel) -> Tensor:
    """Return embeddings of three latents, (3, B, d)."""
    values = model.latent_values()
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)) if values is None else values
    return model.latent_embeddings(z)[:, None].expand(-1, RECORDS, -1)


def naive(model: LatentModel, rows: Rows, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Run whole records, one latent after the other, and return what `run_generator` does."""
    every, states = torch.arange(RECORDS), []
    for latent in latents:
        embeddings = model.lm.embed(rows.ids).clone()
        embeddings[every, rows.slot + 1] = latent
        hidden = hidden_states(model.lm.decoder, embeddings, rows.positions, visible=rows.visible)
        states.append(hidden[:, :-1][rows.is_target[:, 1:]])
    return hidden[every, rows.slot], torch.stack(states)


@every_mode
@pytest.mark.parametrize("neutral", [True, False])
def test_a_shared_prefix_gives_the_naive_states_and_gradients(
    backbone: Backbone, pairs: Pairs, kind: str, adaptation: str, neutral: bool
) -> None:
    """Inputs of several lengths, so that shorter prefixes are padded."""
    longer = Pairs([[*x, *x[: i % 3]] for i, x in enumerate(pairs.x)], pairs.y, pairs.baseline, pairs.entropy)
    _, rows = rows_of(longer, backbone, neutral=neutral)
    model = make(backbone, kind, adaptation)
    results, ids = [], targets(rows)
    for function in (
        lambda latents: run_generator(model.lm, rows, latents),
        lambda latents: naive(model, rows, latents),
    ):
        model.zero_grad()
        at_z, states = function(some_latents(model))
        values = log_likelihood(states.flatten(0, 1), ids.repeat(3), model.lm)
        router = model.router(at_z)
        (values.mean() + router.features().square().mean()).backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        results.append((values.detach(), router.features().detach(), gradients))
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-6)
    assert len(results[0][2]) > 0


@every_mode
def test_the_objective_of_whole_passes_is_the_models(
    backbone: Backbone, pairs: Pairs, kind: str, adaptation: str
) -> None:
    """Every raw value again from the naive passes, the sum over latents (or samples) spelt out."""
    model = make(backbone, kind, adaptation)
    with torch.no_grad():
        forward = run(model, pairs, backbone)
        q = model.posterior_of(rows_of(pairs, backbone)[0])
        if isinstance(q, Gaussians):
            noise = torch.randn(2, RECORDS, 4, generator=torch.Generator().manual_seed(0))
            latents, mixing = model.latent_embeddings(q.mu + q.sigma() * noise), torch.full((2, RECORDS), 0.5)
        else:
            latents, mixing = some_latents(model), q.log_p.exp().T
        rows = rows_of(pairs, backbone)[1]
        at_z, states = naive(model, rows, latents)
        values = torch.stack([log_likelihood(state, targets(rows), model.lm) for state in states])
        raw = evaluate_objective(forward, ObjectiveConfig(), 1).raw
    record, expected = surprise_of(pairs).record, 0.0
    for k, t in product(range(len(values)), range(values.shape[1])):
        expected -= float(mixing[k, record[t]] * values[k, t])
    assert raw["reconstruction_loss"].item() == pytest.approx(expected / values.shape[1], rel=1e-4)
    torch.testing.assert_close(forward.router.features(), model.router(at_z).features(), rtol=1e-3, atol=1e-5)
    if forward.log_support is not None:
        full = model.lm.head(at_z).log_softmax(-1)[:, model.latent_ids].logsumexp(-1)
        torch.testing.assert_close(forward.log_support, full, rtol=1e-3, atol=1e-5)
        log_p = model.lm.head(states).log_softmax(-1)
        torch.testing.assert_close(forward.divergence, terms.jensen_shannon(log_p), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
def test_the_elbo_of_a_model_is_its_log_likelihood_less_what_the_posterior_misses(
    backbone: Backbone, pairs: Pairs, adaptation: str
) -> None:
    """By enumeration of z, in whole passes: J = -log sum_z p(z|x) p(y|x,z) + KL(q || p(z|x,y)) with beta 1."""
    model = make(backbone, "discrete", adaptation)
    config = ObjectiveConfig(beta=1.0, reduction="sequence_mean", baseline_normalized=False)
    with torch.no_grad():
        model.whiten_posterior(rows_of(pairs, backbone)[0])
        forward = run(model, pairs, backbone)
        at_z, states = naive(model, rows_of(pairs, backbone)[1], some_latents(model))
        router = model.router(at_z)
    ids, record = targets(rows_of(pairs, backbone)[1]), surprise_of(pairs).record
    assert isinstance(router, Categoricals)
    joint = router.log_p.double()  # (B, K): log p(z, y | x)
    for k, state in enumerate(states):
        values = model.lm.head(state).detach().double().log_softmax(-1)
        for t, token in enumerate(ids.tolist()):
            joint[record[t], k] += values[t, token]
    exact, true = -joint.logsumexp(1).mean(), joint.log_softmax(1)
    assert isinstance(forward.posterior, Categoricals)
    missed = terms.categorical_kl(forward.posterior.log_p.double(), true)
    assert missed > 0.1
    assert evaluate_objective(forward, config, 1).total.item() == pytest.approx((exact + missed).item(), rel=1e-4)
    best = Forward(**{**vars(forward), "posterior": Categoricals(true.float()), "mixing": true.exp().float().T})
    assert evaluate_objective(best, config, 1).total.item() == pytest.approx(exact.item(), rel=1e-4)


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
def test_a_continuous_model_starts_out_equal_to_the_base(backbone: Backbone, pairs: Pairs, adaptation: str) -> None:
    """At z = 0 every target's likelihood is the base's own; the start's small injection moves it little."""
    model = make(backbone, "continuous", adaptation)
    _, rows = rows_of(pairs, backbone)
    with torch.no_grad():
        _, states = run_generator(model.lm, rows, model.latent_embeddings(torch.zeros(1, RECORDS, 4)))
        values = log_likelihood(states[0], targets(rows), model.lm)
        sampled = run(model, pairs, backbone).log_likelihood
    torch.testing.assert_close(-values, pairs.baseline, rtol=0, atol=2e-3)
    assert -values.mean().item() == pytest.approx(pairs.baseline.mean().item(), abs=1e-3)
    assert -sampled.mean().item() == pytest.approx(pairs.baseline.mean().item(), rel=0.05)


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
def test_a_discrete_model_starts_out_equal_to_the_base(
    backbone: Backbone, pairs: Pairs, adaptation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the noise that tells the latents apart, every target's likelihood is the base's under each of them."""
    monkeypatch.setattr(discrete, "LATENT_NOISE", 0.0)
    with torch.no_grad():
        forward = run(make(backbone, "discrete", adaptation), pairs, backbone)
    # Tied rows of the slot's tokens are also outputs: their small probabilities are not the ones they were.
    torch.testing.assert_close(-forward.log_likelihood, pairs.baseline.expand(3, -1), rtol=0, atol=2e-2)
    assert -forward.log_likelihood.mean().item() == pytest.approx(pairs.baseline.mean().item(), rel=2e-3)
    torch.testing.assert_close(forward.router.features().exp(), torch.full((RECORDS, 3), 1 / 3))


def test_latents_differ_from_the_first_step_on(backbone: Backbone, pairs: Pairs) -> None:
    with torch.no_grad():
        forward = run(make(backbone, "discrete"), pairs, backbone)
    assert forward.divergence is not None
    assert forward.divergence.max() > 1e-6
    assert -forward.log_likelihood.mean().item() == pytest.approx(pairs.baseline.mean().item(), rel=0.05)


@every_mode
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_every_trained_weight_gets_a_gradient(
    backbone: Backbone, pairs: Pairs, kind: str, adaptation: str, pooling: str
) -> None:
    """Fails where peft has frozen the adapter that was not switched to last.

    One step first: the B of a LoRA pair starts at 0, and until it moves A has no gradient.
    """
    model = make(backbone, kind, adaptation, pooling)
    model.whiten_posterior(rows_of(pairs, backbone)[0])
    parameters = model.trainable()
    optimizer = torch.optim.SGD(parameters.values(), lr=1e-4)  # a large step makes the posterior certain
    config = ObjectiveConfig(router_marginal_kl_to_prior_weight=0.1, **ALL_TERMS[kind])
    for step in (1, 2):
        optimizer.zero_grad()
        evaluate_objective(run(model, pairs, backbone), config, step).total.backward()
        optimizer.step()
    assert [name for name, p in parameters.items() if p.grad is None or not bool(p.grad.any())] == []
    assert expected_names(kind, adaptation) <= {name.split(".")[0] for name in parameters}
    if adaptation == "lora":
        for adapter in (GENERATOR, POSTERIOR):
            assert any(f"lora_A.{adapter}" in name for name in parameters)
        assert any(name.endswith("trainable_tokens_delta.generator") for name in parameters)


@every_mode
def test_layers_computed_again_backwards_give_the_same_gradients(
    backbone_factory: Callable[[], Backbone], pairs: Pairs, kind: str, adaptation: str
) -> None:
    """Also the posterior's, whose adapter no longer acts on the way back; twice, as each term's own gradient is."""
    gradients = []
    for again in (False, True):
        backbone = backbone_factory()
        model = make(backbone, kind, adaptation)
        rng = torch.Generator().manual_seed(5)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # 0 at the start: both adapters would do the same
                torch.nn.init.normal_(parameter, std=0.1, generator=rng)
        torch.manual_seed(7)
        model.whiten_posterior(rows_of(pairs, backbone)[0])
        if again:
            checkpoint_layers(model, model.acting_as_now)
        total = evaluate_objective(run(model, pairs, backbone), ObjectiveConfig(), 1).total
        trained = model.trainable()
        first = torch.autograd.grad(total, list(trained.values()), retain_graph=True)
        second = torch.autograd.grad(total, list(trained.values()))
        torch.testing.assert_close(first, second)
        gradients.append(dict(zip(trained, first, strict=True)))
    assert any(bool(g.any()) for name, g in gradients[0].items() if "posterior" in name)
    torch.testing.assert_close(gradients[0], gradients[1])


def expected_names(kind: str, adaptation: str) -> set[str]:
    heads = {"posterior_head"}
    if kind == "continuous" or adaptation == "head_only":
        heads |= {"router_head", "injection"}
    return heads | {"full": {"generator", "posterior"}, "lora": {"generator"}, "head_only": set()}[adaptation]


@every_mode
def test_what_is_not_trained_stays_the_base(backbone: Backbone, pairs: Pairs, kind: str, adaptation: str) -> None:
    model = make(backbone, kind, adaptation)
    trained = {id(parameter) for parameter in model.trainable().values()}
    frozen = {name: p.clone() for name, p in model.named_parameters() if id(p) not in trained}
    assert bool(frozen) == (adaptation != "full")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    evaluate_objective(run(model, pairs, backbone), ObjectiveConfig(), 1).total.backward()
    optimizer.step()
    assert all(torch.equal(dict(model.named_parameters())[name], before) for name, before in frozen.items())


@every_mode
def test_padding_and_the_order_of_a_batch_change_nothing(
    backbone: Backbone, pairs: Pairs, kind: str, adaptation: str
) -> None:
    """Each record alone, and the batch backwards."""
    model = make(backbone, kind, adaptation)
    entangled, generator = rows_of(pairs, backbone)
    latents = some_latents(model)

    def results(index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q = model.posterior_of(entangled.take(index))
        rows = generator.take(index)
        at_z, states = run_generator(model.lm, rows, latents[:, index])
        values = log_likelihood(states.flatten(0, 1), targets(rows).repeat(3), model.lm).view(3, -1)
        sums = torch.stack([v.sum() for v in values.split((rows.is_target.sum(1)).tolist(), dim=1)])
        return q.features(), model.router(at_z).features(), sums

    with torch.no_grad():
        whole = results(torch.arange(RECORDS))
        alone = [results(torch.tensor([i])) for i in range(RECORDS)]
        backwards = results(torch.arange(RECORDS - 1, -1, -1))
    singles = tuple(torch.cat([one[i] for one in alone]) for i in range(3))
    torch.testing.assert_close(singles, whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tuple(values.flip(0) for values in backwards), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "spread"), [("continuous", 1.0), ("discrete", 3.0)])
def test_whitened_posterior_has_zero_mean_and_its_spread(
    backbone: Backbone, pairs: Pairs, kind: str, spread: float
) -> None:
    model = make(backbone, kind)
    entangled, _ = rows_of(pairs, backbone)
    model.whiten_posterior(entangled)
    with torch.no_grad():
        outputs = model.posterior_head(model.posterior_features(entangled))
    torch.testing.assert_close(outputs.mean(0), torch.zeros(outputs.shape[1]), atol=1e-4, rtol=0)
    scales = outputs.std(0) / spread
    if kind == "continuous":
        scales = torch.cat([scales[:4], scales[4:] * 10])  # log-variances begin ten times smaller
    assert scales.min().item() > 0.2
    assert scales.max().item() < 3


@every_mode
def test_a_single_record_is_whitened_to_zero(backbone: Backbone, pairs: Pairs, kind: str, adaptation: str) -> None:
    """No feature has a spread to be scaled by, and nothing becomes infinite."""
    model = make(backbone, kind, adaptation)
    entangled = rows_of(pairs, backbone)[0]
    model.whiten_posterior(entangled.take(torch.tensor([0])))
    outputs = model.posterior_head(model.posterior_features(entangled))
    torch.testing.assert_close(outputs[0], torch.zeros_like(outputs[0]), rtol=0, atol=1e-4)
    assert bool(outputs.isfinite().all())


def test_posterior_mean_needs_no_draw_and_weighs_one_latent(backbone: Backbone, pairs: Pairs) -> None:
    """Without a stream of draws: z at the mean, and for a discrete latent the most probable value alone."""
    with torch.no_grad():
        continuous = make(backbone, "continuous")
        forward = run(continuous, pairs, backbone, seed=None)
        assert forward.log_likelihood.shape[0] == 1
        mu = continuous.posterior_of(rows_of(pairs, backbone)[0]).mode()
        rows = rows_of(pairs, backbone)[1]
        _, states = run_generator(continuous.lm, rows, continuous.latent_embeddings(mu[None]))
        torch.testing.assert_close(forward.log_likelihood[0], log_likelihood(states[0], targets(rows), continuous.lm))


def test_posterior_mode_of_a_discrete_latent_counts_alone(backbone: Backbone, pairs: Pairs) -> None:
    with torch.no_grad():
        forward = run(make(backbone, "discrete"), pairs, backbone, seed=None)
    assert isinstance(forward.posterior, Categoricals)
    best = forward.posterior.log_p.argmax(1)
    assert torch.equal(forward.mixing.argmax(0), best)
    assert torch.equal(forward.mixing.sum(0), torch.ones(RECORDS))
    assert set(forward.mixing.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_a_condition_is_the_embeddings_of_the_records_own_slot(backbone: Backbone, pairs: Pairs, kind: str) -> None:
    model = make(backbone, kind)
    _, rows = rows_of(pairs, backbone)
    with torch.no_grad():
        z = model.router(torch.randn(RECORDS, 32)).sample(torch.Generator().manual_seed(0))
        embeddings = model.condition(z)
        torch.testing.assert_close(embeddings[:, 0], model.latent_embeddings(z))
        every = torch.arange(RECORDS)
        for place in (1, 2):  # `</z>`, `<y>`
            torch.testing.assert_close(embeddings[:, place], model.lm.embed(rows.ids[every, rows.slot + 1 + place]))


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_draws_follow_the_distribution(kind: str) -> None:
    rng, n = torch.Generator().manual_seed(0), 20_000
    if kind == "continuous":
        z = Gaussians(torch.tensor([[1.0]]).expand(n, 1), torch.tensor([[0.5]]).expand(n, 1)).sample(rng)
        assert z.mean().item() == pytest.approx(1.0, abs=0.05)
        assert z.var().item() == pytest.approx(torch.tensor(0.5).exp().item(), rel=0.05)
        return
    p = torch.tensor([0.7, 0.2, 0.1])
    distributions = Categoricals(p.log().expand(n, 3))
    z = distributions.sample(rng)
    torch.testing.assert_close(distributions.value_features(z).mean(0), p, atol=0.02, rtol=0)
    assert torch.equal(distributions.mode(), torch.zeros(n, dtype=torch.int64))


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_one_step_of_lora_at_full_rank_is_a_step_of_all_weights(
    backbone_factory: Callable[[], Backbone], pairs: Pairs, kind: str
) -> None:
    """By gradient descent, whose step is linear in the gradient G.

    W + (alpha / r) B A with B = 0: one step of rate lr changes B by -lr (alpha / r) G A^T, and A by nothing, so the
    weight by -lr (alpha / r)^2 G A^T A. With r at least the number of columns, A with orthonormal columns and
    alpha = r that is -lr G: the step of the weight itself.
    """
    rank, lr = 64, 0.05
    lora_config = AdaptationConfig(kind="lora", rank=rank, alpha=float(rank))
    models = []
    for adaptation in (ADAPTATIONS["full"], lora_config):
        backbone = backbone_factory()
        if kind == "discrete":
            model = DiscreteModel(backbone, adaptation, count=3, pooling="mean", seed=3)
        else:
            model = ContinuousModel(backbone, adaptation, dim=4, samples=2, pooling="mean", seed=3)
        models.append((backbone, model))
    (_, full), (lora_backbone, lora) = models
    copy_start(full, lora)
    for name, parameter in lora.named_parameters():
        if "lora_A" in name:
            torch.nn.init.orthogonal_(parameter)
    before = {n: p.detach().clone() for n, p in full.named_parameters()}
    for backbone, model in models:
        parameters = list(model.trainable().values())
        evaluate_objective(run(model, pairs, backbone), ObjectiveConfig(), 1).total.backward()
        torch.optim.SGD(parameters, lr=lr).step()
    after = dict(full.named_parameters())
    modules, compared = dict(lora_backbone.model.named_modules()), 0
    for name, module in modules.items():
        if not hasattr(module, "lora_A"):
            continue
        for adapter, prefix in ((GENERATOR, "generator."), (POSTERIOR, "posterior.")):
            whole = prefix + (name if adapter == GENERATOR else name.removeprefix("model.")) + ".weight"
            change = module.get_delta_weight(adapter)
            torch.testing.assert_close(change, after[whole] - before[whole], rtol=1e-3, atol=1e-6)
            assert change.abs().max() > 1e-6
            compared += 1
    assert compared == 2 * 2 * 7  # adapters, layers, matrices


def copy_start(source: LatentModel, target: LatentModel) -> None:
    """Give the heads of one model to another, and the tokens' rows, which each drew for itself."""
    with torch.no_grad():
        for name, parameter in source.named_parameters():
            if name.startswith(("router_head", "posterior_head", "injection")):
                dict(target.named_parameters())[name].copy_(parameter)


@pytest.fixture
def backbone_factory(base: "object") -> Callable[[], Backbone]:
    from trainer.backbone import load_backbone

    return lambda: load_backbone(str(base), seed=0)

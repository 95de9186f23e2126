"""Likelihoods, the latent model and decoding, against slow computations and the base model itself."""

from pathlib import Path

import pytest
import torch
from tiny_runs import BASE, disentangle, parsed
from torch.nn import functional

from trainer import likelihood
from trainer.backbone import Backbone, Parts, hidden_states, load_backbone
from trainer.batches import Rows, entangled_rows, generator_rows
from trainer.config import AdaptationConfig, ObjectiveConfig
from trainer.evaluate import sample_through_router
from trainer.latents import LatentModel
from trainer.objective import evaluate_objective
from trainer.pool import Pairs, build_pool, load_pool, sample_from_base, save_pool
from trainer.tasks import TASKS, sample_records

ADAPTATIONS = [AdaptationConfig(kind="full"), AdaptationConfig(kind="lora", rank=4)]


@pytest.fixture
def backbone(base: Path) -> Backbone:
    return load_backbone(str(base), seed=0)


@pytest.fixture
def pairs(backbone: Backbone) -> Pairs:
    """Twelve ground-truth pairs; their baseline is computed record by record, without padding, from whole logits."""
    records = sample_records(TASKS["grid_pathfinding"], {}, 12, seed=1, split="train", purpose="test")
    x = [backbone.tokenizer.encode(record.x) for record in records]
    y = [backbone.tokenizer.encode(record.y) for record in records]
    nll, entropy = [], []
    with torch.no_grad():
        for one_x, one_y in zip(x, y, strict=True):
            rows = entangled_rows([one_x], [one_y], backbone.tokenizer)
            log_p = backbone.model(input_ids=rows.ids).logits[0].log_softmax(-1)  # (L, V)
            for place in range(1, rows.ids.shape[1]):
                if rows.is_target[0, place]:
                    nll.append(-log_p[place - 1, rows.ids[0, place]])
                    entropy.append(-(log_p[place - 1].exp() * log_p[place - 1]).sum())
    return Pairs(x, y, torch.stack(nll), torch.stack(entropy))


def latent_model(backbone: Backbone, adaptation: AdaptationConfig, pooling: str = "mean") -> LatentModel:
    return LatentModel(backbone, adaptation, dim=4, pooling=pooling, seed=3)


def both_rows(pairs: Pairs, backbone: Backbone, *, neutral: bool = True) -> tuple[Rows, Rows]:
    return (
        entangled_rows(pairs.x, pairs.y, backbone.tokenizer),
        generator_rows(pairs.x, pairs.y, backbone.tokenizer, position_neutral=neutral),
    )


def test_surprise_in_padded_batches_is_that_of_single_records(backbone: Backbone, pairs: Pairs) -> None:
    rows, lm = both_rows(pairs, backbone)[0], Parts.of(backbone.model)
    with torch.no_grad():
        hidden = hidden_states(lm.decoder, lm.embed(rows.ids), rows.positions)
    nll, entropy = likelihood.surprise(likelihood.target_states(hidden, rows), likelihood.targets(rows), lm)
    torch.testing.assert_close(nll, pairs.baseline, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(entropy, pairs.entropy, rtol=1e-4, atol=1e-5)


def test_likelihood_in_chunks_is_the_same_and_has_the_same_gradient(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, generator = Parts.of(backbone.model), torch.Generator().manual_seed(0)
    states = torch.randn(23, 32, generator=generator)
    ids = torch.randint(0, lm.config.vocab_size, (23,), generator=generator)
    results = []
    for limit in (likelihood.MAX_LOGITS, 5 * lm.config.vocab_size):
        monkeypatch.setattr(likelihood, "MAX_LOGITS", limit)
        leaf = states.clone().requires_grad_()
        values = likelihood.log_likelihood(leaf, ids, lm)
        values.square().sum().backward()
        results.append((values.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("adaptation", ADAPTATIONS, ids=lambda a: a.kind)
def test_generator_starts_out_equal_to_the_base(backbone: Backbone, pairs: Pairs, adaptation: AdaptationConfig) -> None:
    """With z = 0 every target's likelihood is the base's own; the start's small injection moves it little."""
    _, rows = both_rows(pairs, backbone)
    model = latent_model(backbone, adaptation)
    with torch.no_grad():
        _, _, values = model.router_and_likelihood(rows, torch.zeros(1, 12, 4))
        _, _, sampled = model.router_and_likelihood(rows, torch.randn(1, 12, 4))
    torch.testing.assert_close(-values[0], pairs.baseline, rtol=0, atol=2e-3)
    assert -values.mean().item() == pytest.approx(pairs.baseline.mean().item(), abs=1e-3)
    assert -sampled.mean().item() == pytest.approx(pairs.baseline.mean().item(), rel=0.05)


@pytest.mark.parametrize("adaptation", ADAPTATIONS, ids=lambda a: a.kind)
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_every_trained_weight_gets_a_gradient(
    backbone: Backbone, pairs: Pairs, adaptation: AdaptationConfig, pooling: str
) -> None:
    """Fails where peft has frozen the adapter that was not switched to last.

    One step first: the B of a LoRA pair starts at 0, and until it moves A has no gradient.
    """
    model = latent_model(backbone, adaptation, pooling)
    entangled, generator = both_rows(pairs, backbone)
    parameters = model.trainable()
    optimizer = torch.optim.SGD(parameters.values(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        forward = model(entangled, generator, pairs.baseline, torch.randn(2, 12, 4))
        config = ObjectiveConfig(posterior_variance_weight=0.1, router_marginal_kl_to_prior_weight=0.1)
        evaluate_objective(forward, config, step=1).total.backward()
        optimizer.step()
    without = [name for name, p in parameters.items() if p.grad is None or not bool(p.grad.any())]
    assert without == []
    kinds = {"router_head", "posterior_head", "injection"}
    assert kinds <= {name.split(".")[0] for name in parameters}
    if adaptation.kind == "lora":
        for adapter in ("generator", "posterior"):
            assert any(f"lora_A.{adapter}" in name for name in parameters)
        assert any(name.endswith("trainable_tokens_delta.generator") for name in parameters)
    else:
        assert any(name.startswith("generator.") for name in parameters)
        assert any(name.startswith("posterior.") for name in parameters)


def test_lora_never_changes_the_base(backbone: Backbone, pairs: Pairs) -> None:
    model = latent_model(backbone, ADAPTATIONS[1])
    trained = {id(parameter) for parameter in model.trainable().values()}
    frozen = {name: p.clone() for name, p in model.named_parameters() if id(p) not in trained}
    entangled, generator = both_rows(pairs, backbone)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    forward = model(entangled, generator, pairs.baseline, torch.randn(1, 12, 4))
    evaluate_objective(forward, ObjectiveConfig(), step=1).total.backward()
    optimizer.step()
    assert all(torch.equal(dict(model.named_parameters())[name], before) for name, before in frozen.items())


@pytest.mark.parametrize("adaptation", ADAPTATIONS, ids=lambda a: a.kind)
def test_padding_and_the_order_of_a_batch_change_nothing(
    backbone: Backbone, pairs: Pairs, adaptation: AdaptationConfig
) -> None:
    model = latent_model(backbone, adaptation)
    entangled, generator = both_rows(pairs, backbone)
    shortest = int(generator.lengths.argmin())
    z = torch.randn(1, 12, 4, generator=torch.Generator().manual_seed(2))
    alone = torch.tensor([shortest])
    with torch.no_grad():
        mu_q, log_var_q = model.posterior_parameters(entangled)
        mu_p, log_var_p, values = model.router_and_likelihood(generator, z)
        own_q = model.posterior_parameters(entangled.take(alone))
        own_mu_p, own_log_var_p, own_values = model.router_and_likelihood(generator.take(alone), z[:, alone])
    counts = [len(y) + 2 for y in pairs.y]
    torch.testing.assert_close((mu_q[alone], log_var_q[alone]), own_q, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((mu_p[alone], log_var_p[alone]), (own_mu_p, own_log_var_p), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(values[0].split(counts)[shortest], own_values[0], rtol=1e-4, atol=1e-5)


def test_samples_of_z_are_as_if_run_one_by_one(backbone: Backbone, pairs: Pairs) -> None:
    model = latent_model(backbone, ADAPTATIONS[0])
    _, rows = both_rows(pairs, backbone)
    z = torch.randn(3, 12, 4)
    with torch.no_grad():
        together = model.router_and_likelihood(rows, z)[2]
        one_by_one = torch.cat([model.router_and_likelihood(rows, one[None])[2] for one in z])
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-5)


def test_whitened_posterior_has_zero_mean_and_unit_size(backbone: Backbone, pairs: Pairs) -> None:
    model = latent_model(backbone, ADAPTATIONS[0])
    entangled, _ = both_rows(pairs, backbone)
    model.whiten_posterior(entangled)
    with torch.no_grad():
        mu, log_var = model.posterior_parameters(entangled)
    torch.testing.assert_close(mu.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    assert 0.2 < mu.std().item() < 3
    assert log_var.std().item() < 0.5


def test_greedy_decoding_is_the_naive_loop_without_a_cache(backbone: Backbone, pairs: Pairs) -> None:
    tokenizer = backbone.tokenizer
    written = sample_from_base(backbone.model, tokenizer, pairs.x, 20, 0.0, torch.Generator(), batch_size=5)
    for x, answer in zip(pairs.x, written, strict=True):
        ids = [tokenizer.bos, tokenizer.x_open, *x, tokenizer.x_close, tokenizer.y_open]
        naive: list[int] = []
        with torch.no_grad():
            while len(naive) < 20:
                token = int(backbone.model(input_ids=torch.tensor([ids + naive])).logits[0, -1].argmax())
                if token in (tokenizer.y_close, tokenizer.eos):
                    break
                naive.append(token)
        assert answer == naive


def test_sampling_follows_the_models_probabilities(backbone: Backbone, pairs: Pairs) -> None:
    """First tokens of 2,000 answers to one input against the softmax, by a chi-square statistic."""
    tokenizer, x = backbone.tokenizer, pairs.x[0]
    generator = torch.Generator().manual_seed(0)
    written = sample_from_base(backbone.model, tokenizer, [x] * 2000, 1, 1.0, generator, batch_size=500)
    ids = torch.tensor([[tokenizer.bos, tokenizer.x_open, *x, tokenizer.x_close, tokenizer.y_open]])
    with torch.no_grad():
        p = backbone.model(input_ids=ids).logits[0, -1].softmax(-1)
    counts = torch.bincount(torch.tensor([y[0] if y else tokenizer.y_close for y in written]), minlength=len(p))
    usual = p * 2000 >= 5
    expected = torch.cat([p[usual], p[~usual].sum()[None]]) * 2000
    seen = torch.cat([counts[usual], counts[~usual].sum()[None]])
    statistic = ((seen - expected).square() / expected.clamp(min=1e-3)).sum().item()
    degrees = len(expected) - 1
    assert statistic < degrees + 4 * (2 * degrees) ** 0.5 + 8


def test_router_sampling_is_what_the_generator_says_with_that_z(backbone: Backbone, pairs: Pairs) -> None:
    """The cached prompt in two pieces gives the greedy answer of one whole pass with the same z injected."""
    model, tokenizer = latent_model(backbone, ADAPTATIONS[0]), backbone.tokenizer
    samples = sample_through_router(
        model,
        tokenizer,
        pairs.x,
        position_neutral=True,
        max_tokens=12,
        temperature=0.0,
        batch_size=5,
        generator=torch.Generator().manual_seed(0),
    )
    rows = generator_rows(pairs.x, samples.y, tokenizer, position_neutral=True)
    embeddings = model.lm.embed(rows.ids)
    every = torch.arange(12)
    with torch.no_grad():
        embeddings[every, rows.slot + 1] += model.injection(samples.z)
        hidden = hidden_states(model.lm.decoder, embeddings, rows.positions, visible=rows.visible)
        choices = model.lm.head(hidden).argmax(-1)  # (12, L)
        mu, _ = model.router_head(hidden[every, rows.slot]).chunk(2, -1)
    torch.testing.assert_close(mu, samples.mu, rtol=1e-4, atol=1e-5)
    for row, answer in enumerate(samples.y):
        start = int(rows.slot[row]) + 3  # `<y>`
        assert choices[row, start : start + len(answer)].tolist() == answer


def test_a_pool_comes_back_as_it_was_and_only_for_what_it_was_made_from(tmp_path: Path, backbone: Backbone) -> None:
    config = parsed({**BASE, "pool": {"train_records": 9, "validation_records": 5, "test_records": 5}})
    pool = build_pool(config, backbone.model, backbone.tokenizer, backbone.sha256)
    save_pool(tmp_path, pool)
    again = load_pool(tmp_path, pool.description)
    assert again is not None
    assert again.sha256 == pool.sha256
    for split, pairs in pool.pairs.items():
        assert (again.pairs[split].x, again.pairs[split].y) == (pairs.x, pairs.y)
        assert torch.equal(again.pairs[split].baseline, pairs.baseline)
    assert load_pool(tmp_path, {**pool.description, "weights_sha256": "other"}) is None
    assert build_pool(config, backbone.model, backbone.tokenizer, backbone.sha256).sha256 == pool.sha256


def test_cross_entropy_of_the_pool_is_the_likelihood_it_is_trained_on(backbone: Backbone, pairs: Pairs) -> None:
    rows, lm = both_rows(pairs, backbone)[0], Parts.of(backbone.model)
    hidden = hidden_states(lm.decoder, lm.embed(rows.ids), rows.positions)
    values = likelihood.log_likelihood(likelihood.target_states(hidden, rows), likelihood.targets(rows), lm)
    logits = backbone.model(input_ids=rows.ids).logits[:, :-1]
    labels = rows.ids.masked_fill(~rows.is_target, -100)[:, 1:]
    expected = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    assert -values.mean().item() == pytest.approx(expected.item(), rel=1e-5)


def test_selected_pairs_keep_their_baselines(pairs: Pairs) -> None:
    counts = [len(y) + 2 for y in pairs.y]
    chosen = pairs.select([7, 2])
    expected = torch.cat([pairs.baseline.split(counts)[7], pairs.baseline.split(counts)[2]])
    assert torch.equal(chosen.baseline, expected)
    assert chosen.y == [pairs.y[7], pairs.y[2]]


def test_a_run_with_its_own_pool_section_makes_its_own_pool(tmp_path: Path, base: Path, run_trainer: "object") -> None:
    raw = disentangle(base, pool={"seed": 9}, train={"steps": 1})
    assert callable(run_trainer)
    assert run_trainer(raw, tmp_path) == 0
    assert (tmp_path / "pool" / "pool.safetensors").is_file()

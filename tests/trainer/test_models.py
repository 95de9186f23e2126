"""Likelihoods, pools and decoding, against slow computations and the base model itself."""

from pathlib import Path

import pytest
import torch
from tiny_runs import BASE, disentangle, parsed
from torch.nn import functional

from trainer import likelihood
from trainer.backbone import Backbone, Parts, hidden_states
from trainer.batches import Rows, entangled_rows, generator_rows
from trainer.pool import Pairs, build_pool, load_pool, sample_from_base, save_pool


def both_rows(pairs: Pairs, backbone: Backbone) -> tuple[Rows, Rows]:
    return (
        entangled_rows(pairs.x, pairs.y, backbone.tokenizer),
        generator_rows(pairs.x, pairs.y, backbone.tokenizer, position_neutral=True),
    )


def test_surprise_in_padded_batches_is_that_of_single_records(backbone: Backbone, pairs: Pairs) -> None:
    rows, lm = both_rows(pairs, backbone)[0], Parts.of(backbone.model)
    with torch.no_grad():
        hidden = hidden_states(lm.decoder, lm.embed(rows.ids), rows.positions)
    nll, entropy = likelihood.surprise(likelihood.target_states(hidden, rows), likelihood.targets(rows), lm)
    torch.testing.assert_close(nll, pairs.baseline, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(entropy, pairs.entropy, rtol=1e-4, atol=1e-5)


def test_likelihood_and_divergence_in_chunks_are_the_same_and_have_the_same_gradient(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, generator = Parts.of(backbone.model), torch.Generator().manual_seed(0)
    states = torch.randn(3, 23, 32, generator=generator)
    ids = torch.randint(0, lm.config.vocab_size, (23,), generator=generator)
    results = []
    for limit in (likelihood.MAX_LOGITS, 15 * lm.config.vocab_size):
        monkeypatch.setattr(likelihood, "MAX_LOGITS", limit)
        leaf = states.clone().requires_grad_()
        values, divergence = likelihood.log_likelihood_and_divergence(leaf, ids, lm)
        (values.square().sum() + divergence.sum()).backward()
        results.append((values.detach(), divergence.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1])
    one_by_one = torch.stack([likelihood.log_likelihood(state, ids, lm) for state in states])
    torch.testing.assert_close(results[0][0], one_by_one.detach())


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

"""In which precision products are made, and the named sizes of models from scratch."""

from pathlib import Path

import pytest
import torch
from tiny_runs import BASE, disentangle, parsed

from trainer import environment
from trainer.backbone import build_from_scratch, load_backbone
from trainer.config import SIZES
from trainer.environment import choose_precision
from trainer.fresh import PairSource
from trainer.latents import build_latent_model
from trainer.objective import evaluate_objective
from trainer.pool import build_pool
from trainer.tokenizer import CharTokenizer

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        (["fpu", "avx2"], torch.float32),
        (["fpu", "avx512f", "avx512_bf16"], torch.bfloat16),
        (["asimd", "bf16"], torch.bfloat16),
    ],
)
def test_auto_takes_bfloat16_where_the_processor_has_units_for_it(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(environment, "_cpu_flags", lambda: set(flags))
    assert choose_precision("auto", CPU) == dtype
    assert choose_precision("float32", CPU) == torch.float32
    assert choose_precision("bfloat16", CPU) == torch.bfloat16


@pytest.mark.parametrize("latent", [{"kind": "continuous"}, {"kind": "discrete", "count": 3}])
def test_bfloat16_changes_the_objective_and_its_gradient_a_little(base: Path, latent: dict[str, object]) -> None:
    off = {"posterior_variance_weight": 0.0, "router_marginal_kl_to_prior_weight": 0.1}
    config = parsed(disentangle(base, latent=latent, objective=off))
    backbone = load_backbone(str(base), seed=0)
    pool = build_pool(config, backbone.model, backbone.tokenizer, backbone.sha256)
    source = PairSource(config, backbone, pool, position_neutral=True)
    model = build_latent_model(backbone, config)
    source.rows.whiten(model, torch.arange(32))
    totals, gradients = [], []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            forward = source.rows.forward(model, torch.arange(8), torch.Generator().manual_seed(0))
            total = evaluate_objective(forward, config.objective, step=1).total
        grads = torch.autograd.grad(total, list(model.trainable().values()), allow_unused=True)
        assert all(gradient.dtype == torch.float32 for gradient in grads if gradient is not None)
        totals.append(float(total.detach()))
        gradients.append(torch.cat([gradient.flatten() for gradient in grads if gradient is not None]))
    assert totals[0] != totals[1] == pytest.approx(totals[0], rel=0.05)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.95


@pytest.mark.parametrize(("size", "millions"), [("s", 0.164), ("m", 5.1), ("l", 41)])
def test_a_size_is_a_shape_and_has_the_parameters_that_are_said(size: str, millions: float) -> None:
    model = parsed({**BASE, "model": {"size": size}}).model
    assert {key: getattr(model, key) for key in SIZES[size]} == SIZES[size]
    with torch.device("meta"):
        parameters = sum(p.numel() for p in build_from_scratch(model, CharTokenizer(), seed=0).parameters())
    assert parameters / 1e6 == pytest.approx(millions, rel=0.01)


def test_a_key_beside_a_size_takes_its_place_and_a_size_is_the_same_series_as_its_keys() -> None:
    model = parsed({**BASE, "model": {"size": "m", "layers": 2}}).model
    assert (model.width, model.layers, model.mlp_width) == (256, 2, 768)
    assert parsed({**BASE, "model": {"size": "m"}}).series() == parsed({**BASE, "model": SIZES["m"]}).series()

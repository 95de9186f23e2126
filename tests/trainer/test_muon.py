"""Muon: its update by singular values, against torch's own, and over a resume."""

import io
import math

import pytest
import torch
from torch import Tensor

from trainer.muon import Muon, orthogonalize

SHAPES = [(16, 16), (16, 16), (48, 16), (16, 48), (8, 40)]


def matrices(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in SHAPES]


def give_gradients(parameters: list[Tensor], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a.flatten().double(), b.flatten().double(), dim=0))


@pytest.mark.parametrize("shape", [(32, 32), (64, 16), (16, 64)])
def test_orthogonalized_singular_values_are_near_one_and_singular_vectors_stay(shape: tuple[int, int]):
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    u, s, vh = torch.linalg.svd(gradient, full_matrices=False)
    s = torch.linspace(0.05, 1, len(s), dtype=s.dtype)
    rotated = u.T @ orthogonalize(u * s @ vh).double() @ vh.T
    singular_values = rotated.diagonal()
    assert float(singular_values.min()) > 0.6
    assert float(singular_values.max()) < 1.3
    assert float((rotated - singular_values.diag()).abs().max()) < 1e-4


def test_a_singular_value_goes_through_the_documented_polynomial():
    """A diagonal matrix shows the iteration on its singular values one by one."""
    values = torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64)
    expected = values / values.norm()
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    torch.testing.assert_close(orthogonalize(values.diag()), expected.diag().float(), atol=1e-5, rtol=1e-5)


def test_a_stack_is_orthogonalized_matrix_by_matrix():
    stack = torch.randn(2, 3, 24, 8, generator=torch.Generator().manual_seed(0))
    result = orthogonalize(stack)
    assert result.shape == stack.shape
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(result[i, j], orthogonalize(stack[i, j]), atol=1e-5, rtol=1e-4)


def test_the_scale_of_a_gradient_does_not_matter_and_zeros_stay_zeros():
    gradient = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(orthogonalize(gradient * 1e-4), orthogonalize(gradient), atol=1e-5, rtol=1e-4)
    assert not orthogonalize(torch.zeros(4, 6)).any()
    assert orthogonalize(gradient.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(("scale", "theirs"), [("match_rms", "match_rms_adamw"), ("original", "original")])
def test_steps_agree_with_torch_in_direction_and_in_size(scale, theirs: str):
    ours, others = matrices(), matrices()
    our_muon = Muon(ours, lr=0.02, weight_decay=0.1, scale=scale)
    their_muon = torch.optim.Muon(others, lr=0.02, weight_decay=0.1, adjust_lr_fn=theirs)
    for step in range(3):
        before = [[p.detach().clone() for p in parameters] for parameters in (ours, others)]
        for parameters, optimizer in ((ours, our_muon), (others, their_muon)):
            give_gradients(parameters, seed=step)
            optimizer.step()
        for mine, other, my_start, other_start in zip(ours, others, *before, strict=True):
            mine, other = mine.detach() - my_start, other.detach() - other_start
            assert cosine(mine, other) > 0.99
            assert float(mine.norm() / other.norm()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("shape", [(64, 64), (256, 64), (64, 256)])
def test_match_rms_gives_updates_the_size_of_adamws(shape: tuple[int, int]):
    parameter = torch.zeros(shape, requires_grad=True)
    parameter.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    Muon([parameter], lr=1.0).step()
    assert float(parameter.detach().square().mean().sqrt()) == pytest.approx(0.2, rel=0.15)


def test_original_scale_grows_with_the_root_of_rows_by_columns():
    def update_norm(rows: int, columns: int) -> float:
        parameter = torch.zeros(rows, columns, requires_grad=True)
        parameter.grad = torch.eye(rows, columns)
        Muon([parameter], lr=1.0, scale="original").step()
        return float(torch.linalg.matrix_norm(parameter.detach(), 2))

    assert update_norm(32, 8) == pytest.approx(2 * update_norm(8, 8), rel=1e-4)
    assert update_norm(8, 32) == pytest.approx(update_norm(8, 8), rel=1e-4)


def test_momentum_is_a_running_mean_looked_at_one_step_ahead():
    parameter = torch.zeros(4, 4, requires_grad=True)
    optimizer = Muon([parameter], lr=1.0)
    gradients = [torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    buffer = torch.zeros(4, 4)
    for gradient in gradients:
        before = parameter.detach().clone()
        parameter.grad = gradient.clone()
        optimizer.step()
        buffer = 0.95 * buffer + 0.05 * gradient
        expected = -0.2 * math.sqrt(4) * orthogonalize(0.05 * gradient + 0.95 * buffer)
        torch.testing.assert_close(parameter.detach() - before, expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(parameter.grad, gradient)


def test_weight_decay_shrinks_by_lr_times_decay_and_is_off_by_default():
    shrunk, kept = torch.full((4, 4), 2.0, requires_grad=True), torch.full((4, 4), 2.0, requires_grad=True)
    shrunk.grad = kept.grad = torch.zeros(4, 4)
    Muon([shrunk], lr=0.1, weight_decay=0.5).step()
    Muon([kept], lr=0.1).step()
    torch.testing.assert_close(shrunk.detach(), torch.full((4, 4), 2.0 * 0.95))
    assert torch.equal(kept.detach(), torch.full((4, 4), 2.0))


def test_a_parameter_without_gradient_stays_and_has_no_state():
    first, second = torch.ones(4, 4, requires_grad=True), torch.ones(4, 4, requires_grad=True)
    optimizer = Muon([first, second], lr=0.1)
    first.grad = torch.eye(4)
    optimizer.step()
    assert not torch.equal(first.detach(), torch.ones(4, 4))
    assert torch.equal(second.detach(), torch.ones(4, 4))
    assert second not in optimizer.state


def test_groups_have_learning_rates_of_their_own():
    first, second = torch.zeros(4, 4, requires_grad=True), torch.zeros(4, 4, requires_grad=True)
    optimizer = Muon([{"params": [first], "lr": 0.1}, {"params": [second]}], lr=0.2)
    first.grad = second.grad = torch.eye(4)
    optimizer.step()
    torch.testing.assert_close(2 * first.detach(), second.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resumed_run_has_the_same_bits(dtype: torch.dtype):
    def run(parameters: list[Tensor], optimizer: Muon, steps: range) -> None:
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape, generator=generator).to(dtype)
            optimizer.step()

    unbroken = [m.detach().to(dtype).requires_grad_() for m in matrices()]
    run(unbroken, Muon(unbroken, lr=0.02, weight_decay=0.01), range(6))

    first = [m.detach().to(dtype).requires_grad_() for m in matrices()]
    optimizer = Muon(first, lr=0.02, weight_decay=0.01)
    run(first, optimizer, range(3))
    file = io.BytesIO()
    torch.save({"weights": first, "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = [weight.detach().clone().requires_grad_() for weight in saved["weights"]]
    optimizer = Muon(resumed)
    optimizer.load_state_dict(saved["optimizer"])
    run(resumed, optimizer, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(unbroken, resumed, strict=True))


def test_it_learns_a_linear_map():
    generator = torch.Generator().manual_seed(0)
    target, inputs = torch.randn(8, 8, generator=generator), torch.randn(64, 8, generator=generator)
    weight = torch.zeros(8, 8, requires_grad=True)
    optimizer = Muon([weight], lr=0.05)

    def closure() -> float:
        optimizer.zero_grad()
        loss = ((inputs @ weight.T - inputs @ target.T) ** 2).mean()
        loss.backward()
        return loss.item()

    losses = [optimizer.step(closure) for _ in range(200)]
    assert losses[-1] < 0.02 * losses[0]


@pytest.mark.parametrize(
    ("shape", "setting", "message"),
    [
        ((4,), {}, r"expected matrices, got a parameter of shape \(4,\). Give it to AdamW"),
        ((2, 4, 4), {}, "expected matrices"),
        ((4, 4), {"scale": "rms"}, "scale: unknown value, got 'rms'"),
        ((4, 4), {"lr": -1.0}, "lr -1.0"),
        ((4, 4), {"weight_decay": -0.1}, "weight_decay -0.1"),
        ((4, 4), {"momentum": 1.0}, "momentum: expected 0 <= momentum < 1, got 1.0"),
    ],
)
def test_what_it_cannot_train_is_refused(shape: tuple[int, ...], setting: dict, message: str):
    parameter = torch.zeros(shape, requires_grad=True)
    with pytest.raises(ValueError, match=message):
        Muon([parameter], **setting)
    optimizer = Muon([torch.zeros(4, 4, requires_grad=True)])
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [parameter], **setting})

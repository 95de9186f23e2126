"""The linear probe and the centroids' distance, on data whose answer is known."""

import math

import pytest
import torch
from torch import Tensor

from trainer.probe import centroid_distance, linear_probe


def blobs(n: int, classes: int, distance: float, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return features (n, classes) around one unit vector a class, `distance` long, and labels (n,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    features = torch.randn(n, classes, generator=generator) + distance * torch.eye(classes)[labels]
    return features, labels


def test_random_labels_are_probed_at_the_level_of_the_majority():
    features, _ = blobs(2000, 3, 0.0)
    labels = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), 2000, True, generator=torch.Generator().manual_seed(1))
    result = linear_probe(features, labels, range(2000))
    assert result.accuracy is not None
    assert result.standard_error is not None
    assert result.reason is None
    assert result.n == 2000
    assert result.majority == pytest.approx(0.5, abs=0.03)
    assert abs(result.accuracy - result.majority) < 3 * result.standard_error


def test_separable_classes_are_probed_near_one():
    features, labels = blobs(600, 3, 10.0)
    result = linear_probe(features, labels, range(600))
    assert result.accuracy is not None
    assert result.accuracy > 0.99
    assert result.standard_error == pytest.approx(math.sqrt(result.accuracy * (1 - result.accuracy) / 600))


def test_two_overlapping_classes_are_probed_at_bayes_accuracy():
    """Means a sqrt(2) apart, unit noise: the best rule is right with probability Phi(a / sqrt 2)."""
    features, labels = blobs(4000, 2, 1.5)
    result = linear_probe(features, labels, range(4000))
    bayes = 0.5 * (1 + math.erf(1.5 / 2))
    assert result.accuracy == pytest.approx(bayes, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_the_halves_do_not_follow_labels_drawn_with_a_small_seed(seed: int):
    """Halves permuted by a generator of seed 0 split two classes drawn with seed 0 by 36 to 64."""
    features, labels = blobs(4000, 2, 1.5, seed=seed)
    best = float(((features[:, 1] > features[:, 0]) == labels.bool()).double().mean())
    assert linear_probe(features, labels, range(4000)).accuracy == pytest.approx(best, abs=0.008)


def test_examples_of_one_input_are_never_in_both_halves():
    """Features name the input, labels are random by input: only a leak between the halves could be above chance."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.arange(100).repeat_interleave(6)
    features = torch.randn(100, 100, generator=generator)[inputs]
    labels = torch.randint(2, (100,), generator=generator)[inputs]
    leaky = linear_probe(features, labels, range(600))
    honest = linear_probe(features, labels, inputs)
    assert leaky.accuracy is not None
    assert honest.accuracy is not None
    assert leaky.accuracy > 0.9
    assert honest.accuracy < 0.65


def test_unit_and_offset_of_a_feature_do_not_matter_and_neither_do_names_of_classes():
    features, labels = blobs(400, 3, 1.5)
    result = linear_probe(features, labels, range(400))
    stretched = features * torch.tensor([1e-3, 1.0, 1e4]) + torch.tensor([0.0, 50.0, -1e5])
    assert linear_probe(stretched.double(), labels, range(400)).accuracy == pytest.approx(result.accuracy, abs=0.006)
    names = ["abc"[label] for label in labels.tolist()]
    assert linear_probe(features, names, [10 * i for i in range(400)]) == result


def test_constant_features_tell_no_more_than_the_majority():
    labels = ["a"] * 150 + ["b"] * 100
    result = linear_probe(torch.full((250, 4), 0.1), labels, range(250))
    assert result.majority == 0.6
    assert result.accuracy == pytest.approx(0.6, abs=0.06)


def test_examples_without_a_unique_strategy_are_left_out():
    features, labels = blobs(500, 2, 10.0)
    names: list[str | None] = ["ab"[label] for label in labels.tolist()]
    names[::2] = [None] * 250
    features[::2] = math.nan
    result = linear_probe(features, names, range(500))
    assert result.n == 250
    assert result.accuracy is not None
    assert result.accuracy > 0.99
    assert centroid_distance(features, names) == centroid_distance(features[1::2], names[1::2])


@pytest.mark.parametrize(
    ("n", "labels", "groups", "reason"),
    [
        (0, [], [], "0 examples, 200 are needed"),
        (199, ["a", "b"] * 99 + ["a"], range(199), "199 examples, 200 are needed"),
        (300, [None] * 300, range(300), "0 examples, 200 are needed"),
        (300, ["a"] * 300, range(300), "strategies among the examples: 1, 2 are needed"),
        (300, ["a"] * 296 + ["b"] * 4, range(300), "4 examples of the rarest strategy, 5 are needed"),
        (300, ["a", "b"] * 150, [7] * 300, "1 distinct input, 2 are needed"),
    ],
)
def test_too_few_examples_give_no_accuracy_but_a_reason(n: int, labels: list, groups, reason: str):
    result = linear_probe(torch.randn(n, 3), labels, groups)
    assert result.accuracy is None
    assert result.standard_error is None
    assert result.reason == reason
    assert result.n == sum(label is not None for label in labels)
    assert 0 <= result.majority <= 1


def test_fewer_examples_will_do_where_it_is_said():
    features, labels = blobs(150, 2, 10.0)
    assert linear_probe(features, labels, range(150)).accuracy is None
    accuracy = linear_probe(features, labels, range(150), at_least=100).accuracy
    assert accuracy is not None
    assert accuracy > 0.99
    assert linear_probe(features, labels, range(150), at_least=151).reason == "150 examples, 151 are needed"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_features_that_are_not_finite_give_a_reason(bad: float):
    features, labels = blobs(300, 2, 1.0)
    features[7, 1] = bad
    assert linear_probe(features, labels, range(300)).reason == "features that are not finite"
    assert centroid_distance(features, labels).reason == "features that are not finite"


def test_labels_of_another_number_than_features_are_refused():
    with pytest.raises(ValueError, match=r"features \(4, 2\), 3 labels, 4 groups"):
        linear_probe(torch.zeros(4, 2), ["a"] * 3, range(4))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_fits_where_gradients_are_off_and_leaves_the_random_state_alone(mode):
    features, labels = blobs(300, 2, 2.0)
    expected = linear_probe(features, labels, range(300))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    with mode():
        assert linear_probe(features * 1, labels * 1, torch.arange(300)) == expected
    assert torch.equal(torch.get_rng_state(), state)


def test_centroid_distance_by_hand():
    """Three classes at the corners of a 3-4-5 triangle, every example 0.5 from its centroid."""
    corners = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    offsets = 0.5 * torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [1.0, 0.0], [-1.0, 0.0]])
    features = (corners[:, None] + offsets).reshape(-1, 2)
    labels = [name for name in ("a", "b", "c") for _ in range(6)]
    result = centroid_distance(features, labels)
    assert result.distance == pytest.approx((3 + 4 + 5) / 3)
    assert result.normalized == pytest.approx(8.0)
    assert result.reason is None


def test_a_class_counts_once_however_many_examples_it_has():
    features = torch.cat([torch.zeros(5, 1), torch.full((500, 1), 2.0), torch.full((5, 1), 4.0)])
    labels = torch.tensor([0] * 5 + [1] * 500 + [2] * 5)
    result = centroid_distance(features, labels)
    assert result.distance == pytest.approx((2 + 2 + 4) / 3)
    assert result.normalized is None
    assert result.reason is not None
    assert "lie within" in result.reason


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([], "strategies among the examples: 0, 2 are needed"),
        (["a"] * 20, "strategies among the examples: 1, 2 are needed"),
        (["a"] * 20 + ["b"] * 4, "4 examples of the rarest strategy, 5 are needed"),
    ],
)
def test_too_few_examples_give_no_distance_but_a_reason(labels: list, reason: str):
    result = centroid_distance(torch.randn(len(labels), 3), labels)
    assert (result.distance, result.normalized, result.reason) == (None, None, reason)

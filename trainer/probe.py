"""How well a latent tells strategies apart: a linear probe, and the distance of the strategies' centroids."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainer.randomness import stream

MIN_EXAMPLES = 200
MIN_EXAMPLES_PER_CLASS = 5
L2 = 1e-3
LBFGS_ITERATIONS = 100
MIN_SPREAD = 1e-6  # below it a distance in units of the spread is a division by rounding errors

Labels = Sequence[Hashable | None] | Tensor


@dataclass(frozen=True)
class ProbeResult:
    """Accuracy of a linear probe on inputs that it was not fitted on.

    Attributes:
        accuracy: mean over two folds, 0 to 1; None where there is nothing to measure.
        reason: why accuracy is None.
        n: number of labelled examples.
        majority: share of the most frequent class, 0 if n is 0: what a probe without information reaches.
        standard_error: sqrt(p (1 - p) / n) of the accuracy p.
    """

    accuracy: float | None
    reason: str | None
    n: int
    majority: float
    standard_error: float | None


@dataclass(frozen=True)
class CentroidResult:
    """Distance of class means.

    Attributes:
        distance: mean Euclidean distance over all pairs of classes, in units of the features.
        normalized: the same in units of the root mean square distance of examples to the mean of their class.
        reason: why one or both are None.
    """

    distance: float | None
    normalized: float | None
    reason: str | None


@torch.inference_mode(mode=False)  # a caller that evaluates may have it on; the fit below needs gradients
def linear_probe(
    features: Tensor, labels: Labels, groups: Sequence[int] | Tensor, *, at_least: int = MIN_EXAMPLES
) -> ProbeResult:
    """Fit a multinomial logistic regression on half of the inputs, test it on the other half, and the other way round.

    Features are standardised on the half that is fitted on; L2 1e-3 on weights, LBFGS with 100 iterations. Examples of
    one input are never in both halves. Deterministic; leaves torch's random state alone.

    Args:
        features: (N, d).
        labels: (N,), one class each; None for an example without a unique one, which is left out.
        groups: (N,), a number for each distinct input x.
        at_least: so many labelled examples; from fewer, no accuracy.
    """
    features, targets, inputs = _labelled(features, labels, groups)
    counts = Counter(targets.tolist())
    n, folds = len(targets), _folds(inputs)
    majority = max(counts.values(), default=0) / max(n, 1)
    if n < at_least:
        reason = f"{n} examples, {at_least} are needed"
    elif len(folds.unique()) < 2:
        reason = "1 distinct input, 2 are needed"
    else:
        reason = _why_not(features, counts)
    if reason is not None:
        return ProbeResult(None, reason, n, majority, None)
    accuracies = [_fit_and_test(features, targets, folds == fold, len(counts)) for fold in (0, 1)]
    accuracy = sum(accuracies) / 2
    return ProbeResult(accuracy, None, n, majority, math.sqrt(accuracy * (1 - accuracy) / n))


def centroid_distance(features: Tensor, labels: Labels) -> CentroidResult:
    """Measure how far apart the classes' means lie.

    Args:
        features: (N, d).
        labels: (N,), one class each; None for an example without a unique one, which is left out.
    """
    features, targets, _ = _labelled(features, labels, range(len(features)))
    reason = _why_not(features, Counter(targets.tolist()))
    if reason is not None:
        return CentroidResult(None, None, reason)
    one_hot = functional.one_hot(targets).to(features.dtype)  # (N, C)
    centroids = one_hot.T @ features / one_hot.sum(0)[:, None]  # (C, d)
    distance = float(torch.pdist(centroids).mean())
    spread = float((features - centroids[targets]).square().sum(1).mean().sqrt())
    if spread < MIN_SPREAD:
        return CentroidResult(distance, None, f"examples of one class lie within {spread:.1e} of each other")
    return CentroidResult(distance, distance / spread, None)


def _labelled(features: Tensor, labels: Labels, groups: Sequence[int] | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return features (n, d) in float64, class numbers (n,) and groups (n,) of the n examples that have a label.

    Raises:
        ValueError: the three do not belong together.
    """
    if features.ndim != 2 or not len(features) == len(labels) == len(groups):
        raise ValueError(
            f"probe: expected features (N, d), N labels and N groups, got features {tuple(features.shape)}, "
            f"{len(labels)} labels, {len(groups)} groups. Give one of each an example."
        )
    names: list[Hashable | None] = labels.tolist() if isinstance(labels, Tensor) else list(labels)
    kept = [i for i, name in enumerate(names) if name is not None]
    classes = {name: number for number, name in enumerate(dict.fromkeys(names[i] for i in kept))}
    targets = torch.tensor([classes[names[i]] for i in kept], dtype=torch.long)
    inputs = torch.as_tensor(groups, dtype=torch.long)[kept]
    return features.detach().cpu().double()[kept], targets, inputs.cpu()


def _why_not(features: Tensor, counts: Counter[int]) -> str | None:
    """Say what stands against comparing classes, if anything."""
    if len(counts) < 2:
        return f"strategies among the examples: {len(counts)}, 2 are needed"
    if min(counts.values()) < MIN_EXAMPLES_PER_CLASS:
        return f"{min(counts.values())} examples of the rarest strategy, {MIN_EXAMPLES_PER_CLASS} are needed"
    if not bool(features.isfinite().all()):
        return "features that are not finite"
    return None


def _folds(inputs: Tensor) -> Tensor:
    """Return the fold, 0 or 1, of each example: a random half of the distinct inputs each, always the same half."""
    _, number = inputs.unique(return_inverse=True)  # (n,) in 0..G-1
    count = int(number.max()) + 1 if len(number) else 0
    # A stream of its own: with a plain seed such as 0 the halves can follow labels that were drawn with the same seed.
    order = torch.randperm(count, generator=stream(0, "probe folds"))
    return order[number] % 2


def _fit_and_test(features: Tensor, targets: Tensor, held_out: Tensor, classes: int) -> float:
    """Fit on the examples that are not held out and return the accuracy on those that are."""
    train, test = features[~held_out], features[held_out]
    mean, deviation = train.mean(0), train.std(0, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)  # a constant feature carries nothing, and no NaN either
    weight, bias = _fit((train - mean) / deviation, targets[~held_out], classes)
    predicted = ((test - mean) / deviation @ weight.T + bias).argmax(1)
    return float((predicted == targets[held_out]).double().mean())


def _fit(features: Tensor, targets: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Fit a multinomial logistic regression: mean cross entropy + L2 * |weight|^2.

    Args:
        features: (n, d).
        targets: (n,), 0 to classes - 1.
        classes: C.

    Returns:
        weight (C, d) and bias (C,).
    """
    weight = torch.zeros(classes, features.shape[1], dtype=features.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=features.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=LBFGS_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        value = functional.cross_entropy(features @ weight.T + bias, targets) + L2 * weight.square().sum()
        value.backward()
        return value.item()

    optimizer.step(loss)  # which turns gradients on for the closure
    return weight.detach(), bias.detach()

"""Whether the strategy can be read off a latent: probes and centroids, with what is needed to read their numbers."""

from collections.abc import Sequence

from torch import Tensor

from trainer.evaluation.quality import Metrics
from trainer.probe import MIN_EXAMPLES, ProbeResult, centroid_distance, linear_probe
from trainer.tasks import Attribution


def probe_strategy(
    features: Tensor, verdicts: Sequence[Attribution], xs: Sequence[list[int]], *, at_least: int = MIN_EXAMPLES
) -> ProbeResult:
    """Probe linearly for the strategy, on inputs that the probe was not fitted on.

    Args:
        features: (N, d).
        verdicts: N; examples that one strategy alone can have written are used.
        xs: N inputs; examples of one input are never on both sides of the split.
        at_least: so many examples; from fewer, no accuracy.
    """
    numbers = number_inputs(xs)
    return linear_probe(features, [v.label for v in verdicts], numbers, at_least=at_least)


def number_inputs(xs: Sequence[list[int]]) -> list[int]:
    """Return N numbers, the same for equal inputs: 0, 1, ... in the order of their first appearance."""
    numbers: dict[tuple[int, ...], int] = {}
    return [numbers.setdefault(tuple(x), len(numbers)) for x in xs]


def probe_metrics(name: str, result: ProbeResult) -> Metrics:
    """Return a probe's accuracy under a name such as ``router_test_final/router_probe_accuracy``, with its context."""
    metrics: Metrics = {
        name: result.accuracy,
        f"{name}_standard_error": result.standard_error,
        f"{name}_n": result.n,
        f"{name}_majority": result.majority,
    }
    if result.reason is not None:
        metrics |= {f"{name}__reason": result.reason, f"{name}_standard_error__reason": result.reason}
    return metrics


def centroid_metrics(prefix: str, z: Tensor, verdicts: Sequence[Attribution]) -> Metrics:
    """Return how far apart the strategies' mean latents lie; ``normalized``: in units of the spread within one."""
    result = centroid_distance(z, [v.label for v in verdicts])
    metrics: Metrics = {}
    values = {"centroid_distance": result.distance, "centroid_distance_normalized": result.normalized}
    for name, value in values.items():
        metrics[f"{prefix}/{name}"] = value
        if value is None:
            metrics[f"{prefix}/{name}__reason"] = result.reason
    return metrics

"""What the latent does when it is set by hand: K outputs to each input, one a latent, held against the strategies.

Notation: N inputs, K latents, S strategies; A(x, y) is the set of strategies that write the output y to the input x.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trainer.evaluation.quality import Metrics
from trainer.randomness import stream_seed
from trainer.tasks import TASKS, Attribution, attribute

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHUFFLES = 20
RESAMPLES = 200
INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap's 95 % interval."""

BROKEN_BELOW = 0.5
"""A latent that writes a valid trace less often than this is counted as broken."""


@dataclass(frozen=True)
class Outcomes:
    """What came out under each latent.

    Attributes:
        latents: K names.
        strategies: S names.
        answer_ok: (N, K), bool; the answer is right.
        written: (N, K, S), bool; whether a strategy is in A(x, y).
        inputs: (N,), int; a number for each distinct input.
    """

    latents: tuple[str, ...]
    strategies: tuple[str, ...]
    answer_ok: "NDArray[np.bool_]"
    written: "NDArray[np.bool_]"
    inputs: "NDArray[np.int64]"

    @classmethod
    def of(
        cls,
        verdicts: Sequence[Sequence[Attribution]],
        latents: Sequence[str],
        strategies: Sequence[str],
        inputs: Sequence[int],
    ) -> "Outcomes":
        """Collect K verdicts on each of N inputs."""
        return cls(
            tuple(latents),
            tuple(strategies),
            np.array([[v.answer_ok for v in row] for row in verdicts]),
            np.array([[[s in v.strategies for s in strategies] for v in row] for row in verdicts]),
            np.array(inputs),
        )

    @property
    def unique(self) -> "NDArray[np.bool_]":
        """Return (N, K, S): whether A(x, y) is that strategy alone."""
        return self.written & (self.written.sum(2, keepdims=True) == 1)


def one_to_one(counts: "NDArray[np.float64] | NDArray[np.int64]") -> tuple[float, dict[int, int]]:
    """Match latents with strategies, each at most once, so that the sum of their counts is as large as can be.

    Args:
        counts: (K, S); K and S may differ.

    Returns:
        the sum, and the strategy of each latent that has one.
    """
    from scipy.optimize import linear_sum_assignment  # 0.3 s, and only here

    rows, columns = linear_sum_assignment(counts, maximize=True)
    return float(counts[rows, columns].sum()), dict(zip(rows.tolist(), columns.tolist(), strict=True))


def alignment_one_to_one(unique: "NDArray[np.bool_]") -> float:
    """Return the largest share of the N K outputs that a one-to-one naming of latents by strategies explains.

    max over matchings M of sum_{(k,s) in M} C_ks / (N K), with C_ks the inputs whose output under k is written by s
    alone: ambiguous and invalid outputs count as not explained.

    Args:
        unique: (N, K, S), see `Outcomes.unique`.
    """
    inputs, latents, _ = unique.shape
    return one_to_one(unique.sum(0))[0] / (inputs * latents)


def attributable(task_name: str, xs: Sequence[str]) -> "NDArray[np.bool_]":
    """Return (N, S): whether what a strategy writes for an input is written by no other."""
    task = TASKS[task_name]
    rows = {
        x: [attribute(task, x, task.render(task.parse_x(x), s)).label == s for s in task.strategies] for x in set(xs)
    }
    return np.array([rows[x] for x in xs])


def alignment_ceiling(attributable: "NDArray[np.bool_]", latents: int) -> float:
    """Return the alignment of an oracle that writes another strategy under each latent: 1 without ambiguous inputs.

    Args:
        attributable: (N, S).
        latents: K; with fewer of them than strategies the oracle takes the strategies that are most often unique, and
            with more the rest of them explain nothing.
    """
    shares = np.sort(attributable.mean(0))[::-1]  # (S,)
    return float(shares[:latents].sum() / latents)


def controlled_metrics(
    prefix: str, outcomes: Outcomes, attributable: "NDArray[np.bool_]", *, seed: int, suffix: str = ""
) -> Metrics:
    """Measure whether each latent stands for one strategy of its own, and whether the latents cover all of them.

    Args:
        prefix: of the keys.
        outcomes: what came out.
        attributable: (N, S), see `attributable`.
        seed: of the shuffles and the bootstrap.
        suffix: of the keys; with one, what does not depend on the decoding, and the tables by latent, are left out.
    """
    unique, covered = outcomes.unique, outcomes.written.any(1)  # (N, K, S), (N, S)
    inputs, latents, _ = unique.shape
    low, high = _bootstrap(unique, outcomes.inputs, seed)
    name = f"{prefix}/alignment_one_to_one{suffix}"
    metrics: Metrics = {
        name: alignment_one_to_one(unique),
        f"{name}_ci95_low": low,
        f"{name}_ci95_high": high,
        f"{prefix}/alignment_shuffled{suffix}": _shuffled(unique, seed),
        f"{prefix}/local_strategy_coverage_mean{suffix}": float(covered.mean()),
        f"{prefix}/local_strategy_full_coverage_rate{suffix}": float(covered.all(axis=-1).mean()),
        f"{prefix}/mean_overall_final_answer_accuracy{suffix}": float(outcomes.answer_ok.mean()),
    }
    if suffix:
        return metrics
    return metrics | {
        f"{prefix}/alignment_ceiling": alignment_ceiling(attributable, latents),
        f"{prefix}/n": inputs,
        f"{prefix}/distinct_inputs": len(np.unique(outcomes.inputs)),
        **_tables(prefix, outcomes),
    }


def _tables(prefix: str, outcomes: Outcomes) -> Metrics:
    """Return what each latent writes: shares by strategy (rows add up to 1), its match, and the counts by strategy."""
    unique, size = outcomes.unique, outcomes.written.sum(2)  # (N, K, S), (N, K)
    counts, (_, matched) = unique.sum(0), one_to_one(unique.sum(0))
    valid = (size > 0).mean(0)  # (K,)
    metrics: Metrics = {}
    for k, latent in enumerate(outcomes.latents):
        for s, strategy in enumerate(outcomes.strategies):
            metrics[f"{prefix}/confusion/{latent}/{strategy}"] = float(counts[k, s] / len(unique))
        metrics[f"{prefix}/confusion/{latent}/ambiguous"] = float((size[:, k] > 1).mean())
        metrics[f"{prefix}/confusion/{latent}/invalid"] = float((size[:, k] == 0).mean())
        metrics[f"{prefix}/valid_share/{latent}"] = float(valid[k])
        named = k in matched and counts[k, matched[k]] > 0  # a match without a single output names nothing
        metrics[f"{prefix}/matched/{latent}"] = outcomes.strategies[matched[k]] if named else "none"
    for s, strategy in enumerate(outcomes.strategies):
        metrics[f"{prefix}/strategy_count/{strategy}"] = int(counts[:, s].sum())
    metrics[f"{prefix}/valid_share_min"] = float(valid.min())
    metrics[f"{prefix}/broken_latents"] = int((valid < BROKEN_BELOW).sum())
    return metrics


def _shuffled(unique: "NDArray[np.bool_]", seed: int) -> float:
    """Return the alignment of the same outputs with the latents' names shuffled for each input: the chance level.

    It is above 1/K: the best matching of noise is better than a matching of noise.
    """
    rng = np.random.default_rng(stream_seed(seed, "alignment", "shuffles"))
    inputs, latents, _ = unique.shape
    orders = np.tile(np.arange(latents), (SHUFFLES, inputs, 1))  # (20, N, K)
    every = np.arange(inputs)[:, None]
    return float(np.mean([alignment_one_to_one(unique[every, order]) for order in rng.permuted(orders, axis=2)]))


def _bootstrap(unique: "NDArray[np.bool_]", inputs: "NDArray[np.int64]", seed: int) -> tuple[float, float]:
    """Return the 95 % interval of the alignment over draws of distinct inputs, with all their outputs, by percentiles.

    Outputs to the same input are no independent evidence: decoded greedily they are copies of each other.
    """
    rng = np.random.default_rng(stream_seed(seed, "alignment", "bootstrap"))
    _, number = np.unique(inputs, return_inverse=True)
    distinct, (_, latents, strategies) = int(number.max()) + 1, unique.shape
    counts = np.zeros((distinct, latents * strategies))
    np.add.at(counts, number, unique.reshape(len(unique), -1))
    sizes = np.bincount(number)  # (D,), test records of each distinct input
    weights = rng.multinomial(distinct, np.full(distinct, 1 / distinct), size=RESAMPLES)  # (200, D)
    totals = (weights @ counts).reshape(RESAMPLES, latents, strategies)
    records = weights @ sizes  # (200,)
    values = [one_to_one(total)[0] / (n * latents) for total, n in zip(totals, records, strict=True)]
    low, high = np.percentile(values, INTERVAL)
    return float(low), float(high)

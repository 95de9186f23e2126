"""What is measured at the end of a run that disentangles: z from the router, set by hand, and from the posterior."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from trainer.config import Config
from trainer.distributions import Categoricals, Distributions, Gaussians
from trainer.evaluation.controlled import Outcomes, attributable, controlled_metrics
from trainer.evaluation.diagnosis import Evidence, agreement, agreement_by_chance, diagnose, merged
from trainer.evaluation.probing import centroid_metrics, number_inputs, probe_metrics, probe_strategy
from trainer.evaluation.quality import Metrics, answer_quality, judge
from trainer.evaluation.writing import Writer
from trainer.pool import Pairs, Pool
from trainer.probe import ProbeResult
from trainer.randomness import stream
from trainer.tasks import TASKS, Attribution

ItemT = TypeVar("ItemT")

CONTROLLED, CENTROIDS = "controlled_test_final", "centroid_test_final"
ROUTER, POSTERIOR = "router_test_final", "posterior_test_final"

SENSITIVITY_INPUTS = 256
"""Inputs that a continuous latent's effect on the output is looked for in: standard error 0.03 at most."""

NEEDS_VALUES = (
    "alignment_one_to_one",
    "local_strategy_coverage_mean",
    "local_strategy_full_coverage_rate",
    "mean_overall_final_answer_accuracy",
)
"""Metrics of controlled latents that a continuous z, which has no values to set one by one, cannot have."""


@dataclass(frozen=True)
class LatentTest:
    """The test of one factorised model.

    Attributes:
        config: of the run.
        writer: the model.
        pairs: N test pairs (x, y).
        known: labelled pairs apart from them, to find where in a continuous latent the strategies lie.
    """

    config: Config
    writer: Writer
    pairs: Pairs
    known: Pairs

    def evaluate(self) -> Metrics:
        """Return all metrics of the test."""
        xs, q, p = self.pairs.x, self.writer.posterior(self.pairs), self.writer.router(self.pairs.x)
        router_z, sampled_z = p.sample(self._stream("router z")), q.sample(self._stream("posterior z"))
        posterior_z = sampled_z if self.config.eval.posterior == "sample" else q.mode()
        given = self._judge(xs, self.pairs.y)
        routed, rendered = self._answers(xs, router_z, "routed"), self._answers(xs, posterior_z, "rendered")
        controlled, sensitivity = self._controlled(p, router_z)
        router = {
            "router_probe_accuracy": probe_strategy(p.value_features(router_z), routed, xs),
            "router_mu_probe_accuracy": probe_strategy(p.features(), routed, xs),
        }
        posterior = {
            "posterior_mu_probe_accuracy": probe_strategy(q.features(), given, xs),
            "posterior_sampled_probe_accuracy": probe_strategy(q.value_features(sampled_z), given, xs),
            "x_only_probe_accuracy": probe_strategy(p.features(), given, xs),
        }
        used = "sampled" if self.config.eval.posterior == "sample" else "mu"
        by_strategy = _latent_given_strategy(q, given, self._strategies)
        evidence = Evidence(
            posterior_mean=posterior["posterior_mu_probe_accuracy"],
            posterior=posterior[f"posterior_{used}_probe_accuracy"],
            posterior_control=posterior["x_only_probe_accuracy"],
            router=router["router_probe_accuracy"],
            router_control=router["router_mu_probe_accuracy"],
            given=given,
            rendered=rendered,
            routed=routed,
            sensitivity=sensitivity,
            merged=merged(by_strategy),
        )
        return {
            **self._quality(ROUTER, xs, router_z, routed),
            **_probes(ROUTER, router),
            **centroid_metrics(ROUTER, p.value_features(router_z), routed),
            **controlled,
            **self._quality(POSTERIOR, xs, posterior_z, rendered),
            f"{POSTERIOR}/latent": self.config.eval.posterior,
            **_probes(POSTERIOR, posterior),
            **centroid_metrics(POSTERIOR, q.features(), given),
            **_rendering(given, rendered, routed),
            **{
                f"{POSTERIOR}/latent_given_strategy/{strategy}/z{k}": share
                for strategy, shares in by_strategy.items()
                for k, share in enumerate(shares, start=1)
            },
            **diagnose(evidence),
        }

    @property
    def _strategies(self) -> tuple[str, ...]:
        return TASKS[self.config.task.name].strategies

    @property
    def _seed(self) -> int:
        return self.config.seed_of("sampling")

    def _stream(self, use: str, device: torch.device | str = "cpu") -> torch.Generator:
        return stream(self._seed, "test", use, device=device)

    def _judge(self, xs: Sequence[list[int]], ys: Sequence[list[int]]) -> list[Attribution]:
        return judge(self.config.task.name, self.writer.model.tokenizer, xs, ys)

    def _answers(self, xs: Sequence[list[int]], z: Tensor, use: str, *, temperature: float = 1.0) -> list[Attribution]:
        """Let the generator answer N inputs under N values of z, and judge the answers."""
        rng = self._stream(use, self.writer.model.device)
        return self._judge(xs, self.writer.write(xs, z, temperature=temperature, rng=rng))

    def _quality(self, prefix: str, xs: Sequence[list[int]], z: Tensor, sampled: list[Attribution]) -> Metrics:
        """Return the answers' quality under one z each, in the decoding that is asked for."""
        greedy = self.config.eval.decoding == "greedy"
        verdicts = self._answers(xs, z, "greedy", temperature=0.0) if greedy else sampled
        return {
            **answer_quality(prefix, verdicts, self._strategies),
            f"{prefix}/decoding": self.config.eval.decoding,
            f"{prefix}/split_policy": self.config.task.split_policy,
        }

    def _controlled(self, p: Distributions, router_z: Tensor) -> tuple[Metrics, float]:
        """Set z by hand; return the metrics and the share of inputs whose greedy output changes with z."""
        xs, values = self.pairs.x, self.writer.model.latent_values()
        if values is None:
            reason = f"a continuous latent has no values to set one by one: see {CENTROIDS}"
            metrics: Metrics = {}
            for name in NEEDS_VALUES:
                metrics |= {f"{CONTROLLED}/{name}": None, f"{CONTROLLED}/{name}__reason": reason}
            return metrics | self._centroids(), self._sensitivity(p, router_z)
        names = [f"z{k}" for k in range(1, len(values) + 1)]
        outcomes, changed = self._greedy(values.cpu(), names)
        unique = attributable(self.config.task.name, self._texts(xs))
        metrics = controlled_metrics(CONTROLLED, outcomes, unique, seed=self._seed)
        if self.config.eval.controlled_sampled:
            flat = self._answers([x for x in xs for _ in names], values.cpu().repeat(len(xs)), "controlled")
            outcomes = Outcomes.of(_rows(flat, len(names)), names, self._strategies, number_inputs(xs))
            metrics |= controlled_metrics(CONTROLLED, outcomes, unique, seed=self._seed, suffix="_sampled")
        return metrics, changed

    def _centroids(self) -> Metrics:
        """Set a continuous z to where the posterior puts each strategy: the mean of its means over labelled pairs."""
        q = self.writer.posterior(self.known)
        assert isinstance(q, Gaussians)
        labels = [verdict.label for verdict in self._judge(self.known.x, self.known.y)]
        rows = {s: [i for i, label in enumerate(labels) if label == s] for s in self._strategies}
        if not all(rows.values()):
            missing = ", ".join(s for s in self._strategies if not rows[s])
            reason = f"none of {len(labels)} validation pairs has the strategy {missing}"
            name = f"{CENTROIDS}/own_strategy_rate"
            return {name: None, f"{name}__reason": reason}
        centroids = torch.stack([q.mu[index].mean(0) for index in rows.values()])  # (S, d_z)
        outcomes, _ = self._greedy(centroids, self._strategies)
        unique = attributable(self.config.task.name, self._texts(self.pairs.x))
        own = outcomes.unique.diagonal(axis1=1, axis2=2)  # (N, S)
        metrics = controlled_metrics(CENTROIDS, outcomes, unique, seed=self._seed)
        return metrics | {f"{CENTROIDS}/own_strategy_rate": float(own.mean())}

    def _greedy(self, values: Tensor, names: Sequence[str]) -> tuple[Outcomes, float]:
        """Answer each input under each of K values of z, greedily; equal inputs are answered once.

        Args:
            values: (K, ...).
            names: of the values.

        Returns:
            what came out, and the share of inputs whose K outputs are not all the same.
        """
        numbers = number_inputs(self.pairs.x)
        distinct = list(dict(zip(numbers, self.pairs.x, strict=True)).values())
        xs = [x for x in distinct for _ in names]
        z = values.repeat(len(distinct), *[1] * (values.ndim - 1))
        rng = self._stream("greedy", self.writer.model.device)
        ys = self.writer.write(xs, z, temperature=0.0, rng=rng)
        verdicts = _rows(self._judge(xs, ys), len(names))
        changed = [any(y != row[0] for y in row) for row in _rows(ys, len(names))]
        outcomes = Outcomes.of([verdicts[number] for number in numbers], names, self._strategies, numbers)
        return outcomes, sum(changed[number] for number in numbers) / len(numbers)

    def _sensitivity(self, p: Distributions, router_z: Tensor) -> float:
        """Return the share of inputs whose greedy output changes between two draws of z from the router."""
        xs, second = self.pairs.x[:SENSITIVITY_INPUTS], p.sample(self._stream("second router z"))
        rng = self._stream("greedy", self.writer.model.device)
        first, other = (self.writer.write(xs, z[: len(xs)], temperature=0.0, rng=rng) for z in (router_z, second))
        return sum(a != b for a, b in zip(first, other, strict=True)) / len(xs)

    def _texts(self, xs: Sequence[list[int]]) -> list[str]:
        return [self.writer.model.tokenizer.decode(x) for x in xs]


def evaluate_latents(config: Config, writer: Writer, pool: Pool) -> Metrics:
    """Measure answers and latents on the pool's test pairs."""
    started = time.process_time()
    metrics = LatentTest(config, writer, pool.pairs["test"], pool.pairs["validation"]).evaluate()
    return metrics | {"eval/core_seconds": time.process_time() - started}


def _probes(prefix: str, results: Mapping[str, ProbeResult]) -> Metrics:
    metrics: Metrics = {}
    for name, result in results.items():
        metrics |= probe_metrics(f"{prefix}/{name}", result)
    return metrics


def _rendering(given: Sequence[Attribution], rendered: Sequence[Attribution], routed: Sequence[Attribution]) -> Metrics:
    """Return how often an output under the posterior's z has the strategy of the y that the posterior saw.

    Beside it what comes without having seen y: by the strategies' shares alone, and under the router's z.
    """
    rates = {
        "same_strategy_rate": agreement(given, rendered),
        "same_strategy_rate_by_chance": agreement_by_chance(given, rendered),
        "same_strategy_rate_under_router": agreement(given, routed),
    }
    metrics: Metrics = {}
    for name, value in rates.items():
        metrics[f"{POSTERIOR}/{name}"] = value
        if value is None:
            metrics[f"{POSTERIOR}/{name}__reason"] = "no pair with a unique strategy"
    return metrics


def _latent_given_strategy(
    q: Distributions, given: Sequence[Attribution], strategies: Sequence[str]
) -> dict[str, list[float]]:
    """Return, for a discrete latent, the K means of q(z|x,y) over the pairs of each strategy that occurs."""
    if not isinstance(q, Categoricals):
        return {}
    rows = {s: [i for i, verdict in enumerate(given) if verdict.label == s] for s in strategies}
    return {s: q.log_p[index].exp().mean(0).tolist() for s, index in rows.items() if index}


def _rows(items: Sequence[ItemT], size: int) -> list[Sequence[ItemT]]:
    """Cut a sequence into rows of one size."""
    return [items[start : start + size] for start in range(0, len(items), size)]

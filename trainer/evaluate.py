"""How good the answers are, and whether the latent tells strategies apart."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.backbone import Tokenizer, hidden_states
from trainer.batches import entangled_rows, slot_positions, slot_visible, x_prefix
from trainer.distributions import Distributions, concatenate
from trainer.factorised import LatentModel
from trainer.generate import DynamicCache, drop_hidden_keys, equal_length_groups, write_traces
from trainer.pool import Pairs
from trainer.probe import centroid_distance, linear_probe
from trainer.tasks import TASKS, Attribution, attribute

Metrics = dict[str, float | int | str | bool | None]


@dataclass(frozen=True)
class RouterSamples:
    """N answers to N inputs, each under a z drawn from the router.

    Attributes:
        y: N lists of token ids.
        z: (N, d_z); what was drawn.
        mu: (N, d_z); the router's means.
    """

    y: list[list[int]]
    z: Tensor
    mu: Tensor


def judge(task: str, tokenizer: Tokenizer, xs: Sequence[list[int]], ys: Sequence[list[int]]) -> list[Attribution]:
    """Judge N outputs, given as token ids."""
    texts = [(tokenizer.decode(x), tokenizer.decode(y)) for x, y in zip(xs, ys, strict=True)]
    return [attribute(TASKS[task], x, y) for x, y in texts]


def answer_quality(prefix: str, verdicts: Sequence[Attribution], strategies: Sequence[str]) -> Metrics:
    """Return shares of good outputs with their standard errors, and how often each strategy was used.

    An output that cannot be parsed counts as a wrong answer. Standard error of a share p: sqrt(p (1 - p) / n).
    """
    n = len(verdicts)
    shares = {
        "parse_success_rate": sum(v.parse_ok for v in verdicts) / n,
        "final_answer_accuracy": sum(v.answer_ok for v in verdicts) / n,
        "trace_validity_rate": sum(bool(v.strategies) for v in verdicts) / n,
        "ambiguous_share": sum(v.ambiguous for v in verdicts) / n,
    }
    metrics: Metrics = {f"{prefix}/n": n}
    for name, share in shares.items():
        metrics[f"{prefix}/{name}"] = share
        metrics[f"{prefix}/{name}_standard_error"] = math.sqrt(share * (1 - share) / n)
    counts = Counter(v.label for v in verdicts)
    return metrics | {f"{prefix}/strategy_count/{strategy}": counts[strategy] for strategy in strategies}


def probe_metrics(name: str, features: Tensor, verdicts: Sequence[Attribution], xs: Sequence[list[int]]) -> Metrics:
    """Return the accuracy of a linear probe for the strategy, with what is needed to read it.

    Args:
        name: of the metric, such as ``router_test_final/router_probe_accuracy``.
        features: (N, d).
        verdicts: N; examples that one strategy alone can have written are used.
        xs: N inputs; examples of one input are never on both sides of the split.
    """
    groups = [hash(tuple(x)) for x in xs]  # hashes of tuples of ints are the same in every process
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    result = linear_probe(features, [v.label for v in verdicts], [numbers[group] for group in groups])
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


@torch.no_grad()
def sample_through_router(
    model: LatentModel,
    tokenizer: Tokenizer,
    xs: Sequence[list[int]],
    *,
    position_neutral: bool,
    max_tokens: int,
    temperature: float,
    batch_size: int,
    generator: torch.Generator,
) -> RouterSamples:
    """Draw z ~ p(z|x), inject it, and let the generator answer.

    Args:
        model: router and generator.
        tokenizer: of the inputs.
        xs: N inputs, lists of token ids.
        position_neutral: see `slot_positions`.
        max_tokens: of an answer.
        temperature: of the answers, not of z; 0: greedy.
        batch_size: inputs at once.
        generator: of all draws.
    """
    lm, device = model.lm, model.device
    answers: list[list[int]] = [[] for _ in xs]
    zs: list[Tensor] = [torch.empty(0)] * len(xs)
    mus: list[Tensor] = [torch.empty(0)] * len(xs)
    prefixes = [x_prefix(x, tokenizer) for x in xs]
    for group in equal_length_groups([len(prefix) for prefix in prefixes], batch_size):
        length = len(prefixes[group[0]])
        places = torch.arange(length + 4, device=device)
        positions = slot_positions(places, length, position_neutral=position_neutral).expand(len(group), -1)
        visible = slot_visible(places, length, position_neutral=position_neutral).expand(len(group), -1)  # (B, P + 4)
        prompt = torch.tensor([[*prefixes[row], tokenizer.z_open] for row in group], device=device)  # (B, P + 1)
        cache, upto = DynamicCache(config=lm.config), length + 1
        at_z = hidden_states(lm.decoder, lm.embed(prompt), positions[:, :upto], cache, visible[:, :upto])[:, -1]
        router = model.router(at_z)
        z = router.sample(generator)
        hidden = hidden_states(lm.decoder, model.condition(z), positions[:, upto:], cache, visible)[:, -1]
        drop_hidden_keys(cache, visible[0])
        written = write_traces(
            lm,
            tokenizer,
            hidden=hidden,
            cache=cache,
            position=int(positions[0, -1]) + 1,
            max_tokens=max_tokens,
            temperature=temperature,
            generator=generator,
        )
        drawn, means = router.value_features(z).cpu(), router.features().cpu()
        for row, answer, value, mean in zip(group, written, drawn, means, strict=True):
            answers[row], zs[row], mus[row] = answer, value, mean
    return RouterSamples(answers, torch.stack(zs), torch.stack(mus))


@torch.no_grad()
def posterior_of(model: LatentModel, tokenizer: Tokenizer, pairs: Pairs, batch_size: int) -> Distributions:
    """Return q(z|x,y) for N pairs, in the host's memory."""
    rows = entangled_rows(pairs.x, pairs.y, tokenizer)
    parts = [
        model.posterior_of(rows.take(index).to(model.device)).cpu()
        for index in torch.arange(len(pairs)).split(batch_size)
    ]
    return concatenate(parts)

"""What is measured at each validation, on fewer inputs than at the end: how answers and latents come along."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from trainer.config import Config
from trainer.evaluation.controlled import Outcomes, alignment_one_to_one
from trainer.evaluation.probing import number_inputs, probe_strategy
from trainer.evaluation.quality import answer_quality, judge
from trainer.evaluation.writing import Writer
from trainer.pool import Pairs, sample_from_base
from trainer.randomness import stream
from trainer.tasks import TASKS, Attribution

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from trainer.backbone import Tokenizer

_FEWEST_EXAMPLES = 100
"""Of a probe's point: half of what its final accuracy needs. A series may be noisy; that it goes on is worth more."""
_FOLLOWED = ("final_answer_accuracy", "trace_validity_rate")


def follow_latents(config: Config, writer: Writer, pairs: Pairs) -> dict[str, float]:
    """Answer the first validation inputs under z from the router, and see what z tells of the strategies.

    Args:
        config: of the run; `eval.answers` inputs are answered.
        writer: the model.
        pairs: the validation pairs.

    Returns:
        points of the series ``router_val/*``, ``posterior_val/*`` and, for a discrete latent, ``controlled_val/*``;
        a probe that has too few examples has no point.
    """
    if not config.eval.answers:
        return {}
    xs, tokenizer = pairs.x[: config.eval.answers], writer.model.tokenizer
    p, q = writer.router(xs), writer.posterior(pairs)
    z = p.sample(_stream(config, "router z"))
    answers = writer.write(xs, z, temperature=1.0, rng=_stream(config, "answers", writer.model.device))
    routed = judge(config.task.name, tokenizer, xs, answers)
    given = judge(config.task.name, tokenizer, pairs.x, pairs.y)
    probes = {
        "router_val/router_probe_accuracy": probe_strategy(p.value_features(z), routed, xs, at_least=_FEWEST_EXAMPLES),
        "posterior_val/posterior_mu_probe_accuracy": probe_strategy(
            q.features(), given, pairs.x, at_least=_FEWEST_EXAMPLES
        ),
    }
    return {
        **_quality("router_val", routed, config),
        **{name: probe.accuracy for name, probe in probes.items() if probe.accuracy is not None},
        **_controlled(config, writer, xs),
    }


def follow_base(
    config: Config, model: "PreTrainedModel", tokenizer: "Tokenizer", xs: Sequence[list[int]], max_tokens: int
) -> dict[str, float]:
    """Answer the first validation inputs; return points of the series ``base_val/*``."""
    if not config.eval.answers:
        return {}
    xs = list(xs[: config.eval.answers])
    rng = _stream(config, "answers", model.device)
    answers = sample_from_base(model, tokenizer, xs, max_tokens, 1.0, rng, config.eval.batch_size)
    return _quality("base_val", judge(config.task.name, tokenizer, xs, answers), config)


def _controlled(config: Config, writer: Writer, xs: Sequence[list[int]]) -> dict[str, float]:
    """Answer each input greedily under each value of a discrete z."""
    values = writer.model.latent_values()
    if values is None:
        return {}
    each = [x for x in xs for _ in values]
    rng = _stream(config, "greedy", writer.model.device)
    answers = writer.write(each, values.cpu().repeat(len(xs)), temperature=0.0, rng=rng)
    verdicts = judge(config.task.name, writer.model.tokenizer, each, answers)
    rows = [verdicts[start : start + len(values)] for start in range(0, len(verdicts), len(values))]
    names = [f"z{k}" for k in range(1, len(values) + 1)]
    outcomes = Outcomes.of(rows, names, TASKS[config.task.name].strategies, number_inputs(xs))
    return {"controlled_val/alignment_one_to_one": alignment_one_to_one(outcomes.unique)}


def _quality(prefix: str, verdicts: Sequence[Attribution], config: Config) -> dict[str, float]:
    quality = answer_quality(prefix, verdicts, TASKS[config.task.name].strategies)
    points: dict[str, float] = {}
    for name in (f"{prefix}/{name}" for name in _FOLLOWED):
        value = quality[name]
        assert isinstance(value, float)
        points[name] = value
    return points


def _stream(config: Config, use: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a stream that is the same at every validation, so that only the model differs between two points."""
    return stream(config.seed_of("sampling"), "validation", use, device=device)

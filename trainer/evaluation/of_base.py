"""What is measured at the end of a base run: answers to inputs held out, and to inputs trained on beside them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainer.backbone import Tokenizer
from trainer.config import Config
from trainer.evaluation.quality import Metrics, answer_quality, generalisation, judge
from trainer.pool import Pool, sample_from_base
from trainer.randomness import stream
from trainer.tasks import TASKS, Attribution

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def evaluate_base(
    config: Config, model: "PreTrainedModel", tokenizer: Tokenizer, pool: Pool, trained: Sequence[list[int]]
) -> Metrics:
    """Judge a base's answers to test inputs and, beside them, to as many inputs that it was trained on.

    Args:
        config: of the run.
        model: the trained base.
        tokenizer: of its inputs.
        pool: made from this base; its test pairs are the answers where they were sampled at temperature 1.
        trained: the inputs of all training records.
    """
    task, test = config.task.name, pool.pairs["test"]
    strategies = TASKS[task].strategies

    def answers(xs: Sequence[list[int]], use: str) -> list[Attribution]:
        temperature = 0.0 if config.eval.decoding == "greedy" else 1.0
        rng = stream(config.seed_of("sampling"), use, device=model.device)
        limit, batch_size = pool.max_new_tokens, config.eval.batch_size
        ys = sample_from_base(model, tokenizer, list(xs), limit, temperature, rng, batch_size)
        return judge(task, tokenizer, xs, ys)

    answered = config.eval.decoding == "sample" and config.data.source == "model" and config.pool.temperature == 1
    tested = judge(task, tokenizer, test.x, test.y) if answered else answers(test.x, "answers")
    seen = answers(trained[: len(test)], "seen answers")
    return {
        **answer_quality("base_test_final", tested, strategies),
        "base_test_final/decoding": config.eval.decoding,
        "base_test_final/split_policy": config.task.split_policy,
        **answer_quality("base_seen_final", seen, strategies),
        **generalisation(
            "base_test_final",
            tested=test.x,
            trained=trained,
            test_accuracy=sum(v.answer_ok for v in tested) / len(tested),
            seen_accuracy=sum(v.answer_ok for v in seen) / len(seen),
        ),
    }

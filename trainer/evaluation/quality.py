"""How good the answers are: each output is judged by its task's parser, whoever wrote it."""

import math
from collections import Counter
from collections.abc import Sequence

from trainer.backbone import Tokenizer
from trainer.tasks import TASKS, Attribution, attribute

Metrics = dict[str, float | int | str | bool | None]
"""Flat keys to a finite number, a flag, a word, or None beside ``<key>__reason``."""

MEMORISED_GAP = 0.1
"""A base that answers so much better where it was trained, by accuracy, counts as one that memorised."""


def judge(task: str, tokenizer: Tokenizer, xs: Sequence[list[int]], ys: Sequence[list[int]]) -> list[Attribution]:
    """Judge N outputs, given as token ids."""
    texts = [(tokenizer.decode(x), tokenizer.decode(y)) for x, y in zip(xs, ys, strict=True)]
    return [attribute(TASKS[task], x, y) for x, y in texts]


def standard_error(share: float, n: int) -> float:
    """Return sqrt(p (1 - p) / n) of a share p of n."""
    return math.sqrt(share * (1 - share) / n)


def answer_quality(prefix: str, verdicts: Sequence[Attribution], strategies: Sequence[str]) -> Metrics:
    """Return shares of good outputs with their standard errors, what fails first, and how often each strategy is used.

    An output that cannot be parsed counts as a wrong answer. ``error_share/*`` add up with the share of valid traces
    with a right answer to 1: unparsable, else wrong answer, else a trace that no strategy writes.
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
        metrics[f"{prefix}/{name}_standard_error"] = standard_error(share, n)
    metrics |= {
        f"{prefix}/error_share/unparsable": sum(not v.parse_ok for v in verdicts) / n,
        f"{prefix}/error_share/wrong_answer": sum(v.parse_ok and not v.answer_ok for v in verdicts) / n,
        f"{prefix}/error_share/invalid_trace": sum(v.answer_ok and not v.strategies for v in verdicts) / n,
    }
    counts = Counter(v.label for v in verdicts)
    return metrics | {f"{prefix}/strategy_count/{strategy}": counts[strategy] for strategy in strategies}


def generalisation(
    prefix: str,
    *,
    tested: Sequence[list[int]],
    trained: Sequence[list[int]],
    test_accuracy: float,
    seen_accuracy: float,
) -> Metrics:
    """Say whether a base has learnt the task or its inputs.

    Args:
        prefix: of the test's metrics.
        tested: inputs that `test_accuracy` is over.
        trained: all inputs that were trained on.
        test_accuracy: on `tested`.
        seen_accuracy: on inputs among `trained`.

    Returns:
        ``seen_share`` of the tested inputs; ``generalisation_gap``, seen minus held-out accuracy; and ``memorised``:
        the gap is above 0.1, and above three standard errors of an accuracy on so many distinct inputs. Gap and flag
        are null where tested inputs were trained on.
    """
    seen, distinct = {tuple(x) for x in trained}, len({tuple(x) for x in tested})
    share = sum(tuple(x) in seen for x in tested) / len(tested)
    metrics: Metrics = {
        f"{prefix}/distinct_inputs": distinct,
        f"{prefix}/distinct_trained_inputs": len(seen),
        f"{prefix}/seen_share": share,
    }
    if share > 0:
        reason = f"{share:.1%} of the test inputs were trained on: this accuracy is no generalisation"
        for name in ("generalisation_gap", "memorised"):
            metrics |= {f"{prefix}/{name}": None, f"{prefix}/{name}__reason": reason}
        return metrics
    gap = seen_accuracy - test_accuracy
    memorised = gap > max(MEMORISED_GAP, 3 * standard_error(test_accuracy, distinct))
    return metrics | {f"{prefix}/generalisation_gap": gap, f"{prefix}/memorised": memorised}

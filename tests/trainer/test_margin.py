"""The margin against the objective itself, on a base whose only surprise is the strategy."""

import math
from typing import Any

import pytest
import torch

from trainer.config import ObjectiveConfig
from trainer.distributions import Categoricals
from trainer.margin import coding_margin, strategy_entropy
from trainer.objective import Forward, Surprise, evaluate_objective
from trainer.tasks import TASKS, Attribution, attribute, sample_records

LATENTS, TOKENS, RECORDS = 3, 34, 9
ENTROPY = math.log(LATENTS)


def passes() -> tuple[Forward, Forward]:
    """Return a model that ignores z, and one whose z is the strategy; a branch at the third token decides it."""
    is_branch = torch.zeros(RECORDS, TOKENS)
    is_branch[:, 2] = 1.0
    baseline = (is_branch * ENTROPY).flatten()
    record = torch.arange(RECORDS).repeat_interleave(TOKENS)
    surprise = Surprise(baseline, baseline, record)
    uniform = torch.full((RECORDS, LATENTS), -ENTROPY)
    strategy = torch.arange(RECORDS) % LATENTS
    certain = torch.nn.functional.one_hot(strategy, LATENTS).float()
    support = torch.zeros(RECORDS)
    router = Categoricals(uniform)
    collapsed = Forward(-baseline.expand(LATENTS, -1), uniform.exp().T, surprise, router, router, support)
    # Under another strategy's z the branch would be impossible; q gives that z no weight.
    likelihood = (-50.0 * is_branch.flatten()).expand(LATENTS, -1) * (1 - certain.T[:, record])
    posterior = Categoricals((certain * 50).log_softmax(-1))
    return collapsed, Forward(likelihood, certain.T, surprise, posterior, router, support)


@pytest.mark.parametrize(
    ("config", "pays"),
    [
        ({"beta": 0.1, "baseline_normalized": False}, False),
        ({"beta": 0.02, "baseline_normalized": False}, True),  # below 1/34
        ({"beta": 0.1}, True),
        ({"beta": 1.5}, False),
        ({"beta": 0.1, "baseline_normalized": False, "token_weighted_reconstruction_weight": 2.0}, True),
        ({"beta": 0.1, "token_weighted_reconstruction_weight": 2.0, "token_weighted_mode": "replace"}, True),
    ],
)
def test_the_margin_is_what_the_objective_gains_from_a_z_that_is_the_strategy(
    config: dict[str, Any], pays: bool
) -> None:
    settings = ObjectiveConfig(**config)
    collapsed, coded = passes()
    without, with_z = (evaluate_objective(forward, settings, 1) for forward in (collapsed, coded))
    gained = without.total.item() - with_z.total.item()
    assert coding_margin(collapsed, without, settings, 1, ENTROPY) == pytest.approx(gained, abs=1e-5)
    assert (gained > 0) == pays


def test_strategy_entropy_is_log_s_less_what_several_strategies_write() -> None:
    def verdict(*strategies: str) -> Attribution:
        return Attribution(parse_ok=True, answer_ok=True, strategies=frozenset(strategies))

    assert strategy_entropy([verdict("a"), verdict("b"), verdict("c")]) == pytest.approx(math.log(3))
    assert strategy_entropy([verdict("a", "b")] * 4) == pytest.approx(0)
    assert strategy_entropy([verdict("a")] * 3 + [verdict("b")]) == pytest.approx(
        -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    )
    assert strategy_entropy([]) == 0


def test_strategy_entropy_of_a_tasks_own_pairs_is_the_one_computed_input_by_input() -> None:
    """On the grid a third of the traces have two authors: the exact value renders every strategy on every input."""
    task = TASKS["grid_pathfinding"]
    records = sample_records(task, {}, 1500, seed=0, split="train", purpose="margin")
    exact = 0.0
    for record in records:
        traces = [task.render(task.parse_x(record.x), strategy) for strategy in task.strategies]
        shares = [traces.count(trace) / len(traces) for trace in traces]
        exact -= sum(math.log(share) for share in shares) / len(traces) / len(records)
    estimate = strategy_entropy([attribute(task, record.x, record.y) for record in records])
    assert estimate == pytest.approx(exact, abs=0.05)
    assert 0.5 < exact < math.log(3)

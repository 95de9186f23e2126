"""Whether it pays to say the strategy through z: what the objective would gain from it, less what the KL would cost.

Where the margin is below 0, a z that carries nothing is the optimum, and no auxiliary term that only spreads z out can
give it a meaning. With a plain reconstruction, a mean over T tokens, that is so for every beta above 1/T.
"""

import math
from collections import defaultdict
from collections.abc import Sequence

from trainer.config import ObjectiveConfig
from trainer.distributions import Categoricals
from trainer.objective import MIN_BASELINE, Forward, Objective
from trainer.tasks import Attribution
from trainer.weights import weights_at


def strategy_entropy(verdicts: Sequence[Attribution]) -> float:
    """Estimate I, the entropy in nats of what a trace tells of the strategy, the input given.

    With p(s) the strategies' shares it is the mean of -log sum_{s in A} p(s), A the strategies that write the trace: a
    trace that several write tells less. It holds where the choice does not depend on the input, as in this project's
    mixtures, and is too high otherwise. Traces that no strategy writes are left out.

    Args:
        verdicts: of N pairs; 0 is returned where none is valid.
    """
    valid = [v.strategies for v in verdicts if v.strategies]
    shares: defaultdict[str, float] = defaultdict(float)
    for strategies in valid:
        for strategy in strategies:
            shares[strategy] += 1 / len(strategies) / len(valid)
    return sum(-math.log(min(1.0, sum(shares[s] for s in strategies))) for strategies in valid) / max(1, len(valid))


def coding_margin(forward: Forward, objective: Objective, config: ObjectiveConfig, step: int, entropy: float) -> float:
    """Return c_R rho R*_base + lambda_tw rho R_tw,base - beta I, in units of the objective.

    rho = I / N_base, at most 1, is the share of the base model's surprise, N_base nats a sequence, that knowing the
    strategy takes away; it is taken to be the same at all tokens. R*_base is what the reconstruction is without z.

    Args:
        forward: of many pairs.
        objective: of the same.
        config: its weights.
        step: at which they are taken.
        entropy: I, of `strategy_entropy`; a discrete z can say log K of it at most.
    """
    if isinstance(forward.posterior, Categoricals):
        entropy = min(entropy, math.log(forward.posterior.count))
    weights = weights_at(config, forward.kind, step)
    baseline = float(objective.raw["baseline_reconstruction"])
    if config.baseline_normalized:
        baseline /= max(baseline, MIN_BASELINE)
    per_sequence = float(forward.surprise.baseline.sum()) / len(forward.posterior)
    share = min(1.0, entropy / max(per_sequence, MIN_BASELINE))
    weighted = weights["token_weighted_reconstruction"] * float(objective.raw["token_weighted_baseline"])
    return share * (weights["reconstruction"] * baseline + weighted) - weights["kl"] * entropy

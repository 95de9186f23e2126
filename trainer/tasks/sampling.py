"""Records of a task: split by input, drawn from one random stream a purpose."""

import hashlib
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from trainer.errors import suggestion
from trainer.randomness import stream_seed
from trainer.tasks.task import Params, Task, TaskError

Split = Literal["train", "validation", "test"]
Policy = Literal["heldout", "overlap"]

# Each split is at least a tenth of the inputs, so a miss this long (chance 0.9^2000 < 1e-90) is no bad luck.
MAX_DRAWS_FOR_ONE_RECORD = 2000


@dataclass(frozen=True)
class Record:
    """One ground-truth example.

    Attributes:
        x: the input, without markup.
        y: ``TRACE#ANSWER`` as the strategy writes it.
        strategy: the strategy's name.
    """

    x: str
    y: str
    strategy: str


def split_of(task_name: str, x: str) -> Split:
    """Return the split of an input: a tenth is test, a tenth validation, the rest train.

    The same on every machine and in every process, unlike Python's own hash of a string.
    """
    digest = hashlib.blake2b((task_name + x).encode()).digest()
    tenth = int.from_bytes(digest, "big") % 10
    return "test" if tenth == 0 else "validation" if tenth == 1 else "train"


def sample_records(
    task: Task[Any, Any],
    params: Mapping[str, Any] | Params,
    n: int,
    *,
    seed: int,
    split: Split,
    purpose: str,
    policy: Policy = "heldout",
    mix: Mapping[str, float] | None = None,
) -> list[Record]:
    """Draw records, inputs with replacement.

    Args:
        task: the task.
        params: its parameters; those left out take their default.
        n: how many records.
        seed: with split, purpose and task it names the random stream.
        split: which split the records are for.
        purpose: what they are for, so that no two uses share a stream.
        policy: "heldout" draws inputs of the split only; "overlap" draws from all inputs (for tasks with so few that
            none could be held out: what is measured is then no generalisation).
        mix: weights of the strategies; those left out are not used. None: all equally often.

    Returns:
        n records; the first m of them do not depend on n.

    Raises:
        TaskError: a bad parameter, split, policy or mix, or no input of these ranges falls into the split.
    """
    ranges = task.validate(params)
    _check_choice("split", split, get_args(Split))
    _check_choice("task.split_policy", policy, get_args(Policy))
    strategies, weights = _weights(task, mix)
    rng = random.Random(stream_seed(seed, "records", task.name, split, purpose))
    records = []
    for _ in range(n):
        problem, x = _draw_input(task, ranges, rng, split if policy == "heldout" else None)
        strategy = rng.choices(strategies, weights)[0]
        records.append(Record(x, task.render(problem, strategy), strategy))
    return records


def _draw_input(task: Task[Any, Any], ranges: Params, rng: random.Random, split: Split | None) -> tuple[Any, str]:
    """Draw a problem whose input lies in the split (None: in any)."""
    for _ in range(MAX_DRAWS_FOR_ONE_RECORD):
        problem = task.sample(rng, ranges)
        x = task.render_x(problem)
        if split is None or split_of(task.name, x) == split:
            return problem, x
    raise TaskError(
        f"task.params: {task.name}: none of {MAX_DRAWS_FOR_ONE_RECORD} inputs falls into the split {split!r}, with "
        f"{ranges!r}. Widen the ranges, or set task.split_policy to overlap."
    )


def _weights(task: Task[Any, Any], mix: Mapping[str, float] | None) -> tuple[list[str], list[float]]:
    if mix is None:
        return list(task.strategies), [1.0] * len(task.strategies)
    for strategy, weight in mix.items():
        _check_choice("task.strategy_mix", strategy, task.strategies)
        if not (math.isfinite(weight) and weight >= 0):
            raise TaskError(f"task.strategy_mix.{strategy}: expected a weight of 0 or more, got {weight!r}. Change it.")
    if not 0 < sum(mix.values()) < math.inf:
        raise TaskError(f"task.strategy_mix: the weights add up to {sum(mix.values())}: {dict(mix)!r}. Change them.")
    # In the task's own order, so that the order of the keys in a file changes nothing.
    strategies = [strategy for strategy in task.strategies if strategy in mix]
    return strategies, [float(mix[strategy]) for strategy in strategies]


def _check_choice(where: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise TaskError(f"{where}: there is no {value!r}.{suggestion(value, known)} Known: {', '.join(known)}.")

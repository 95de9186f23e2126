"""What a new attempt changes."""

import pytest

from slurmkit.collection.retry import RetryLimitError, changes_for, describe
from slurmkit.errors import UsageError
from slurmkit.resources import Resources
from slurmkit.states import Reason

CONFIG = {"train": {"batch_size": 32, "accumulation": 1, "lr": 0.1}, "seed": 0}
OOM = {"oom": {"changes": {"resources.mem": "x2"}, "limit": 2}}


def after(reason, rules, by_hand=(), before=None):
    return changes_for(reason, rules, by_hand, before=before, config=CONFIG, resources=Resources(mem_mb=1000))


def test_out_of_memory_doubles_memory_up_to_the_limit():
    first, asked = after(Reason.OOM_HOST, OOM)
    assert asked.mem_mb == 2000
    second, asked = after(Reason.OOM_HOST, OOM, before=first)
    assert asked.mem_mb == 4000
    with pytest.raises(RetryLimitError, match=r"on_failure\.oom\.limit: 2 retries are used up"):
        after(Reason.OOM_HOST, OOM, before=second)


def test_a_change_by_hand_goes_past_the_limit():
    spent = {"set": {}, "resources": {"mem_mb": 4000}, "why": "oom_host", "tries": {"oom": 2}}
    _, asked = after(Reason.OOM_HOST, OOM, [("resources.mem", "9G")], before=spent)
    assert asked.mem_mb == 9 * 1024


def test_a_reason_of_its_own_wins_over_its_group():
    rules = {**OOM, "oom_gpu": {"changes": {"config.train.batch_size": "/2"}, "limit": None}}
    changes, asked = after(Reason.OOM_GPU, rules)
    assert changes is not None
    assert changes["set"] == {"train.batch_size": 16}
    assert asked.mem_mb == 1000


def test_another_reason_changes_nothing():
    assert after(Reason.ERROR, OOM) == (None, Resources(mem_mb=1000))


def test_earlier_changes_stay_in_later_attempts():
    first, _ = after(Reason.OOM_HOST, OOM)
    changes, asked = after(Reason.ERROR, OOM, before=first)
    assert asked.mem_mb == 2000
    assert changes is not None
    assert changes["resources"] == {"mem_mb": 2000}


def test_half_the_batch_with_twice_the_accumulation_keeps_the_science():
    rules = {
        "oom_gpu": {"changes": {"config.train.batch_size": "/2", "config.train.accumulation": "x2"}, "limit": None}
    }
    changes, _ = after(Reason.OOM_GPU, rules)
    phrases, science = describe(changes, Resources(mem_mb=1000), CONFIG)
    assert phrases == ["train.batch_size 32 -> 16", "train.accumulation 1 -> 2"]
    assert science == []


def test_half_the_batch_alone_changes_the_science():
    changes, _ = after(None, {}, [("train.batch_size", "/2")])
    _, science = describe(changes, Resources(), CONFIG)
    assert science == ["train.batch_size 32 -> 16 without accumulation: the effective batch changes"]


@pytest.mark.parametrize(
    ("target", "operation", "message"),
    [
        ("train.batchsize", "x2", "Did you mean config.train.batch_size?"),
        ("resources.memory", "x2", "no such resource"),
        ("resources.time", "x2", "the definition sets no time_s"),
        ("resources.mem", "lots", "expected a memory size"),
        ("train", "x2", "needs a number"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(target, operation, message):
    with pytest.raises(UsageError, match="(?s)" + message.replace("?", r"\?")):
        after(None, {}, [(target, operation)])


def test_a_batch_of_one_cannot_be_halved():
    config = {"train": {"batch_size": 1}}
    with pytest.raises(UsageError, match="cannot be divided"):
        changes_for(None, {}, [("train.batch_size", "/2")], before=None, config=config, resources=Resources())

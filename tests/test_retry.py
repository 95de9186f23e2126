"""What a new attempt changes."""

import json

import pytest
from forked_commands import ForkedCommands, ForkedWorkplace
from workplace import SWEEP, Workplace

from slurmkit.collection.retry import RetryLimitError, changes_for, describe, refuse_swept
from slurmkit.errors import UsageError
from slurmkit.expand import config_sha256
from slurmkit.resources import Resources
from slurmkit.states import Reason

CONFIG = {
    "train": {"batch_size": 32, "accumulation": 1, "lr": 0.1},
    "seed": 0,
    "name": "x1",
    "start": None,
    "shuffle": True,
}
OOM = {"oom": {"changes": {"resources.mem": "x2"}, "limit": 2}}


@pytest.fixture
def workplace(workplace: Workplace, forked_commands: ForkedCommands) -> ForkedWorkplace:
    return ForkedWorkplace(workplace.root, forked_commands)


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


def test_a_rule_that_only_says_how_often_a_run_is_queued_again_is_no_rule_of_retries():
    rules = {"timeout": {"changes": {}, "limit": None, "requeue": 3}}
    assert after(Reason.TIMEOUT, rules) == (None, Resources(mem_mb=1000))
    bounded = {"timeout": {"changes": {}, "limit": 1, "requeue": 3}}
    first, _ = after(Reason.TIMEOUT, bounded)
    with pytest.raises(RetryLimitError, match=r"on_failure\.timeout\.limit: 1"):
        after(Reason.TIMEOUT, bounded, before=first)


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
        ("resources.time", "x2", "the definition sets no time\\. Give"),
        ("resources.mem", "lots", "expected a memory size"),
        ("resources.mem_mb", "x2", "no such resource"),
        ("resources.partition", "x2", "resources.partition: x2 of nothing"),
        ("resources.cpus", 0, "resources.cpus: expected at least 1, got 0"),
        ("resources.cpus", -3, "resources.cpus: expected at least 1, got -3"),
        ("resources.cpus", "four", "resources.cpus: expected a whole number, got 'four'"),
        ("resources.gpus", 1.5, "resources.gpus: expected a whole number, got 1.5"),
        ("resources.extra", 5, "resources.extra: expected a mapping, got 5"),
        ("resources.partition", 5, "resources.partition: expected text, got 5"),
        ("resources.cpus", "x" + "9" * 400, "too large"),
        ("train", "x2", "needs a number"),
        ("train", 5, "--set train: the config has a mapping here .* Name a key inside it, such as train.batch_size"),
        ("config.train.lr", "small", "--set config.train.lr: the config has a number here \\(0.1\\), got 'small'"),
        ("train.batch_size", [32], "Give a number"),
        ("shuffle", 1, "the config has true or false here"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(target, operation, message):
    with pytest.raises(UsageError, match="(?s)" + message.replace("?", r"\?")):
        after(None, {}, [(target, operation)])


def test_a_batch_of_one_cannot_be_halved():
    config = {"train": {"batch_size": 1}}
    with pytest.raises(UsageError, match="cannot be divided"):
        changes_for(None, {}, [("train.batch_size", "/2")], before=None, config=config, resources=Resources())


@pytest.mark.parametrize(
    ("target", "operation", "field", "value"),
    [
        ("resources.gpus", 0, "gpus", 0),
        ("resources.time", "90s", "time_s", 90),
        ("resources.extra", {"exclude": "n1"}, "extra", {"exclude": "n1"}),
        ("resources.mem", None, "mem_mb", None),
        ("resources.partition", "long", "partition", "long"),
    ],
)
def test_resources_are_read_as_in_the_definition(target, operation, field, value):
    _, asked = after(None, {}, [(target, operation)])
    assert getattr(asked, field) == value


def test_no_gpu_stays_none_when_doubled():
    assert after(None, {}, [("resources.gpus", "x2")])[1].gpus == 0


@pytest.mark.parametrize(
    ("key", "value"), [("name", "x2"), ("name", 5), ("start", "x"), ("start", 3), ("train.lr", None), ("train.lr", 1)]
)
def test_a_config_key_takes_values_of_its_kind(key, value):
    changes, _ = after(None, {}, [(key, value)])
    assert changes is not None
    assert changes["set"] == {key: value}


@pytest.mark.parametrize("size", [None, "auto"])
def test_a_batch_that_is_no_number_is_no_balance(size):
    config = {"batch_size": size, "accumulation": 1}
    changes, _ = changes_for(
        None, {}, [("batch_size", 8), ("accumulation", 4)], before=None, config=config, resources=Resources()
    )
    assert len(describe(changes, Resources(), config)[1]) == 2


@pytest.mark.parametrize("target", ["task", "config.task", "task.of", "train", "train.lr"])
def test_a_swept_key_is_not_changed_by_hand(target):
    with pytest.raises(UsageError, match=r"axis 'a' of this collection sets .* slurmkit collection extend"):
        refuse_swept([("resources.mem", "x2"), (target, "x2")], {"task": "a", "train.lr": "a"})


def test_a_key_beside_a_swept_one_can_be_changed():
    refuse_swept([("train.lr_end", 0.5), ("tasks", 1)], {"task": "a", "train.lr": "a"})


def test_the_start_of_an_attempt_records_the_config_that_it_runs(workplace):
    path = workplace.define(SWEEP.replace("act: complete", "act: bug").replace("[add, sort]", "[add]"))
    workplace.slurmkit("collection", "create", str(path), "--submit")
    workplace.wait("sweep")
    workplace.slurmkit("resubmit", "sweep", "--failed", "--set", "act=complete")
    workplace.wait("sweep")
    workplace.slurmkit("resubmit", "sweep", "--run", "task-add_seed-1", "--force", "--set", "act=bug")
    workplace.wait("sweep")
    attempts = workplace.runs / "sweep/task-add_seed-1/attempts"
    first, second, third = (
        json.loads((attempts / f"{n}/started.json").read_text())["config_sha256"] for n in (1, 2, 3)
    )
    config = {"score": 0.0, "seed": 1, "task": "add"}
    assert first == third == config_sha256({**config, "act": "bug"})
    assert second == config_sha256({**config, "act": "complete"})


def test_the_command_refuses_to_change_what_the_cell_is(workplace):
    path = workplace.define(SWEEP.replace("act: complete", "act: bug"))
    workplace.slurmkit("collection", "create", str(path), "--submit")
    workplace.wait("sweep")
    told = workplace.slurmkit("resubmit", "sweep", "--failed", "--set", "task=sort", exit_code=2).stderr
    assert "--set task: axis 'task' of this collection sets task" in told
    assert set(workplace.states("sweep").values()) == {"failed"}


NODE = {"cap_mb": 3000, "cap_why": "a job on partition main can have 2.93 GB a node"}


def capped(reason, rules, by_hand=(), before=None, resources=Resources(mem_mb=1000), **cap):  # noqa: B008
    return changes_for(reason, rules, by_hand, before=before, config=CONFIG, resources=resources, **(cap or NODE))


def test_memory_is_raised_to_what_a_node_has_and_then_no_further():
    first, asked = capped(Reason.OOM_HOST, OOM)
    assert asked.mem_mb == 2000
    second, asked = capped(Reason.OOM_HOST, OOM, before=first)
    assert asked.mem_mb == 3000
    assert describe(second, Resources(mem_mb=1000), CONFIG)[0] == ["mem 0.977 GB -> 2.93 GB"]
    with pytest.raises(RetryLimitError, match=r"out of memory with 2\.93 GB, .* partition main can have 2\.93 GB"):
        capped(Reason.OOM_HOST, {"oom": {**OOM["oom"], "limit": 9}}, before=second)


def test_memory_by_hand_is_cut_too():
    _, asked = capped(Reason.ERROR, {}, [("resources.mem", "9G")])
    assert asked.mem_mb == 3000


def test_a_run_with_all_the_memory_is_tried_again_if_something_else_changes():
    full = {"set": {}, "resources": {"mem_mb": 3000}, "why": "oom_host", "tries": {"oom": 1}}
    changes, asked = capped(Reason.OOM_HOST, OOM, [("train.batch_size", "/2")], before=full)
    assert asked.mem_mb == 3000
    assert changes is not None
    assert changes["set"] == {"train.batch_size": 16}
    assert capped(Reason.TIMEOUT, {}, before=full)[1].mem_mb == 3000


def test_another_partition_is_not_held_to_the_nodes_of_this_one():
    rules = {"oom": {"changes": {"resources.partition": "large", "resources.mem": "8G"}, "limit": None}}
    _, asked = capped(Reason.OOM_HOST, rules)
    assert (asked.partition, asked.mem_mb) == ("large", 8 * 1024)


def test_memory_that_the_definition_itself_asks_for_is_left_as_it_is():
    changes, asked = capped(Reason.ERROR, {}, [("train.lr", 0.2)], resources=Resources(mem_mb=5000))
    assert changes is not None
    assert asked.mem_mb == 5000

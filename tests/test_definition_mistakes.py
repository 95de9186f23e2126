"""Definitions with mistakes: each is told with place, key, value and advice."""

# ruff: noqa: E501 - messages stand here as they are printed, each on one line

from pathlib import Path

import pytest

from slurmkit.definition.model import load_definition, parse_definition
from slurmkit.errors import DefinitionError
from slurmkit.expand import expand

HEAD = "name: x\ncommand: [train, '{config}']\n"


def problems_in(text: str) -> list[str]:
    """Return all that is said of a definition, by reading or by expanding it."""
    with pytest.raises(DefinitionError) as error:
        expand(parse_definition(text.encode(), "x.yaml"))
    return error.value.problems


BROKEN = {
    "misspelt keys, and what they leave missing": (
        "nam: x\ncomand: [t]\n",
        [
            "x.yaml:1:1: command: is missing. Add `command:`.",
            "x.yaml:1:1: nam: unknown key. Did you mean name?",
            "x.yaml:1:1: name: is missing. Add `name:`.",
            "x.yaml:2:1: comand: unknown key. Did you mean command?",
        ],
    ),
    "a list at the top": (
        "- a\n",
        ['x.yaml:1:1: expected a mapping of keys, got ["a"]. Start with `name:` and `command:`.'],
    ),
    "a name that climbs out of runs/": (
        "name: ../x\ncommand: [t]\n",
        [
            "x.yaml:1:7: name: '../x' is not a name. Write letters, digits and . _ = + - in parts joined by /, "
            "each part starting with a letter or digit, without .. and not ending in . or .lock.",
        ],
    ),
    "a shell command": (
        "name: x\ncommand: python train.py\n",
        ["x.yaml:2:10: command: expected a list, got 'python train.py'. Write [...] or one `- item` a line."],
    ),
    "an axis with one bare value": (
        HEAD + "axes: {lr: 0.1}\n",
        ["x.yaml:3:12: axes.lr: expected a list, got 0.1. Write [0.1], or move it to config."],
    ),
    "an axis with a value twice": (
        HEAD + "config: {lr: 1}\naxes:\n  lr: [0, 1, 0.0]\n",
        ["x.yaml:5:14: axes.lr[2]: 0.0 is the same label as value 1. Delete one."],
    ),
    "an axis without values": (
        HEAD + "axes:\n  lr: []\n  bs: {key: bs, values: {}}\n",
        [
            "x.yaml:4:7: axes.lr: has no values. Give it some, or delete the axis.",
            "x.yaml:5:25: axes.bs.values: has no values. Give it some, or delete the axis.",
        ],
    ),
    "an axis with lists for values": (
        HEAD + "config: {targets: []}\naxes: {targets: [[q, v], [q]]}\n",
        [
            'x.yaml:4:18: axes.targets[0]: ["q", "v"] cannot be a label. Give it one: {values: {label: {dotted.key: ...}}}.',
            'x.yaml:4:26: axes.targets[1]: ["q"] cannot be a label. Give it one: {values: {label: {dotted.key: ...}}}.',
        ],
    ),
    "an axis that sets nothing": (
        HEAD + "config: {train: {lr: 1}}\naxes:\n  lr: [1, 2]\n",
        [
            "x.yaml:5:3: axes.lr: sets nothing: config has no key lr, and the command does not use {lr}. "
            "Name the key: {key: train.lr, values: [...]}.",
        ],
    ),
    "an axis that would replace a whole section": (
        HEAD + "config: {task: {name: a}}\naxes:\n  task: [a, b]\n",
        [
            "x.yaml:5:3: axes.task: sets nothing: config.task is a mapping, and the command does not use {task}. "
            "Name the key: {key: task.name, values: [...]}.",
        ],
    ),
    "an axis whose name is no word": (
        HEAD + "axes: {learning-rate: {key: lr, values: [1]}}\n",
        [
            "x.yaml:3:8: axes.learning-rate: 'learning-rate' is not a name here. Write up to 64 letters, digits and _, "
            "not starting with a digit.",
        ],
    ),
    "two axes with the same key": (
        HEAD + "axes:\n  a: {key: train.lr, values: [1]}\n  b: {values: {small: {train: {lr: 2}}}}\n",
        [
            "x.yaml:5:24: axes.b.values.small.train: sets train, and axes.a sets train.lr. Only one of them can; remove it from one."
        ],
    ),
    "a key that leads through a number": (
        HEAD + "config: {lr: 1}\naxes: {lr: {key: lr.x, values: [1]}}\n",
        ["x.yaml:4:8: axes.lr: lr.x cannot be set: config.lr is 1, not a mapping. Name a key inside mappings."],
    ),
    "a dotted key in config": (
        HEAD + "config: {train.lr: 1}\n",
        [
            "x.yaml:3:10: config.train.lr: a config key with a dot could not be told from a path. Nest it: {train: {lr: ...}}."
        ],
    ),
    "zipped axes of different lengths": (
        HEAD
        + "axes: {lr: {key: lr, values: [1, 2]}, bs: {key: bs, values: [1, 2, 3]}}\nzip: [[lr, bs], [lr], [x, lr]]\n",
        [
            "x.yaml:4:7: zip[0]: axes of different lengths: lr has 2, bs has 3 values. Make them equal.",
            'x.yaml:4:17: zip[1]: expected two axes or more, got ["lr"]. Add one, or delete the group.',
            "x.yaml:4:18: zip[1][0]: axis lr is zipped already. An axis can be in one group.",
            "x.yaml:4:24: zip[2][0]: unknown axis 'x'. Axes: lr, bs.",
            "x.yaml:4:27: zip[2][1]: axis lr is zipped already. An axis can be in one group.",
        ],
    ),
    "settings that are no mappings": (
        HEAD + "settings:\n  A: {base: , twr: 2}\n  B: {}\n",
        [
            "x.yaml:4:13: settings.A.base: expected a mapping, got null. Write `key: value` lines below it.",
            "x.yaml:4:20: settings.A.twr: expected a mapping, got 2. Write `key: value` lines below it.",
        ],
    ),
    "cells that are not there": (
        HEAD + "config: {lr: 1}\naxes: {lr: [0.1, 0.2]}\nexclude: [{ls: 1}, {lr: 0.3}, {}]\n"
        "overrides: [{where: {lr: 0.11}, set: {a: 1}}, {where: {lr: 0.1}}]\n",
        [
            "x.yaml:5:12: exclude[0].ls: unknown axis 'ls'. Axes: lr.",
            "x.yaml:5:25: exclude[1].lr: lr has no value 0.3. Did you mean 0.2?",
            "x.yaml:5:31: exclude[2]: would leave out all. Name the axes of the cells.",
            "x.yaml:6:26: overrides[0].where.lr: lr has no value 0.11. Did you mean 0.1?",
            "x.yaml:6:47: overrides[1]: changes nothing. Add `set:` or `resources:`, or delete it.",
        ],
    ),
    "an override that makes a label untrue": (
        HEAD + "config: {lr: 1}\naxes: {lr: [1, 2]}\noverrides: [{where: {lr: 1}, set: {lr: 3}}]\n",
        [
            "x.yaml:5:36: overrides[0].set.lr: would make the value of axis lr untrue. "
            "Use exclude and include for other cells.",
        ],
    ),
    "placeholders that nothing fills": (
        "name: x\ncommand: [t, '{confg}']\ncheck: [t, '{config}']\nenv: {A: '{lr}'}\n"
        "config: {p: '{need.base.run_dir}', q: [a, '}']}\nneeds: {base: {collection: y}}\nrun_name: 'r{seed}'\n",
        [
            "x.yaml:2:14: command[1]: unknown placeholder {confg}. Did you mean {config}? For literal braces write {{ and }}.",
            "x.yaml:3:12: check[1]: unknown placeholder {config}. There are {python}. For literal braces write {{ and }}.",
            "x.yaml:4:10: env.A: unknown placeholder {lr}. There are {config}, {needs.base.run_dir}, {python}, {run_dir}, "
            "{run_id}. For literal braces write {{ and }}.",
            "x.yaml:5:13: config.p: unknown placeholder {need.base.run_dir}. Did you mean {needs.base.run_dir}? "
            "For literal braces write {{ and }}.",
            "x.yaml:5:43: config.q[1]: single } in '}'. Write {name} for a placeholder, {{ or }} for a literal brace.",
            "x.yaml:7:11: run_name: unknown placeholder {seed}. There are {run_id}. For literal braces write {{ and }}.",
        ],
    ),
    "a need that only some runs have, in the command of all": (
        "name: x\ncommand: [t, '{needs.b.run_dir}', '{k}']\naxes: {k: [a, c]}\nneeds: {b: {collection: y, when: {k: a}}}\n",
        [
            "x.yaml:2:14: command[1]: {needs.b.run_dir} is not there in all runs, because needs.b has `when`. Use it in config."
        ],
    ),
    "a need that only some runs have, in the config of all": (
        "name: x\ncommand: [t, '{k}']\nconfig: {p: '{needs.b.run_dir}'}\naxes: {k: [a, c]}\n"
        "needs: {b: {collection: y, when: {k: a}}}\n",
        [
            "x.yaml:5:28: needs.b.when: the config of {k: c} uses {needs.b.run_dir}, but this cell is not within `when`. "
            "Set that key by overrides for the cells that need the run.",
        ],
    ),
    "needs that cannot be met": (
        HEAD + "config: {s: 1}\naxes: {s: [1, 2]}\n"
        "needs: {a: {}, b: {collection: /y, match: [t]}, c: {colection: y}, d: {where: {t: 1}, match: [s]}}\n",
        [
            "x.yaml:5:32: needs.b.collection: '/y' is not a name. Write letters, digits and . _ = + - in parts joined by /, "
            "each part starting with a letter or digit, without .. and not ending in . or .lock.",
            "x.yaml:5:53: needs.c.colection: unknown key. Did you mean collection?",
        ],
    ),
    "needs that point nowhere": (
        HEAD
        + "config: {s: 1}\naxes: {s: [1, 2]}\nneeds: {a: {}, b: {collection: y, match: [t]}, d: {where: {t: 1}}}\n",
        [
            "x.yaml:5:9: needs.a: a run would need itself. Name the needed run by `where:`, or another `collection:`.",
            "x.yaml:5:43: needs.b.match[0]: unknown axis 't'. Axes: s.",
            "x.yaml:5:60: needs.d.where.t: unknown axis 't'. Axes: s.",
        ],
    ),
    "retries of nothing": (
        HEAD + "config: {b: 1, t: x}\non_failure:\n  oomm: {}\n"
        "  oom: {resources.mem: x2, resources.memory: x2, config.c: x2, limit: 0, mem: x2}\n"
        "  timeout: {config.t: x2, config.b: '*2', resources.qos: x2}\n",
        [
            "x.yaml:5:3: on_failure.oomm: unknown reason 'oomm'. Did you mean oom?",
            "x.yaml:6:24: on_failure.oom.resources.mem: x2 of nothing: no run sets mem. Add resources.mem.",
            "x.yaml:6:28: on_failure.oom.resources.memory: unknown resource 'memory'. Did you mean mem?",
            "x.yaml:6:50: on_failure.oom.config.c: config has no key c. Keys: b, t.",
            "x.yaml:6:71: on_failure.oom.limit: expected how often, at least 1, got 0. Write a whole number.",
            "x.yaml:6:74: on_failure.oom.mem: unknown target. Write resources.mem.",
            "x.yaml:7:23: on_failure.timeout.config.t: x2 of 'x', which is no number. Write the new value.",
            "x.yaml:7:37: on_failure.timeout.config.b: '*2' is no operation. Write x2, /2, +1, -1 or a plain value.",
            "x.yaml:7:58: on_failure.timeout.resources.qos: x2 of qos, which is no number. Write the new value.",
        ],
    ),
    "retries with what YAML reads as another thing": (
        HEAD
        + "config: {b: 1}\non_failure:\n  error: {config.b: +1, resources.cpus: -1, resources.mem: lots, resources.time: 3h}\n",
        [
            'x.yaml:5:21: on_failure.error.config.b: 1 without quotes is a number and no operation. Write "+1" or "-1" in quotes.',
            'x.yaml:5:41: on_failure.error.resources.cpus: -1 without quotes is a number and no operation. Write "+1" or "-1" in quotes.',
            "x.yaml:5:60: on_failure.error.resources.mem: 'lots' is no value of mem. Write it as in resources.",
        ],
    ),
    "returns to the queue that are none": (
        HEAD + "on_failure:\n  timeout: {requeue: -1}\n  preempted: {requeue: true, limit: 0}\n  oom: {requeue: 3}\n"
        "  node_fail: {requeue: 3}\n",
        [
            "x.yaml:4:22: on_failure.timeout.requeue: expected how often, at least 0, got -1. Write a whole number.",
            "x.yaml:5:24: on_failure.preempted.requeue: expected how often, at least 0, got true. Write a whole number.",
            "x.yaml:5:37: on_failure.preempted.limit: expected how often, at least 1, got 0. Write a whole number.",
            "x.yaml:6:9: on_failure.oom.requeue: runs go back to the queue by themselves for timeout and preempted only. "
            "Delete it.",
            "x.yaml:7:15: on_failure.node_fail.requeue: runs go back to the queue by themselves for timeout and preempted "
            "only. Slurm queues the runs of a failed node again by itself. Delete it.",
        ],
    ),
    "a return to the queue without its reason": (
        HEAD + "requeue: 2\nsample: {count: 1, requeue: 2}\n",
        [
            "x.yaml:3:1: requeue: stands with the reason that it is for. Write on_failure: {timeout: {requeue: 2}}.",
            "x.yaml:4:20: sample.requeue: unknown key. Known here: count, seed.",
        ],
    ),
    "metrics that are said wrongly": (
        HEAD + "metrics:\n"
        "  loss/*: {direction: up, format: 3, lable: x, comparable: maybe, label: ' '}\n"
        "  ' ': {label: x}\n  b: 3\n",
        [
            "x.yaml:4:23: metrics.loss/*.direction: expected min or max, got 'up'. Write the one that is better.",
            "x.yaml:4:35: metrics.loss/*.format: expected a format of numbers, got 3. Write for example .3f, .2e, .1% or ,.0f.",
            "x.yaml:4:38: metrics.loss/*.lable: unknown key. Did you mean label?",
            "x.yaml:4:60: metrics.loss/*.comparable: expected true or false, got 'maybe'. Write it without quotes.",
            "x.yaml:4:74: metrics.loss/*.label: ' ' is no label. Write one line of at most 80 characters.",
            "x.yaml:5:3: metrics. : ' ' names no metric. Write its key, or a glob such as loss/val/*.",
            "x.yaml:6:6: metrics.b: expected a mapping, got 3. Write `key: value` lines below it.",
        ],
    ),
    "a metric of which nothing is said": (
        HEAD + "metrics: {acc: {}, kl: {label: null}}\n",
        [
            "x.yaml:3:11: metrics.acc: says nothing of the metric. Add label, direction, format or comparable.",
            "x.yaml:3:20: metrics.kl: says nothing of the metric. Add label, direction, format or comparable.",
        ],
    ),
    "resources that no scheduler has": (
        HEAD + "resources: {mem: lots, time: -3, cpus: 0, gpu: 1, nodes: 1.5, partition: 'a\\n#SBATCH'}\n",
        [
            "x.yaml:3:18: resources.mem: expected a memory size, got 'lots'. Write for example 512M or 4G.",
            "x.yaml:3:30: resources.time: expected a time limit, got -3. Write for example 30m, 2h, 1d12h or 02:30:00.",
            "x.yaml:3:40: resources.cpus: expected at least 1, got 0. Write 1 or more.",
            "x.yaml:3:43: resources.gpu: unknown key. Did you mean gpus?",
            "x.yaml:3:58: resources.nodes: expected a whole number, got 1.5. Write one without quotes.",
            "x.yaml:3:74: resources.partition: 'a\\\\n#SBATCH' cannot be given to sbatch. "
            "Use letters, digits and _ . , : = + / @ % & | * ( ) [ ] ! -.",
        ],
    ),
    "sbatch takes the beginning of an option for the whole": (
        HEAD + "resources:\n  extra: {arr: 1-3, batch: gpu, cpus: 2}\n",
        [
            "x.yaml:4:11: resources.extra.arr: is short for array, which is not for extra. Write the option's whole name.",
            "x.yaml:4:33: resources.extra.cpus: is short for cpus-per-task, which is not for extra. "
            "Write the option's whole name.",
        ],
    ),
    "sbatch options that are slurmkit's": (
        HEAD + 'resources:\n  extra: {array: 1-3, mem: 4G, --exclude: n1, comment: "a\\nb", nice: 1.5}\n',
        [
            "x.yaml:4:11: resources.extra.array: is set by slurmkit itself. Leave it out.",
            "x.yaml:4:23: resources.extra.mem: has a key of its own. Write resources.mem.",
            "x.yaml:4:32: resources.extra.--exclude: '--exclude' is not a long sbatch option. "
            "Write it without dashes, such as exclude.",
            "x.yaml:4:56: resources.extra.comment: 'a\\nb' cannot be given to sbatch. "
            "Use one line of at most 1,000 characters.",
            "x.yaml:4:70: resources.extra.nice: expected text, a whole number or true, got 1.5. Quote it.",
        ],
    ),
    "text where numbers belong, and the other way round": (
        HEAD + "env: {1A: x, B: true, C: [1]}\ntags: '3'\nsample: {count: '1', seed: 1.5, sed: 1}\ndescription: 3\n",
        [
            "x.yaml:3:7: env.1A: '1A' is no name of a variable. Write letters, digits and _, not a digit first.",
            "x.yaml:3:17: env.B: expected text, got true. Quote it.",
            "x.yaml:3:26: env.C: expected text, got [1]. Quote it.",
            "x.yaml:4:7: tags: expected a list, got '3'. Write [...] or one `- item` a line.",
            "x.yaml:5:17: sample.count: expected a whole number, got '1'. Write one without quotes.",
            "x.yaml:5:28: sample.seed: expected a whole number, got 1.5. Write one without quotes.",
            "x.yaml:5:33: sample.sed: unknown key. Did you mean seed?",
            "x.yaml:6:14: description: expected text, got 3. Quote it.",
        ],
    ),
    "run names that collide": (
        HEAD + "axes:\n  m: {key: m, values: [a/b, a-b]}\nrun_name: r-{m}\n",
        [
            "x.yaml:5:1: run_name: 'r-a-b' would be the name of two runs: {m: a/b} and {m: a-b}. Put {m} into run_name, "
            "and mind that characters other than letters, digits and . _ = + , @ - become -.",
        ],
    ),
    "two cells that are the same run": (
        HEAD + "axes:\n  size: {values: {s: {width: 1}, t: {width: 1}}}\n",
        [
            "x.yaml:3:1: axes: two cells are the same run, with the same config and command: {size: s} and {size: t}. "
            "Delete one, or let an axis that tells them apart set something.",
        ],
    ),
    "an included cell that the grid has": (
        HEAD + "config: {lr: 1}\naxes: {lr: [1, 2]}\ninclude: [{lr: 2}]\n",
        [
            "x.yaml:4:1: axes: two cells are the same run, with the same config and command: {lr: 2} and {lr: 2}. "
            "Delete one, or let an axis that tells them apart set something.",
        ],
    ),
    "a run name that climbs": (
        HEAD + "axes:\n  m: {key: m, values: [../../x]}\nrun_name: '{m}'\n",
        [
            "x.yaml:5:1: run_name: '..-..-x' is not a run name. "
            "Start run_name with a letter or digit, and use letters, digits, . _ = + , @ -.",
        ],
    ),
    "a grid without cells": (
        HEAD + "config: {lr: 1}\naxes: {lr: [1]}\nexclude: [{lr: 1}]\n",
        ["x.yaml:5:1: exclude: leaves no run. Exclude less, or include some cells."],
    ),
    "a seed axis that is none": (
        HEAD + "config: {sed: 1}\naxes: {sed: [1, 2]}\nseed_axis: seed\n",
        ["x.yaml:5:12: seed_axis: unknown axis 'seed'. Did you mean sed?"],
    ),
    "a grid that is too large": (
        HEAD
        + "axes:\n"
        + "".join(f"  {a}: {{key: {a}, values: [{','.join(map(str, range(100)))}]}}\n" for a in "abcdef"),
        [
            "x.yaml:3:1: axes: the grid has 1,000,000,000,000 cells; a collection has at most 200,000 runs. Use fewer values, or sample."
        ],
    ),
    "problems of YAML and of the definition together": (
        "name: x\nname: y\ncommand: []\nconfig: {a: .inf}\n",
        [
            "x.yaml:2:1: name: the key is written twice, first at 1:1. Keep one.",
            "x.yaml:3:10: command: is empty. Fill it in or delete the key.",
            "x.yaml:4:13: config.a: .inf is no number that JSON can carry. Quote it, or leave the key out.",
        ],
    ),
}


@pytest.mark.parametrize(("text", "problems"), BROKEN.values(), ids=BROKEN)
def test_a_mistake_is_told_with_place_key_value_and_advice(text: str, problems: list[str]) -> None:
    assert problems_in(text) == problems


def test_a_file_that_cannot_be_read_is_a_problem_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"none\.yaml: cannot be read: No such file or directory\. Give the path"):
        load_definition(tmp_path / "none.yaml")


def test_the_same_mistake_a_thousand_times_is_not_a_thousand_lines() -> None:
    lines = problems_in(HEAD + "".join(f"unknown{i}: 1\n" for i in range(1000)))
    assert len(lines) == 51
    assert lines[-1] == "x.yaml: and 950 more problems. Mend these first."

"""Definitions: every key, hostile text, the schema and the reference."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurmkit.definition.model import json_schema, parse_definition
from slurmkit.errors import DefinitionError
from slurmkit.expand import expand

HEAD = "name: x\ncommand: [train, '{config}']\n"


EVERYTHING = """
name: synthetic/disentangled/x
description: All keys at once
tags: [a, b]
command: ["{python}", -m, trainer, run, "{config}", --run-dir, "{run_dir}", --task, "{task}"]
check: ["{python}", -m, trainer, check]
env: {OMP_PROC_BIND: "false", LEVEL: 3}
config:
  seed: 0
  init: "{needs.base.run_dir}/checkpoint"
  train: {lr: 1e-3, batch_size: 32, accumulation: 1}
axes:
  task: [sorting, grid]
  lr: {key: train.lr, values: [1e-3, 1e-4]}
  warm: {key: train.warmup, values: [0, 100]}
  size: {values: {s: {model.width: 64}, m: {model.width: 256, model.layers: 6}}}
  targets: {key: lora.targets, values: {attention: [q, v], all: [q, k, v, o]}}
  seed: [0, 1]
zip: [[lr, warm]]
settings:
  A: {base: {}}
  B: {twr1: {objective.twr: 1.0}, twr2: {objective.twr: 2.0}}
exclude: [{task: sorting, size: m}]
include: [{task: sorting, size: m, lr: 0.5, warm: 7, block: A, targets: all, seed: 0}]
overrides:
  - where: {task: [sorting]}
    set: {train.batch_size: 16}
    resources: {mem: 8G}
seed_axis: seed
run_name: "{task}_{lr}_{warm}_{size}_{targets}_{block}-{setting}_s{seed}"
resources: {cpus: 2, mem: 4G, time: 02:00:00, partition: gpu, extra: {exclude: "n[1-2]", gres: "gpu:a100:1"}}
needs:
  base: {collection: demo-base, match: [task], where: {size: s}}
on_failure:
  oom: {resources.mem: x2, limit: 3}
  oom_gpu: {config.train.batch_size: /2, config.train.accumulation: x2}
  timeout: {resources.time: x2, requeue: 0}
  preempted: {requeue: 9}
report:
  panels: task
  baseline: {block: A, setting: base}
  metrics: [final/*]
  best: alignment:max
  accuracy: answer_accuracy
  alignment: alignment
  series: [val/*]
  objective: [loss/kl]
  auxiliary: [weighted/*]
  figures: [final, completion]
"""


def test_every_key_is_accepted_and_frozen_as_plain_json() -> None:
    frozen = parse_definition(EVERYTHING.encode(), "x.yaml").to_json()
    assert json.loads(json.dumps(frozen)) == frozen
    assert list(frozen) == [
        *["name", "description", "tags", "command", "check", "env", "config", "seed_axis", "axes", "run_name"],
        *["resources", "needs", "on_failure", "metrics", "report"],
    ]
    assert frozen["env"] == {"OMP_PROC_BIND": "false", "LEVEL": "3"}
    assert frozen["axes"] == {
        "task": ["sorting", "grid"],
        "lr": [1e-3, 1e-4, 0.5],
        "warm": [0, 100, 7],
        "size": ["s", "m"],
        "targets": ["attention", "all"],
        "block": ["A", "B"],
        "setting": ["base", "twr1", "twr2"],
        "seed": [0, 1],
    }
    assert frozen["resources"] == {
        "cpus": 2,
        "mem_mb": 4096,
        "time_s": 7200,
        "partition": "gpu",
        "extra": {"exclude": "n[1-2]", "gres": "gpu:a100:1"},
    }
    assert frozen["needs"] == {
        "base": {"collection": "demo-base", "match": ["task"], "where": {"size": "s"}, "when": {}}
    }
    assert frozen["on_failure"]["oom"] == {"changes": {"resources.mem": "x2"}, "limit": 3, "requeue": None}
    assert frozen["on_failure"]["timeout"] == {"changes": {"resources.time": "x2"}, "limit": None, "requeue": 0}
    assert frozen["on_failure"]["preempted"] == {"changes": {}, "limit": None, "requeue": 9}
    assert frozen["report"]["baseline"] == {"block": "A", "setting": "base"}
    assert frozen["report"]["figures"] == ["final", "completion"]


def test_a_definition_can_be_created_under_another_name() -> None:
    definition = parse_definition(EVERYTHING.encode(), "x.yaml")
    assert definition.renamed("y/z").to_json() == definition.to_json() | {"name": "y/z"}
    assert expand(definition.renamed("y")).runs == expand(definition).runs
    with pytest.raises(DefinitionError, match=r"--name: '-y' is not a name"):
        definition.renamed("-y")


def test_labels_of_a_condition_are_frozen_as_the_axis_spells_them() -> None:
    text = HEAD + "axes: {k: {key: k, values: [0.0, 1.5]}}\nneeds: {b: {collection: y, when: {k: 0}}}\n"
    when = parse_definition(text.encode(), "x.yaml").to_json()["needs"]["b"]["when"]
    assert when == {"k": 0.0}
    assert isinstance(when["k"], float)


def texts_in(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value, keys among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        yield from texts_in(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item)


NASTY = [
    "a\nb",
    "$(touch canary)",
    "`touch canary`",
    "'; touch canary; '",
    '" & touch canary & "',
    "-rf",
    "../../../etc/passwd",
    "x" * 10_000,
    "ünïcödé \U0001f600",
    "{{7*7}}",
    "%s%n",
    "a b",
]


@pytest.mark.parametrize("nasty", NASTY)
@pytest.mark.parametrize(
    "key",
    [
        "name",
        "description",
        "tags",
        "command",
        "env",
        "config",
        "axis",
        "setting",
        "label",
        "run_name",
        "partition",
        "extra",
        "need",
    ],
)
def test_hostile_text_is_refused_or_carried_as_it_is(key: str, nasty: str) -> None:
    """What is accepted comes out as the very text (braces undoubled later), and names stay names."""
    definition: dict[str, Any] = {"name": "x", "command": ["train", "{config}"], "config": {"k": 1}}
    where: dict[str, dict[str, Any]] = {
        "name": {"name": nasty},
        "description": {"description": nasty},
        "tags": {"tags": [nasty]},
        "command": {"command": ["train", nasty]},
        "env": {"env": {"A": nasty}},
        "config": {"config": {"k": nasty}},
        "axis": {"axes": {nasty: {"key": "k", "values": [1]}}},
        "setting": {"settings": {nasty: {nasty: {"k": 1}}}},
        "label": {"axes": {"k": [nasty, "plain"]}},
        "run_name": {"run_name": nasty},
        "partition": {"resources": {"partition": nasty}},
        "extra": {"resources": {"extra": {"comment": nasty}}},
        "need": {"needs": {"b": {"collection": nasty}}},
    }
    text = json.dumps(definition | where[key])  # JSON is YAML
    problems: list[str] = []
    try:
        made = parse_definition(text.encode(), "x.yaml")
        expansion = expand(made)
    except DefinitionError as error:
        problems = error.problems
    if problems:
        assert all(re.match(r"x\.yaml:\d+:\d+: [\w.\[\]]*", line) for line in problems)
        assert all(len(line) < 600 and line.isprintable() for line in problems)
        return
    assert nasty in set(texts_in(made.to_json()))
    for run in expansion.runs:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=+,@-]{0,159}", run.name)


@given(st.text(max_size=30))
def test_no_collection_name_leads_out_of_its_folder(name: str) -> None:
    try:
        made = parse_definition(json.dumps({"name": name, "command": ["t"]}).encode(), "x.yaml")
    except DefinitionError:
        return
    assert not Path(made.name).is_absolute()
    assert not any(part.startswith((".", "-")) or part in {"", ".."} for part in made.name.split("/"))


def test_the_schema_for_editors_names_every_key_and_refuses_others() -> None:
    schema = json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) >= set(parse_definition(EVERYTHING.encode(), "x.yaml").model_fields_set)
    assert schema["required"] == ["name", "command"]
    assert all("description" in field for field in schema["properties"].values())
    assert schema["$defs"]["Need"]["additionalProperties"] is False


def test_the_definition_reference_has_every_key() -> None:
    reference = (Path(__file__).parents[1] / "docs/definition.md").read_text()
    missing = [key for key in json_schema()["properties"] if f"## `{key}`" not in reference]
    assert not missing


def test_the_examples_of_the_definition_reference_are_valid() -> None:
    reference = (Path(__file__).parents[1] / "docs/definition.md").read_text()
    examples = re.findall(r"```yaml\n(.*?)```", reference, re.DOTALL)
    assert len(examples) >= 15
    needed = {"name": "name: x\n", "command": "command: [train, '{config}']\n"}
    for example in examples:
        keys = set(re.findall(r"^(\w+):", example, re.MULTILINE))
        text = "".join(line for key, line in needed.items() if key not in keys) + example
        assert expand(parse_definition(text.encode(), "docs/definition.md")).runs, example


def test_reading_commands_need_no_pydantic() -> None:
    """`resolve_config` and `fill` are used where a definition was frozen long ago."""
    code = "import sys, slurmkit.expand, slurmkit.template; print({'pydantic', 'yaml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

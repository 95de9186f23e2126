"""Short ways to define and expand, for the tests."""

import json
from typing import Any

from slurmkit.definition.model import Definition, parse_definition
from slurmkit.expand import Expansion, Run, expand

COMMAND = ["{python}", "train.py", "{config}"]


def define(**keys: Any) -> Definition:
    return parse_definition(json.dumps({"name": "x", "command": COMMAND, **keys}).encode(), "x.yaml")


def runs_of(**keys: Any) -> tuple[Run, ...]:
    return expand(define(**keys)).runs


def cells(expansion: Expansion | tuple[Run, ...], *axes: str) -> list[tuple[Any, ...]]:
    runs = expansion.runs if isinstance(expansion, Expansion) else expansion
    return [tuple(run.axes[axis] for axis in axes) for run in runs]

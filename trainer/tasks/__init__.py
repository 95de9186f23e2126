"""The six tasks: inputs, strategies, traces, and which strategy wrote a given trace. Imports no torch."""

from typing import Any

from trainer.tasks.attribution import Attribution, attribute
from trainer.tasks.base_conversion import BaseConversion
from trainer.tasks.grid_pathfinding import GridPathfinding
from trainer.tasks.linear_equation_solving import LinearEquationSolving
from trainer.tasks.list_summation import ListSummation
from trainer.tasks.multidigit_addition import MultidigitAddition
from trainer.tasks.sampling import Policy, Record, Split, sample_records, split_of
from trainer.tasks.sorting_algorithms import SortingAlgorithms
from trainer.tasks.task import Params, Task, TaskError

TASKS: dict[str, Task[Any, Any]] = {
    task.name: task
    for task in (
        ListSummation(),
        SortingAlgorithms(),
        GridPathfinding(),
        LinearEquationSolving(),
        BaseConversion(),
        MultidigitAddition(),
    )
}

__all__ = [
    "TASKS",
    "Attribution",
    "Params",
    "Policy",
    "Record",
    "Split",
    "Task",
    "TaskError",
    "attribute",
    "sample_records",
    "split_of",
]

"""The definition of a sweep: YAML text to a validated `Definition`, with all problems of the file at once."""

from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, ValidationError

from slurmkit.definition import grid
from slurmkit.definition.checks import cross_check
from slurmkit.definition.findings import problems_of
from slurmkit.definition.parts import (
    Argument,
    AxisOrList,
    CollectionName,
    Metric,
    MetricPattern,
    Need,
    Override,
    Part,
    ResourcesPart,
    Sample,
    TextOrNumber,
    Variable,
    Word,
)
from slurmkit.definition.references import COUNTS_OF_RULE
from slurmkit.definition.report_part import ReportPart
from slurmkit.definition.yaml_source import MAX_BYTES, Node, Source, read_yaml, shown
from slurmkit.errors import DefinitionError
from slurmkit.names import check_collection_name
from slurmkit.records import Json, is_mapping
from slurmkit.resources import Resources


class Definition(Part):
    """A sweep: what runs, with which config, on which grid. Made by `load_definition` and `parse_definition`."""

    name: CollectionName = Field(
        description="Name of the collection; parts may be joined by /.",
    )
    description: str = Field(default="", description="What the sweep is for.")
    tags: list[CollectionName] = Field(
        default_factory=list[str],
        description="Words to find it by.",
    )
    command: list[Argument] = Field(min_length=1, description="Program and arguments of one run. Never a shell.")
    check: list[Argument] | None = Field(
        default=None,
        min_length=1,
        description="Program that checks configs before anything is queued.",
    )
    env: dict[Variable, TextOrNumber] = Field(default_factory=dict[str, str], description="Environment variables.")
    config: dict[str, Any] = Field(
        default_factory=dict[str, Any], description="The config that all runs share, nested."
    )
    axes: dict[Word, AxisOrList] = Field(default_factory=dict, description="What is swept: name to values.")
    zip: list[list[str]] = Field(
        default_factory=list[list[str]],
        description="Groups of axes that go hand in hand, first with first, instead of each with each.",
    )
    settings: dict[str, dict[str, dict[str, Any]]] = Field(
        default_factory=dict[str, dict[str, dict[str, Any]]],
        description="Sparse sweep: block to setting to {dotted config key: value}; crossed with the axes.",
    )
    exclude: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]], description="Cells to leave out.")
    include: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]], description="Cells to add.")
    overrides: list[Override] = Field(default_factory=list[Override], description="What differs in certain cells.")
    sample: Sample | None = Field(default=None, description="Draw a random part of the grid.")
    seed_axis: str = Field(default="seed", description="The axis whose values are repetitions of a cell.")
    run_name: str | None = Field(default=None, description="Pattern of run names, such as task-{task}_s{seed}.")
    resources: ResourcesPart = Field(default_factory=ResourcesPart, description="What each run asks for.")
    needs: dict[Word, Need] = Field(default_factory=dict, description="Alias to the run that each run needs.")
    on_failure: dict[str, dict[str, Any]] = Field(
        default_factory=dict[str, dict[str, Any]],
        description="Reason to what a resubmission changes, {target: operation, limit: n}; for timeout and preempted "
        "also how often the run goes back to the queue by itself before, {requeue: n}.",
    )

    metrics: dict[MetricPattern, Metric] = Field(
        default_factory=dict[str, Metric],
        description="What metrics are: key or glob to label, direction, format, comparable. Later entries win.",
    )
    report: ReportPart = Field(default_factory=ReportPart, description="Which figures and metrics a report shows.")

    _source: Source = PrivateAttr(default=Source("definition", {}, Node((1, 1), (1, 1), {}), ()))

    @property
    def source(self) -> Source:
        """The text behind it, which knows lines and columns."""
        return self._source

    def stands_in(self, source: Source) -> None:
        """Remember the text behind it."""
        self._source = source

    def renamed(self, name: str) -> "Definition":
        """Return the same definition under another name.

        Raises:
            DefinitionError: the name is not allowed.
        """
        try:
            return self.model_copy(update={"name": check_collection_name(name)})
        except ValueError as error:
            raise DefinitionError([f"--name: {error}."]) from error

    def to_json(self) -> dict[str, Json]:
        """Return the frozen form that a collection's record keeps; read back as plain JSON."""
        return {
            "name": self.name,
            "description": self.description,
            "tags": self.tags,
            "command": self.command,
            "check": self.check,
            "env": self.env,
            "config": self.config,
            "seed_axis": self.seed_axis,
            "axes": grid.labels(self),
            "run_name": self.run_name or grid.default_run_name(self),
            "resources": self.resources.over(Resources()).to_json(),
            "needs": {
                alias: {
                    "collection": need.collection,
                    "match": need.match,
                    "where": need.where,
                    "when": grid.own_labels(self, need.when),
                }
                for alias, need in self.needs.items()
            },
            "on_failure": {
                reason: {
                    "changes": {
                        target: operation for target, operation in rule.items() if target not in COUNTS_OF_RULE
                    },
                    **{count: rule.get(count) for count in COUNTS_OF_RULE},
                }
                for reason, rule in self.on_failure.items()
            },
            "metrics": {pattern: metric.to_json() for pattern, metric in self.metrics.items()},
            "report": {**self.report.to_json(), "baseline": grid.own_labels(self, self.report.baseline)},
        }


def load_definition(path: Path) -> Definition:
    """Read and validate a definition file.

    Raises:
        DefinitionError: all problems of the file, or that it cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DefinitionError([f"{path}: cannot be read: {error.strerror}. Give the path of a definition."]) from error
    return parse_definition(content, str(path))


def parse_definition(content: bytes, source: str) -> Definition:
    """Validate the text of a definition.

    Args:
        content: the file's bytes.
        source: how messages call the file.

    Raises:
        DefinitionError: all problems of the file.
    """
    text = read_yaml(content, source)
    problems = list(text.problems)
    if not is_mapping(text.value):
        what = f"expected a mapping of keys, got {shown(text.value)}. Start with `name:` and `command:`."
        raise text.refuse([*problems, text.problem((), what)])
    raw = text.value
    broken: set[str] = set()
    try:
        definition = Definition.model_validate(raw)
    except ValidationError as error:
        problems += problems_of(error, text, Definition)
        broken = {str(one["loc"][0]) for one in error.errors(include_url=False)}
        whole = {key: value for key, value in raw.items() if key not in broken}
        definition = Definition.model_validate({"name": "unnamed", "command": ["true"], **whole})
    definition.stands_in(text)
    problems += cross_check(definition, broken)
    if problems:
        raise text.refuse(problems)
    return definition


def json_schema() -> dict[str, Json]:
    """Return the JSON Schema of definition files, for editors."""
    schema = Definition.model_json_schema(mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "slurmkit definition",
        **{key: value for key, value in schema.items() if key != "title"},
    }

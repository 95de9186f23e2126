"""The `report:` of a definition: which figures a report has, and which metrics are in them."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema

from slurmkit.definition.figure_names import FIGURES
from slurmkit.definition.parts import MetricPattern, Part
from slurmkit.definition.yaml_source import shown
from slurmkit.names import did_you_mean
from slurmkit.records import Json


def _figure(name: Json) -> Json:
    if name not in FIGURES:
        raise ValueError(f"{shown(name)} is no figure. {did_you_mean(str(name), FIGURES)[:-1]}")
    return name


FigureName = Annotated[Any, AfterValidator(_figure), WithJsonSchema({"enum": list(FIGURES)})]


class ReportPart(Part):
    """What a report shows; what is left out is chosen by the names of the metrics."""

    panels: str | None = Field(default=None, description="The axis whose values are the panels of figures.")
    baseline: dict[str, Any] = Field(
        default_factory=dict[str, Any], description="What settings are compared with: axis to value."
    )
    metrics: list[MetricPattern] = Field(
        default_factory=list[str], description="Final metrics in tables and figures: keys or globs."
    )
    best: MetricPattern | None = Field(
        default=None, description="Metric that the best runs are chosen by, such as alignment:max."
    )
    accuracy: MetricPattern | None = Field(default=None, description="Metric across the trade-off figure.")
    alignment: MetricPattern | None = Field(default=None, description="Metric up the trade-off figure.")
    series: list[MetricPattern] = Field(
        default_factory=list[str], description="Keys of history.jsonl: what is watched over the steps."
    )
    objective: list[MetricPattern] = Field(
        default_factory=list[str], description="Keys of history.jsonl: the terms of the objective."
    )
    auxiliary: list[MetricPattern] = Field(
        default_factory=list[str], description="Keys of history.jsonl: weighted auxiliary terms."
    )
    figures: list[FigureName] = Field(default_factory=list[str], description="Which figures, in their order.")

    def to_json(self) -> dict[str, Json]:
        """Return what was asked for, without what was left out."""
        return {name: getattr(self, name) for name in sorted(self.model_fields_set)}

"""The parts of a definition as pydantic models: their shape, not yet how they fit together."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SkipValidation,
    TypeAdapter,
    WithJsonSchema,
)

from slurmkit.definition.yaml_source import shown
from slurmkit.names import check_collection_name, check_word
from slurmkit.records import Json, is_list, is_mapping
from slurmkit.resources import Resources, parse_memory_mb, parse_time_s

MAX_ARGUMENT_BYTES = 100_000
"""Linux takes at most 128 KiB an argument or environment variable (MAX_ARG_STRLEN)."""

_SBATCH_VALUE = re.compile(r"[A-Za-z0-9_.,:=+/@%&|*()\[\]!-]{1,200}")
_SBATCH_OPTION = re.compile(r"[a-z][a-z0-9-]{0,40}")
_SBATCH_TEXT = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{0,1000}")
_OWN_OPTIONS = {
    **dict.fromkeys(("cpus-per-task", "ntasks", "ntasks-per-node"), "cpus"),
    **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-task"), "gpus"),
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), "mem"),
    **{option: option for option in ("time", "nodes", "partition", "account", "qos", "constraint")},
}
_RESERVED_OPTIONS = (
    frozenset(["array", "chdir", "dependency", "error", "input", "job-name", "open-mode", "output", "signal", "wrap"])
    | frozenset(["export", "export-file", "get-user-env", "hold", "kill-on-invalid-dep", "no-requeue", "requeue"])
    | frozenset(["clusters", "gid", "help", "parsable", "quiet", "test-only", "uid", "usage", "verbose", "version"])
    | frozenset(["batch-script", "wait"])
)
_NUMBER_FORMAT = re.compile(r"\+?,?(\.[0-9]{1,2})?[efg%]")
"""The part of Python's format language that writes any finite number on few characters."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SCALAR_SCHEMA: dict[str, Json] = {"type": ["string", "number", "boolean", "null"]}
_LABELS_SCHEMA: dict[str, Json] = {"type": "array", "minItems": 1, "items": _SCALAR_SCHEMA}


class Part(BaseModel):
    """Base of all models of a definition: strict, frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


def _argument(text: str) -> str:
    size = len(text.encode())
    if size > MAX_ARGUMENT_BYTES:
        raise ValueError(f"{size:,} bytes; a program takes at most {MAX_ARGUMENT_BYTES:,}. Put it into config")
    return text


def _number_as_text(value: Json) -> Json:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError(f"{shown(name)} is no name of a variable. Write letters, digits and _, not a digit first")
    return name


Argument = Annotated[str, AfterValidator(_argument)]
TextOrNumber = Annotated[Argument, BeforeValidator(_number_as_text, json_schema_input_type=str | int | float)]
Variable = Annotated[str, AfterValidator(_variable)]
Word = Annotated[str, AfterValidator(check_word)]
CollectionName = Annotated[str, AfterValidator(check_collection_name)]
Labels = Annotated[Any, WithJsonSchema({"anyOf": [_SCALAR_SCHEMA, _LABELS_SCHEMA]})]
"""In a cell: one label of an axis, or a list of which any will do."""


def _axis_values(values: Json) -> Json:
    if not is_list(values) and not is_mapping(values):
        raise ValueError(f"expected a list, got {shown(values)}. Write [{shown(values)}]")
    if not values:
        raise ValueError("has no values. Give it some, or delete the axis")
    return values


class Axis(Part):
    """One swept dimension."""

    key: str | None = Field(default=None, description="Dotted config key that the values go to, such as train.lr.")
    values: Annotated[
        # Checked by hand: a union would tell each problem once for the list and once for the mapping.
        SkipValidation[list[Any] | dict[str, Any]],
        BeforeValidator(_axis_values),
        WithJsonSchema({"anyOf": [_LABELS_SCHEMA, {"type": "object", "minProperties": 1}]}),
    ] = Field(
        description="A list of scalars; or label to value (with key); or label to {dotted key: value} (without key).",
    )


def _axis_of_list(value: Json) -> Json:
    if is_list(value):
        return {"values": value}
    if not is_mapping(value):
        raise ValueError(f"expected a list, got {shown(value)}. Write [{shown(value)}], or move it to config")
    return value


AxisOrList = Annotated[
    Axis,
    BeforeValidator(_axis_of_list),
    WithJsonSchema({"anyOf": [_LABELS_SCHEMA, TypeAdapter(Axis).json_schema()]}),
]


def _parsed(parse: Callable[[str | int], int]) -> Callable[[Json], int | None]:
    def check(value: Json) -> int | None:
        if value is None:
            return None
        try:
            if isinstance(value, bool) or not isinstance(value, str | int):
                parse("")  # says what is expected
            return parse(value)
        except ValueError as error:
            expected, _, example = str(error).partition(" such as ")
            raise ValueError(f"{expected}, got {shown(value)}. Write for example {example}") from error

    return check


def _sbatch_value(value: str) -> str:
    if not _SBATCH_VALUE.fullmatch(value):
        allowed = "_ . , : = + / @ % & | * ( ) [ ] ! -"
        raise ValueError(f"{shown(value)} cannot be given to sbatch. Use letters, digits and {allowed}")
    return value


def _sbatch_option(option: str) -> str:
    if not _SBATCH_OPTION.fullmatch(option):
        raise ValueError(f"{shown(option)} is not a long sbatch option. Write it without dashes, such as exclude")
    if option in _OWN_OPTIONS:
        raise ValueError(f"has a key of its own. Write resources.{_OWN_OPTIONS[option]}")
    if option in _RESERVED_OPTIONS:
        raise ValueError("is set by slurmkit itself. Leave it out")
    managed = sorted({*_OWN_OPTIONS, *_RESERVED_OPTIONS})
    whole = next((name for name in managed if name.startswith(option) and option != "batch"), None)
    if whole is not None:  # sbatch takes the beginning of an option's name for the whole; --batch is one of its own
        raise ValueError(f"is short for {whole}, which is not for extra. Write the option's whole name")
    return option


def _sbatch_text(value: Json) -> str | int | bool:
    if not isinstance(value, str | int | bool):
        raise ValueError(f"expected text, a whole number or true, got {shown(value)}. Quote it")  # noqa: TRY004
    if isinstance(value, str) and not _SBATCH_TEXT.fullmatch(value):
        raise ValueError(f"{shown(value)} cannot be given to sbatch. Use one line of at most 1,000 characters")
    return value


SbatchValue = Annotated[str, AfterValidator(_sbatch_value)]
SbatchOption = Annotated[str, AfterValidator(_sbatch_option)]
SbatchText = Annotated[Any, AfterValidator(_sbatch_text), WithJsonSchema({"type": ["string", "integer", "boolean"]})]


class ResourcesPart(Part):
    """What one run asks of the scheduler; what is left out stays as it is further up."""

    cpus: int | None = Field(default=None, ge=1, description="CPUs a run, and with them threads.")
    gpus: int | None = Field(default=None, ge=0, description="GPUs a run.")
    mem: Annotated[
        Any,
        AfterValidator(_parsed(parse_memory_mb)),
        WithJsonSchema({"type": ["string", "integer", "null"]}),
    ] = Field(default=None, description="Memory limit a run: 512M, 4G; a bare number is MiB.")
    time: Annotated[
        Any,
        AfterValidator(_parsed(parse_time_s)),
        WithJsonSchema({"type": ["string", "integer", "null"]}),
    ] = Field(default=None, description="Time limit a run: 30m, 2h, 1d12h, 02:30:00; a bare number is minutes.")
    nodes: int | None = Field(default=None, ge=1, description="Nodes a run.")
    partition: SbatchValue | None = Field(default=None, description="Slurm partition.")
    account: SbatchValue | None = Field(default=None, description="Slurm account.")
    qos: SbatchValue | None = Field(default=None, description="Slurm quality of service.")
    constraint: SbatchValue | None = Field(default=None, description="Slurm node features.")
    pack: int | None = Field(default=None, ge=1, le=64, description="Runs side by side in one Slurm job.")
    parallel: int | None = Field(default=None, ge=1, description="Tasks of one Slurm array at once.")
    extra: dict[SbatchOption, SbatchText] = Field(
        default_factory=dict[str, "str | int | bool"],
        description="Any other sbatch option, long name without dashes, to its value.",
    )

    def over(self, base: Resources) -> Resources:
        """Return `base` with what is given here in its place."""
        given: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        defaults = Resources()
        changes: dict[str, Any] = {}
        for name, value in given.items():
            if name == "extra":
                changes["extra"] = {**base.extra, **value}
            else:
                field = {"mem": "mem_mb", "time": "time_s"}.get(name, name)
                changes[field] = getattr(defaults, field) if value is None else value
        return replace(base, **changes)


class Override(Part):
    """What is different where axes have certain values."""

    where: dict[str, Labels] = Field(min_length=1, description="Axis to label, or to a list of labels.")
    set: dict[str, Any] = Field(default_factory=dict[str, Any], description="Dotted config key to value.")
    resources: ResourcesPart | None = Field(default=None, description="Resources to change.")


class Sample(Part):
    """A random part of the grid."""

    count: int = Field(ge=1, description="How many cells to draw.")
    seed: int = Field(
        default=0, ge=0, description="Of the draw. The same seed with a larger count keeps the cells it had."
    )


def _metric_pattern(pattern: str) -> str:
    if not pattern.strip() or not pattern.isprintable():
        raise ValueError(f"{shown(pattern)} names no metric. Write its key, or a glob such as loss/val/*")
    return pattern


def _metric_label(label: str) -> str:
    if not label.strip() or not label.isprintable() or len(label) > 80:
        raise ValueError(f"{shown(label)} is no label. Write one line of at most 80 characters")
    return label


def _direction(value: Json) -> Json:
    if value not in ("min", "max"):
        raise ValueError(f"expected min or max, got {shown(value)}. Write the one that is better")
    return value


def _number_format(value: Json) -> Json:
    if not isinstance(value, str) or not _NUMBER_FORMAT.fullmatch(value):
        raise ValueError(f"expected a format of numbers, got {shown(value)}. Write for example .3f, .2e, .1% or ,.0f")
    return value


MetricPattern = Annotated[str, AfterValidator(_metric_pattern)]


class Metric(Part):
    """What tables and reports have to know of a metric; what is left out is told from its name."""

    label: Annotated[str, AfterValidator(_metric_label)] | None = Field(
        default=None, description="What tables and figures call it."
    )
    direction: Annotated[Any, AfterValidator(_direction), WithJsonSchema({"enum": ["min", "max"]})] = Field(
        default=None, description="Which values are better: the small ones (min) or the large ones (max)."
    )
    format: Annotated[Any, AfterValidator(_number_format), WithJsonSchema({"type": "string"})] = Field(
        default=None, description="How its numbers are written, such as .3f, .2e or .1%."
    )
    comparable: bool | None = Field(
        default=None, description="false: it means something else in each setting, and ranks none."
    )

    def to_json(self) -> dict[str, Json]:
        """Return what was declared, without what was left out."""
        return {name: getattr(self, name) for name in sorted(self.model_fields_set)}


class Need(Part):
    """A run that each run needs to have completed first."""

    collection: CollectionName | None = Field(default=None, description="Its collection; left out: this one.")
    match: list[str] | None = Field(default=None, description="Axes on which both agree; left out: all that both have.")
    where: dict[str, Any] = Field(default_factory=dict[str, Any], description="Further axes of the needed run.")
    when: dict[str, Any] = Field(default_factory=dict[str, Any], description="Only these runs need it: axis to label.")

"""The parts of a definition as pydantic models: their shape, not yet how they fit together."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from slurmkit.records import Json
from slurmkit.resources import Resources, parse_memory_mb, parse_time_s

MAX_ARGUMENT_BYTES = 100_000
"""Linux takes at most 128 KiB an argument or environment variable (MAX_ARG_STRLEN)."""

_SBATCH_VALUE = re.compile(r"[A-Za-z0-9_.,:=+/@%&|*()\[\]!-]{1,200}")
_SBATCH_OPTION = re.compile(r"[a-z][a-z0-9-]{0,40}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_OWN_OPTIONS = {
    **dict.fromkeys(("cpus-per-task", "ntasks", "ntasks-per-node"), "cpus"),
    **dict.fromkeys(("gpus", "gpus-per-node", "gres"), "gpus"),
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), "mem"),
    **{option: option for option in ("time", "nodes", "partition", "account", "qos", "constraint")},
}
_RESERVED_OPTIONS = frozenset(
    {
        "array",
        "chdir",
        "dependency",
        "error",
        "export",
        "job-name",
        "open-mode",
        "output",
        "parsable",
        "signal",
        "wrap",
    },
)


class Part(BaseModel):
    """Base of all models of a definition: strict, frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


def _argument(text: str) -> str:
    if len(text.encode()) > MAX_ARGUMENT_BYTES:
        raise ValueError(
            f"{len(text.encode()):,} bytes; a program takes at most {MAX_ARGUMENT_BYTES:,}. Put it into config"
        )
    return text


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Argument = Annotated[str, AfterValidator(_argument)]
TextOrNumber = Annotated[
    Argument,
    BeforeValidator(_number_as_text, json_schema_input_type=str | int | float),
]
LabelOrLabels = Annotated[
    Any,
    WithJsonSchema({"type": ["string", "number", "boolean", "null", "array"]}),
]
"""In a cell: one label of an axis, or a list of which any will do."""


class Axis(Part):
    """One swept dimension."""

    key: str | None = Field(None, description="Dotted config key that the values go to, such as train.lr.")
    values: Annotated[
        Any,
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "array", "minItems": 1, "items": {"type": ["string", "number", "boolean", "null"]}},
                    {"type": "object", "minProperties": 1},
                ],
            },
        ),
    ] = Field(
        description="A list of scalars; or label to value (with key); or label to {dotted key: value} (without key).",
    )


def _axis_of_list(value: Any) -> Any:
    if isinstance(value, list):
        return {"values": value}
    if not isinstance(value, dict):
        text = "null" if value is None else repr(value)[:60]
        raise ValueError(f"expected a list, got {text}. Write [{text}], or move it to config")
    return value


AxisOrList = Annotated[
    Axis,
    BeforeValidator(_axis_of_list),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "minItems": 1, "items": {"type": ["string", "number", "boolean", "null"]}},
                Axis.model_json_schema(),
            ],
        },
    ),
]


def _parsed(parse: Callable[[str | int], int]) -> Callable[[Any], Any]:
    def check(value: Any) -> int | None:
        if value is None:
            return None
        try:
            if isinstance(value, bool) or not isinstance(value, str | int):
                parse("")  # says what is expected
            return parse(value)
        except ValueError as error:
            expected, _, example = str(error).partition(" such as ")
            raise ValueError(f"{expected}, got {str(value)[:60]!r}. Write for example {example}") from error

    return check


def _sbatch_value(value: str) -> str:
    if not _SBATCH_VALUE.fullmatch(value):
        raise ValueError(
            f"{value[:60]!r} cannot be given to sbatch. Use letters, digits and _ . , : = + / @ % & | * ( ) [ ] ! -"
        )
    return value


def _sbatch_options(options: dict[str, Json]) -> dict[str, Json]:
    for option, value in options.items():
        if not _SBATCH_OPTION.fullmatch(option):
            raise ValueError(
                f"{option[:60]!r} is not a long sbatch option. Write it without dashes in front, such as exclude"
            )
        if option in _OWN_OPTIONS:
            raise ValueError(f"{option} has a key of its own. Write resources.{_OWN_OPTIONS[option]}")
        if option in _RESERVED_OPTIONS:
            raise ValueError(f"{option} is set by slurmkit itself. Leave it out")
        if not isinstance(value, str | int | bool):
            raise ValueError(f"{option}: expected text, a whole number or true, got {value!r:.60}. Quote it")
        if isinstance(value, str) and (_CONTROL.search(value) or len(value) > 1000):
            raise ValueError(
                f"{option}: {value[:60]!r} cannot be given to sbatch. Use one line of at most 1,000 characters"
            )
    return options


SbatchValue = Annotated[str, AfterValidator(_sbatch_value)]


class ResourcesPart(Part):
    """What one run asks of the scheduler; what is left out stays as it is further up."""

    cpus: int | None = Field(None, ge=1, description="CPUs a run, and with them threads.")
    gpus: int | None = Field(None, ge=0, description="GPUs a run.")
    mem: Annotated[
        Any,
        AfterValidator(_parsed(parse_memory_mb)),
        WithJsonSchema({"type": ["string", "integer", "null"]}),
    ] = Field(None, description="Memory limit a run: 512M, 4G; a bare number is MiB.")
    time: Annotated[
        Any,
        AfterValidator(_parsed(parse_time_s)),
        WithJsonSchema({"type": ["string", "integer", "null"]}),
    ] = Field(None, description="Time limit a run: 30m, 2h, 1d12h, 02:30:00; a bare number is minutes.")
    nodes: int | None = Field(None, ge=1, description="Nodes a run.")
    partition: SbatchValue | None = Field(None, description="Slurm partition.")
    account: SbatchValue | None = Field(None, description="Slurm account.")
    qos: SbatchValue | None = Field(None, description="Slurm quality of service.")
    constraint: SbatchValue | None = Field(None, description="Slurm node features.")
    extra: Annotated[dict[str, Any], AfterValidator(_sbatch_options)] = Field(
        default_factory=dict[str, Any],
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

    where: dict[str, LabelOrLabels] = Field(min_length=1, description="Axis to label, or to a list of labels.")
    set: dict[str, Any] = Field(default_factory=dict[str, Any], description="Dotted config key to value.")
    resources: ResourcesPart | None = Field(None, description="Resources to change.")


class Sample(Part):
    """A random part of the grid."""

    count: int = Field(ge=1, description="How many cells to draw.")
    seed: int = Field(0, ge=0, description="Of the draw. The same seed with a larger count keeps the cells it had.")


class Need(Part):
    """A run that each run needs to have completed first."""

    collection: str | None = Field(None, description="Its collection; left out: this one.")
    match: list[str] | None = Field(None, description="Axes on which both agree; left out: all that both have.")
    where: dict[str, Any] = Field(default_factory=dict[str, Any], description="Further axes of the needed run.")
    when: dict[str, Any] = Field(default_factory=dict[str, Any], description="Only these runs need it: axis to label.")

"""YAML as it is read: YAML 1.2 scalars, places, and files that would do harm."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurmkit.definition.yaml_source import read_yaml
from slurmkit.errors import DefinitionError


def value_of(text: str) -> Any:
    source = read_yaml(f"key: {text}\n".encode(), "x.yaml")
    assert not source.problems
    return source.value["key"]


def refused(content: bytes) -> list[str]:
    """Return the problems of a file, fatal or not, and check that they were found in under a second of computing."""
    start = time.process_time()
    try:
        source = read_yaml(content, "x.yaml")
    except DefinitionError as error:
        problems = error.problems
    else:
        problems = source.refuse(source.problems).problems
    assert time.process_time() - start < 1.0  # it takes hundredths
    assert problems
    return problems


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("+.5", 0.5),
        ("1.", 1.0),
        ("012", 12),
        ("-7", -7),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("False", False),
        ("", None),
        ("~", None),
        ("null", None),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: Any) -> None:
    assert (value_of(text), type(value_of(text))) == (value, type(value))


@pytest.mark.parametrize(
    "text", ["no", "yes", "on", "off", "y", "12:30:00", "1_000", "2026-01-31", "0b11", "=", "1.2.3", "e5", "nul"]
)
def test_what_yaml_1_1_reads_as_something_else_stays_text(text: str) -> None:
    assert value_of(text) == text


@pytest.mark.parametrize("text", ["'1e-4'", '"true"', "|\n  12", "'null'", "''"])
def test_quoted_scalars_are_text(text: str) -> None:
    assert isinstance(value_of(text), str)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1))
def test_every_number_that_python_writes_is_read_back(number: float) -> None:
    """The one form that YAML 1.1 reads as text, 1e-05, among them."""
    read = value_of(repr(number))
    assert (read, type(read)) == (number, type(number))


def test_places_are_those_of_the_key_and_of_the_value() -> None:
    source = read_yaml(b"axes:\n  lr: [0.1,\n       0.2]\n", "x.yaml")
    assert source.problem(["axes", "lr"], "!").place == (2, 3)
    assert source.problem(["axes", "lr"], "!", at="value").place == (2, 7)
    assert source.problem(["axes", "lr", 1], "!").place == (3, 8)
    assert source.problem(["axes", "missing", 3], "!") == ((1, 1), "axes.missing[3]", "!")


def test_aliases_are_written_out_and_keep_the_anchors_places_inside() -> None:
    source = read_yaml(b"a: &x {k: [1, 2]}\nb: *x\n", "x.yaml")
    assert source.value == {"a": {"k": [1, 2]}, "b": {"k": [1, 2]}}
    assert source.problem(["b"], "!", at="value").place == (2, 4)
    assert source.problem(["b", "k"], "!").place == (1, 8)


def test_all_problems_are_told_at_once_and_reading_goes_on() -> None:
    assert refused(b"a: 1\nb: {c: 1, c: 2}\n<<: {d: 1}\ne: !!python/name:os.system x\nf: .nan\na: 2\ng: *no\n") == [
        "x.yaml:2:11: b.c: the key is written twice, first at 2:5. Keep one.",
        "x.yaml:3:1: <<: merge keys are not part of YAML 1.2. Write the keys out.",
        "x.yaml:4:4: e: tag !!python/name:os.system is not allowed. Delete it; quote text that looks like a number.",
        "x.yaml:5:4: f: .nan is no number that JSON can carry. Quote it, or leave the key out.",
        "x.yaml:6:1: a: the key is written twice, first at 1:1. Keep one.",
        "x.yaml:7:4: g: alias *no names no anchor above it. Define &no first.",
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "x.yaml:1:1: the file is empty."),
        (b"# only words\n", "x.yaml:1:1: the file is empty."),
        (b"a: [1\n", "x.yaml:2:1: not YAML: while parsing a flow sequence did not find expected ',' or ']'."),
        (b"a:\n\t- b\n", "x.yaml:2:1: not YAML: while scanning for the next token found character that cannot start"),
        (b"a: 1\n---\nb: 2\n", "x.yaml:2:1: a second document starts here."),
        (b"a: b: c\n", "x.yaml:1:5: not YAML: mapping values are not allowed in this context."),
        (b"ok: 1\na: \xff\n", "x.yaml:2:4: byte 0xff is not UTF-8."),
        (b"ok: 1\na: x\x00y\n", "x.yaml:2:5: character '\\x00' cannot stand in YAML."),
        (b'a: "x\\0y"\n', "x.yaml:1:4: a: NUL in 'x\\x00y'."),
        (b'a: "\\ud800"\n', "x.yaml:1:7: not YAML: while parsing a quoted scalar found invalid Unicode character"),
        (b"? [a, b]\n: 1\n", "x.yaml:1:3: a list, mapping or alias as a key."),
        (b"'': 1\n", "x.yaml:1:1: '' cannot be a key."),
        (b"a: 99999999999999999999\n", "x.yaml:1:4: a: 99999999999999999999 does not fit into 64 bits."),
        (b"a: " + b"9" * 9000 + b"\n", "x.yaml:1:4: a: 9999999"),
        (b"a: 1e999\n", "x.yaml:1:4: a: 1e999 is too large for a float."),
    ],
)
def test_what_is_no_definition_is_refused_at_its_place(content: bytes, says: str) -> None:
    assert refused(content)[0].startswith(says)


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(12)
)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(BOMB, id="alias bomb"),
        pytest.param(b"a: &a " + b"x" * 900_000 + b"\nb: [" + b"*a, " * 20 + b"]\n", id="alias bomb of long text"),
        pytest.param(b"x" * 10_000_000, id="10 MB"),
        pytest.param(b"[" * 900_000, id="deep lists"),
        pytest.param(b"{a: " * 200_000, id="deep mappings"),
        pytest.param(b"- " * 400_000, id="deep block lists"),
        pytest.param(b"? " * 400_000, id="deep keys"),
        pytest.param(b"k: " + b"[1," * 300_000, id="deep and unclosed"),
        pytest.param(b'a: "' + b"x\n" * 400_000, id="unclosed quote"),
        pytest.param(b"a: &x [*x]\n", id="alias inside its own anchor"),
    ],
)
def test_hostile_files_are_refused_in_under_a_second_of_computing(content: bytes) -> None:
    refused(content)


def test_too_many_values_are_refused_before_the_whole_file_is_read() -> None:
    content = b"a: [" + b"1," * 450_000 + b"]\n"
    with pytest.raises(DefinitionError, match="more than 120,000 values"):
        read_yaml(content, "x.yaml")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_a_place(content: bytes) -> None:
    problems: list[str] = []
    try:
        read_yaml(content, "x.yaml")
    except DefinitionError as error:
        problems = error.problems
    assert all(line.startswith("x.yaml:") for line in problems)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_quoted_text_is_carried_unchanged(text: str) -> None:
    quoted = "'" + text.replace("'", "''") + "'"
    if text.isprintable():
        assert value_of(quoted) == text

"""Packed columns: what comes out is what went in, after a file too."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurmkit.packed import Coded, Column, Digests, Texts, Values, packed
from slurmkit.states import State

SHA = "0123456789abcdef" * 4
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
MANY = st.lists(st.one_of(SCALARS, st.lists(SCALARS, max_size=2)), max_size=12)


def again(column: Column) -> Column:
    """Return the column as it comes back from a file."""
    return type(column).read(column.told(), bytes(column.content()))


def exact(values: list[Any]) -> list[str]:
    """Write values so that 1, 1.0 and true differ, and 0.0 and -0.0."""
    return [repr(value) for value in values]


@pytest.mark.parametrize("kind", [Texts, Digests, Coded, Values])
@given(values=MANY)
def test_any_values_come_back_as_they_were(kind: type[Column], values: list[Any]) -> None:
    column = again(packed(kind, values))
    assert exact(column.listed()) == exact(values)
    assert exact(list(column)) == exact([column[row] for row in range(len(values))])
    assert len(column) == len(values)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Texts, []),
        (Texts, [""]),
        (Texts, ["", ""]),
        (Texts, ["a", "", "é"]),
        (Digests, []),
        (Digests, [None]),
        (Digests, [SHA, None, SHA]),
        (Coded, [0.0, -0.0, 1.0]),
        (Coded, [1, True, 1.0, "1"]),
    ],
)
def test_values_of_its_kind_are_packed_as_such(kind: type[Column], values: list[Any]) -> None:
    column = packed(kind, values)
    assert type(column) is kind
    assert exact(again(column).listed()) == exact(values)


@pytest.mark.parametrize("value", ["a\nb", "\n", 1, None])
def test_a_text_of_several_lines_is_no_text_of_one(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        Texts.of(["a", value])


@pytest.mark.parametrize("values", [[SHA.upper()], [SHA[1:]], [SHA[1:], SHA + "0"], [" " + SHA[1:]], [""], [1]])
def test_what_is_no_digest_is_refused_or_left_out(values: list[object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Digests.of(values)
    assert Digests.of_valid([SHA, *values]).listed() == [SHA, *[None] * len(values)]


def test_changed_rows_leave_the_column_itself_as_it_is() -> None:
    coded, digests = Coded.of(["a", "b", "a"]), Digests.of([SHA, None, SHA])
    assert coded.changed({0: "c", 1: None}).listed() == ["c", None, "a"]
    assert digests.changed({1: SHA, 2: "no digest"}).listed() == [SHA, SHA, None]
    assert (coded.listed(), digests.listed()) == (["a", "b", "a"], [SHA, None, SHA])


def test_rows_are_found_by_value_also_where_several_were_made_equal() -> None:
    coded = Coded.of([None, "planned", "failed", None]).mapped(lambda word: State(word or "planned"))
    assert coded.rows_with(State.PLANNED) == [0, 1, 3]
    assert coded.rows_with("running") == []

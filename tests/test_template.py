"""Configs that are changed by dotted keys, and texts with placeholders."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurmkit.errors import UsageError
from slurmkit.expand import resolve_config
from slurmkit.template import fill, placeholders


def test_resolving_copies_only_what_it_changes() -> None:
    shared = {"train": {"lr": 1, "opt": {"b": 1}}, "model": {"w": 1}, "seed": 0}
    before = json.dumps(shared)
    made = resolve_config(shared, {"train.lr": 2, "train.opt.b": 3, "train.opt.c": 4, "new.deep.key": 5, "seed": 1})
    assert made == {
        "train": {"lr": 2, "opt": {"b": 3, "c": 4}},
        "model": {"w": 1},
        "seed": 1,
        "new": {"deep": {"key": 5}},
    }
    assert json.dumps(shared) == before
    assert made["model"] is shared["model"]


def test_resolving_does_not_write_into_a_value_that_it_set_before() -> None:
    model = {"w": 1}
    assert resolve_config({"model": {"d": 0}}, {"model.d": 5, "model": model, "model.w": 2}) == {"model": {"w": 2}}
    assert model == {"w": 1}


def test_resolving_through_a_value_is_refused() -> None:
    with pytest.raises(UsageError, match=r"config\.a\.b\.c: config\.a\.b is 1, not a mapping"):
        resolve_config({"a": {"b": 1}}, {"a.b.c": 2})


def test_filling_is_done_once_everywhere_and_keeps_literal_braces() -> None:
    values = {"run_dir": "{config}", "needs.base.run_dir": "/b", "x": "}"}
    template = {"{x}": ["{run_dir}/a", "{{run_dir}}", 3, None], "p": "{needs.base.run_dir}{x}{{"}
    assert fill(template, values) == {"{x}": ["{config}/a", "{run_dir}", 3, None], "p": "/b}{"}
    assert placeholders(template) == {"run_dir", "needs.base.run_dir", "x"}


@pytest.mark.parametrize("text", ["{", "a}", "{}", "{ x }", "{x!r}", "{x:3}", "{0}", "{x.}", "{{}"])
def test_what_is_no_placeholder_is_refused(text: str) -> None:
    for read in (placeholders, lambda text: fill(text, {"x": "1"})):
        with pytest.raises(UsageError, match="single"):
            read(text)


def test_an_unknown_placeholder_is_told_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'\{rundir\}': unknown placeholder \{rundir\}\. Did you mean \{run_dir\}\?"):
        fill("{rundir}", {"run_dir": "/r", "config": "/c"})


@given(st.text(st.sampled_from("{}ab.\n$"), max_size=12), st.text(max_size=5))
def test_doubled_braces_carry_any_text(text: str, value: str) -> None:
    doubled = text.replace("{", "{{").replace("}", "}}")
    assert fill(doubled + "{x}", {"x": value}) == text + value

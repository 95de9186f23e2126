"""Which runs of two collections are matched: by labels, by config, by what a person says; and what is not matched."""

import json
from pathlib import Path

import pytest
from report_runs import COMMIT, DENSE, Result, dense_result, make_collection
from workplace import git

from slurmkit.comparison.build import compare
from slurmkit.comparison.match import Matching, match
from slurmkit.comparison.side import read_side
from slurmkit.errors import UsageError
from slurmkit.expand import Run
from slurmkit.states import Reason, State

HEAD = 'command: ["{python}", train.py, "{config}", "{variant}"]\n'
PLAIN = 'command: ["{python}", train.py, "{config}"]\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("/runs/\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "Start")
    return tmp_path


def score(run: Run) -> Result:
    """A result that follows from the labels: 1 for every letter of them, and the seed's hundredth."""
    letters = sum(len(str(label)) for axis, label in run.axes.items() if axis != "seed")
    return Result({"score": float(letters + run.axes.get("seed", 0) / 100)})


def matched(project: Path, a: str, b: str, taken: dict[str, str] | None = None) -> Matching:
    """Make two collections of the texts behind their names, and match them."""
    for name, text in (("a", a), ("b", b)):
        make_collection(project, f"name: {name}\n{text}", score)
    return match(read_side("a", project), read_side("b", project), taken)


def test_a_label_that_sets_several_keys_is_found_by_all_of_them(project):
    sizes = "axes: {size: {values: {s: {width: 8, depth: 1}, m: {width: 8, depth: 2}}}}\n"
    found = matched(project, PLAIN + "config: {width: 8, depth: 2}\n", PLAIN + "config: {width: 0, depth: 0}\n" + sizes)
    assert found.matched == (("m",),)
    assert found.only == ({}, {("s",): 1})
    assert found.how[0].keys == ("depth", "width")


def test_axes_of_other_names_that_set_the_same_key_match_by_its_value(project):
    a = PLAIN + "config: {lr: 1}\naxes: {rate: {key: lr, values: [0.1, 0.2]}}\n"
    b = PLAIN + "config: {lr: 1}\naxes: {step: {key: lr, values: [0.20, 0.3]}}\n"
    found = matched(project, a, b)
    assert found.matched == (("0.2", "0.2"),)
    assert found.only == ({("0.1", "0.1"): 1}, {("0.3", "0.3"): 1})


def test_settings_are_found_by_what_they_set(project):
    settings = "settings: {main: {base: {beta: 0}, high: {beta: 1}}}\naxes: {task: [x, y]}\n"
    found = matched(
        project,
        PLAIN + "config: {task: x, beta: 1}\naxes: {task: [x, y]}\n",
        PLAIN + "config: {task: x, beta: 0}\n" + settings,
    )
    assert found.matched == (("x", "main", "high"), ("y", "main", "high"))


def test_labels_are_equal_whatever_kind_of_number_they_are_written_as(project):
    a, b = (PLAIN + f"config: {{pv: 5}}\naxes: {{pv: {values}}}\n" for values in ("[0, 1]", "[0.0, 1.0, 2.0]"))
    found = matched(project, a, b)
    assert found.matched == (("0",), ("1",))
    assert found.only == ({}, {("2.0",): 1})


def test_a_config_without_the_key_matches_nothing_until_somebody_says_what_it_means(project):
    a = PLAIN + "config: {task: x}\naxes: {task: [x, y]}\n"
    b = PLAIN + "config: {task: x}\naxes: {task: [x, y], pv: {key: objective.pv, values: [0.0, 0.1]}}\n"
    with pytest.raises(UsageError, match=r"pv: A has \(not in its config\), B has 0.0, 0.1. .*--as pv=VALUE"):
        matched(project, a, b)
    with pytest.raises(UsageError, match=r"pv has no such value. There are: 0.0, 0.1."):
        match(read_side("a", project), read_side("b", project), {"pv": "7"})
    found = match(read_side("a", project), read_side("b", project), {"pv": "0"})
    assert found.matched == (("x", "0.0"), ("y", "0.0"))
    assert found.how[1].how == "A does not have it, nor objective.pv in its config: 0.0 (2 runs), by --as"


def test_an_axis_that_sets_nothing_is_asked_for_if_the_other_axes_do_not_decide(project):
    a = PLAIN + "config: {task: x}\naxes: {task: [x, y]}\n"
    b = HEAD + "config: {task: x}\naxes: {task: [x, y], variant: [one, two]}\n"
    with pytest.raises(UsageError, match=r"sets no config key. Say which of them A's runs are: --as variant=one"):
        matched(project, a, b)
    found = match(read_side("a", project), read_side("b", project), {"variant": "two"})
    assert found.matched == (("x", "two"), ("y", "two"))


def test_an_axis_that_sets_nothing_follows_from_the_axis_it_is_zipped_with(project):
    a = PLAIN + "config: {task: x}\naxes: {task: [x, y, z]}\n"
    b = HEAD + "config: {task: x}\naxes: {task: [x, y], variant: [one, two]}\nzip: [[task, variant]]\n"
    found = matched(project, a, b)
    assert found.matched == (("x", "one"), ("y", "two"))
    assert [place[0] for place in found.only[0]] == ["z"]


def test_collections_without_a_common_axis_or_value_are_refused(project):
    a = PLAIN + "config: {}\naxes: {task: {key: task, values: [x]}}\n"
    with pytest.raises(UsageError, match=r"no axis in common \(A: task; B: lr\)"):
        matched(project, a, PLAIN + "config: {}\naxes: {lr: {key: lr, values: [1]}}\n")
    make_collection(project, "name: c\n" + PLAIN + "config: {}\naxes: {task: {key: task, values: [y]}}\n", score)
    with pytest.raises(UsageError, match=r"no cell of one has a counterpart in the other. task: A has x, B has y."):
        match(read_side("a", project), read_side("c", project))


def test_an_axis_that_sets_other_keys_on_both_sides_is_doubted(project):
    a, b = (PLAIN + f"config: {{}}\naxes: {{pv: {{key: {key}, values: [0, 1]}}}}\n" for key in ("old", "new"))
    assert matched(project, a, b).notes == ("axis pv sets old in A and new in B: equal labels may not mean the same",)


def test_without_a_common_seed_the_means_of_cells_are_compared(project):
    a, b = (
        PLAIN + f"config: {{task: x, seed: 0}}\naxes: {{task: [x, yyy], seed: {s}}}\n" for s in ("[1, 2]", "[3, 5]")
    )
    matched(project, a, b)
    made = compare(read_side("a", project), read_side("b", project), project)
    assert not made.matching.seeds_pair
    row = made.deltas.iloc[0]
    assert (row["n"], row["common_cells"]) == (2, 2)
    assert row["difference"] == pytest.approx((0.03 + 0.05) / 2 - (0.01 + 0.02) / 2)
    assert made.config == ()  # but for the seed, of course
    assert "no seed is common to both" in made.notes[0]


def test_a_cell_without_a_common_seed_beside_others_has_no_part_and_that_is_said(project):
    a = PLAIN + "config: {task: x, seed: 0}\naxes: {task: [x, y], seed: [1, 2]}\nexclude: [{task: y, seed: 1}]\n"
    b = PLAIN + "config: {task: x, seed: 0}\naxes: {task: [x, y], seed: [1]}\n"
    matched(project, a, b)
    made = compare(read_side("a", project), read_side("b", project), project)
    assert (made.deltas.iloc[0]["n"], made.matching.unpaired) == (1, 1)
    assert "1 matched cells have no seed in common" in made.notes[0]


def test_a_seed_that_one_side_fixes_and_one_of_another_name_are_paired(project):
    fixed = PLAIN + "config: {task: x, seed: 2}\naxes: {task: [x, y]}\n"
    named = (
        PLAIN + "config: {task: x, seed: 0}\nseed_axis: rep\naxes: {task: [x, y], rep: {key: seed, values: [1, 2]}}\n"
    )
    swept = PLAIN + "config: {task: x, seed: 0}\naxes: {task: [x, y], seed: [2, 3]}\n"
    found = matched(project, fixed, swept)
    assert [seed for _, seed in found.members[0]] == ["2", "2"]
    assert len(found.pairs()) == 2
    make_collection(project, f"name: c\n{named}", score)
    again = match(read_side("b", project), read_side("c", project))
    assert again.matched == (("x",), ("y",))
    assert len(again.pairs()) == 2


def test_what_a_retry_changed_counts_as_what_ran(project):
    text = PLAIN + "config: {batch: 8}\naxes: {task: {key: task, values: [x, y]}}\n"
    make_collection(project, f"name: a\n{text}", score)
    smaller = Result({"score": 1.0}, attempts=2, changes={"batch": 4})
    make_collection(project, f"name: b\n{text}", lambda run: smaller if run.axes["task"] == "y" else score(run))
    made = compare(read_side("a", project), read_side("b", project), project)
    assert [(change.key, change.pairs, change.values) for change in made.config] == [("batch", 1, ((8, 4, 1),))]


EARLIER = (
    DENSE.replace("name: dense", "name: earlier")
    .replace("  pv: {key: objective.pv, values: [0.0, 0.1]}\n", "")
    .replace("  rmkl: {key: objective.rmkl, values: [0.0, 0.1]}\n", "")
)
"""What `DENSE` is an update to: the same six tasks, both weights fixed at 0."""


def earlier_result(run: Run) -> Result:
    if run.axes["task"] == "sorting_algorithms":
        return Result(state=State.FAILED, reason=Reason.OOM_GPU, evidence="torch.OutOfMemoryError")
    return Result({"router_test_final/router_probe_accuracy": 0.4, "loss/val/total": 1.0})


def test_an_update_of_an_earlier_sweep_is_compared_where_both_have_results(project):
    """Of the earlier six tasks the later one has results in its 0, 0 cell for four."""
    make_collection(project, EARLIER, earlier_result)
    make_collection(project, DENSE, dense_result)
    made = compare(read_side("earlier", project), read_side("dense", project), project)
    assert len(made.matching.matched) == 6
    assert len(made.matching.only[1]) == 18
    row = made.deltas.set_index("metric").loc["router_test_final/router_probe_accuracy"]
    assert row["n"] == 4
    assert row["difference"] == pytest.approx((0.48 + 0.52 + 0.30 + 0.50) / 4 - 0.4)
    assert made.a.overview.headline == "5/6 complete, 1/6 failed"
    assert made.b.overview.headline == "19/24 complete, 3/24 failed, 2/24 planned"
    assert made.code == ()  # both are pinned to the same commit, which no repository has


def test_a_commit_that_git_does_not_have_is_said_and_the_rest_is_compared(project):
    make_collection(project, EARLIER, earlier_result)
    make_collection(project, DENSE, dense_result)
    header = project / "runs" / "dense" / ".slurmkit" / "collection.json"
    head = git(project, "rev-parse", "HEAD")
    header.write_text(json.dumps(json.loads(header.read_text()) | {"commit": head}))
    made = compare(read_side("earlier", project), read_side("dense", project), project)
    (change,) = made.code
    assert f"does not have {COMMIT[:10]}" in change.problem
    assert len(made.deltas) > 0


def test_a_side_by_commit_needs_one_commit(project):
    make_collection(project, EARLIER, earlier_result)
    assert len(read_side(f"earlier@{COMMIT[:7]}", project).members) == 6
    with pytest.raises(UsageError, match=rf"begins with abcd. Its runs: {COMMIT[:10]} \(6\)"):
        read_side("earlier@abcd", project)
    with pytest.raises(UsageError, match="4 hex digits or more"):
        read_side("earlier@zz", project)
    with pytest.raises(UsageError, match="names no collection"):
        read_side("@abcd", project)

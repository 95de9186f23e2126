"""`slurmkit compare`, on collections that really ran: matched cells, differences by hand, config, code, versions."""

import json
import math
import statistics
from pathlib import Path

import pytest
from forked_commands import ForkedWorkplace
from workplace import Workplace, git

pytestmark = pytest.mark.xdist_group("compare")  # the study is made once
T_2DF = 4.302652729911275
"""Two-sided 95 % quantile of Student's t with 2 degrees of freedom (any table)."""

TRAINER = '''\
"""A trainer whose results follow from its config and its code."""
import json, pathlib, sys

BONUS = {"add": 0.0, "sort": 0.0, "mul": 0.0}
config = json.loads(pathlib.Path(sys.argv[1]).read_text())
run_dir = pathlib.Path(sys.argv[2])
if config.get("act") == "bug":
    raise KeyError("no such strategy")
level = {"add": 0.5, "sort": 0.25, "mul": 0.0}[config["task"]]
score = level + config["seed"] / 64 + config["objective"]["pv"] + BONUS[config["task"]]
metrics = {"score": score, "cost": -score, "loss/val/total": 1 - score, "provenance/torch": "2.12"}
(run_dir / "metrics.json").write_text(json.dumps(metrics))
'''

EARLIER = """\
name: study-v1
command: ["{python}", "train.py", "{config}", "{run_dir}"]
config: {task: add, seed: 0, objective: {pv: 0, beta: 0.5}, width: 8}
axes:
  task: [add, sort, mul]
  seed: [1, 2]
resources: {cpus: 1, mem: 300M, time: 60s}
"""
LATER = """\
name: study-v2
command: ["{python}", "train.py", "{config}", "{run_dir}"]
config: {task: add, seed: 0, objective: {pv: 0.0, beta: 1.0}, width: 8, act: complete}
axes:
  task: [add, sort]
  pv: {key: objective.pv, values: [0.0, 0.125]}
  seed: [1, 2]
overrides:
  - {where: {task: sort, pv: 0.0, seed: 2}, set: {act: bug}}
  - {where: {task: sort}, set: {width: 16}}
resources: {cpus: 1, mem: 400M, time: 60s}
metrics:
  score: {direction: max}
  cost: {direction: min}
"""


def run_all(place: Workplace, text: str, name: str, *words: str) -> None:
    """Create a collection from a definition, run it and wait for its end."""
    path = place.define(text, f"{name}.yaml")
    place.slurmkit("collection", "create", str(path), *words, "--submit")
    place.wait(name)


def document(place: Workplace, *words: str) -> dict:
    return json.loads(place.slurmkit("compare", *words, "--json").stdout)


def changes(told: dict, what: str) -> dict[str, tuple]:
    """Return key to (pairs, values) of one kind of change."""
    return {change["key"]: (change["pairs"], change["values"]) for change in told[what]}


@pytest.fixture(scope="module")
def study(tmp_path_factory, forked_commands):
    """Two collections: the later one with another code, a further axis, fewer tasks and one run with a bug."""
    root = tmp_path_factory.mktemp("study")
    git(root, "init", "-q")
    (root / "train.py").write_text(TRAINER)
    (root / ".gitignore").write_text("/runs/\n")
    place = ForkedWorkplace(root, forked_commands)
    run_all(place, EARLIER, "study-v1")
    changed = TRAINER.replace('"add": 0.0, "sort": 0.0', '"add": 0.5, "sort": 0.25').replace('"2.12"', '"2.13"')
    (root / "train.py").write_text(changed)
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "Give a bonus")
    run_all(place, LATER, "study-v2")
    yield place
    place.end_queue()


def test_an_axis_that_one_side_fixes_is_matched_by_its_value_in_the_config(study):
    told = document(study, "study-v1", "study-v2")
    assert [cell["cell"] for cell in told["matched"]] == [
        {"task": "add", "pv": "0.0"},
        {"task": "sort", "pv": "0.0"},
    ]
    assert told["only_a"] == [{"cell": {"task": "mul", "pv": "0.0"}, "runs": 2}]
    assert [cell["cell"] for cell in told["only_b"]] == [
        {"task": "add", "pv": "0.125"},
        {"task": "sort", "pv": "0.125"},
    ]
    assert [cell["a"] for cell in told["matched"]] == [["1", "2"]] * 2
    how = {axis["axis"]: axis for axis in told["matched_by"]}
    assert how["pv"]["read"] == {"A": {"0.0": 6}}
    assert "by objective.pv in its config: 0.0 (6 runs)" in study.slurmkit("compare", "study-v1", "study-v2").stdout


def test_differences_are_over_matched_pairs_and_the_naive_means_stand_beside(study):
    """The bonus of the later code is 0.5 for add (two seeds) and 0.25 for sort, of which one seed has no result."""
    told = document(study, "study-v1", "study-v2", "--metric", "score")
    (overall,) = told["differences"]
    pairs = [0.5, 0.5, 0.25]
    assert (overall["n"], overall["common_cells"]) == (3, 2)
    assert overall["difference"] == pytest.approx(statistics.mean(pairs))
    assert overall["half_width"] == pytest.approx(T_2DF * statistics.stdev(pairs) / math.sqrt(3))
    assert overall["baseline_mean"] == pytest.approx((0.5 + 1 / 64 + 0.5 + 2 / 64 + 0.25 + 1 / 64) / 3)
    earlier = [level + seed / 64 for level in (0.5, 0.25, 0.0) for seed in (1, 2)]
    assert overall["naive_baseline_mean"] == pytest.approx(statistics.mean(earlier))
    assert (overall["n_baseline"], overall["n_setting"]) == (6, 7)
    by_task = {row["task"]: row for row in told["differences_per"]}
    assert by_task["add"]["difference"] == pytest.approx(0.5)
    assert by_task["add"]["half_width"] == 0
    assert (by_task["sort"]["n"], by_task["sort"]["difference"], by_task["sort"]["half_width"]) == (1, 0.25, None)


def test_better_and_worse_are_said_of_declared_metrics_whose_interval_excludes_0(study):
    told = document(study, "study-v1", "study-v2", "--metric", "score", "--metric", "cost", "--metric", "total")
    assert {row["metric"]: row["verdict"] for row in told["differences"]} == {
        "score": "better",
        "cost": "better",
        "loss/val/total": None,
    }
    backwards = document(study, "study-v2", "study-v1", "--metric", "score")
    assert backwards["differences"][0]["verdict"] == "worse"
    only_one = next(row for row in told["differences_per"] if row["task"] == "sort" and row["metric"] == "score")
    assert only_one["verdict"] is None


def test_a_total_loss_is_no_difference_where_the_config_differs_unless_asked_anyway(study):
    told = document(study, "study-v1", "study-v2", "--metric", "total")
    assert "changes with the terms" in told["not_comparable"]["loss/val/total"]
    assert told["differences"][0]["difference"] is None
    assert "not comparable" in study.slurmkit("compare", "study-v1", "study-v2", "--metric", "total").stdout
    anyway = document(study, "study-v1", "study-v2", "--metric", "total", "--anyway")
    assert anyway["differences"][0]["difference"] == pytest.approx(-1.25 / 3)


def test_config_keys_that_differ_everywhere_and_in_some_pairs_are_told(study):
    told = document(study, "study-v1", "study-v2")
    assert changes(told, "config") == {
        "act": (4, [[None, "complete", 3], [None, "bug", 1]]),
        "objective.beta": (4, [[0.5, 1.0, 4]]),
        "width": (2, [[8, 16, 2]]),
    }
    assert [change["everywhere"] for change in told["config"]] == [True, True, False]
    assert changes(told, "resources") == {"mem_mb": (4, [[300, 400, 4]])}


def test_code_between_the_commits_is_told_with_subjects_and_lines(study):
    told = document(study, "study-v1", "study-v2")
    (change,) = told["code"]
    assert (change["ahead"], change["behind"], change["pairs"]) == (2, 0, 4)
    assert [subject for _, subject in change["subjects"]] == ["Define study-v2.yaml", "Give a bonus"]
    files = {file["path"]: (file["added"], file["removed"]) for file in change["files"]}
    assert files == {"collections/study-v2.yaml": (len(LATER.splitlines()), 0), "train.py": (2, 2)}
    backwards = document(study, "study-v2", "study-v1")["code"][0]
    assert (backwards["ahead"], backwards["behind"]) == (0, 2)
    assert [subject for _, subject in backwards["lost"]] == ["Define study-v2.yaml", "Give a bonus"]


def test_files_that_runs_imported_come_first_and_the_others_are_counted(study):
    (change,) = document(study, "study-v1", "study-v2")["code"]
    assert [(file["path"], file["imported"]) for file in change["files"]] == [
        ("train.py", True),
        ("collections/study-v2.yaml", False),
    ]
    shown = study.slurmkit("compare", "study-v1", "study-v2").stdout
    assert "1 file that runs imported, +2 -2 lines." in shown
    added = len(LATER.splitlines())
    assert f"1 more file changed that no run imported, +{added} -0 lines: --json names them." in shown
    assert not any(line.split()[:1] == ["collections/study-v2.yaml"] for line in shown.splitlines())


def test_versions_that_results_tell_of_themselves_are_compared_where_both_have_one(study):
    """The run with a bug left no result, and its version is not known to differ."""
    told = document(study, "study-v1", "study-v2")
    assert changes(told, "versions") == {"torch": (3, [["2.12", "2.13", 3]])}
    assert told["versions"][0]["everywhere"]


def test_status_stands_beside_with_failures_by_reason(study):
    shown = study.slurmkit("compare", "study-v1", "study-v2").stdout
    lines = [line.split() for line in shown.splitlines()]
    assert ["completed", "6/6", "7/8"] in lines
    assert ["failed", "0/6", "1/8"] in lines
    assert ["error", "0", "1"] in lines


def test_a_pipe_gets_the_same_text_each_time_and_markdown_the_same_tables(study):
    words = ("compare", "study-v1", "study-v2")
    first, second = (study.slurmkit(*words).stdout for _ in range(2))
    assert first == second
    told = study.slurmkit(*words, "--markdown").stdout
    assert "# study-v1 and study-v2" in told
    assert "| completed | 6/6 | 7/8 |" in told
    assert "| objective.beta | 0.5 | 1.0 | all |" in told
    titles = [line.removeprefix("## ") for line in told.splitlines() if line.startswith("## ")]
    assert set(titles) <= set(first.splitlines())


def test_what_cannot_be_compared_is_said(study):
    def told(*words: str) -> str:
        return study.slurmkit("compare", *words, exit_code=2).stderr

    assert "Did you mean study-v1?" in told("studi-v1", "study-v2")
    assert "no axis 'tas'. Did you mean task?" in told("study-v1", "study-v2", "--per", "tas")
    assert "--metric scores: no metric" in told("study-v1", "study-v2", "--metric", "scores")
    assert "give one of them" in told("study-v1", "study-v2", "--json", "--markdown")
    assert "expected AXIS=VALUE" in told("study-v1", "study-v2", "--as", "pv")


@pytest.fixture
def place(workplace, forked_commands):
    """A project with the trainer whose results follow from its config and its code."""
    (workplace.root / "train.py").write_text(TRAINER)
    return ForkedWorkplace(workplace.root, forked_commands)


GROWING = """\
name: growing
command: ["{python}", "train.py", "{config}", "{run_dir}"]
config: {task: add, seed: 0, objective: {pv: 0.0}, rate: 1}
axes:
  task: [add, sort]
  seed: [1]
resources: {cpus: 1, mem: 300M, time: 60s}
"""


def test_two_commits_of_an_extended_collection_are_compared_the_retired_runs_among_them(place):
    run_all(place, GROWING, "growing")
    old = git(place.root, "rev-parse", "HEAD")
    (place.root / "train.py").write_text(TRAINER.replace('"add": 0.0', '"add": 0.125'))
    edited = GROWING + "overrides:\n  - {where: {task: add}, set: {rate: 2}}\n"
    path = place.define(edited, "growing.yaml")
    new = git(place.root, "rev-parse", "HEAD")
    place.slurmkit("collection", "extend", str(path), "--commit", "HEAD", "--submit")
    place.wait("growing")
    told = document(place, f"growing@{old[:8]}", f"growing@{new[:8]}", "--metric", "score")
    assert told["a"]["commits"] == {old: 2}
    assert told["b"]["commits"] == {new: 1}
    assert [cell["cell"] for cell in told["matched"]] == [{"task": "add"}]
    assert told["only_a"] == [{"cell": {"task": "sort"}, "runs": 1}]
    assert told["differences"][0]["difference"] == 0.125
    assert changes(told, "config") == {"rate": (1, [[1, 2, 1]])}
    assert [file["path"] for file in told["code"][0]["files"]] == ["train.py", "collections/growing.yaml"]
    forget_imports(next(place.runs.glob("growing/*add*")))
    (change,) = document(place, f"growing@{old[:8]}", f"growing@{new[:8]}")["code"]
    assert [(file["path"], file["imported"]) for file in change["files"]] == [
        ("collections/growing.yaml", None),
        ("train.py", None),
    ]
    shown = place.slurmkit("compare", f"growing@{old[:8]}", f"growing@{new[:8]}").stdout
    assert "2 files, +3 -1 lines." in shown
    assert "imported" not in shown


def forget_imports(run: Path) -> None:
    """Leave of a run's outcomes what a version wrote that did not keep which files were imported."""
    for path in run.glob("attempts/*/outcome.json"):
        outcome = json.loads(path.read_bytes())
        assert outcome["pin"].pop("imported") == ["train.py"]
        path.write_text(json.dumps(outcome))


def test_a_snapshot_of_a_dirty_tree_is_compared_like_a_commit(place):
    run_all(place, GROWING, "growing")
    (place.root / "train.py").write_text(TRAINER.replace('"add": 0.0', '"add": 0.125'))
    path = place.root / "collections" / "growing.yaml"
    place.slurmkit("collection", "create", str(path), "--name", "dirty", "--allow-dirty", "--submit")
    place.wait("dirty")
    told = document(place, "growing", "dirty", "--metric", "total")
    (change,) = told["code"]
    assert change["ahead"] == 1
    assert change["files"] == [{"path": "train.py", "added": 1, "removed": 1, "imported": True}]
    assert told["b"]["dirty_files"] == ["train.py"]
    # The same config on both sides: a total loss means the same, and its difference is shown.
    assert told["config"] == []
    assert told["not_comparable"] == {}
    by_task = {row["task"]: row["difference"] for row in told["differences_per"]}
    assert by_task == {"add": -0.125, "sort": 0}
    assert "(snapshot)" in place.slurmkit("compare", "growing", "dirty").stdout


def test_metrics_that_were_edited_after_completion_are_told_and_the_rest_is_compared(place):
    run_all(place, GROWING, "growing")
    run_all(place, GROWING.replace("growing", "again"), "again")
    edited = next(Path(place.runs / "again").glob("*sort*")) / "metrics.json"
    edited.write_text('{"score": 9.0}')
    done = place.slurmkit("compare", "growing", "again", "--metric", "score", "--json", exit_code=1)
    told = json.loads(done.stdout)
    assert [problem["flaw"] for problem in told["problems"]] == ["metrics_changed"]
    assert (told["differences"][0]["n"], told["differences"][0]["difference"]) == (1, 0)
    assert "what is good was kept" in done.stderr

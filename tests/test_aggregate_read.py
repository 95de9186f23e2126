"""Metrics files: what is good is kept, what is wrong is named."""

import os
from pathlib import Path

import pytest
from aggregate_runs import make_run

from slurmkit.aggregate import Flaw, read_metrics
from slurmkit.records import RunStatus
from slurmkit.states import Reason, State

WRONG = {
    b"": Flaw.EMPTY,
    b" \n": Flaw.EMPTY,
    b"\0\0\0\0": Flaw.EMPTY,
    b'{"a": 0.5, "b": 0.': Flaw.TRUNCATED,
    b'{"a": 0.5, "b": {"c": 1}': Flaw.TRUNCATED,
    b'{"a": "cut': Flaw.TRUNCATED,
    b'{"a": NaN}': Flaw.NOT_FINITE,
    b'{"a": 1, "n": {"b": -Infinity}}': Flaw.NOT_FINITE,
    b'{"a": [1, NaN]}': Flaw.NOT_FINITE,
    b'{"a": 1e999}': Flaw.NOT_FINITE,
    b"[1, 2]": Flaw.NOT_AN_OBJECT,
    b"null": Flaw.NOT_AN_OBJECT,
    b"{'a': 1}": Flaw.NOT_JSON,
    b'{"a": 1} and more}': Flaw.NOT_JSON,
    b'{"a": "\xff"}': Flaw.NOT_JSON,
    b'{"a/b": 1, "a": {"b": 2}}': Flaw.AMBIGUOUS,
    b'{"a": ' + b"[" * 3000 + b"]" * 3000 + b"}": Flaw.NOT_JSON,
}


@pytest.mark.parametrize(("content", "flaw"), WRONG.items(), ids=lambda value: repr(value)[:30])
def test_a_wrong_file_is_named_and_its_good_neighbour_kept(tmp_path: Path, content: bytes, flaw: Flaw) -> None:
    good = make_run(tmp_path, "good", {}, {"a": 0.25})
    wrong = make_run(tmp_path, "wrong", {}, content)
    metrics = read_metrics([wrong, good])
    assert [(p.run, p.flaw, p.path) for p in metrics.problems] == [("wrong", flaw, f"{wrong.run_dir}/metrics.json")]
    assert metrics.flaws == {0: flaw}
    assert metrics.numbers["a"].tolist()[1] == 0.25
    assert metrics.numbers["a"].tolist()[0] != metrics.numbers["a"].tolist()[0]  # NaN


def test_a_missing_file_of_a_completed_run_is_a_problem(tmp_path: Path) -> None:
    (problem,) = read_metrics([make_run(tmp_path, "gone", {}, None)]).problems
    assert problem.flaw is Flaw.MISSING


def test_a_folder_and_a_pipe_in_the_file_s_place_block_nobody(tmp_path: Path) -> None:
    folder, pipe = make_run(tmp_path, "folder", {}, None), make_run(tmp_path, "pipe", {}, None)
    (folder.run_dir / "metrics.json").mkdir()
    os.mkfifo(pipe.run_dir / "metrics.json")
    assert read_metrics([folder, pipe]).flaws == {0: Flaw.UNREADABLE, 1: Flaw.EMPTY}


def test_a_file_that_changed_since_completion_is_not_believed(tmp_path: Path) -> None:
    run = make_run(tmp_path, "run", {}, {"a": 1.0})
    (run.run_dir / "metrics.json").write_bytes(b'{"a":2.0}')
    (problem,) = read_metrics([run]).problems
    assert problem.flaw is Flaw.CHANGED
    assert run.metrics_sha256 is not None
    assert run.metrics_sha256[:12] in problem.what


@pytest.mark.parametrize("key", ["provenance/run_id", "provenance/config_sha256"])
def test_a_file_of_another_run_is_foreign(tmp_path: Path, key: str) -> None:
    assert read_metrics([make_run(tmp_path, "run", {}, {"a": 1.0, key: "f" * 64})]).flaws == {0: Flaw.FOREIGN}


def test_a_file_that_names_this_run_and_the_config_it_was_given_is_its_own(tmp_path: Path) -> None:
    sha_of_braces = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    run = make_run(tmp_path, "run", {}, {"a": 1.0, "provenance/config_sha256": sha_of_braces})
    (run.run_dir / "config.json").write_bytes(b"{}")
    own = make_run(tmp_path, "own", {}, {"a": 2.0, "provenance/config_sha256": "c" * 64})
    assert read_metrics([run, own]).numbers["a"].tolist() == [1.0, 2.0]


def test_files_of_runs_that_are_not_completed_are_not_looked_at(tmp_path: Path) -> None:
    """They are partial, or left by an attempt before."""
    running = make_run(tmp_path, "running", {}, {"a": 1.0}, state=State.RUNNING)
    failed = make_run(tmp_path, "failed", {}, b"{", state=State.FAILED, reason=Reason.OOM_HOST)
    metrics = read_metrics([running, failed])
    assert not metrics.numbers
    assert not metrics.problems


def test_every_kind_of_value_finds_its_column(tmp_path: Path) -> None:
    values = {
        "n": {"deep": {"er": 3}, "brace": "{"},
        "whole": 2,
        "text": "x",
        "flag": True,
        "list": [1, 2],
        "probe": None,
        "probe__reason": "only 12 examples",
        "loss/val/total": 3.5,
        "own": 1.0,
        "own__comparable": False,
        "fair": 1.0,
        "fair__comparable": True,
        "provenance/host": "n1",
    }
    metrics = read_metrics([make_run(tmp_path, "run", {}, values)])
    assert {key: column.tolist()[0] for key, column in metrics.numbers.items() if key != "probe"} == {
        "n/deep/er": 3.0,
        "whole": 2.0,
        "loss/val/total": 3.5,
        "own": 1.0,
        "fair": 1.0,
    }
    assert metrics.others == {"n/brace": ["{"], "text": ["x"], "flag": [True], "list": [[1, 2]]}
    assert metrics.marked == {"own"}
    assert metrics.null_reasons["probe"] == {"only 12 examples": 1}
    assert not metrics.problems


def test_a_text_where_other_runs_have_a_number_is_left_out_and_named(tmp_path: Path) -> None:
    contents: list[dict[str, object]] = [{"a": 1.0, "b": 5.0}, {"a": "high", "b": 6.0}, {"a": True}, {"a": None}]
    metrics = read_metrics([make_run(tmp_path, f"r{i}", {}, content) for i, content in enumerate(contents)])
    assert [(p.run, p.flaw) for p in metrics.problems] == [("r1", Flaw.NOT_A_NUMBER), ("r2", Flaw.NOT_A_NUMBER)]
    assert "'high'" in metrics.problems[0].what
    assert metrics.numbers["b"].tolist()[:2] == [5.0, 6.0]
    assert not metrics.flaws


def test_values_stay_with_their_runs_over_many_files_of_several_shapes(tmp_path: Path) -> None:
    runs: list[RunStatus] = []
    for i in range(1300):
        content = {"a": i, "b": 2 * i} if i % 3 else {"b": 2 * i, "c": "x", "a": i}
        runs.append(make_run(tmp_path, f"r{i}", {}, content, observed=i % 2 == 0))
    runs[7] = runs[7]._replace(state=State.RUNNING)
    metrics = read_metrics(runs)
    expected = [float("nan") if i == 7 else float(i) for i in range(1300)]
    assert str(metrics.numbers["a"].tolist()) == str(expected)
    assert [i for i, text in enumerate(metrics.others["c"]) if text] == list(range(0, 1300, 3))

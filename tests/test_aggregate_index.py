"""The index of metrics files: what did not change is not read again, and what changed always is."""

import os
import threading
from pathlib import Path

import pytest
from aggregate_runs import make_run

from slurmkit.aggregate import Flaw, Metrics, index, read_metrics
from slurmkit.records import RunStatus

CONTENT = {"a": 0.5, "n": None, "n__reason": "too few", "own": 1.0, "own__comparable": False, "word": "x", "list": [1]}


def settle(run: RunStatus) -> None:
    """Make a metrics file as old as the index wants it."""
    os.utime(run.run_dir / "metrics.json", ns=(1, 1))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunStatus]:
    """Five runs with old files; the time that makes a file old is none, as no test can set the inode's."""
    monkeypatch.setattr(index, "_SETTLED_NS", -1_000_000_000)
    made = [make_run(tmp_path / "runs", f"r{i}", {"i": i}, {**CONTENT, "a": i + 0.5}) for i in range(5)]
    for run in made:
        settle(run)
    return made


def plain(metrics: Metrics) -> object:
    """Return all that was read, NaN as None, for comparing."""
    numbers = {key: [None if v != v else v for v in column.tolist()] for key, column in metrics.numbers.items()}
    return numbers, metrics.others, metrics.flaws, metrics.problems, metrics.marked, metrics.null_reasons


def test_with_an_index_the_result_is_the_same_at_first_and_again(runs: list[RunStatus], tmp_path: Path) -> None:
    expected = plain(read_metrics(runs))
    assert plain(read_metrics(runs, tmp_path / "x")) == expected
    assert (tmp_path / "x").exists()
    assert plain(read_metrics(runs, tmp_path / "x")) == expected
    assert plain(read_metrics(runs[2:4], tmp_path / "x")) == plain(read_metrics(runs[2:4]))


def test_a_known_file_is_not_opened(runs: list[RunStatus], tmp_path: Path) -> None:
    """The index says 7.5 of a file that says 0.5: what comes is the index's."""
    read_metrics(runs, tmp_path / "x")
    known = index.load(tmp_path / "x")
    numbers = {**known.columns.numbers, "a": known.columns.numbers["a"] + 7.0}
    columns = type(known.columns)(known.columns.rows, numbers, known.columns.values, known.columns.codes)
    index.save(tmp_path / "x", index.Index(known.ids, known.checked, known.marks, columns))
    assert read_metrics(runs, tmp_path / "x").numbers["a"].tolist() == [7.5, 8.5, 9.5, 10.5, 11.5]


def test_a_file_of_the_same_size_and_time_that_was_renamed_there_is_read(runs: list[RunStatus], tmp_path: Path) -> None:
    read_metrics(runs, tmp_path / "x")
    path = runs[1].run_dir / "metrics.json"
    other = tmp_path / "other"
    other.write_bytes(path.read_bytes().replace(b"1.5", b"2.5"))
    os.utime(other, ns=(1, 1))
    other.replace(path)
    unobserved = [run._replace(metrics_sha256=None) for run in runs]
    assert read_metrics(unobserved, tmp_path / "x").numbers["a"].tolist() == [0.5, 2.5, 2.5, 3.5, 4.5]
    assert read_metrics(runs, tmp_path / "x").flaws == {1: Flaw.CHANGED}


def test_a_file_written_in_place_with_its_time_set_back_is_read(runs: list[RunStatus], tmp_path: Path) -> None:
    read_metrics(runs, tmp_path / "x")
    path = runs[1].run_dir / "metrics.json"
    path.write_bytes(path.read_bytes().replace(b"1.5", b"2.5"))
    settle(runs[1])
    assert read_metrics(runs, tmp_path / "x").flaws == {1: Flaw.CHANGED}


def test_a_known_file_is_held_to_what_was_observed_since(runs: list[RunStatus], tmp_path: Path) -> None:
    """The same file, but another hash in the journal: an attempt since, whose metrics these are not."""
    read_metrics(runs, tmp_path / "x")
    later = [runs[0]._replace(metrics_sha256="f" * 64), *runs[1:]]
    assert read_metrics(later, tmp_path / "x").flaws == {0: Flaw.CHANGED}


def test_a_young_file_is_read_again(tmp_path: Path) -> None:
    """It may change once more within the same tick of the file system's clock."""
    run = make_run(tmp_path, "r", {}, {"a": 1.0})
    read_metrics([run], tmp_path / "x")
    assert index.load(tmp_path / "x").ids == []


def test_a_file_that_is_gone_or_wrong_is_never_remembered(runs: list[RunStatus], tmp_path: Path) -> None:
    (runs[0].run_dir / "metrics.json").unlink()
    (runs[1].run_dir / "metrics.json").write_bytes(b"{")
    settle(runs[1])
    for _ in range(2):
        assert read_metrics(runs, tmp_path / "x").flaws == {0: Flaw.MISSING, 1: Flaw.TRUNCATED}
    assert index.load(tmp_path / "x").ids == [run.id for run in runs[2:]]


@pytest.mark.parametrize("cut", [0, 5, 20, 300, -1])
def test_a_torn_index_is_thrown_away_and_made_anew(runs: list[RunStatus], tmp_path: Path, cut: int) -> None:
    expected = plain(read_metrics(runs, tmp_path / "x"))
    whole = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(whole[:cut])
    assert index.load(tmp_path / "x").ids == []
    assert plain(read_metrics(runs, tmp_path / "x")) == expected
    assert (tmp_path / "x").read_bytes() == whole


@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"not an index", b'00000000\n{"schema": 1}\n'])
def test_what_is_no_index_is_thrown_away(runs: list[RunStatus], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert plain(read_metrics(runs, tmp_path / "x")) == plain(read_metrics(runs))


def test_one_flipped_bit_is_found(runs: list[RunStatus], tmp_path: Path) -> None:
    read_metrics(runs, tmp_path / "x")
    content = bytearray((tmp_path / "x").read_bytes())
    content[-200] ^= 1
    (tmp_path / "x").write_bytes(content)
    assert index.load(tmp_path / "x").ids == []


def test_an_index_of_another_version_is_thrown_away(
    runs: list[RunStatus], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_metrics(runs, tmp_path / "x")
    monkeypatch.setattr(index, "INDEX_SCHEMA", index.INDEX_SCHEMA + 1)
    assert index.load(tmp_path / "x").ids == []


def test_some_runs_alone_leave_what_is_known_of_the_others(runs: list[RunStatus], tmp_path: Path) -> None:
    read_metrics(runs[:3], tmp_path / "x")
    read_metrics(runs[3:], tmp_path / "x")
    known = index.load(tmp_path / "x")
    assert sorted(known.ids) == sorted(run.id for run in runs)
    assert plain(read_metrics(runs, tmp_path / "x")) == plain(read_metrics(runs))


def test_a_key_of_other_runs_alone_makes_no_column(runs: list[RunStatus], tmp_path: Path) -> None:
    other = make_run(tmp_path / "runs", "other", {}, {"b": 1.0, "tag": "t"})
    settle(other)
    read_metrics([*runs, other], tmp_path / "x")
    assert plain(read_metrics(runs, tmp_path / "x")) == plain(read_metrics(runs))


def test_an_index_that_cannot_be_written_hinders_nobody(runs: list[RunStatus], tmp_path: Path) -> None:
    assert plain(read_metrics(runs, tmp_path / "no folder" / "x")) == plain(read_metrics(runs))


def test_two_commands_at_once_leave_a_whole_index(runs: list[RunStatus], tmp_path: Path) -> None:
    expected = plain(read_metrics(runs))
    found: list[object] = []

    def command(part: list[RunStatus]) -> None:
        for _ in range(20):
            (tmp_path / "x").unlink(missing_ok=True)
            read_metrics(part, tmp_path / "x")
            found.append(plain(read_metrics(runs, tmp_path / "x")))

    threads = [threading.Thread(target=command, args=(part,)) for part in (runs[:3], runs[2:])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 40
    assert list(tmp_path.glob(".x.*")) == []

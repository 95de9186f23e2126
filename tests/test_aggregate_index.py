"""The index of metrics files: what was observed is read once, and what was observed since always is."""

import hashlib
import threading
from pathlib import Path

import orjson
import pytest
from aggregate_runs import make_run

from slurmkit.aggregate import Flaw, Metrics, index, read_metrics
from slurmkit.records import RunStatus
from slurmkit.states import State

CONTENT = {"a": 0.5, "n": None, "n__reason": "too few", "own": 1.0, "own__comparable": False, "word": "x", "list": [1]}


@pytest.fixture
def runs(tmp_path: Path) -> list[RunStatus]:
    """Five runs that completed."""
    return [make_run(tmp_path / "runs", f"r{i}", {"i": i}, {**CONTENT, "a": i + 0.5}) for i in range(5)]


def tried_again(run: RunStatus, value: float, *, observed: bool = True) -> RunStatus:
    """Give a run other metrics, by a new attempt if they were observed."""
    content = orjson.dumps({**CONTENT, "a": value})
    (run.run_dir / "metrics.json").write_bytes(content)
    return run._replace(attempt=2, metrics_sha256=hashlib.sha256(content).hexdigest()) if observed else run


def known_ids(path: Path) -> list[str]:
    """Return the runs that an index knows, base first."""
    known = index.load(path)
    return [*known.base.ids, *known.recent.ids]


@pytest.fixture
def large_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make five files a base so large that one more goes to the second file."""
    monkeypatch.setattr(index, "_RECENT_SHARE", 0.5)


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


def test_a_known_file_is_not_opened_and_may_be_gone(runs: list[RunStatus], tmp_path: Path) -> None:
    expected = plain(read_metrics(runs, tmp_path / "x"))
    for run in runs:
        (run.run_dir / "metrics.json").unlink()
    assert plain(read_metrics(runs, tmp_path / "x")) == expected
    assert read_metrics(runs).flaws == dict.fromkeys(range(5), Flaw.MISSING)


def test_reread_finds_what_was_edited_or_lost_and_forgets_it(runs: list[RunStatus], tmp_path: Path) -> None:
    read_metrics(runs, tmp_path / "x")
    (runs[0].run_dir / "metrics.json").unlink()
    tried_again(runs[1], 9.5, observed=False)
    assert read_metrics(runs, tmp_path / "x").flaws == {}
    for reread in (True, False):
        found = read_metrics(runs, tmp_path / "x", reread=reread)
        assert found.flaws == {0: Flaw.MISSING, 1: Flaw.CHANGED}
    assert known_ids(tmp_path / "x") == [run.id for run in runs[2:]]


def test_reread_forgets_the_last_file_too(runs: list[RunStatus], tmp_path: Path) -> None:
    read_metrics(runs[:1], tmp_path / "x")
    (runs[0].run_dir / "metrics.json").unlink()
    for reread in (True, False):
        assert read_metrics(runs[:1], tmp_path / "x", reread=reread).flaws == {0: Flaw.MISSING}


def test_a_run_that_was_tried_again_is_read(runs: list[RunStatus], tmp_path: Path) -> None:
    read_metrics(runs, tmp_path / "x")
    again = [runs[0], tried_again(runs[1], 9.5), *runs[2:]]
    for _ in range(2):
        assert read_metrics(again, tmp_path / "x").numbers["a"].tolist() == [0.5, 9.5, 2.5, 3.5, 4.5]


def test_a_run_that_is_tried_again_has_no_metrics_meanwhile(runs: list[RunStatus], tmp_path: Path) -> None:
    read_metrics(runs, tmp_path / "x")
    running = [runs[0], runs[1]._replace(state=State.RUNNING, attempt=2, metrics_sha256=None), *runs[2:]]
    assert plain(read_metrics(running, tmp_path / "x")) == plain(read_metrics(running))


def test_a_run_whose_next_attempt_writes_the_same_file_has_its_metrics_again(
    runs: list[RunStatus], tmp_path: Path
) -> None:
    """The index was written anew while it ran: what is known of it then must not be an empty row."""
    read_metrics(runs, tmp_path / "x")
    others = [tried_again(runs[0], 9.5), *runs[1:]]
    read_metrics([others[0], runs[1]._replace(state=State.RUNNING, metrics_sha256=None), *runs[2:]], tmp_path / "x")
    assert plain(read_metrics(others, tmp_path / "x")) == plain(read_metrics(others))


def test_the_file_of_an_earlier_attempt_is_named(runs: list[RunStatus], tmp_path: Path) -> None:
    """The same file, but another hash in the journal: an attempt since, whose metrics these are not."""
    read_metrics(runs, tmp_path / "x")
    later = [runs[0]._replace(metrics_sha256="f" * 64), *runs[1:]]
    assert read_metrics(later, tmp_path / "x").flaws == {0: Flaw.CHANGED}


def test_a_file_without_an_observed_hash_is_read_each_time(tmp_path: Path) -> None:
    run = make_run(tmp_path, "r", {}, {"a": 1.0}, observed=False)
    read_metrics([run], tmp_path / "x")
    tried_again(run, 2.0, observed=False)
    assert read_metrics([run], tmp_path / "x").numbers["a"].tolist() == [2.0]


def test_a_file_that_is_gone_or_wrong_is_never_remembered(runs: list[RunStatus], tmp_path: Path) -> None:
    (runs[0].run_dir / "metrics.json").unlink()
    (runs[1].run_dir / "metrics.json").write_bytes(b"{")
    for _ in range(2):
        assert read_metrics(runs, tmp_path / "x").flaws == {0: Flaw.MISSING, 1: Flaw.TRUNCATED}
    assert known_ids(tmp_path / "x") == [run.id for run in runs[2:]]


@pytest.mark.usefixtures("large_base")
def test_few_new_files_leave_the_base_as_it_is_until_they_are_many(runs: list[RunStatus], tmp_path: Path) -> None:
    read_metrics(runs, tmp_path / "x")
    base = (tmp_path / "x").read_bytes()
    again = list(runs)
    for position in (3, 1):
        again[position] = tried_again(runs[position], 9.0 + position)
        assert plain(read_metrics(again, tmp_path / "x")) == plain(read_metrics(again))
        assert plain(read_metrics(again, tmp_path / "x")) == plain(read_metrics(again))
    assert (tmp_path / "x").read_bytes() == base
    assert sorted(index.load(tmp_path / "x").recent.ids) == sorted([runs[1].id, runs[3].id])
    again[4] = tried_again(runs[4], 13.0)
    read_metrics(again, tmp_path / "x")
    assert list(index.load(tmp_path / "x").base.ids) == [run.id for run in runs]
    assert not (tmp_path / "x.recent").exists()
    assert plain(read_metrics(again, tmp_path / "x")) == plain(read_metrics(again))


@pytest.mark.usefixtures("large_base")
def test_a_torn_second_file_costs_only_its_own_rows(runs: list[RunStatus], tmp_path: Path) -> None:
    read_metrics(runs, tmp_path / "x")
    again = [*runs[:4], tried_again(runs[4], 7.0)]
    read_metrics(again, tmp_path / "x")
    content = (tmp_path / "x.recent").read_bytes()
    (tmp_path / "x.recent").write_bytes(content[:-3])
    known = index.load(tmp_path / "x")
    assert (list(known.base.ids), list(known.recent.ids)) == ([run.id for run in runs], [])
    assert plain(read_metrics(again, tmp_path / "x")) == plain(read_metrics(again))
    assert (tmp_path / "x.recent").read_bytes() == content


def test_an_index_of_as_many_other_runs_gives_none_of_theirs(runs: list[RunStatus], tmp_path: Path) -> None:
    """As of a collection that was copied, or extended by as many runs as it lost."""
    others = [make_run(tmp_path / "others", f"o{i}", {"i": i}, {"b": i + 0.25}) for i in range(5)]
    read_metrics(others, tmp_path / "x")
    assert plain(read_metrics(runs, tmp_path / "x")) == plain(read_metrics(runs))
    for run in others:
        (run.run_dir / "metrics.json").unlink()
    assert read_metrics(others, tmp_path / "x").numbers["b"].tolist() == [0.25, 1.25, 2.25, 3.25, 4.25]


def test_runs_added_between_and_removed_are_found_in_their_places(runs: list[RunStatus], tmp_path: Path) -> None:
    read_metrics(runs, tmp_path / "x")
    added = make_run(tmp_path / "runs", "added", {"i": 9}, {**CONTENT, "a": 8.5, "new": 1.0})
    extended = [runs[4], added, runs[0], runs[2]]
    assert plain(read_metrics(extended, tmp_path / "x")) == plain(read_metrics(extended))
    assert plain(read_metrics(extended, tmp_path / "x")) == plain(read_metrics(extended))


@pytest.mark.parametrize("cut", [0, 5, 20, 300, -1])
def test_a_torn_index_is_thrown_away_and_made_anew(runs: list[RunStatus], tmp_path: Path, cut: int) -> None:
    expected = plain(read_metrics(runs, tmp_path / "x"))
    whole = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(whole[:cut])
    assert known_ids(tmp_path / "x") == []
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
    assert known_ids(tmp_path / "x") == []


def test_an_index_of_another_version_is_thrown_away(
    runs: list[RunStatus], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_metrics(runs, tmp_path / "x")
    monkeypatch.setattr(index, "INDEX_SCHEMA", index.INDEX_SCHEMA + 1)
    assert known_ids(tmp_path / "x") == []


def test_some_runs_alone_leave_what_is_known_of_the_others(runs: list[RunStatus], tmp_path: Path) -> None:
    read_metrics(runs[:3], tmp_path / "x")
    read_metrics(runs[3:], tmp_path / "x")
    assert sorted(known_ids(tmp_path / "x")) == sorted(run.id for run in runs)
    assert plain(read_metrics(runs, tmp_path / "x")) == plain(read_metrics(runs))


def test_a_key_of_other_runs_alone_makes_no_column(runs: list[RunStatus], tmp_path: Path) -> None:
    other = make_run(tmp_path / "runs", "other", {}, {"b": 1.0, "tag": "t"})
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

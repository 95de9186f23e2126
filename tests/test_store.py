"""Records on disk."""

import multiprocessing
from pathlib import Path

import pytest

from slurmkit import files
from slurmkit.errors import LockTimeoutError, StoreError, UsageError
from slurmkit.store import Row, Store

HEADER = {"schema": 1, "commit": "c" * 40, "definition": {"needs": {}}}
ROWS = [
    Row("a1", "one", {"seed": 1}, {"seed": 1}, "s", {}, {}),
    Row("a2", "two", {"seed": 2}, {}, "s", {"cpus": 2}, {}),
]


def create(root: Path, name: str = "sweep") -> None:
    Store(root).collection(name).create(HEADER, b"name: sweep\n", ROWS)


def test_rows_come_back_as_they_were_written(tmp_path):
    create(tmp_path)
    records = Store(tmp_path).existing("sweep")
    assert records.rows() == ROWS
    assert records.definition_file.read_bytes() == b"name: sweep\n"


def test_a_second_collection_of_the_same_name_is_refused_and_the_first_stays(tmp_path):
    create(tmp_path)
    with pytest.raises(UsageError, match="exists already"):
        create(tmp_path)
    assert len(Store(tmp_path).existing("sweep").rows()) == 2


def test_collections_do_not_nest(tmp_path):
    create(tmp_path, "group/sweep")
    with pytest.raises(UsageError, match="is a collection itself"):
        create(tmp_path, "group/sweep/inner")
    with pytest.raises(UsageError, match="is not empty"):
        create(tmp_path, "group")
    assert Store(tmp_path).names() == ["group/sweep"]


def _create_and_tell(root: Path, queue) -> None:
    try:
        create(root)
        queue.put("created")
    except UsageError:
        queue.put("refused")


def test_of_eight_shells_creating_at_once_one_succeeds(tmp_path):
    queue = multiprocessing.get_context("fork").Queue()
    shells = [
        multiprocessing.get_context("fork").Process(target=_create_and_tell, args=(tmp_path, queue)) for _ in range(8)
    ]
    for shell in shells:
        shell.start()
    answers = [queue.get(timeout=20) for _ in shells]
    for shell in shells:
        shell.join()
    assert sorted(answers) == ["created", *["refused"] * 7]
    assert Store(tmp_path).existing("sweep").rows() == ROWS
    assert not list((tmp_path / "sweep").glob(".new-*"))


def test_an_extension_changes_runs_and_header_in_one_rename(tmp_path):
    """Killed before the header is replaced, the collection is what it was."""
    create(tmp_path)
    records = Store(tmp_path).existing("sweep")
    before = records.header_file.read_bytes()
    records.replace_rows([*ROWS, Row("a3", "three", {}, {}, "", {}, {})], dict(HEADER), b"new")
    assert len(Store(tmp_path).existing("sweep").rows()) == 3
    records.header_file.write_bytes(before)
    assert len(Store(tmp_path).existing("sweep").rows()) == 2


def test_a_torn_last_line_is_no_line_and_is_cut_by_the_next_append(tmp_path):
    journal = tmp_path / "journal.jsonl"
    files.append_lines(journal, [{"n": 1}])
    with journal.open("ab") as file:
        file.write(b'{"n": 2, "torn')
    records, end = files.read_lines(journal)
    assert records == [{"n": 1}]
    files.append_lines(journal, [{"n": 3}])
    assert files.read_lines(journal)[0] == [{"n": 1}, {"n": 3}]
    assert files.read_lines(journal, offset=end)[0] == [{"n": 3}]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(b'{"n": 1}\n{"n": oops}\n{"n": 3}\n')
    with pytest.raises(StoreError, match=r"journal.jsonl:2: not JSON"):
        files.read_lines(journal)


def _hold(path: Path, ready, done) -> None:
    with files.lock(path):
        ready.set()
        done.wait(20)


def test_a_lock_dies_with_its_holder(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "lock", ready, done))
    holder.start()
    assert ready.wait(20)
    with pytest.raises(LockTimeoutError), files.lock(tmp_path / "lock", timeout_s=0.05):
        pass
    holder.kill()
    holder.join()
    with files.lock(tmp_path / "lock", timeout_s=5):
        pass


def test_a_name_that_leads_out_of_the_runs_folder_is_not_found(tmp_path):
    create(tmp_path)
    for name in ("../sweep", "/etc", "", "swep"):
        with pytest.raises(UsageError, match="not found"):
            Store(tmp_path).existing(name)

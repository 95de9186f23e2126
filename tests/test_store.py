"""Records on disk."""

import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest

from slurmkit import files
from slurmkit.collection.poll import read
from slurmkit.errors import LockTimeoutError, StoreError, UsageError
from slurmkit.records import Row
from slurmkit.store import Store

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


def test_a_collection_that_appears_while_another_is_made_is_called_by_its_name(tmp_path, monkeypatch):
    create(tmp_path)
    second = Store(tmp_path).collection("sweep")
    looks = iter([False])  # the first look is before the other shell's rename, the next ones after it
    monkeypatch.setattr(type(second), "exists", lambda _: next(looks, True))
    with pytest.raises(UsageError, match="another shell has just created it"):
        second.create(HEADER, b"name: sweep\n", ROWS)
    assert [entry.name for entry in (tmp_path / "sweep").iterdir()] == [".slurmkit"]


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
    answers = [queue.get(timeout=100) for _ in shells]
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
        done.wait(100)


def test_a_lock_dies_with_its_holder(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "lock", ready, done))
    holder.start()
    assert ready.wait(100)
    with pytest.raises(LockTimeoutError), files.lock(tmp_path / "lock", timeout_s=0.05):
        pass
    holder.kill()
    holder.join()
    with files.lock(tmp_path / "lock", timeout_s=0):
        pass


def test_a_name_that_leads_out_of_the_runs_folder_is_not_found(tmp_path):
    create(tmp_path)
    for name in ("../sweep", "/etc", "", "swep"):
        with pytest.raises(UsageError, match="not found"):
            Store(tmp_path).existing(name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("journal.jsonl", None),
        ("journal.jsonl", b""),
        ("journal.jsonl", b'{"event": "created"}\n[1]\n'),
        ("journal.jsonl", b'{"event": "created"}\n{"event": "intent"}\n'),
        ("journal.jsonl", b'{"event": "created"}\n{"event": "observed", "runs": {"a1": [1]}}\n'),
        ("runs.jsonl", None),
        ("runs.jsonl", b'{"name": "one"}\n'),
        ("runs.jsonl", b"1\n"),
        ("collection.json", b"[]"),
        ("collection.json", b'{"schema": 1}'),
    ],
)
def test_a_record_that_is_gone_or_was_edited_is_named_and_never_read_as_nothing_submitted(tmp_path, name, content):
    create(tmp_path)
    path = tmp_path / "sweep" / ".slurmkit" / name
    if name == "journal.jsonl":  # an attempt, so that an observation has something to be about
        Store(tmp_path).existing("sweep").append(
            {"event": "intent", "token": "t", "backend": "local@h", "attempts": {"a1": 1}}
        )
        content = content and path.read_bytes() + content
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=name):
        read(Store(tmp_path).existing("sweep"))


def test_a_deletion_killed_half_way_leaves_the_name_free_and_the_next_one_clears_up(tmp_path):
    create(tmp_path, "group/sweep")
    records = Store(tmp_path).existing("group/sweep")
    (records.run_dir("one") / "attempts").mkdir(parents=True)
    (tmp_path / ".deleted-leftover" / "one").mkdir(parents=True)
    records.delete()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_taken_on_a_file_that_was_removed_meanwhile_is_refused(tmp_path):
    """Two commands would else hold the lock of one collection, deleted and made again, at once."""
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "lock", ready, done))
    holder.start()
    assert ready.wait(100)
    errors: list[Exception] = []

    def wait_for_it() -> None:
        try:
            with files.lock(tmp_path / "lock", timeout_s=100):
                pass
        except StoreError as error:
            errors.append(error)

    waiting = threading.Thread(target=wait_for_it)
    waiting.start()
    while not _opened(tmp_path / "lock"):
        time.sleep(0.005)
    (tmp_path / "lock").rename(tmp_path / "old")
    done.set()
    waiting.join()
    holder.join()
    assert [str(error) for error in errors] == [
        f"{tmp_path / 'lock'}: was removed by another command while this one waited. Run the command again."
    ]


def _opened(path: Path) -> bool:
    """Say whether this process has a file open."""
    links = Path("/proc/self/fd").iterdir()
    return any(os.path.realpath(link) == str(path) for link in links)

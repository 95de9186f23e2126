"""The file of what runs and journal come to: read in their place only while it says what they say."""

import os
import threading
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurmkit import files, runs_index
from slurmkit.collection.poll import Snapshot, read
from slurmkit.errors import StoreError
from slurmkit.ledger import replay
from slurmkit.recorded import Recorded
from slurmkit.records import Row
from slurmkit.statuses import RunColumns
from slurmkit.store import CollectionStore, Store

COMMIT = "c" * 40
SHA = "5" * 64
HEADER: dict[str, Any] = {"schema": 1, "commit": COMMIT, "definition": {"needs": {}}}
NAMES = ("a", "b", "c", "d")


def rows_of(*names: str, retired: tuple[str, ...] = ()) -> list[Row]:
    """Return runs with different axes, one of them pinned elsewhere."""
    return [
        Row(
            name * 12,
            f"run-{name}",
            {"task": name, "pv": 0.1, **({"seed": 1} if name == "b" else {})},
            {"train.pv": 0.1},
            SHA,
            {},
            {},
            "e" * 40 if name == "c" else "",
            "removed" if name in retired else "",
        )
        for name in names
    ]


def intent(token: str, number: int = 1, *names: str, **more: Any) -> dict[str, Any]:
    attempts = {name * 12: number for name in names or NAMES}
    return {"event": "intent", "token": token, "backend": "local@here", "attempts": attempts, **more}


def submitted(token: str, *jobs: str) -> dict[str, Any]:
    return {"event": "submitted", "token": token, "jobs": list(jobs or ("1", "2", "3", "4"))}


def observed(name: str, number: int, state: str = "completed", reason: str | None = None) -> dict[str, Any]:
    sha = SHA if state == "completed" else None
    return {"event": "observed", "runs": {name * 12: [number, state, reason, f"{state} so", 1.5, None, sha]}}


FIRST = [intent("t1"), submitted("t1"), observed("a", 1), observed("b", 1, "failed", "oom_host")]


@pytest.fixture(autouse=True)
def small_files_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_index, "_WORTH_BYTES", 0)
    monkeypatch.setattr(runs_index, "_TAIL_SHARE", 100)


@pytest.fixture
def records(tmp_path: Path) -> CollectionStore:
    """Four runs: one completed, one failed, two under way."""
    return made(tmp_path, rows_of(*NAMES), FIRST)


def made(root: Path, rows: list[Row], events: list[dict[str, Any]]) -> CollectionStore:
    store = Store(root).collection("sweep")
    store.create(HEADER, b"", rows)
    store.append(*events)
    return store


def told(snapshot: Snapshot) -> object:
    """Return all that a snapshot says, exactly."""
    ledger = snapshot.ledger
    attempts = sorted(ledger.attempts.items()), sorted(ledger.under_way.items())
    rest = sorted(ledger.held), ledger.then, ledger.open_intents, snapshot.rows, snapshot.retired
    columns = snapshot.table().columns
    listed = [list(getattr(columns, field.name)) for field in fields(columns) if field.name != "axes"]
    axes = {name: list(column) for name, column in columns.axes.items()}
    return repr((snapshot.statuses(), attempts, rest, listed, axes))


def anew(records: CollectionStore) -> object:
    """Return what the records say by themselves."""
    ledger = replay(records.events())
    everything = Recorded.of(records.rows(), ledger)
    return told(Snapshot(records, everything, records.frozen_runs(), ledger))


def is_used(records: CollectionStore) -> bool:
    """Say whether a reader does without parsing the frozen runs."""
    return "rows" not in vars(read(records).frozen)


def check(records: CollectionStore, *, used: bool) -> None:
    """Check that the next reader takes the file or not, and that it and the one after it say what the records say."""
    expected = anew(records)
    assert is_used(records) is used
    for _ in range(2):
        assert told(read(records)) == expected


def test_runs_in_columns_are_the_runs_one_by_one(records: CollectionStore) -> None:
    read(records)
    records.append(observed("c", 1))  # beside the columns
    table, listed = read(records).table(), read(records).statuses()
    assert list(table) == listed == [table[row] for row in range(len(table))]
    assert (table[-1], table[1:3]) == (listed[3], listed[1:3])
    with pytest.raises(IndexError):
        table[4]
    assert [status.state for status in listed] == ["completed", "failed", "completed", "queued"]
    columns, packed_anew = table.columns, RunColumns.of(listed)
    for name in ("id", "name", "state", "reason", "attempt", "commit", "metrics_sha256", "changed"):
        assert list(getattr(columns, name)) == list(getattr(packed_anew, name)), name
    assert {axis: list(own) for axis, own in columns.axes.items()} == {
        "task": ["a", "b", "c", "d"],
        "pv": [0.1] * 4,
        "seed": [None, 1, None, None],
    }


def test_what_was_read_once_is_not_read_again(records: CollectionStore) -> None:
    check(records, used=False)
    check(records, used=True)


def test_of_the_journal_the_tail_alone_is_read(records: CollectionStore) -> None:
    read(records)
    known = records.runs_index.read_bytes()
    records.append(intent("t2", 2, "b"), submitted("t2", "5"), observed("b", 2), observed("c", 1, "planned"))
    records.append({"event": "then", "backend": "local", "token": "x", "job": "9", "words": []})
    check(records, used=True)
    assert records.runs_index.read_bytes() == known


def test_a_tail_that_has_grown_long_is_read_into_the_file(
    records: CollectionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(records)
    monkeypatch.setattr(runs_index, "_TAIL_SHARE", 0.25)
    records.append({"event": "held", "runs": ["x"]})
    check(records, used=True)
    records.append(observed("c", 1), observed("d", 1))
    check(records, used=False)
    check(records, used=True)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "lose", "refuse", "end", "fail", "never start", "hold", "cancel", "then"]),
        st.sets(st.sampled_from(NAMES), min_size=1),
        st.integers(0, 3),
    ),
    max_size=12,
)


def history(steps: list[tuple[str, set[str], int]]) -> list[dict[str, Any]]:
    """Return what commands may have written, in an order in which they may have."""
    events: list[dict[str, Any]] = []
    numbers = dict.fromkeys(NAMES, 0)
    for place, (what, chosen, choice) in enumerate(steps):
        names, token = sorted(chosen), f"t{place}"
        runs = [name * 12 for name in names]
        if what in {"submit", "lose", "refuse"}:
            fresh = {name * 12: numbers[name] + 1 for name in names}
            changes = {runs[0]: {"set": {"lr": choice}, "resources": {}, "why": ""}} if choice else {}
            canaries = {runs[-1]: runs[:1]} if choice > 1 else {}
            events.append(intent(token, 1, attempts=fresh, changes=changes, canaries=canaries))
            if what == "submit":
                events.append(submitted(token, *[f"{place}_{run}" for run in runs]))
            elif what == "refuse":
                events.append({"event": "abandoned", "token": token, "why": "refused"})
            if what != "refuse":
                numbers |= {name: numbers[name] + 1 for name in names}
        elif what in {"end", "fail", "never start"}:
            state = {"end": "completed", "fail": "failed", "never start": "planned"}[what]
            ends = [
                observed(name, max(1, numbers[name] - choice), state, "error" if what == "fail" else None)
                for name in names
            ]
            events += ends
        elif what == "then":
            events.append(
                {"event": "then", "backend": "local", "token": token, "job": choice and f"{choice}", "words": []}
            )
        else:
            events.append({"event": {"hold": "held", "cancel": "cancelled"}[what], "runs": runs})
    return events


@settings(max_examples=60)
@given(steps=EVENTS, retired=st.sets(st.sampled_from(NAMES), max_size=2), stop=st.integers(0, 24))
def test_whenever_the_file_was_made_it_and_the_tail_come_to_the_same(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, set[str], int]], retired: set[str], stop: int
) -> None:
    events = history(steps)
    records = made(tmp_path_factory.mktemp("c"), rows_of(*NAMES, retired=tuple(retired)), events[:stop])
    is_open = bool(read(records).ledger.open_intents)
    records.append(*events[stop:])
    check(records, used=not is_open)


def test_no_file_is_made_while_nobody_knows_whether_a_submission_arrived(tmp_path: Path) -> None:
    """Taken back, it leaves the attempts before it, which the file would not have."""
    records = made(tmp_path, rows_of(*NAMES), [*FIRST, intent("t2", 2, "b")])
    read(records)
    assert not records.runs_index.exists()
    records.append({"event": "abandoned", "token": "t2", "why": "refused"})
    check(records, used=False)
    assert read(records).statuses()[1].state == "failed"


def test_small_records_get_no_file(records: CollectionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_index, "_WORTH_BYTES", 1 << 20)
    check(records, used=False)
    assert not records.runs_index.exists()


def rewrite(path: Path, content: bytes) -> None:
    """Edit a file in place and leave its inode, and times as they were."""
    before = path.stat()
    with path.open("r+b") as file:
        file.truncate()
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_an_edited_journal_of_the_same_size_and_time_is_read_anew(records: CollectionStore) -> None:
    read(records)
    rewrite(
        records.journal,
        records.journal.read_bytes().replace(b"oom_host", b"no_metri").replace(b"no_metri", b"node_fai"),
    )
    with pytest.raises(StoreError, match="not an event"):
        read(records)
    rewrite(records.journal, records.journal.read_bytes().replace(b'"node_fai"', b'"oom_gpu" '))
    check(records, used=False)
    assert read(records).statuses()[1].reason == "oom_gpu"


def test_edited_runs_of_the_same_size_and_time_are_read_anew(records: CollectionStore) -> None:
    read(records)
    rewrite(records.runs_file, records.runs_file.read_bytes().replace(b"run-a", b"run-A"))
    check(records, used=False)
    assert read(records).statuses()[0].name == "run-A"


def test_a_journal_restored_from_a_backup_is_read_anew(records: CollectionStore) -> None:
    backup = records.journal.read_bytes()
    records.append(observed("c", 1), observed("d", 1))
    read(records)
    records.journal.write_bytes(backup)
    check(records, used=False)
    assert read(records).statuses()[2].state == "queued"


def test_a_journal_restored_and_gone_on_from_there_is_read_anew(records: CollectionStore) -> None:
    """Longer than it was when the file was made, and another one from the middle on."""
    backup = records.journal.read_bytes()
    records.append(observed("c", 1))
    read(records)
    records.journal.write_bytes(backup)
    records.append(observed("c", 1, "failed", "timeout"), observed("d", 1))
    check(records, used=False)


def test_extended_runs_are_read_anew_and_the_retired_keep_their_attempts(records: CollectionStore) -> None:
    read(records)
    records.append({"event": "extended", "commit": COMMIT, "added": ["eeeeeeeeeeee"], "changed": {}, "removed": ["a"]})
    check(records, used=True)  # as if killed before the runs were replaced
    records.replace_rows(rows_of(*NAMES, "e", retired=("a", "c")), records.header, b"")
    check(records, used=False)
    records.append(observed("c", 1))
    check(records, used=True)
    snapshot = read(records)
    assert [row.name for row in snapshot.retired] == ["run-a", "run-c"]
    assert [status.state for status in snapshot.statuses(snapshot.retired)] == ["completed", "completed"]


def test_a_file_of_another_collection_is_not_taken(records: CollectionStore, tmp_path: Path) -> None:
    other = made(tmp_path / "other", rows_of("a", "b", "x", "d"), FIRST)
    read(other)
    records.runs_index.write_bytes(other.runs_index.read_bytes())
    check(records, used=False)


def test_a_torn_last_line_of_the_journal_is_no_line(records: CollectionStore) -> None:
    whole = records.journal.read_bytes()
    with records.journal.open("ab") as file:
        file.write(b'{"event":"obs')
    expected = anew(records)
    assert told(read(records)) == expected == told(read(records))
    records.append(observed("c", 1))  # cuts the torn line off
    assert records.journal.read_bytes().startswith(whole + b'{"at"')
    check(records, used=True)


@pytest.mark.parametrize("cut", [0, 5, 20, 300, -1])
def test_a_torn_file_is_made_anew(records: CollectionStore, cut: int) -> None:
    read(records)
    whole = records.runs_index.read_bytes()
    records.runs_index.write_bytes(whole[:cut])
    check(records, used=False)
    assert records.runs_index.read_bytes() == whole


@pytest.mark.parametrize("place", [0, 30, -30])
def test_one_flipped_bit_is_found(records: CollectionStore, place: int) -> None:
    read(records)
    content = bytearray(records.runs_index.read_bytes())
    content[place] ^= 1
    records.runs_index.write_bytes(content)
    check(records, used=False)


def test_a_file_of_another_version_is_made_anew(records: CollectionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    read(records)
    monkeypatch.setattr(runs_index, "INDEX_SCHEMA", runs_index.INDEX_SCHEMA + 1)
    check(records, used=False)
    check(records, used=True)


def test_what_a_killed_command_left_of_a_file_is_removed_later(records: CollectionStore) -> None:
    old, young = (records.records / f".runs.index.{number}.1.tmp" for number in (1, 2))
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (1, 1))
    check(records, used=False)
    assert (old.exists(), young.exists()) == (False, True)


def test_a_file_that_cannot_be_written_hinders_nobody(records: CollectionStore) -> None:
    records.runs_index.mkdir()
    check(records, used=False)
    check(records, used=False)


def test_readers_and_a_writer_at_once_always_see_a_journal_that_there_was(records: CollectionStore) -> None:
    wrong: list[str] = []
    done = threading.Event()

    def reader() -> None:
        last = 0
        while not done.is_set():
            number = read(CollectionStore(records.folder, "sweep")).ledger.attempts["b" * 12].number
            if number < last:
                wrong.append(f"{number} after {last}")
            last = number
            records.runs_index.unlink(missing_ok=True)

    readers = [threading.Thread(target=reader) for _ in range(2)]
    for thread in readers:
        thread.start()
    for number in range(2, 40):
        token = f"t{number}"
        with records.lock():
            records.append(intent(token, number, "b"), submitted(token, "7"), observed("b", number))
    done.set()
    for thread in readers:
        thread.join()
    assert wrong == []
    assert told(read(records)) == anew(records)


def test_a_tail_that_no_command_has_written_is_named_with_its_place(records: CollectionStore) -> None:
    read(records)
    size = records.journal.stat().st_size
    files.append_lines(records.journal, [{"event": "observed", "runs": 5}])
    with pytest.raises(StoreError, match=f"after byte {size}:1: not an event"):
        read(records)

"""A disk that is full, or that only reads: the command says so, leaves nothing half, and goes on once there is room."""

import errno
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from forked_commands import ForkedCommands
from local_queue import start_supervisor
from test_kills import WORK, Place
from workplace import Workplace

from slurmkit.collection import Collection
from slurmkit.project import Project

PAGE = 4096
"""Bytes: what tmpfs counts in."""

FILL = """\
case "$(cat "$1")" in
  *fill*) while echo 0123456789 >> "$2/filler"; do :; done; exit 0 ;;
esac
"""


@dataclass
class SmallDisk(Place):
    """A project whose runs are on a file system of a few MB."""

    disk: Path

    @property
    def runs(self) -> Path:
        return self.disk / "runs"

    @property
    def project(self) -> Project:
        return Project(self.root, self.runs)

    def environment(self) -> dict[str, str]:
        return super().environment() | {"SLURMKIT_RUNS": str(self.runs)}

    def collection(self, name: str) -> Collection:
        return Collection(self.project, self.project.store.existing(name))

    def fill(self, *, but: int) -> None:
        """Fill the disk but for some pages."""
        with (self.disk / "filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(PAGE))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            file.truncate(max(0, os.fstat(file.fileno()).st_size // PAGE - but) * PAGE)

    def free(self) -> None:
        (self.disk / "filler").unlink()


@pytest.fixture
def place(workplace: Workplace, forked_commands: ForkedCommands, tmp_path: Path) -> Iterator[SmallDisk]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.strip()}")
    (workplace.root / "work.sh").write_text(FILL + WORK)
    place = SmallDisk(workplace.root, forked_commands, disk)
    try:
        yield place
        place.end_queue()
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def refused(place: SmallDisk, done: "subprocess.CompletedProcess[str]") -> None:
    """Check that a command said which file it could not write, and what to do."""
    assert done.returncode in {1, 2, 3}
    assert str(place.disk) in done.stderr
    assert "No space left" in done.stderr or "Free some space" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_create_that_finds_the_disk_full_leaves_nothing_and_works_once_there_is_room(place: SmallDisk) -> None:
    path = place.sweep(2)
    room = 0
    while True:
        place.fill(but=room)
        done = place.slurmkit("collection", "create", str(path), "--name", f"c{room}", exit_code=None)
        place.free()
        if done.returncode == 0:
            break
        refused(place, done)
        assert place.project.store.names() == []
        assert not (place.runs / f"c{room}").exists()
        assert room < 40
        room += 1
    assert room > 3
    place.slurmkit("collection", "create", str(path), "--name", "c0")
    for name in (f"c{room}", "c0"):
        assert place.states(name) == {"seed-1": "planned", "seed-2": "planned"}


def test_a_submit_that_finds_the_disk_full_submits_all_or_nothing(place: SmallDisk) -> None:
    place.create(place.sweep(30), "sweep")
    submitted = room = 0
    while submitted < 2:
        place.fill(but=room)
        done = place.slurmkit("submit", "sweep", f"--run=seed-{room + 1}", exit_code=None)
        look = place.slurmkit("status", "sweep", exit_code=None)
        if look.returncode != 0:  # the queue has jobs, and its supervisor cannot start
            assert look.returncode == 3
            refused(place, look)
        place.free()
        if done.returncode == 0:
            submitted += 1
        else:
            refused(place, done)
        assert room < 25
        room += 1
    assert room > 4
    place.slurmkit("submit", "sweep", *(f"--run=seed-{number}" for number in range(1, room + 1)))
    place.wait_for_queue()
    states = place.states("sweep")
    broken = {f"seed-{n}" for n in range(1, room + 1) if states[f"seed-{n}"] == "failed"}  # started on the full disk
    place.slurmkit("resubmit", "sweep", "--failed", exit_code=None)
    place.wait_for_queue()
    assert place.status("sweep")["states"] == {"completed": room, "planned": 30 - room}
    done_by = {s.name: s.attempt for s in place.collection("sweep").statuses() if s.attempt}
    assert done_by == {f"seed-{n}": 2 if f"seed-{n}" in broken else 1 for n in range(1, room + 1)}
    assert all(count <= done_by[run] for run, count in place.executions("sweep").items())
    assert len(place.jobs()) == room + len(broken)


def test_an_extend_that_finds_the_disk_full_leaves_the_collection_as_it_was(place: SmallDisk) -> None:
    path = place.sweep(1)
    place.create(path, "sweep")
    before = path.read_bytes()
    place.sweep(2)
    room = 0
    while True:
        place.fill(but=room)
        done = place.slurmkit("collection", "extend", str(path), exit_code=None)
        place.free()
        if done.returncode == 0:
            break
        refused(place, done)
        assert place.states("sweep") == {"seed-1": "planned"}
        assert place.collection("sweep").records.definition_file.read_bytes() == before
        assert room < 40
        room += 1
    assert room > 0
    assert place.states("sweep") == {"seed-1": "planned", "seed-2": "planned"}


def test_a_run_that_fills_the_disk_fails_with_a_reason_and_is_tried_again_once_there_is_room(place: SmallDisk) -> None:
    place.create(place.sweep(2, act="fill"), "sweep")
    start_supervisor(place.project.store.queue, {"worker.attempt._OUTCOME_RETRIES_S": (0.01, 0.01, 0.01)})
    place.slurmkit("submit", "sweep")
    place.wait_for_queue()
    told = place.status("sweep")
    assert told["states"] == {"failed": 2}
    runs = told["runs"]
    assert isinstance(runs, list)
    assert all(run["reason"] and run["evidence"] for run in runs)
    for filler in place.runs.glob("sweep/*/filler"):
        filler.unlink()
    assert place.status("sweep")["states"] == {"failed": 2}
    place.slurmkit("resubmit", "sweep", "--failed", "--set", "act=complete")
    place.wait_for_queue()
    assert place.status("sweep")["states"] == {"completed": 2}


def test_a_runs_folder_that_only_reads_can_still_be_looked_at(place: SmallDisk) -> None:
    path = place.sweep(2)
    place.create(path, "sweep")
    place.create(path, "other")
    place.slurmkit("submit", "sweep")
    place.wait_for_queue()  # nobody has recorded that they ended
    place.end_supervisor()
    record = next(place.runs.glob(".queue/*/supervisor.json"))
    read_only = ["mount", "-o", "remount,ro", str(place.disk)]
    deadline = time.monotonic() + 60
    while subprocess.run(read_only, check=False, capture_output=True).returncode != 0:
        assert time.monotonic() < deadline  # its supervisor, which has let go of its lock, still has a log open
        time.sleep(0.02)
    assert record.exists()
    assert place.status("sweep")["states"] == {"completed": 2}
    assert "2/2 complete" in place.slurmkit("status", "sweep").stdout
    assert "0/2 complete" in place.slurmkit("collection", "list").stdout
    assert "score" in place.slurmkit("aggregate", "sweep").stdout
    place.slurmkit("collection", "show", "sweep")
    place.slurmkit("logs", "sweep")
    place.slurmkit("doctor", exit_code=None)
    for words in (["submit", "other"], ["cancel", "other", "--all"], ["collection", "create", str(path)]):
        done = place.slurmkit(*words, exit_code=None)
        assert done.returncode in {1, 2, 3}
    done = place.slurmkit("submit", "other", exit_code=1)
    assert "Read-only file system" in done.stderr
    assert str(place.disk) in done.stderr
    subprocess.run(["mount", "-o", "remount,rw", str(place.disk)], check=True)
    assert Counter(place.states("other").values()) == {"planned": 2}

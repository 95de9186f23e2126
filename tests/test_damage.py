"""What people do to the files under runs/: the next command says what is missing, and a way leads on."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from forked_commands import ForkedCommands
from test_kills import WORK, Place
from workplace import Workplace


@pytest.fixture
def place(workplace: Workplace, forked_commands: ForkedCommands) -> Place:
    (workplace.root / "work.sh").write_text(WORK)
    return Place(workplace.root, forked_commands)


def test_runs_of_a_deleted_queue_are_unknown_until_they_are_cancelled_and_tried_again(place: Place) -> None:
    place.create(place.sweep(2), "sweep")
    place.slurmkit("submit", "sweep")
    place.wait_for_queue()
    place.end_supervisor()
    shutil.rmtree(place.runs / ".queue")
    for outcome in place.runs.glob("sweep/*/attempts/1/outcome.json"):
        outcome.unlink()
    assert place.status("sweep")["states"] == {"unknown": 2}
    assert "2 runs left alone: unknown" in place.slurmkit("submit", "sweep").stderr
    place.slurmkit("cancel", "sweep", "--state", "unknown")
    assert place.status("sweep")["states"] == {"cancelled": 2}
    place.slurmkit("resubmit", "sweep", "--state", "cancelled")
    assert place.wait("sweep") == {"seed-1": "completed", "seed-2": "completed"}
    assert {status.attempt for status in place.collection("sweep").statuses()} == {2}


def test_a_run_that_may_be_at_work_on_another_host_is_cancelled_only_there(place: Place) -> None:
    place.create(place.sweep(2), "sweep")
    records = place.project.store.existing("sweep")
    attempts = {records.rows()[0].id: 1}
    records.append(
        {"event": "intent", "token": "t", "backend": "foreground@elsewhere", "attempts": attempts},
        {"event": "submitted", "token": "t", "jobs": ["1:1.0"]},
    )
    assert place.status("sweep")["states"] == {"unknown": 1, "planned": 1}
    for words in (["--all"], ["--all", "--dry-run"]):
        told = place.slurmkit("cancel", "sweep", *words, exit_code=2).stderr
        assert "run seed-1: is on host elsewhere, which cannot be asked from here. Cancel it there" in told
    assert place.status("sweep")["states"] == {"unknown": 1, "planned": 1}
    place.slurmkit("cancel", "sweep", "--state", "planned")
    assert place.status("sweep")["states"] == {"unknown": 1, "cancelled": 1}


def test_a_project_that_was_moved_goes_on(place: Place) -> None:
    place.create(place.sweep(3), "sweep")
    place.slurmkit("submit", "sweep", "--run=seed-1")
    place.wait_for_queue()
    place.end_supervisor()
    moved = Place(place.root.rename(place.root.parent / "moved"), place.forked)
    try:
        assert moved.status("sweep")["states"] == {"completed": 1, "planned": 2}
        moved.slurmkit("submit", "sweep")
        assert set(moved.wait("sweep").values()) == {"completed"}
        assert moved.executions("sweep") == {"seed-1": 1, "seed-2": 1, "seed-3": 1}
    finally:
        moved.end_queue()


def test_a_checkout_that_was_removed_is_made_again(place: Place) -> None:
    place.create(place.sweep(1), "sweep")
    commit = place.collection("sweep").commit
    shutil.rmtree(place.runs / ".checkouts" / commit)
    place.slurmkit("submit", "sweep")
    assert place.wait("sweep") == {"seed-1": "completed"}


def test_a_current_folder_that_was_removed_is_told(place: Place) -> None:
    gone = place.root / "gone"
    script = f"mkdir {gone} && cd {gone} && rmdir {gone} && exec {Path(sys.executable).parent / 'slurmkit'} status"
    done = subprocess.run(["sh", "-c", script], env=place.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "slurmkit: the current folder was removed. Change to one that exists.\n"

"""Many shells at once, and Ctrl-C: each attempt is executed exactly once, and every command ends in order."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from forked_commands import ForkedCommands
from test_kills import WORK, Place
from workplace import Workplace, git

SHELLS = 8


@pytest.fixture
def place(workplace: Workplace, forked_commands: ForkedCommands) -> Place:
    (workplace.root / "work.sh").write_text(WORK)
    return Place(workplace.root, forked_commands)


def at_once(place: Place, *commands: Iterable[str]) -> list[tuple[int, str, str]]:
    """Start commands at once; return exit code, stdout and stderr of each."""
    shells = [place.start(*words) for words in commands]
    answers: list[tuple[int, str, str]] = []
    for shell in shells:
        out, err = shell.communicate()
        assert "Traceback" not in err, err
        answers.append((shell.returncode, out, err))
    return answers


def attempts_told(answers: list[tuple[int, str, str]]) -> Counter[tuple[str, str]]:
    """Return (run name, attempt) to how many commands said that they submitted it."""
    lines = [line.split() for _, out, _ in answers for line in out.splitlines() if "  attempt " in line]
    return Counter((words[3], words[2]) for words in lines)


def test_eight_submits_at_once_submit_each_run_once(place: Place) -> None:
    place.create(place.sweep(6), "sweep")
    answers = at_once(place, *[["submit", "sweep"]] * SHELLS)
    assert [code for code, _, _ in answers] == [0] * SHELLS
    assert attempts_told(answers) == {(f"seed-{n}", "1"): 1 for n in range(1, 7)}
    place.wait_for_queue()
    assert place.executions("sweep") == {f"seed-{n}": 1 for n in range(1, 7)}
    assert place.status("sweep")["states"] == {"completed": 6}
    assert len(place.jobs()) == 6


def test_eight_resubmits_at_once_make_one_new_attempt_a_run(place: Place) -> None:
    place.create(place.sweep(6, act="fail"), "sweep")
    place.slurmkit("submit", "sweep")
    place.wait_for_queue()  # nobody has looked since: all eight come to record the failures, too
    answers = at_once(place, *[["resubmit", "sweep", "--failed", "--set", "act=complete"]] * SHELLS)
    assert {code for code, _, _ in answers} <= {0, 2}
    assert attempts_told(answers) == {(f"seed-{n}", "2"): 1 for n in range(1, 7)}
    place.wait_for_queue()
    assert place.executions("sweep") == {f"seed-{n}": 2 for n in range(1, 7)}
    assert {(s.state, s.attempt) for s in place.collection("sweep").statuses()} == {("completed", 2)}


def test_eight_creates_at_once_make_one_collection_and_one_checkout(place: Place) -> None:
    path = place.sweep(3)
    answers = at_once(place, *[["collection", "create", str(path), "--submit"]] * SHELLS)
    assert sorted(code for code, _, _ in answers) == [0, *[2] * (SHELLS - 1)]
    unclear = [err for code, _, err in answers if code and not ("exists already" in err or "another shell" in err)]
    assert not unclear
    commit = git(place.root, "rev-parse", "HEAD")
    assert {entry.name for entry in (place.runs / ".checkouts").iterdir()} == {commit, f"{commit}.json", ".lock"}
    assert (place.runs / ".checkouts" / commit / "work.sh").read_text() == WORK
    place.wait_for_queue()
    assert place.executions("sweep") == {"seed-1": 1, "seed-2": 1, "seed-3": 1}
    assert place.status("sweep")["states"] == {"completed": 3}


def test_two_extends_at_once_lose_no_run_and_submit_each_once(place: Place) -> None:
    path = place.sweep(2)
    place.create(path, "sweep")
    place.slurmkit("submit", "sweep")
    place.sweep(4)
    other = place.sweep(5, name="other.yaml")
    answers = at_once(place, *[["collection", "extend", str(p), "--submit"] for p in (path, other, path, other)])
    assert {code for code, _, _ in answers} <= {0, 2}
    assert sum(code == 0 for code, _, _ in answers) >= 1
    place.slurmkit("collection", "extend", str(other), "--submit", exit_code=None)
    place.slurmkit("submit", "sweep")
    place.wait_for_queue()
    assert place.executions("sweep") == {f"seed-{n}": 1 for n in range(1, 6)}
    assert place.status("sweep")["states"] == {"completed": 5}
    rows = place.collection("sweep").records.rows()
    assert Counter(row.name for row in rows) == {f"seed-{n}": 1 for n in range(1, 6)}


def test_submit_status_and_cancel_racing_execute_no_attempt_twice(place: Place) -> None:
    place.create(place.sweep(8), "sweep")
    race = [["submit", "sweep"], ["status", "sweep", "--json"], ["cancel", "sweep", "--all"]]
    answers = at_once(place, *race, *race, ["resubmit", "sweep", "--state", "cancelled"], *race)
    assert {code for code, _, _ in answers} <= {0, 2}  # 2: nothing is cancelled that could be tried again
    told = attempts_told(answers)
    assert set(told.values()) <= {1}
    place.wait_for_queue()
    states = {s.name: (s.state, s.attempt) for s in place.collection("sweep").statuses()}
    assert len(place.jobs()) == len(told)
    started = place.executions("sweep")
    for run, (state, attempt) in states.items():
        assert state in {"planned", "completed", "cancelled"}
        assert started[run] <= attempt
        assert sorted(int(n) for name, n in told if name == run) == list(range(1, attempt + 1))
    place.slurmkit("resubmit", "sweep", "--state", "cancelled", exit_code=None)
    place.slurmkit("submit", "sweep")
    place.wait_for_queue()
    assert place.status("sweep")["states"] == {"completed": 8}


def interrupted(place: Place, at: int, *words: str) -> tuple[int, str]:
    """Run the command, to be interrupted at a point; return its exit code and stderr."""
    done = place.struck("SIGINT", at, *words)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


def test_ctrl_c_in_submit_loses_and_doubles_nothing_wherever_it_comes(place: Place) -> None:
    place.create(place.sweep(60), "sweep")
    codes: list[int] = []
    at = 1
    while True:
        code, err = interrupted(place, at, "submit", "sweep", f"--run=seed-{at}")
        codes.append(code)
        assert code in {0, 130}
        if code == 0:
            break
        assert "interrupted" in err
        assert "go on" in err
        at += 1
    assert at > 15
    chosen = [f"--run=seed-{n}" for n in range(1, at + 1)]
    place.slurmkit("submit", "sweep", *chosen)
    place.wait_for_queue()
    assert place.executions("sweep") == {f"seed-{n}": 1 for n in range(1, at + 1)}
    assert place.status("sweep")["states"] == {"completed": at, "planned": 60 - at}
    assert len(place.jobs()) == at


@pytest.mark.parametrize("at", [8, 150, 603])
def test_ctrl_c_in_the_submission_of_hundreds_of_runs(place: Place, at: int) -> None:
    """In the first pickle, in the midst of them, and behind the record that makes them jobs."""
    place.create(place.sweep(300), "sweep")
    code, err = interrupted(place, at, "submit", "sweep")
    assert code == 130, err
    states = Counter(place.states("sweep").values())
    assert states["planned"] in {0, 300}
    place.slurmkit("submit", "sweep")
    pickles = list((place.runs / "sweep/.slurmkit/jobs").glob("*_submitted.pkl"))
    jobs = place.jobs()  # after the look at their pickles, for jobs may end between the two
    assert len(jobs) == 300
    assert len(pickles) >= 300 - jobs.count("completed")
    place.slurmkit("cancel", "sweep", "--all")
    place.wait_for_queue()
    assert max(place.executions("sweep").values(), default=1) == 1
    assert sum(Counter(place.states("sweep").values()).values()) == 300


@pytest.mark.parametrize("terminal", [False, True])
def test_ctrl_c_while_waiting_detaches_and_the_runs_go_on(place: Place, terminal: bool) -> None:
    place.create(place.sweep(2, act="sleep"), "sweep")
    command = [str(Path(sys.executable).parent / "slurmkit"), "submit", "sweep", "--wait"]
    reader, writer = pty.openpty() if terminal else os.pipe()
    with subprocess.Popen(
        command,
        cwd=place.root,
        env=place.environment() | {"TERM": "xterm"},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as shell:
        os.close(writer)
        seen = b""
        while b"running" not in seen:  # the display says so once it follows
            seen += os.read(reader, 4096)
        os.killpg(shell.pid, signal.SIGINT)
        assert shell.stderr is not None
        err = shell.stderr.read()
        assert shell.wait() == 130, err
    os.close(reader)
    assert "Traceback" not in err
    assert "the runs go on. slurmkit status sweep" in err
    deadline = time.monotonic() + 60
    while place.executions("sweep") != {"seed-1": 1, "seed-2": 1}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert set(place.states("sweep").values()) == {"running"}
    pids = [int(path.read_text()) for path in place.runs.glob("sweep/*/history.jsonl")]
    for pid in pids:
        os.kill(pid, 0)  # alive
    place.slurmkit("cancel", "sweep", "--all")
    place.wait_for_queue()
    told = json.loads(place.slurmkit("status", "sweep", "--json").stdout)
    assert told["states"] == {"cancelled": 2}

"""SIGKILL of the command at every point where it changes a record: nothing is lost, nothing is doubled."""

import json
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from forked_commands import ForkedCommands, ForkedWorkplace
from workplace import Workplace, end_supervisor

from slurmkit.collection import Collection
from slurmkit.collection.create import carry_out, plan_create
from slurmkit.project import Project
from slurmkit.schedulers.local.journal import Journal

WORK = """\
echo $$ >> "$2/history.jsonl"
grep -q '"act": *"fail"' "$1" && exit 3
grep -q '"act": *"sleep"' "$1" && exec sleep 600
echo '{"score": 1}' > "$2/metrics.json"
"""

SWEEP = """\
name: sweep
command: [sh, work.sh, "{config}", "{run_dir}"]
config: {act: ACT, seed: 0}
axes: {seed: {key: seed, values: SEEDS}}
resources: {cpus: CPUS, mem: 100M, time: 1h}
"""

MOST_POINTS = 80
"""More than any command has; a loop that comes so far has found a command that never ends."""


class Place(ForkedWorkplace):
    """A project whose runs are a few lines of shell, and a command that can be killed at any of its points."""

    @property
    def project(self) -> Project:
        return Project.discover(self.root)

    def sweep(self, seeds: int, *, act: str = "complete", cpus: int = 1, name: str = "sweep.yaml") -> Path:
        """Write and commit a definition."""
        words = {"ACT": act, "SEEDS": str(list(range(1, seeds + 1))), "CPUS": str(cpus)}
        text = SWEEP
        for word, value in words.items():
            text = text.replace(word, value)
        return self.define(text, name)

    def create(self, path: Path, name: str) -> None:
        """Create a collection, without the command."""
        carry_out(self.project, plan_create(self.project, path, name=name))

    def struck(self, number: str, at: int, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run the command, and send it a signal at a point (see `kill_at`)."""
        count = self.root.parent / "points"
        count.unlink(missing_ok=True)
        told = json.dumps([number, str(self.runs), at, str(count)])
        done = self.forked.run(words, self.root, self.environment() | {"KILL_AT": told})
        assert count.exists() == (done.returncode >= 0)
        assert done.returncode != 0 or int(count.read_text()) < at
        return done

    def killed(self, at: int, *words: str) -> bool:
        """Run the command, to be killed at a point; say whether it was. If not, it came to its end."""
        assert at <= MOST_POINTS
        done = self.struck("SIGKILL", at, *words)
        assert done.returncode in {0, -signal.SIGKILL}, f"point {at}: {done.stdout}{done.stderr}"
        return done.returncode != 0

    def collection(self, name: str) -> Collection:
        return Collection.load(name, self.root)

    def jobs(self) -> list[str]:
        """Return the states of all jobs that the queue has ever been given."""
        journal = Journal(self.project.store.queue)
        journal.refresh()
        return [job.state for job in journal.state.jobs.values()]

    def executions(self, name: str) -> Counter[str]:
        """Return run name to how often its command was started: each start writes its process id."""
        starts = self.runs.glob(f"{name}/*/history.jsonl")
        return Counter({path.parent.name: len(path.read_text().splitlines()) for path in starts})

    def wait_for_queue(self) -> None:
        """Wait until the queue is empty, and look at no collection."""
        deadline = time.monotonic() + 100
        while not all(state in {"completed", "failed", "cancelled"} for state in self.jobs()):
            assert time.monotonic() < deadline, Counter(self.jobs())
            time.sleep(0.05)

    def end_supervisor(self) -> None:
        """End the supervisor of an empty queue, so that the fixture need not cancel collection by collection."""
        self.wait_for_queue()
        end_supervisor(self.project.store.queue)


@pytest.fixture
def place(workplace: Workplace, forked_commands: ForkedCommands) -> Place:
    (workplace.root / "work.sh").write_text(WORK)
    return Place(workplace.root, forked_commands)


def test_a_killed_create_leaves_the_collection_whole_or_not_there(place: Place) -> None:
    path = place.sweep(2)
    at = 1
    while place.killed(at, "collection", "create", str(path), "--name", f"c{at}"):
        at += 1
    assert at > 15
    store = place.project.store
    whole = set(store.names())
    assert whole == {f"c{number}" for number in range(at + 1 - len(whole), at + 1)}  # from its one rename on
    assert 1 <= len(whole) < 6
    for number in range(1, at + 1):
        again = place.slurmkit("collection", "create", str(path), "--name", f"c{number}", exit_code=None)
        assert again.returncode == (2 if f"c{number}" in whole else 0), again.stderr
    assert len(store.names()) == at
    for name in store.names():
        assert [status.state for status in place.collection(name).statuses()] == ["planned", "planned"]
    commit = place.collection("c1").commit
    assert {path.name for path in store.checkouts.iterdir()} == {commit, f"{commit}.json", ".lock"}
    assert "0/2 complete" in place.slurmkit("status").stdout


def test_a_killed_submit_is_adopted_or_abandoned_and_each_run_is_executed_once(place: Place) -> None:
    place.create(place.sweep(MOST_POINTS), "sweep")
    adopted: list[bool] = []
    at = 1
    while place.killed(at, "submit", "sweep", "--run", f"seed-{at}"):
        state = place.states("sweep")[f"seed-{at}"]  # the next command settles what the killed one left
        assert state in {"planned", "queued", "running", "completed"}
        adopted.append(state != "planned")
        assert not place.collection("sweep").snapshot().ledger.open_intents
        at += 1
    assert at > 15
    assert set(adopted) == {False, True}  # abandoned before the record that commits the batch, adopted after it
    place.slurmkit("submit", "sweep", *(f"--run=seed-{number}" for number in range(1, at + 1)), exit_code=None)
    place.wait_for_queue()
    assert place.executions("sweep") == {f"seed-{number}": 1 for number in range(1, at + 1)}
    statuses = place.collection("sweep").statuses()
    assert len(statuses) == MOST_POINTS
    assert Counter((status.state, status.attempt) for status in statuses) == {
        ("completed", 1): at,
        ("planned", 0): MOST_POINTS - at,
    }
    assert len(place.jobs()) == at
    place.end_supervisor()


def test_a_killed_submit_of_many_runs_submits_all_or_none(place: Place) -> None:
    path = place.sweep(3)
    at = 1
    while True:
        name = f"c{at}"
        place.create(path, name)
        if not place.killed(at, "submit", name):
            break
        at += 6  # the points themselves have their test; here it is the batch that counts
    for number in range(1, at + 1, 6):
        place.slurmkit("submit", f"c{number}")
    place.wait_for_queue()
    for number in range(1, at + 1, 6):
        assert place.executions(f"c{number}") == {"seed-1": 1, "seed-2": 1, "seed-3": 1}
        assert {status.state for status in place.collection(f"c{number}").statuses()} == {"completed"}
    place.end_supervisor()


def test_a_killed_resubmit_makes_one_new_attempt_and_keeps_the_old(place: Place) -> None:
    count = 40
    place.create(place.sweep(count, act="fail"), "sweep")
    place.slurmkit("submit", "sweep")
    place.wait_for_queue()
    assert set(place.states("sweep").values()) == {"failed"}
    at = 1
    while place.killed(at, "resubmit", "sweep", "--run", f"seed-{at}", "--set", "act=complete"):
        assert not place.collection("sweep").snapshot().ledger.open_intents
        at += 1
    assert 15 < at <= count
    place.slurmkit("resubmit", "sweep", "--failed", "--set", "act=complete")
    place.wait_for_queue()
    statuses = place.collection("sweep").statuses()
    assert {(status.state, status.attempt) for status in statuses} == {("completed", 2)}
    assert set(place.executions("sweep").values()) == {2}
    for status in statuses:
        outcomes = [json.loads((status.run_dir / f"attempts/{n}/outcome.json").read_text()) for n in (1, 2)]
        assert [outcome["outcome"] for outcome in outcomes] == ["failed", "completed"]
    place.end_supervisor()


def test_a_killed_extend_leaves_the_old_or_the_new_and_the_next_one_completes_it(place: Place) -> None:
    path = place.sweep(1)
    place.create(path, "sweep")
    at = 1
    while True:
        before = path.read_bytes()
        after = place.sweep(at + 1).read_bytes()
        killed = place.killed(at, "collection", "extend", str(path))
        seen = place.collection("sweep")
        assert (len(seen.statuses()), seen.records.definition_file.read_bytes()) in [(at, before), (at + 1, after)]
        again = place.slurmkit("collection", "extend", str(path), exit_code=None)
        assert again.returncode in {0, 2}, again.stderr
        assert again.returncode == 0 or "Nothing to do" in again.stderr
        seen = place.collection("sweep")
        assert (len(seen.statuses()), seen.records.definition_file.read_bytes()) == (at + 1, after)
        if not killed:
            break
        at += 1
    assert at > 8


def test_a_killed_cancel_is_carried_on_by_the_next_and_nothing_cancelled_is_executed(place: Place) -> None:
    blocker = place.sweep(1, act="sleep", cpus=2, name="blocker.yaml")
    place.create(blocker, "blocker")
    place.slurmkit("submit", "blocker")
    place.create(place.sweep(40), "sweep")
    place.slurmkit("submit", "sweep", *(f"--run=seed-{number}" for number in range(1, 21)))
    at = 1
    while True:
        chosen = (f"--run=seed-{at}", f"--run=seed-{at + 20}")  # one that is queued, and one that was never submitted
        killed = place.killed(at, "cancel", "sweep", *chosen)
        place.slurmkit("cancel", "sweep", *chosen)
        states = {status.name: status.state for status in place.collection("sweep").statuses()}
        assert states[f"seed-{at}"] == states[f"seed-{at + 20}"] == "cancelled"
        assert Counter(states.values()) == {"cancelled": 2 * at, "queued": 20 - at, "planned": 20 - at}
        if not killed:
            break
        at += 1
    assert 4 < at <= 20
    place.slurmkit("cancel", "blocker", "--all")
    place.slurmkit("submit", "sweep")
    place.wait_for_queue()
    expected = {f"seed-{number}": 1 for number in (*range(at + 1, 21), *range(at + 21, 41))}
    assert place.executions("sweep") == expected
    place.end_supervisor()


def test_a_status_killed_while_it_records_what_ended_is_made_good_by_the_next(place: Place) -> None:
    path = place.sweep(2)
    names = [f"c{number}" for number in range(1, 13)]
    for name in names:
        place.create(path, name)
        place.slurmkit("submit", name)
    place.wait_for_queue()
    at = 1
    while place.killed(at, "status", f"c{at}"):
        assert place.status(f"c{at}")["states"] == {"completed": 2}
        at += 1
    assert 4 < at <= len(names)
    for name in names[:at]:
        events = place.collection(name).records.events()
        observed = [run for event in events if event["event"] == "observed" for run in event["runs"]]
        assert len(observed) == len(set(observed)) == 2
    place.end_supervisor()


def test_a_killed_delete_leaves_the_collection_whole_or_gone(place: Place) -> None:
    path = place.sweep(2)
    at = 1
    while True:
        place.create(path, f"group/c{at}")
        for run in ("seed-1", "seed-2"):
            (place.runs / "group" / f"c{at}" / run / "attempts").mkdir(parents=True)
        killed = place.killed(at, "collection", "delete", f"group/c{at}", "--yes")
        if place.project.store.collection(f"group/c{at}").exists():
            assert len(place.collection(f"group/c{at}").statuses()) == 2
        else:
            place.slurmkit("collection", "create", str(path), "--name", f"group/c{at}")
        place.slurmkit("collection", "delete", f"group/c{at}", "--yes")
        if not killed:
            break
        at += 1
    assert at > 1
    assert not list(place.runs.glob(".deleted-*"))
    assert not (place.runs / "group").exists()

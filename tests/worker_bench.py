"""A committed project and a worker's order for it: what the tests of the worker run commands in."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from slurmkit import pin
from slurmkit.records import WorkOrder
from slurmkit.worker import work

PACKAGE = """\
import json, os, pathlib, sys

run_dir = pathlib.Path(os.environ["SLURMKIT_RUN_DIR"])

def finish(metrics={"loss": 0.5}):
    (run_dir / "metrics.json").write_text(json.dumps(metrics))
"""


GOOD = "import package; package.finish()"


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=A Person", "-c", "user.email=person@example.org"]
    done = subprocess.run(["git", *who, "-C", folder, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@dataclass(frozen=True)
class Bench:
    """A committed project with a package, its checkout, and a way to run commands in it."""

    repository: Path
    order: WorkOrder

    @property
    def run_dir(self) -> Path:
        return Path(self.order.run_dir)

    @property
    def attempt(self) -> Path:
        return self.run_dir / "attempts" / str(self.order.attempt)

    @property
    def outcome(self) -> dict[str, Any]:
        return json.loads((self.attempt / "outcome.json").read_bytes())

    def having(self, *command: str, **changes: Any) -> "Bench":
        return replace(self, order=replace(self.order, command=list(command) or self.order.command, **changes))

    def run(self, *command: str, grace_s: float = 300, **changes: Any) -> tuple[int, dict[str, Any]]:
        bench = self.having(*command, **changes)
        code = work(bench.order.to_json(), grace_s=grace_s)
        return code, bench.outcome

    def python(self, code: str, **changes: Any) -> tuple[int, dict[str, Any]]:
        return self.run(sys.executable, "-c", code, **changes)


def make_bench(repository: Path, tmp_path: Path) -> Bench:
    pinned = pin.resolve(repository, None, collection="demo", ignore=[repository / "runs"])
    checkout = pin.materialise(pinned, repository, repository / "runs" / ".checkouts")
    order = WorkOrder(
        collection="demo",
        run_id="r1",
        run_name="run one",
        run_dir=str(tmp_path / "runs" / "demo" / "run one"),
        attempt=1,
        command=["true"],
        config={"lr": 0.1, "nested": {"name": "ü"}},
        config_sha256="0" * 64,
        env={"FROM_DEFINITION": "yes"},
        checkout=str(checkout),
        commit=pinned.commit,
        resources={},
    )
    return Bench(repository, order)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    top = tmp_path / "project"
    (top / "package").mkdir(parents=True)
    git(top, "init", "-q")
    (top / "package" / "__init__.py").write_text(PACKAGE)
    (top / "package" / "part.py").write_text("WHERE = __file__\n")
    (top / ".gitignore").write_text("/runs/\n")
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "One")
    return top


@pytest.fixture
def bench(repository: Path, tmp_path: Path) -> Bench:
    return make_bench(repository, tmp_path)


def start_worker(bench: Bench) -> "subprocess.Popen[bytes]":
    """Start a worker in a process of its own."""
    code = "import json, sys; from slurmkit.worker import work; sys.exit(work(json.load(sys.stdin)))"
    worker = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert worker.stdin is not None
    worker.stdin.write(json.dumps(bench.order.to_json()).encode())
    worker.stdin.close()
    return worker


@contextlib.contextmanager
def once(ready: Callable[[], bool], do: Callable[[], object]):
    """Do something in a thread as soon as a condition holds, while the block, which waits for it, runs in this one."""
    over = threading.Event()

    def wait() -> None:
        while not over.wait(0.01):
            if ready():
                do()
                return

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def has_line(path: Path, count: int = 1) -> Callable[[], bool]:
    return lambda: path.exists() and path.read_bytes().count(b"\n") >= count


def wait_until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not claim():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

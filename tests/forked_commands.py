"""`slurmkit` in forks of one process: for tests that ask many questions.

What starting the command, or a process of its own, is part of belongs to `Workplace`.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from workplace import Workplace


@dataclass(frozen=True)
class ForkedCommands:
    """The process that forks.

    Attributes:
        process: it reads a command a line, and answers each by a line.
    """

    process: "subprocess.Popen[str]"

    def run(self, words: Sequence[str], cwd: Path, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
        """Run one command and return what became of it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([[*words], str(cwd), env]) + "\n")
        self.process.stdin.flush()
        code, out, err = json.loads(self.process.stdout.readline())
        return subprocess.CompletedProcess([*words], code, out, err)


@dataclass
class ForkedWorkplace(Workplace):
    """A project in a folder of its own, whose commands run in forks."""

    forked: ForkedCommands

    def slurmkit(self, *words: str, exit_code: int | None = 0) -> "subprocess.CompletedProcess[str]":
        """Run a command; check its exit code unless that is None."""
        done = self.forked.run(words, self.root, self.environment())
        if exit_code is not None:
            assert done.returncode == exit_code, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, (words, done.stderr)
        return done


@contextlib.contextmanager
def forking() -> Iterator[ForkedCommands]:
    """Have a process that forks, for the time of the block."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("command_forks.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield ForkedCommands(process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # a command that hangs, too


@pytest.fixture(scope="session")
def forked_commands() -> Iterator[ForkedCommands]:
    """Return a process that forks, for as long as the tests run."""
    with forking() as commands:
        yield commands

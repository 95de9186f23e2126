"""Ask git: a command in a repository, its answer as bytes, its refusal as a `PinError`."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from slurmkit.errors import PinError

_LOCATING = frozenset({
    "GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS",
    "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS",
})  # fmt: skip
"""Variables (git hooks set some) that would lead git to another repository, index or meaning of a path."""

_SETTINGS = (
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.splitIndex=false",
    "advice.addEmbeddedRepo=false",
    "core.filesRefLockTimeout=10000",
    "core.packedRefsTimeout=10000",
)
"""Conveniences that write beside the index in use, or start a daemon, off; none of them changes an answer. And patience
(in milliseconds) with other shells that are making a reference at this moment: git's own is a tenth of a second."""


class GitRefusedError(PinError):
    """Git ended with an error; the message is git's own."""


def git(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> bytes:
    """Run git in a folder and return what it prints.

    No command here takes the optional lock with which git would refresh (and so rewrite) the person's index.

    Args:
        folder: where to run it.
        arguments: the command and its arguments.
        env: further environment variables.

    Raises:
        GitRefusedError: git ended with an error.
        PinError: git is not installed, or the folder is gone.
    """
    inherited = {key: value for key, value in os.environ.items() if key not in _LOCATING}
    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    try:
        done = subprocess.run(
            ["git", *settings, "-C", str(folder), *arguments],
            env={**inherited, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise PinError(f"{folder}: git was not found on PATH. Install git, and run the command again.") from error
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip()
        raise GitRefusedError(words or f"git {arguments[0]} ended with exit code {done.returncode}")
    return done.stdout


def git_line(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """Run git in a folder and return the one line that it prints, paths that are not UTF-8 included."""
    return os.fsdecode(git(folder, *arguments, env=env).removesuffix(b"\n"))

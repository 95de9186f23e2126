"""Where a project is: its root, and the folder of its runs."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from slurmkit.errors import UsageError
from slurmkit.store import Store

RUNS_VARIABLE = "SLURMKIT_RUNS"


@dataclass(frozen=True)
class Project:
    """A project on disk.

    Attributes:
        root: top of the git work tree, or the folder that holds ``runs/``.
        runs: folder of everything generated.
    """

    root: Path
    runs: Path

    @cached_property
    def store(self) -> Store:
        """The records below `runs`."""
        return Store(self.runs)

    @classmethod
    def discover(cls, start: Path | None = None) -> "Project":
        """Find the project around a folder: the nearest one above with ``.git`` or with records of runs.

        The environment variable ``SLURMKIT_RUNS`` puts the runs elsewhere (a scratch file system).

        Args:
            start: where to look from; None: the current folder.

        Raises:
            UsageError: the current folder is gone, or has a name that is not UTF-8: no record could hold it.
        """
        try:
            start = (start or Path.cwd()).absolute()
        except FileNotFoundError as error:
            raise UsageError("the current folder was removed. Change to one that exists.") from error
        root = next((folder for folder in (start, *start.parents) if _is_root(folder)), start)
        chosen = os.environ.get(RUNS_VARIABLE)
        runs = Path(chosen).absolute() if chosen else root / "runs"
        for folder in (start, runs):
            try:
                str(folder).encode()
            except UnicodeEncodeError as error:
                raise UsageError(f"{folder}: the path is not UTF-8. Rename the folder, or work elsewhere.") from error
        return cls(root, runs)


def _is_root(folder: Path) -> bool:
    return (folder / ".git").exists() or (folder / "runs" / ".checkouts").is_dir()

"""What changed in the code between two pinned commits, as git tells it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slurmkit.comparison.side import Member
from slurmkit.errors import PinError
from slurmkit.pin.git import GitRefusedError, git
from slurmkit.report.attempts import read_attempts
from slurmkit.states import State

MOST_SUBJECTS = 20
_AS_STORED = ("--no-renames", "--no-ext-diff", "--no-textconv")


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file that differs.

    Attributes:
        path: from the top of the repository.
        added, removed: lines; None: it is no text.
        imported: whether a run of the two commits imported it; None: not known.
    """

    path: str
    added: int | None
    removed: int | None
    imported: bool | None = None


@dataclass(frozen=True, slots=True)
class CodeChange:
    """What lies between two commits.

    Attributes:
        old, new: A's commit and B's.
        pairs: how many pairs of runs are pinned to these two.
        problem: why nothing can be said; empty: it can.
        ahead: commits that only B has; ``behind``: that only A has.
        subjects: (short id, subject) of the last of those that only B has; ``lost``: that only A has.
        files: those that differ between the two trees: imported ones first, then most changed lines first.
    """

    old: str
    new: str
    pairs: int
    problem: str = ""
    ahead: int = 0
    behind: int = 0
    subjects: tuple[tuple[str, str], ...] = ()
    lost: tuple[tuple[str, str], ...] = ()
    files: tuple[FileChange, ...] = ()


def code_changes(pairs: Iterable[tuple[Member, Member]], repositories: Sequence[Path]) -> tuple[CodeChange, ...]:
    """Return what changed between each two commits that compared runs are pinned to; none where these are equal.

    Args:
        pairs: the runs that are compared.
        repositories: where the commits may be.
    """
    of_commits: dict[tuple[str, str], list[tuple[Member, Member]]] = {}
    for a, b in pairs:
        if a.status.commit != b.status.commit:
            of_commits.setdefault((a.status.commit, b.status.commit), []).append((a, b))
    ranked = sorted(of_commits.items(), key=lambda item: -len(item[1]))
    return tuple(
        _imported_first(_code_change(old, new, len(own), repositories), imported_files(own))
        for (old, new), own in ranked
    )


def imported_files(pairs: Sequence[tuple[Member, Member]]) -> frozenset[str] | None:
    """Return the files that completed runs of either side imported.

    None, for not known, if such a run left no list of them, as those of an earlier version, or no run completed on one
    of the sides.
    """
    found: set[str] = set()
    for members in zip(*pairs, strict=True):
        completed = {m.status.id: m.status for m in members if m.status.state is State.COMPLETED}
        lists = [attempt.imported if attempt else None for attempt in read_attempts(list(completed.values()))]
        known = [files for files in lists if files is not None]
        if not known or len(known) < len(lists):
            return None
        found.update(*known)
    return frozenset(found)


def _imported_first(change: CodeChange, imported: frozenset[str] | None) -> CodeChange:
    """Say of each file whether a run imported it, where that is known."""
    if imported is None:
        return change
    marked = [replace(file, imported=file.path in imported) for file in change.files]
    return replace(change, files=tuple(sorted(marked, key=lambda file: not file.imported)))


def _code_change(old: str, new: str, pairs: int, repositories: Sequence[Path]) -> CodeChange:
    try:
        missing: list[str] = []
        for repository in dict.fromkeys(repositories):
            missing = [commit for commit in (old, new) if not _has(repository, commit)]
            if not missing:
                return _between(repository, old, new, pairs)
    except PinError as error:  # no git here
        return CodeChange(old, new, pairs, str(error))
    named = " and ".join(commit[:10] for commit in missing) or "no repository is known"
    where = ", ".join(map(str, dict.fromkeys(repositories)))
    return CodeChange(old, new, pairs, f"{where}: does not have {named}. git fetch may bring it.")


def _has(repository: Path, commit: str) -> bool:
    try:
        git(repository, "cat-file", "-e", f"{commit}^{{commit}}")
    except GitRefusedError:
        return False
    return True


def _between(repository: Path, old: str, new: str, pairs: int) -> CodeChange:
    behind, ahead = map(int, git(repository, "rev-list", "--left-right", "--count", f"{old}...{new}").split())
    return CodeChange(
        old,
        new,
        pairs,
        ahead=ahead,
        behind=behind,
        subjects=_subjects(repository, old, new),
        lost=_subjects(repository, new, old),
        files=_files(repository, old, new),
    )


def _subjects(repository: Path, old: str, new: str) -> tuple[tuple[str, str], ...]:
    """Return short id and subject of the last commits that `new` has and `old` has not, newest first."""
    listed = git(repository, "log", "--no-show-signature", f"--max-count={MOST_SUBJECTS}", "--format=%h%x09%s",
                 "--no-color", f"{old}..{new}")  # fmt: skip
    lines = listed.decode(errors="backslashreplace").splitlines()
    return tuple((short, subject) for short, _, subject in (line.partition("\t") for line in lines))


def _files(repository: Path, old: str, new: str) -> tuple[FileChange, ...]:
    listed = git(repository, "diff", "--numstat", "-z", *_AS_STORED, old, new)
    found: list[FileChange] = []
    for entry in listed.split(b"\0"):
        if entry:
            added, removed, path = entry.split(b"\t", 2)
            name = path.decode(errors="backslashreplace")
            found.append(FileChange(name, _lines(added), _lines(removed)))
    return tuple(sorted(found, key=lambda file: (-(file.added or 0) - (file.removed or 0), file.path)))


def _lines(count: bytes) -> int | None:
    return None if count == b"-" else int(count)

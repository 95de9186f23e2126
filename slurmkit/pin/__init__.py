"""Pin a commit: resolve it, refuse a dirty tree or take a snapshot of it, and keep it from garbage collection."""

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from slurmkit.errors import PinError
from slurmkit.pin.checkout import materialise_commit
from slurmkit.pin.git import GitRefusedError, git, git_line

_SHOWN_FILES = 20
_OBJECT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""SHA-1, or SHA-256 in repositories that were made with ``--object-format=sha256``."""


@dataclass(frozen=True)
class Pin:
    """The commit that a collection executes.

    Attributes:
        commit: its id, 40 hex digits (64 in a SHA-256 repository).
        ref: the reference that keeps it from garbage collection; None: nothing does.
        repository: top of the work tree that it was resolved in.
        dirty_files: what a snapshot has that the commit below it has not, paths from the top; empty: no snapshot.
    """

    commit: str
    ref: str | None
    repository: Path
    dirty_files: tuple[str, ...] = ()


def find_repository(start: Path) -> Path:
    """Return the top of the git work tree around a folder.

    Raises:
        PinError: there is none, or it has no commit yet.
    """
    try:
        top = Path(git_line(start, "rev-parse", "--show-toplevel"))
    except GitRefusedError as error:
        if "not a git repository" not in str(error):  # dubious ownership, a bare repository: git says it best
            raise PinError(f"{start}: git cannot use this folder: {error}") from error
        raise PinError(
            f"{start}: not in a git repository, so there is no commit to pin. Put the project under git: "
            "git init && git add -A && git commit -m 'First commit'"
        ) from error
    _head(top)
    return top


def resolve(
    repository: Path,
    revision: str | None,
    *,
    collection: str,
    allow_dirty: bool = False,
    ignore: Sequence[Path] = (),
    keep: bool = True,
) -> Pin:
    """Decide which commit a collection executes.

    Args:
        repository: top of a work tree (`find_repository`).
        revision: what to pin, in any way that git understands, whatever the work tree holds; None: HEAD, if the
            work tree has nothing else.
        collection: name of the collection, for the reference.
        allow_dirty: pin the work tree as it is, untracked files included, git-ignored ones not. HEAD, the index and
            the files stay as they are.
        ignore: files and folders that never count as changes and never enter a snapshot (the folder of the runs).
        keep: make the reference; False writes nothing unless a snapshot has to be taken.

    Raises:
        PinError: an unknown revision, a dirty tree, or a tree that cannot be a commit.
    """
    if revision is not None:
        commit, dirty = _commit_of(repository, revision), ()
    else:
        commit = _head(repository)
        pathspec = _all_but(repository, ignore)
        dirty = _dirty_files(repository, pathspec)
        if dirty and not allow_dirty:
            raise PinError(_refusal(repository, commit, dirty))
        if dirty:
            commit = _snapshot(repository, commit, pathspec)
    ref = _keep(repository, collection, commit) if keep else None
    return Pin(commit, ref, repository, tuple(path for _, path in dirty))


def materialise(pin_or_commit: Pin | str, repository: Path, checkouts: Path) -> Path:
    """Return the folder with the files of a commit, made if there is none yet (see `checkout.materialise_commit`).

    Raises:
        PinError: the repository does not have the commit, or its files cannot be written out.
    """
    commit = pin_or_commit.commit if isinstance(pin_or_commit, Pin) else pin_or_commit
    return materialise_commit(commit, repository, checkouts)


def release(repository: Path, ref: str) -> None:
    """Remove the reference of a pin; git may then collect the commit if nothing else reaches it."""
    git(repository, "update-ref", "-d", ref)


def _head(repository: Path) -> str:
    try:
        return git_line(repository, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    except GitRefusedError as error:
        raise PinError(
            f"{repository}: the repository has no commit yet, so there is nothing to pin. "
            "Make one: git add -A && git commit -m 'First commit'"
        ) from error


def _commit_of(repository: Path, revision: str) -> str:
    """Resolve a revision. Two steps, since ``:/words^{commit}`` would search for the suffix too."""
    problem = f"{repository}: {revision!r} is not a commit here"
    if not revision or revision.startswith("-") or "\0" in revision:
        raise PinError(f"{problem}. Give a commit, a branch or a tag.")
    try:
        found = git_line(repository, "rev-parse", "--verify", "--quiet", revision)
        commit = git_line(repository, "rev-parse", "--verify", "--quiet", f"{found}^{{commit}}")
    except GitRefusedError as error:
        raise PinError(f"{problem}. Give a commit, a branch or a tag; git fetch may bring a missing one.") from error
    if not _OBJECT_ID.fullmatch(commit):  # ^HEAD is a revision, but not a commit
        raise PinError(f"{problem}. Give a commit, a branch or a tag.")
    return commit


def _all_but(repository: Path, ignore: Sequence[Path]) -> list[str]:
    """Return git's words for "everything but these".

    Paths outside of the repository need none, nor do git-ignored ones, which `git add` would even refuse by name.
    """
    top = repository.resolve()
    resolved = [path.resolve() for path in ignore]
    inside = [path.relative_to(top) for path in resolved if path.is_relative_to(top) and path != top]
    named = [path for path in inside if not _is_ignored(repository, path)]
    return ["--", ":(top)", *(f":(top,exclude,literal){path}" for path in named)]


def _is_ignored(repository: Path, path: Path) -> bool:
    try:
        git(repository, "check-ignore", "--quiet", "--", f"{path}/")  # a folder, also where it does not exist yet
    except GitRefusedError:
        return False
    return True


def _dirty_files(repository: Path, pathspec: list[str]) -> list[tuple[str, str]]:
    """Return ``(status word, path)`` of all that differs from HEAD; bytes that are not UTF-8 are escaped."""
    answer = git(repository, "status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all",
                 "--ignore-submodules=none", *pathspec)  # fmt: skip
    entries = [entry.decode(errors="backslashreplace") for entry in answer.split(b"\0") if entry]
    return [(entry[:2], entry[3:]) for entry in entries]


def _refusal(repository: Path, head: str, dirty: list[tuple[str, str]]) -> str:
    untracked = sum(word == "??" for word, _ in dirty)
    lines = [f"    {word} {_printable(path)}" for word, path in dirty[:_SHOWN_FILES]]
    if len(dirty) > _SHOWN_FILES:
        lines.append(f"    ... and {len(dirty) - _SHOWN_FILES:,} more")
    return "\n".join([
        f"{repository}: the work tree is not the commit {head[:10]}: {len(dirty) - untracked:,} changed and "
        f"{untracked:,} untracked files:",
        *lines,
        "Commit or ignore them; or pin the tree as it is with --allow-dirty; or run what is committed with "
        "--commit HEAD.",
    ])  # fmt: skip


def _printable(path: str) -> str:
    return path if path.isprintable() else repr(path)


def _snapshot(repository: Path, head: str, pathspec: list[str]) -> str:
    """Make a commit of the work tree and return its id, by way of an index of its own.

    The index starts as a copy of the person's own, which knows what is unchanged (no file is read twice), what a
    sparse checkout leaves out and what was added although git-ignored. Same tree, same HEAD: same commit, however
    often and from however many shells.
    """
    with tempfile.TemporaryDirectory(prefix="slurmkit-index-") as folder:
        own = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        try:
            shutil.copy2(  # with its times: by them git knows which files may have changed unseen ("racy git")
                repository / git_line(repository, "rev-parse", "--git-path", "index"), own["GIT_INDEX_FILE"]
            )
        except FileNotFoundError:
            git(repository, "read-tree", head, env=own)
        try:
            git(repository, "add", "-A", *pathspec, env=own)
        except GitRefusedError as error:
            raise PinError(
                f"{repository}: the work tree cannot be made a commit: {error}. Mend or ignore that file."
            ) from error
        tree = git_line(repository, "write-tree", env=own)
    _refuse_dirty_submodules(repository, tree)
    if tree == git_line(repository, "rev-parse", "--verify", f"{head}^{{tree}}"):
        return head
    date = git_line(repository, "show", "-s", "--format=%ct +0000", head)
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER")
           for what, value in (("NAME", "slurmkit"), ("EMAIL", "slurmkit@localhost"), ("DATE", date))}  # fmt: skip
    return git_line(repository, "commit-tree", tree, "-p", head, "-m", f"The work tree on top of {head[:10]}", env=who)


def _refuse_dirty_submodules(repository: Path, tree: str) -> None:
    """A commit holds of a submodule only the id of its commit: what is not committed there would be left out."""
    for entry in git(repository, "ls-tree", "-r", "-z", tree).split(b"\0"):
        if not entry.startswith(b"160000 "):
            continue
        path = os.fsdecode(entry.split(b"\t", 1)[1])
        folder = repository / path
        if (folder / ".git").exists() and git(folder, "status", "--porcelain", "-z", "--untracked-files=all"):
            raise PinError(
                f"{repository}: the git repository in {_printable(path)} has changes of its own, which a snapshot "
                "cannot hold. Commit them there, and run the command again."
            )


def _keep(repository: Path, collection: str, commit: str) -> str:
    """Point a reference of the collection at a commit, leave its earlier ones alone, and return it.

    The first commit of a collection has ``refs/slurmkit/<collection>``. A further one (an extension), or a collection
    whose name git cannot hold beside another's (``a`` beside ``a/b``), has a reference with the commit in its name.
    """
    name = _ref_name(collection)
    flat = name.replace("/", "@")
    for ref in (f"refs/slurmkit/{name}", f"refs/slurmkit/{flat}@{commit}"):
        try:
            git(repository, "update-ref", ref, commit, "0" * len(commit))  # only if there is none of that name
        except GitRefusedError:
            if _points_at(repository, ref, commit):
                return ref
        else:
            return ref
    raise PinError(
        f"{repository}: git cannot make a reference below refs/slurmkit/ that keeps commit {commit[:10]}. "
        "Check that you may write to its .git folder."
    )


def _points_at(repository: Path, ref: str, commit: str) -> bool:
    try:
        return git_line(repository, "rev-parse", "--verify", "--quiet", ref) == commit
    except GitRefusedError:
        return False


def _ref_name(collection: str) -> str:
    """Write a collection's name as git allows it in a reference (``git help check-ref-format``)."""
    name = quote(collection, safe="/=+").replace("~", "%7E")
    return re.sub(r"(?<![^/])\.|\.(?=\.|/|$|lock(?:/|$))", "%2E", name)

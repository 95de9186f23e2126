"""Checkouts: the files of a pinned commit, written out once for all runs, and the manifest that they are checked by."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from slurmkit import files
from slurmkit.errors import PinError
from slurmkit.pin.git import GitRefusedError, git
from slurmkit.records import SCHEMA, Json

_LOCK_TIMEOUT_S = 1800.0
"""Longer than a large repository on a slow file system takes."""

_UNFINISHED = ".unfinished-"


def manifest_path(checkout: Path) -> Path:
    """Return where the manifest of a checkout lies: beside it."""
    return checkout.with_name(f"{checkout.name}.json")


def materialise_commit(commit: str, repository: Path, checkouts: Path) -> Path:
    """Return the folder with the files of a commit, made if there is none yet.

    The files come as a checkout would have them (line ends, LFS), read-only, with those of submodules. They are
    written to a folder of another name, which is renamed last: a folder named like the commit is whole, whenever and
    however its maker was killed. One maker at a time; the lock's holder removes what killed ones left. The files are
    not forced to disk: what a power cut takes of them, the manifest, which is on disk, shows when a run imports it.

    Args:
        commit: its full id.
        repository: a work tree that has the commit.
        checkouts: folder of all checkouts; made if there is none.

    Raises:
        PinError: the repository does not have the commit, or the files cannot be written out.
        StoreError: a record cannot be written.
    """
    checkout = checkouts / commit
    if _is_whole(checkout):
        return checkout
    try:
        git(repository, "cat-file", "-e", f"{commit}^{{commit}}")
    except GitRefusedError as error:
        raise PinError(
            f"{repository}: commit {commit} is not in this repository any more. "
            "Fetch it (git fetch), or create the collection again from one that is."
        ) from error
    try:
        checkouts.mkdir(parents=True, exist_ok=True)
        with files.lock(checkouts / ".lock", timeout_s=_LOCK_TIMEOUT_S):
            _remove_unfinished(checkouts)
            if not _is_whole(checkout):
                _make(commit, repository, checkout)
    except OSError as error:
        raise PinError(
            f"{error.filename or checkouts}: the files of commit {commit[:10]} cannot be written: {error.strerror}. "
            "Free some space or check the folder's permissions, and run the command again."
        ) from error
    return checkout


def blob_id(content: bytes, *, like: str) -> str:
    """Return git's id of a file's content, in the hash algorithm of another id."""
    hashed = hashlib.sha1 if len(like) == 40 else hashlib.sha256
    return hashed(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _is_whole(checkout: Path) -> bool:
    return checkout.is_dir() and manifest_path(checkout).is_file()


def _remove_unfinished(checkouts: Path) -> None:
    for leftover in checkouts.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(leftover)
    for leftover in checkouts.glob(".*.json.*.tmp"):  # half a manifest
        leftover.unlink()


def _make(commit: str, repository: Path, checkout: Path) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=checkout.parent))
    unfinished.chmod(0o755)  # others of the group read it too
    try:
        manifest: dict[str, Json] = {
            "schema": SCHEMA,
            "commit": commit,
            "repository": _text(str(repository)),
            "files": dict(_write_files(commit, repository, unfinished, "")),
        }
        # The manifest first: a checkout without one could not be checked, one without a checkout is simply not used.
        files.write_json(manifest_path(checkout), manifest)
        if not checkout.exists():  # a folder whose manifest was lost stays; runs may be using it
            unfinished.rename(checkout)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_files(commit: str, repository: Path, folder: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """Write the files of a commit, and yield path and blob id of each.

    By ``git checkout-index`` and not ``git archive``: the latter leaves out what .gitattributes marks export-ignore
    and rewrites what it marks export-subst. The ids are those of the content as it was written, so that a file which
    git converts on checkout is checked by what runs can read.
    """
    with tempfile.TemporaryDirectory(prefix="slurmkit-index-") as temporary:
        own = {"GIT_INDEX_FILE": str(Path(temporary) / "index")}
        try:
            git(repository, "read-tree", commit, env=own)
            git(repository, "checkout-index", "--all", "--quiet", f"--prefix={folder.absolute()}/", env=own)
        except GitRefusedError as error:
            raise PinError(
                f"{repository}: the files of commit {commit[:10]} cannot be written out: {error}. "
                "Free some space or check the folder's permissions, and run the command again."
            ) from error
        entries = git(repository, "ls-files", "--stage", "-z", env=own).split(b"\0")
    for entry in filter(None, entries):
        words, _, raw_path = entry.partition(b"\t")
        mode, object_id, _ = words.decode().split()
        name = os.fsdecode(raw_path)
        path = folder / name
        if mode == "160000":
            yield from _write_submodule(object_id, repository / name, path, f"{prefix}{name}/")
        elif not path.is_symlink():
            yield _text(prefix + name), blob_id(path.read_bytes(), like=object_id)
            path.chmod(0o555 if mode == "100755" else 0o444)


def _write_submodule(commit: str, source: Path, folder: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """Write the files of a submodule; one that is not initialised is an empty folder, as it is in the work tree."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (source / ".git").exists():
        return
    try:
        git(source, "cat-file", "-e", f"{commit}^{{commit}}")
    except GitRefusedError as error:
        raise PinError(
            f"{source}: the submodule does not have commit {commit[:10]}, which the pinned commit asks for. "
            "Run: git submodule update --init --recursive"
        ) from error
    yield from _write_files(commit, source, folder, prefix)


def _text(path: str) -> str:
    """Write a path that is not UTF-8 as text that JSON can hold."""
    return os.fsencode(path).decode(errors="backslashreplace")

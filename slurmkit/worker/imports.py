"""The proof of a pin: what a command's Python processes imported, compared with the pinned commit."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from slurmkit import files
from slurmkit.errors import StoreError
from slurmkit.pin.checkout import blob_id, manifest_path
from slurmkit.records import Json, PinProof

PROOF_FOLDER = Path(__file__).parent.parent / "proof"
"""Holds the ``sitecustomize`` that writes the lists."""

_SHOWN = 3
_MOST_FILES = 500
"""With more, none are kept: an outcome stays small, and a part of the files would pass for all."""


def import_folders(checkout: Path) -> list[Path]:
    """Return the folders that Python shall look into first: the checkout, and its ``src`` if there is one."""
    source = checkout / "src"
    return [checkout, source] if source.is_dir() else [checkout]


def python_path(checkout: Path, inherited: str) -> str:
    """Return PYTHONPATH for a command: the checkout first, our sitecustomize behind it, then what was there.

    A project with a sitecustomize of its own would hide ours, which therefore goes in front of it and runs it.
    """
    folders = import_folders(checkout)
    hidden = any((folder / "sitecustomize.py").exists() for folder in folders)
    ordered = [PROOF_FOLDER, *folders] if hidden else [*folders, PROOF_FOLDER]
    return os.pathsep.join([*map(str, ordered), *filter(None, [inherited])])


def check_imports(lists: Path, checkout: Path) -> tuple[PinProof, list[str]]:
    """Compare what was imported with the checkout and its manifest.

    Foreign is a module that the checkout has but that came from elsewhere, one from a file of the project's own work
    tree that the commit has too, and one from a file of the checkout that is not as in the commit.

    Args:
        lists: folder with the lists of the command's processes.
        checkout: folder with the pinned files; its manifest lies beside it.

    Returns:
        the proof, and one line for each of the first foreign modules.
    """
    imported = set(_imported(lists))  # processes may have a module from different files
    try:
        manifest: dict[str, Json] = files.read_json(manifest_path(checkout))
    except (FileNotFoundError, StoreError):
        manifest = {}
    if not imported or not manifest:
        return PinProof(proved=None, checked=0, foreign={}), []
    root, work_tree = Path(os.path.realpath(checkout)), Path(os.path.realpath(manifest["repository"]))
    blobs: dict[str, str] = manifest["files"]
    own = _top_level_names(blobs)
    checked = 0
    pinned: set[str] = set()
    foreign: dict[str, str] = {}
    lines: list[str] = []
    for name, path in sorted(imported):
        real = Path(os.path.realpath(path))
        if real.is_relative_to(root):
            checked += 1
            inside = str(real.relative_to(root))
            pinned.add(inside)
            problem = _changed(real, blobs.get(inside))
        else:
            in_tree = real.is_relative_to(work_tree) and str(real.relative_to(work_tree)) in blobs
            problem = "not from the checkout" if in_tree or name.partition(".")[0] in own else None
        if problem is not None:
            foreign[name] = path
            lines.append(f"module {name} came from {path}: {problem}")
    if len(lines) > _SHOWN:
        lines[_SHOWN:] = [f"and {len(lines) - _SHOWN} more modules"]
    proof = PinProof(proved=None if checked == 0 and not foreign else not foreign, checked=checked, foreign=foreign)
    if 0 < len(pinned & blobs.keys()) <= _MOST_FILES:
        proof["imported"] = sorted(pinned & blobs.keys())
    return proof, lines


def remove_lists(lists: Path) -> None:
    """Remove the lists, if there are any: the proof has been drawn from them, or they are an earlier start's."""
    if lists.is_dir():
        shutil.rmtree(lists, ignore_errors=True)


def _imported(lists: Path) -> Iterator[tuple[str, str]]:
    """Yield module and file of all lists. A list that is being written has another name, and is left out."""
    for path in lists.glob("[0-9]*[0-9]"):
        words = os.fsdecode(path.read_bytes()).split("\0")[:-1]
        yield from zip(words[::2], words[1::2], strict=False)


def _top_level_names(blobs: dict[str, str]) -> set[str]:
    """Return the modules and packages at the root of the commit and of its ``src``.

    A folder without ``__init__.py`` is none: any regular package of that name goes before it, as Python has it.
    """
    names: set[str] = set()
    for path in blobs:
        parts = path.removeprefix("src/").split("/")
        if len(parts) == 1 and parts[0].endswith(".py"):
            names.add(parts[0].removesuffix(".py"))
        elif len(parts) == 2 and parts[1] == "__init__.py":
            names.add(parts[0])
    return names


def _changed(path: Path, expected: str | None) -> str | None:
    if expected is None:
        return "not a file of the commit"
    try:
        content = path.read_bytes()
    except OSError:
        return "gone since"
    return None if blob_id(content, like=expected) == expected else "not as in the commit"

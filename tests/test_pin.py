"""Pinning: which commit is taken, what is refused, and what a checkout holds."""

import concurrent.futures
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slurmkit import pin
from slurmkit.errors import PinError
from slurmkit.pin.checkout import blob_id, manifest_path


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def _no_settings_of_this_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "A Person")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "person@example.org")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit, in a folder with a blank in its name."""
    top = tmp_path / "my project"
    (top / "package").mkdir(parents=True)
    git(top, "init", "-q", "-b", "main")
    (top / "package" / "__init__.py").write_text("VALUE = 1\n")
    (top / "run.sh").write_text("#!/bin/sh\n")
    (top / "run.sh").chmod(0o755)
    (top / ".gitignore").write_text("/runs/\n*.ignored\n")
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "One")
    return top


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def index_of(repository: Path) -> tuple[bytes, int]:
    index = repository / ".git" / "index"
    return index.read_bytes(), index.stat().st_mtime_ns


def test_a_clean_tree_pins_head_and_keeps_it_from_garbage_collection(repository: Path) -> None:
    pinned = pin.resolve(repository, None, collection="demo")
    assert pinned == pin.Pin(git(repository, "rev-parse", "HEAD"), "refs/slurmkit/demo", repository)
    git(repository, "commit", "-q", "--amend", "-m", "Another")
    git(repository, "reflog", "expire", "--expire=now", "--all")
    git(repository, "gc", "-q", "--prune=now")
    assert git(repository, "cat-file", "-t", pinned.commit) == "commit"


def test_without_keep_nothing_is_written(repository: Path) -> None:
    pinned = pin.resolve(repository, None, collection="demo", keep=False)
    assert pinned.ref is None
    assert git(repository, "for-each-ref", "refs/slurmkit") == ""


def test_each_commit_of_a_collection_keeps_a_reference_of_its_own(repository: Path) -> None:
    first = pin.resolve(repository, None, collection="a/b")
    git(repository, "commit", "-q", "--allow-empty", "-m", "Two")
    second = pin.resolve(repository, None, collection="a/b")
    again = pin.resolve(repository, None, collection="a/b")
    beside = pin.resolve(repository, None, collection="a")  # git cannot hold refs/slurmkit/a beside refs/slurmkit/a/b
    assert first.ref == "refs/slurmkit/a/b"
    assert second == again
    pins = (first, second, beside)
    assert [git(repository, "rev-parse", str(each.ref)) for each in pins] == [each.commit for each in pins]
    assert len({each.ref for each in pins}) == 3
    pin.release(repository, str(first.ref))
    assert git(repository, "for-each-ref", "--format=%(refname)").count("refs/slurmkit/") == 2


@pytest.mark.parametrize("name", ["x.lock", ".hidden", "a..b", "what? a~name^", "end.", "ü/ö", "@{"])
def test_any_name_of_a_collection_makes_a_reference(repository: Path, name: str) -> None:
    pinned = pin.resolve(repository, None, collection=name)
    assert git(repository, "rev-parse", str(pinned.ref)) == pinned.commit


def test_a_dirty_tree_is_refused_with_its_files_and_the_ways_out(repository: Path) -> None:
    (repository / "package" / "__init__.py").write_text("VALUE = 2\n")
    for number in range(30):
        (repository / f"note {number:02d}").touch()
    with pytest.raises(PinError) as refused:
        pin.resolve(repository, None, collection="demo")
    message = str(refused.value)
    assert "1 changed and 30 untracked files" in message
    assert "M package/__init__.py" in message
    assert "note 18" in message
    assert "note 19" not in message
    assert "... and 11 more" in message
    assert "--allow-dirty" in message
    assert "--commit HEAD" in message


def test_what_is_ignored_does_not_make_a_tree_dirty_and_is_not_in_a_snapshot(repository: Path) -> None:
    (repository / "out" / "deep").mkdir(parents=True)
    (repository / "out" / "deep" / "x").touch()
    (repository / "x.ignored").touch()
    ignore = [repository / "out", Path("/elsewhere")]
    assert pin.resolve(repository, None, collection="demo", ignore=ignore).dirty_files == ()
    (repository / "new").touch()
    pinned = pin.resolve(repository, None, collection="demo", allow_dirty=True, ignore=ignore)
    assert pinned.dirty_files == ("new",)
    names = git(repository, "ls-tree", "-r", "--name-only", pinned.commit).splitlines()
    assert "new" in names
    assert not {"x.ignored", "out/deep/x"} & set(names)


def test_a_snapshot_holds_the_tree_and_leaves_head_index_and_files_alone(repository: Path) -> None:
    (repository / "package" / "__init__.py").write_text("VALUE = 2\n")
    (repository / "staged.py").write_text("staged = 1\n")
    git(repository, "add", "staged.py")
    (repository / "staged.py").write_text("staged = 2\n")
    (repository / "new\nline 'and' \"quotes\" ü").write_text("untracked\n")
    (repository / "run.sh").unlink()
    (repository / "forced.ignored").write_text("added all the same\n")
    git(repository, "add", "-f", "forced.ignored")
    time.sleep(0.01)
    before = git(repository, "rev-parse", "HEAD"), index_of(repository), content_of(repository / "package")
    status = git(repository, "--no-optional-locks", "status", "--porcelain")

    pinned = pin.resolve(repository, None, collection="demo", allow_dirty=True)

    assert (git(repository, "rev-parse", "HEAD"), index_of(repository), content_of(repository / "package")) == before
    assert git(repository, "--no-optional-locks", "status", "--porcelain") == status
    assert git(repository, "rev-parse", f"{pinned.commit}^") == before[0]
    assert git(repository, "show", f"{pinned.commit}:staged.py") == "staged = 2"
    checkout = pin.materialise(pinned, repository, repository / "runs" / ".checkouts")
    expected = {name: data for name, data in content_of(repository).items() if not name.startswith((".git/", "runs/"))}
    assert content_of(checkout) == expected
    assert "new\nline 'and' \"quotes\" ü" in pinned.dirty_files


def test_the_same_dirty_tree_is_the_same_commit(repository: Path) -> None:
    (repository / "new").write_text("x")
    first = pin.resolve(repository, None, collection="one", allow_dirty=True)
    second = pin.resolve(repository, None, collection="two", allow_dirty=True)
    assert first.commit == second.commit != git(repository, "rev-parse", "HEAD")


def test_a_snapshot_needs_no_identity(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{role}_NAME")
        monkeypatch.delenv(f"GIT_{role}_EMAIL")
    (repository / "new").write_text("x")
    pinned = pin.resolve(repository, None, collection="demo", allow_dirty=True)
    assert git(repository, "show", f"{pinned.commit}:new") == "x"


def test_a_revision_is_taken_whatever_the_tree_holds(repository: Path) -> None:
    first = git(repository, "rev-parse", "HEAD")
    git(repository, "commit", "-q", "--allow-empty", "-m", "Two words")
    git(repository, "tag", "-a", "v1", "-m", "annotated", first)
    (repository / "new").touch()
    for revision in (first, first[:8], "HEAD~1", "v1", ":/One"):
        assert pin.resolve(repository, revision, collection="demo").commit == first


@pytest.mark.parametrize(
    "revision", ["", "nothing", "--all", "-n1", "^HEAD", "HEAD..HEAD", "$(touch x)", "a\nb", "a\0b"]
)
def test_what_is_no_revision_is_refused(repository: Path, revision: str) -> None:
    with pytest.raises(PinError, match="not a commit here"):
        pin.resolve(repository, revision, collection="demo")
    assert not (repository / "x").exists()


def test_it_works_from_a_subfolder_a_linked_worktree_and_a_detached_head(repository: Path, tmp_path: Path) -> None:
    assert pin.find_repository(repository / "package") == repository
    linked = tmp_path / "linked"
    git(repository, "worktree", "add", "-q", "--detach", str(linked))
    (linked / "only here").touch()
    assert pin.find_repository(linked) == linked
    pinned = pin.resolve(linked, None, collection="demo", allow_dirty=True)
    assert pinned.dirty_files == ("only here",)
    assert (pin.materialise(pinned, linked, tmp_path / "checkouts") / "only here").exists()
    assert pin.resolve(repository, None, collection="other").dirty_files == ()


def test_a_git_hook_s_environment_does_not_lead_elsewhere(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert pin.resolve(pin.find_repository(repository), None, collection="demo").dirty_files == ()


def test_without_repository_commit_or_git_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(PinError, match="git init"):
        pin.find_repository(tmp_path)
    git(tmp_path, "init", "-q")
    with pytest.raises(PinError, match=r"no commit yet.*git commit"):
        pin.find_repository(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PinError, match="Install git"):
        pin.find_repository(tmp_path)


def test_a_checkout_is_read_only_complete_and_has_a_manifest(repository: Path, tmp_path: Path) -> None:
    (repository / ".gitattributes").write_text("package export-ignore\n*.txt text eol=crlf\n")
    (repository / "lines.txt").write_text("a\nb\n")
    (repository / "link").symlink_to("package/__init__.py")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Attributes")
    commit = git(repository, "rev-parse", "HEAD")
    checkout = pin.materialise(commit, repository, tmp_path / "checkouts")
    assert checkout == tmp_path / "checkouts" / commit
    assert (checkout / "package" / "__init__.py").stat().st_mode & 0o777 == 0o444
    assert (checkout / "run.sh").stat().st_mode & 0o777 == 0o555
    assert (checkout / "lines.txt").read_bytes() == b"a\r\nb\r\n"
    assert os.readlink(checkout / "link") == "package/__init__.py"  # noqa: PTH115 (the text, not a path)
    manifest = json.loads(manifest_path(checkout).read_bytes())
    assert manifest["commit"] == commit
    assert manifest["repository"] == str(repository)
    assert manifest["files"]["package/__init__.py"] == git(repository, "rev-parse", "HEAD:package/__init__.py")
    assert manifest["files"]["lines.txt"] == blob_id(b"a\r\nb\r\n", like=commit)
    assert sorted(manifest["files"]) == [".gitattributes", ".gitignore", "lines.txt", "package/__init__.py", "run.sh"]


def test_submodules_are_part_of_a_checkout(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file")
    library = tmp_path / "library"
    library.mkdir()
    git(library, "init", "-q")
    (library / "lib.py").write_text("x = 1\n")
    git(library, "add", "-A")
    git(library, "commit", "-q", "-m", "Library")
    git(repository, "submodule", "--quiet", "add", str(library), "third party")
    git(repository, "commit", "-q", "-m", "With it")
    commit = git(repository, "rev-parse", "HEAD")
    checkout = pin.materialise(commit, repository, tmp_path / "checkouts")
    assert (checkout / "third party" / "lib.py").read_text() == "x = 1\n"
    assert "third party/lib.py" in json.loads(manifest_path(checkout).read_bytes())["files"]

    (repository / "third party" / "lib.py").write_text("x = 2\n")
    with pytest.raises(PinError, match=r"third party has changes of its own.*Commit them there"):
        pin.resolve(repository, None, collection="demo", allow_dirty=True)
    git(repository / "third party", "commit", "-q", "-a", "-m", "Mine")
    newer = pin.resolve(repository, None, collection="demo", allow_dirty=True)
    second = pin.materialise(newer, repository, tmp_path / "checkouts")
    assert (second / "third party" / "lib.py").read_text() == "x = 2\n"
    git(repository, "submodule", "--quiet", "deinit", "-f", "third party")
    shutil.rmtree(checkout)
    assert list((pin.materialise(commit, repository, tmp_path / "checkouts") / "third party").iterdir()) == []


def test_a_commit_that_is_gone_is_an_error(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(PinError, match="not in this repository any more"):
        pin.materialise("1" * 40, repository, tmp_path / "checkouts")
    assert not (tmp_path / "checkouts").exists()


def test_a_checkout_is_made_once_also_by_eight_processes_at_once(repository: Path, tmp_path: Path) -> None:
    for number in range(50):
        (repository / f"{number}.py").write_text(f"{number}\n" * 100)
    checkouts = tmp_path / "checkouts"
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(8, mp_context=context) as pool:
        jobs = [pool.submit(_pin_and_materialise, repository, checkouts) for _ in range(8)]
        made = {job.result() for job in jobs}
    assert len(made) == 1
    checkout, inode = made.pop()
    assert checkout.stat().st_ino == inode
    assert sorted(path.name for path in checkouts.iterdir()) == [".lock", checkout.name, f"{checkout.name}.json"]
    assert (checkout / "49.py").read_text() == "49\n" * 100


def _pin_and_materialise(repository: Path, checkouts: Path) -> tuple[Path, int]:
    pinned = pin.resolve(repository, None, collection="demo", allow_dirty=True)
    checkout = pin.materialise(pinned, repository, checkouts)
    return checkout, checkout.stat().st_ino


_KILL_BEFORE = {
    "a file is hashed": "checkout.blob_id",
    "the manifest": "checkout.files.write_json",
    "the rename": "Path.rename",
}


@pytest.mark.parametrize("moment", _KILL_BEFORE)
def test_a_maker_that_is_killed_leaves_nothing_that_reads_as_good(
    repository: Path, tmp_path: Path, moment: str
) -> None:
    """The maker is a process of its own, which kills itself where it would go on."""
    commit, checkouts = git(repository, "rev-parse", "HEAD"), tmp_path / "checkouts"
    code = f"""
import os, signal, sys
from pathlib import Path
from slurmkit.pin import checkout
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
{_KILL_BEFORE[moment]} = die
checkout.materialise_commit(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
"""
    killed = subprocess.run([sys.executable, "-c", code, commit, repository, checkouts], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (checkouts / commit).exists()
    assert list(checkouts.glob(".unfinished-*"))
    checkout = pin.materialise(commit, repository, checkouts)
    assert content_of(checkout) == {
        name: data for name, data in content_of(repository).items() if not name.startswith(".git/")
    }
    assert sorted(path.name for path in checkouts.iterdir()) == [".lock", commit, f"{commit}.json"]


def test_a_folder_that_cannot_be_made_is_told(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PinError, match="cannot be written: Not a directory"):
        pin.materialise(git(repository, "rev-parse", "HEAD"), repository, tmp_path / "file" / "checkouts")


def test_a_snapshot_is_taken_beside_an_ignored_folder_of_runs(repository: Path) -> None:
    """What every project has from its second collection on: runs/ exists and is git-ignored."""
    (repository / ".gitignore").write_text("/runs/\n")
    (repository / "runs").mkdir()
    (repository / "runs" / "big.bin").write_text("never in a commit")
    (repository / "new.txt").write_text("new")
    pinned = pin.resolve(repository, None, collection="demo", allow_dirty=True, ignore=[repository / "runs"])
    files = git(repository, "ls-tree", "-r", "--name-only", pinned.commit)
    assert "new.txt" in files
    assert "big.bin" not in files

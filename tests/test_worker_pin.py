"""What the files that a command imported say about the pinned commit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from worker_bench import GOOD, Bench, git, make_bench


class TestProof:
    """What the imported files say about the pin."""

    def test_a_file_of_the_checkout_that_was_changed_is_a_mismatch(self, bench: Bench) -> None:
        part = Path(bench.order.checkout) / "package" / "part.py"
        part.chmod(0o644)
        part.write_text("WHERE = 'changed'\n")
        code, outcome = bench.python(f"import package.part; {GOOD}")
        assert (code, outcome["reason"]) == (1, "pin_mismatch")
        assert outcome["pin"] == {
            "proved": False,
            "checked": 2,
            "foreign": {"package.part": str(part)},
            "imported": ["package/__init__.py", "package/part.py"],
        }
        assert "not as in the commit" in outcome["evidence"][0]

    def test_a_file_that_is_not_of_the_commit_is_a_mismatch(self, bench: Bench) -> None:
        (Path(bench.order.checkout) / "generated.py").write_text("")
        _, outcome = bench.python(f"import generated; {GOOD}")
        assert outcome["reason"] == "pin_mismatch"
        assert "not a file of the commit" in outcome["evidence"][0]
        assert outcome["pin"]["imported"] == ["package/__init__.py"]

    def test_code_that_puts_the_work_tree_first_is_a_mismatch(self, bench: Bench) -> None:
        _, outcome = bench.python(f"import sys; sys.path.insert(0, {str(bench.repository)!r}); {GOOD}")
        assert outcome["reason"] == "pin_mismatch"
        assert outcome["pin"]["foreign"] == {"package": str(bench.repository / "package" / "__init__.py")}

    def test_a_script_of_the_work_tree_is_a_mismatch(self, bench: Bench, repository: Path) -> None:
        for path in (repository / "package" / "part.py", Path("../../../package/part.py")):
            _, outcome = bench.run(sys.executable, str(path))
            assert outcome["reason"] == "pin_mismatch"
            assert list(outcome["pin"]["foreign"]) == ["__main__"]

    def test_a_script_of_the_checkout_is_checked(self, bench: Bench) -> None:
        _, outcome = bench.run(sys.executable, "package/part.py")
        assert outcome["pin"] == {"proved": True, "checked": 1, "foreign": {}, "imported": ["package/part.py"]}

    def test_processes_that_the_command_starts_are_looked_at_too(self, bench: Bench) -> None:
        inner = f"import sys; sys.path.insert(0, {str(bench.repository)!r}); import package"
        _, outcome = bench.python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}]); {GOOD}")
        assert outcome["reason"] == "pin_mismatch"

    def test_files_that_several_processes_imported_are_listed_once(self, bench: Bench) -> None:
        inner = "import package.part, package"
        _, outcome = bench.python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}]); {GOOD}")
        assert outcome["pin"]["imported"] == ["package/__init__.py", "package/part.py"]

    def test_a_command_with_very_many_files_keeps_no_list_of_them(self, repository: Path, tmp_path: Path) -> None:
        for number in range(501):
            (repository / "package" / f"m{number}.py").touch()
        git(repository, "add", "-A")
        git(repository, "commit", "-q", "-m", "Generate modules")
        everything = "import importlib; [importlib.import_module(f'package.m{n}') for n in range(501)]"
        _, outcome = make_bench(repository, tmp_path).python(f"{everything}; {GOOD}")
        assert outcome["pin"] == {"proved": True, "checked": 502, "foreign": {}}

    def test_a_command_that_is_not_python_proves_nothing(self, bench: Bench) -> None:
        code, outcome = bench.run("sh", "-c", 'echo "{}" > "$SLURMKIT_RUN_DIR/metrics.json"')
        assert code == 0
        assert outcome["pin"] == {"proved": None, "checked": 0, "foreign": {}}

    def test_a_library_of_the_same_name_as_a_plain_folder_is_not_foreign(
        self, repository: Path, tmp_path: Path
    ) -> None:
        (repository / "orjson").mkdir()
        (repository / "orjson" / "notes.txt").touch()
        git(repository, "add", "-A")
        git(repository, "commit", "-q", "-m", "A folder named like a library")
        code, outcome = make_bench(repository, tmp_path).python(f"import orjson; {GOOD}")
        assert (code, outcome["pin"]["proved"]) == (0, True)

    def test_the_projects_own_sitecustomize_still_runs(self, repository: Path, tmp_path: Path) -> None:
        (repository / "sitecustomize.py").write_text("import sys; sys.own_hook = __name__\n")
        git(repository, "add", "-A")
        git(repository, "commit", "-q", "-m", "A hook")
        bench = make_bench(repository, tmp_path)
        _, outcome = bench.python(f"import sys; print(sys.own_hook); {GOOD}")
        assert (bench.attempt / "stdout.log").read_text() == "sitecustomize\n"
        assert outcome["pin"]["proved"] is True

    def test_another_sitecustomize_on_the_path_still_runs(
        self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "hooks").mkdir()
        (tmp_path / "hooks" / "sitecustomize.py").write_text("import sys; sys.own_hook = 1; raise OSError('broken')\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hooks"))
        _, outcome = bench.python(f"import sys; print(sys.own_hook); {GOOD}")
        assert (bench.attempt / "stdout.log").read_text() == "1\n"
        assert "broken" in (bench.attempt / "stderr.log").read_text()
        assert outcome["pin"]["proved"] is True

    @pytest.mark.parametrize("style", ["a path file", "a path file that goes first", "a finder that goes first"])
    def test_an_editable_install_does_not_win_over_the_pin(self, bench: Bench, tmp_path: Path, style: str) -> None:
        """A real environment whose site-packages point to the work tree, in the ways that build tools do it."""
        python = editable_environment(tmp_path / "environment", bench.repository, style)
        outside = subprocess.run(
            [python, "-c", "import package.part; print(package.part.WHERE)"],
            cwd=tmp_path, env={**os.environ, "SLURMKIT_RUN_DIR": "x"}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert outside.stdout.strip() == str(bench.repository / "package" / "part.py")
        code, outcome = bench.run(str(python), "-c", f"import package.part; print(package.part.WHERE); {GOOD}")
        assert (bench.attempt / "stdout.log").read_text().strip() == f"{bench.order.checkout}/package/part.py"
        imported = ["package/__init__.py", "package/part.py"]
        assert (code, outcome["pin"]) == (0, {"proved": True, "checked": 2, "foreign": {}, "imported": imported})

    def test_a_deeper_package_is_found_by_a_relative_path(self, repository: Path, tmp_path: Path) -> None:
        (repository / "python").mkdir()
        git(repository, "mv", "package", "python/package")
        git(repository, "commit", "-q", "-m", "Move")
        bench = make_bench(repository, tmp_path)
        python = str(editable_environment(tmp_path / "environment", repository / "python", "a path file"))
        assert bench.run(python, "-c", GOOD)[1]["reason"] == "pin_mismatch"
        code, outcome = bench.run(python, "-c", GOOD, env={"PYTHONPATH": "python"}, attempt=2)
        assert (code, outcome["pin"]["proved"]) == (0, True)

    def test_a_package_in_src_comes_from_the_checkout(self, repository: Path, tmp_path: Path) -> None:
        (repository / "src").mkdir()
        git(repository, "mv", "package", "src/package")
        git(repository, "commit", "-q", "-m", "Move")
        bench = make_bench(repository, tmp_path)
        python = editable_environment(tmp_path / "environment", repository / "src", "a path file")
        code, outcome = bench.run(str(python), "-c", GOOD)
        assert (code, outcome["pin"]["proved"], outcome["pin"]["checked"]) == (0, True, 1)


def editable_environment(folder: Path, source: Path, style: str) -> Path:
    """Make a virtual environment in which the package of a folder is installed editable; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    finder = f"""
import sys
from importlib.util import spec_from_file_location

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        where = {{"package": "package/__init__.py", "package.part": "package/part.py"}}.get(name)
        return spec_from_file_location(name, {str(source)!r} + "/" + where) if where else None

sys.meta_path.insert(0, Finder)
"""
    (packages / "editable_finder.py").write_text(finder)
    line = {
        "a path file": str(source),
        "a path file that goes first": f"import sys; sys.path.insert(0, {str(source)!r})",
        "a finder that goes first": "import editable_finder",
    }
    (packages / "editable.pth").write_text(line[style] + "\n")
    return folder / "bin" / "python"

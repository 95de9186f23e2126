"""Imports point one way, along the drawing in docs/design.md; and a command imports no more than it uses."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from workplace import SWEEP

ROOT = Path(__file__).parent.parent
SLURMKIT = str(Path(sys.executable).parent / "slurmkit")


def drawn_order() -> list[str]:
    """Return the modules of the drawing in docs/design.md, in its order, without the leading ``slurmkit.``."""
    section = (ROOT / "docs/design.md").read_text().partition("## The way through")[2].partition("\n## ")[0]
    rows = [line.strip().partition("  ")[0] for line in section.splitlines() if line.startswith("    ")]
    return [name.strip() for row in rows for name in row.replace("->", ",").split(",")]


@cache
def sources(package: str) -> dict[str, ast.Module]:
    """Return the syntax tree of every module of a package by its dotted name."""
    trees: dict[str, ast.Module] = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        trees[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return trees


def run_time_imports(tree: ast.Module) -> Iterator[str]:
    """Yield what a module imports, also inside functions; blocks that only a type checker reads are left out.

    ``from a.b import c`` gives ``a.b.c``: c may be a module.
    """
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}: write it out"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        waiting += ast.iter_child_nodes(node)


def place(module: str, order: list[str]) -> int | None:
    """Return where a module stands in the order: where its nearest drawn package does."""
    name = module.removeprefix("slurmkit.")
    while name not in order and "." in name:
        name = name.rpartition(".")[0]
    return order.index(name) if name in order else None


def wrong_imports(package: str, order: list[str]) -> list[str]:
    """Name each import of a module that stands later in the order."""
    modules = sources(package)
    wrong: list[str] = []
    for module, tree in modules.items():
        own = place(module, order)
        for target in run_time_imports(tree):
            if own is not None and target.startswith("slurmkit."):
                imported = target if target in modules else target.rpartition(".")[0]
                there = place(imported, order)
                if there is not None and there > own:
                    wrong.append(f"{module} imports {imported}")
    return wrong


def test_every_module_stands_in_the_drawing_once():
    order = drawn_order()
    assert len(order) == len(set(order))
    known = {"slurmkit", "slurmkit.proof.sitecustomize"}
    assert [name for name in sources("slurmkit") if name not in known and place(name, order) is None] == []
    for name in order:
        path = ROOT / "slurmkit" / name.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), f"docs/design.md draws {name}, which is not there"


def test_no_module_imports_one_that_is_drawn_later():
    assert wrong_imports("slurmkit", drawn_order()) == []


def test_the_check_finds_an_arrow_that_points_back():
    """The same code under a drawing that puts `records` last."""
    order = [name for name in drawn_order() if name != "records"] + ["records"]
    assert "slurmkit.store imports slurmkit.records" in wrong_imports("slurmkit", order)


def test_the_start_up_hook_imports_only_the_standard_library():
    """It is loaded by every Python that a run starts."""
    tree = sources("slurmkit")["slurmkit.proof.sitecustomize"]
    assert {name.partition(".")[0] for name in run_time_imports(tree)} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("package", "foreign"), [("slurmkit", {"torch", "transformers", "peft", "trainer"}), ("trainer", {"slurmkit"})]
)
def test_slurmkit_and_the_trainer_know_nothing_of_each_other(package, foreign):
    found = {
        name: {target.partition(".")[0] for target in run_time_imports(tree)} for name, tree in sources(package).items()
    }
    assert len(found) > 10
    assert {name: both for name, targets in found.items() if (both := targets & foreign)} == {}


def imported_packages(*words: str, cwd: Path) -> set[str]:
    """Run the installed command; return the packages it imports beyond the standard library and a bare Python's."""

    def packages(*command: str) -> set[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-X", "importtime", *command],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
        return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}

    asked = {"org"}  # the standard library's copy asks whether this is Jython
    return packages(SLURMKIT, *words) - packages("-c", "pass") - set(sys.stdlib_module_names) - asked


def test_help_imports_nothing_heavier_than_click(tmp_path):
    assert imported_packages("--help", cwd=tmp_path) == {"click", "slurmkit"}


def test_a_status_with_nothing_under_way_needs_click_and_orjson_alone(workplace):
    path = workplace.define(SWEEP)
    workplace.slurmkit("collection", "create", str(path))
    first = imported_packages("status", "sweep", cwd=workplace.root)
    later = imported_packages("status", "sweep", cwd=workplace.root)
    assert first == later == {"click", "orjson", "slurmkit"}

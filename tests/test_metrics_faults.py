"""Metrics files that are wrong, of real runs through the command: listed with the reason, and the good ones kept."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from forked_commands import ForkedCommands, ForkedWorkplace
from workplace import Workplace, git

WRITER = """\
import json, pathlib, sys
config = json.loads(pathlib.Path(sys.argv[1]).read_text())
(pathlib.Path(sys.argv[2]) / "metrics.json").write_text(config["content"])
"""

DEFINITION = """\
name: sweep
command: ["{{python}}", "write.py", "{{config}}", "{{run_dir}}"]
config: {{content: "", seed: 0}}
axes:
  kind: {{values: {kinds}}}
resources: {{cpus: 1, mem: 300M}}
"""

GOOD = '{"score": 0.875}'


@pytest.fixture
def workplace(workplace: Workplace, forked_commands: ForkedCommands) -> Workplace:
    return ForkedWorkplace(workplace.root, forked_commands)


def completed(workplace: Workplace, contents: dict[str, str]) -> dict[str, tuple[str, str | None]]:
    """Run a sweep whose runs write these metrics; return axis value to state and reason."""
    (workplace.root / "write.py").write_text(WRITER)
    git(workplace.root, "add", "-A")
    doubled = {kind: content.replace("{", "{{").replace("}", "}}") for kind, content in contents.items()}
    kinds = {kind: {"content": content} for kind, content in doubled.items()}
    path = workplace.define(DEFINITION.format(kinds=json.dumps(kinds)))
    workplace.slurmkit("collection", "create", str(path), "--submit")
    workplace.wait("sweep")
    runs = workplace.status("sweep")["runs"]
    assert isinstance(runs, list)
    return {run["axes"]["kind"]: (run["state"], run["reason"]) for run in runs}


def test_a_run_that_writes_wrong_metrics_has_failed_and_says_which(workplace: Workplace) -> None:
    wrong = {"truncated": '{"score": 0.', "empty": "", "nan": '{"score": NaN}', "list": "[1]", "text": "0.5 well done"}
    ends = completed(workplace, {"good": GOOD, **wrong})
    assert ends == {"good": ("completed", None), **dict.fromkeys(wrong, ("failed", "no_metrics"))}
    told = workplace.slurmkit("aggregate", "sweep", "--json")
    summary = json.loads(told.stdout)
    assert summary["problems"] == []
    assert '"score": 0.875' in json.dumps(summary)
    assert workplace.slurmkit("aggregate", "sweep").stdout.count("no_metrics") >= 1


def test_metrics_damaged_after_completion_are_listed_and_the_good_kept(workplace: Workplace) -> None:
    damages: dict[str, Callable[[Path], object]] = {
        "truncated": lambda path: path.write_text(GOOD[:-3]),
        "empty": lambda path: path.write_text(""),
        "nan": lambda path: path.write_text('{"score": NaN}'),
        "edited": lambda path: path.write_text('{"score": 0.9}'),
        "gone": lambda path: path.unlink(),
        "folder": lambda path: (path.unlink(), path.mkdir()),
    }
    contents = {kind: f'{{"score": 0.{number}}}' for number, kind in enumerate(damages, start=1)}
    ends = completed(workplace, {"good": GOOD, **contents})
    assert set(ends.values()) == {("completed", None)}
    assert workplace.slurmkit("aggregate", "sweep").returncode == 0
    for kind, damage in damages.items():
        damage(workplace.runs / f"sweep/kind-{kind}/metrics.json")
    unread = workplace.slurmkit("aggregate", "sweep", "--metric", "score").stdout
    assert "edited     1/1   0.4 (n=1)" in unread, "what was observed at completion stands until all is read anew"
    table = workplace.root / "table.csv"
    command = ["aggregate", "sweep", "--reread", "--metric", "score", "--output", str(table)]
    told = workplace.slurmkit(*command, exit_code=1)
    listed = told.stdout.partition("\nProblems\n")[2]
    for kind in damages:
        assert f"kind-{kind}" in listed
    assert "kind-good" not in listed
    assert "6 problems with metrics files; what is good was kept" in told.stderr
    rows = [line for line in table.read_text().splitlines() if "0.875" in line]
    assert len(rows) == 1
    assert "kind-good" in rows[0]
    assert "0.9" not in table.read_text()

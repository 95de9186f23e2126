"""`slurmkit report` as a person, a job or two shells at once call it."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from report_runs import DENSE, dense_result, make_collection
from workplace import SWEEP, Workplace, git

from slurmkit.report.write import default_folder

FEW = f"{DENSE}report: {{figures: [completion]}}\n"
"""The same with one figure: where it is not about figures, the others would only take time."""


def test_a_report_of_an_unfinished_collection_says_that_it_is_partial(workplace: Workplace) -> None:
    make_collection(workplace.root, FEW, dense_result)
    done = workplace.slurmkit("report", "dense")
    page = workplace.root / "reports" / "dense" / "report.md"
    assert str(page) in done.stdout.splitlines()
    text = page.read_text()
    assert "6 tasks x 2 pv x 2 rmkl x 1 seed = 24 runs. 19/24 complete, 3/24 failed" in text
    assert "**PARTIAL.** 5 of 24 runs have no results" in text


def test_a_report_is_no_change_that_keeps_a_collection_from_being_created(workplace: Workplace) -> None:
    make_collection(workplace.root, FEW, dense_result)
    workplace.slurmkit("report", "dense")
    assert git(workplace.root, "status", "--porcelain") == ""


def test_reports_are_kept_from_git_unless_somebody_wants_them_there(tmp_path: Path) -> None:
    """Also where whoever made the folder was killed before it said so."""
    ignored = tmp_path / "reports" / ".gitignore"
    ignored.parent.mkdir()
    default_folder(tmp_path, "sweep").mkdir()
    assert ignored.read_text() == "*\n"
    ignored.unlink()
    default_folder(tmp_path, "sweep")
    assert not ignored.exists()


def test_a_report_goes_where_it_is_told(workplace: Workplace, tmp_path: Path) -> None:
    make_collection(workplace.root, FEW, dense_result)
    workplace.slurmkit("report", "dense", "--out", str(tmp_path / "deep" / "er"))
    assert (tmp_path / "deep" / "er" / "report.md").exists()
    assert not (workplace.root / "reports").exists()


def test_a_glob_that_names_no_metric_is_noted_by_both_commands(workplace: Workplace) -> None:
    globs = "metrics: {nothing_of_it: {direction: max}}\n"
    one_figure = "report: {figures: [completion], metrics: [nor_of_this]}\n"
    make_collection(workplace.root, DENSE + globs + one_figure, dense_result)
    of_metrics = "metrics: 'nothing_of_it' in the definition names no metric with numbers of any completed run"
    assert of_metrics in workplace.slurmkit("aggregate", "dense").stderr
    told = workplace.slurmkit("report", "dense").stderr
    assert of_metrics in told
    assert "report.metrics: 'nor_of_this' in the definition names no metric with numbers of any completed run" in told


def test_two_reports_at_once_leave_one_whole_report(workplace: Workplace) -> None:
    make_collection(workplace.root, FEW, dense_result)
    both = [workplace.start("report", "dense") for _ in range(2)]
    for process in both:
        _, told = process.communicate()
        assert process.returncode == 0, told
    folder = workplace.root / "reports" / "dense"
    assert "## Missing cells" in (folder / "report.md").read_text()
    assert [path.name for path in folder.rglob("*.tmp")] == []


WAITING = """\
import json, pathlib, sys, time
while not pathlib.Path("go").exists():
    time.sleep(0.05)
(pathlib.Path(sys.argv[2]) / "metrics.json").write_text(json.dumps({"score": 1.0}))
"""
"""A trainer that ends when the project has a file `go`."""


def test_a_watched_report_is_written_anew_and_ends_with_the_last_run(workplace: Workplace) -> None:
    go, page = workplace.root / "go", workplace.root / "reports" / "sweep" / "report.md"
    (workplace.root / "train.py").write_text(WAITING.replace('"go"', repr(str(go))))
    path = workplace.define(SWEEP.replace("time: 60s", "time: 1h"))
    workplace.slurmkit("collection", "create", str(path), "--submit")
    watching = workplace.start("report", "sweep", "--watch")
    wait_until(page.exists, watching)
    first = page.read_text()
    go.touch()
    _, told = watching.communicate()
    assert watching.returncode == 0, told
    assert "0/4 complete" in first
    assert "**PARTIAL.** No run has results yet" in first
    assert told.count("2 tasks x 2 seeds = 4 runs.") >= 2
    assert "4/4 complete" in page.read_text()
    assert "PARTIAL" not in page.read_text()


def wait_until(claim: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Wait for what a process brings about, however long it takes: the test's own limit is the end of it."""
    while not claim():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def test_a_folder_that_cannot_be_made_is_told_and_not_a_traceback(workplace: Workplace) -> None:
    make_collection(workplace.root, FEW, dense_result)
    (workplace.root / "taken").write_text("")
    told = workplace.slurmkit("report", "dense", "--out", "taken/inside", exit_code=None).stderr
    assert "taken/inside" in told
    assert "cannot be made: Not a directory. Give another folder with --out." in told

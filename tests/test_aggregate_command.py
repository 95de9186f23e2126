"""`slurmkit aggregate` with its questions: rankings, pivots, folds, series, files, and the index between two calls."""

import io
import json
from html.parser import HTMLParser
from pathlib import Path

import orjson
import pandas as pd
import pytest
from aggregate_runs import AXES, Aggregate, aggregating, record, sweep
from forked_commands import ForkedCommands

PROBE = "router_test_final/router_probe_accuracy"
METRICS = {PROBE: {"label": "probe", "direction": "max", "format": ".3f"}}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    runs = sweep(tmp_path / "made")
    for run in runs:
        points = [{"step": 10, "loss/val/kl": 2.0}, {"step": 20, "loss/val/kl": 1.0, "train/lr": 0.1}]
        (run.run_dir / "history.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))
    record(tmp_path, "direct/sweep", runs, AXES, METRICS)
    return tmp_path


@pytest.fixture
def command(project: Path, forked_commands: ForkedCommands) -> Aggregate:
    return aggregating(project, forked_commands)


def squeezed(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_best_setting_of_each_task_is_printed_with_its_run(command: Aggregate) -> None:
    lines = squeezed(command("--best", "router_probe_accuracy:max", "--per", "task").stdout)
    assert lines[0] == "Best probe (max)"
    assert lines[1] == "task pv rmkl probe of run"
    assert "addition 0.1 0.1 0.510 (n=1) 4 task-addition_pv0.1_rmkl0.1_s314159" in lines
    assert "sorting 0.0 0.1 0.210 (n=1) 1 task-sorting_pv0.0_rmkl0.1_s314159" in lines


def test_without_per_the_groups_are_what_settings_are_matched_on(command: Aggregate) -> None:
    asked = command("--best", "probe*:max", "--per", "task", exit_code=2)
    assert "--best probe*: no metric with numbers matches" in asked.stderr
    default = command("--best", "router_probe_accuracy")
    assert default.stdout == command("--best", "router_probe_accuracy:max", "--per", "task").stdout


def test_a_total_loss_is_refused_with_the_reason_and_shown_anyway(command: Aggregate) -> None:
    refused = command("--best", "loss/val/total:min", "--per", "task", exit_code=2)
    assert refused.stdout == ""
    assert "cannot rank values of pv, rmkl: a total loss changes with the terms and weights" in refused.stderr
    shown = command("--best", "loss/val/total:min", "--per", "task", "--anyway")
    assert "Ranked although" in shown.stdout


def test_a_pivot_shows_tasks_down_and_settings_across(command: Aggregate) -> None:
    lines = squeezed(command("--pivot", "task:pv,rmkl", "--metric", "router_probe_accuracy").stdout)
    assert lines[1] == "task 0.0/0.0 0.0/0.1 0.1/0.0 0.1/0.1"
    assert "sorting - 0.210 (n=1) - -" in lines
    assert "grid 0.300 (n=1) 0.310 (n=1) 0.280 (n=1) 0.330 (n=1)" in lines


def test_fold_changes_and_naive_ratios_stand_side_by_side(command: Aggregate) -> None:
    """Matched over 4 tasks pv=0.1, rmkl=0.1 differs by 0.03; naively 0.57 / 0.45 = 1.267 times the baseline."""
    lines = squeezed(command("--fold", "--metric", "router_probe_accuracy").stdout)
    both = next(line for line in lines if line.startswith("0.1 0.1 probe"))
    assert both.endswith("(n=4; naive 1.267)")
    assert not any("naive" in line for line in lines if line.startswith("0.1 0.0 probe"))


def test_the_history_is_one_long_table(project: Path, command: Aggregate) -> None:
    table = pd.read_csv(io.StringIO(command("--history", "--where", "task=grid").stdout))
    assert list(table.columns) == ["task", "pv", "rmkl", "seed", "id", "name", "state", "step", "metric", "value"]
    assert len(table) == 4 * 3
    command("--history", "--metric", "loss/*", "--output", "series.parquet")
    series = pd.read_parquet(project / "series.parquet")
    assert len(series) == 24 * 2
    assert series["value"].tolist()[:2] == [2.0, 1.0]
    assert ".csv, .parquet" in command("--history", "--output", "x.md", exit_code=2).stderr


def test_json_and_files_hold_what_was_asked(project: Path, command: Aggregate) -> None:
    words = ["--best", "router_probe_accuracy:max", "--per", "task"]
    document = orjson.loads(command(*words, "--json", "--output", "best.csv").stdout)
    (view,) = document["views"]
    assert view["name"] == "best"
    table = pd.read_csv(project / "best.csv")
    assert table["value"].tolist() == [row["value"] for row in view["rows"]]
    assert document["metric_info"][PROBE]["label"] == "probe"
    two = command(*words, "--fold", "--output", "both.csv", exit_code=2)
    assert "not best and folds" in two.stderr


class Cells(HTMLParser):
    """Collects the texts of a page's cells, and what it would load."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 -- its signature is given
        self.loads += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_html_holds_the_terminal_s_tables_and_loads_nothing(project: Path, command: Aggregate) -> None:
    command("--output", "x.html")
    page = Cells()
    page.feed((project / "x.html").read_text(encoding="utf-8"))
    assert page.loads == []
    assert {"0.480 (n=1)", "Matched differences from pv=0.0,rmkl=0.0"} <= set(page.texts)


def test_the_second_call_reads_from_the_index_and_says_the_same(project: Path, command: Aggregate) -> None:
    first = command()
    index = project / "runs/direct/sweep/.slurmkit/metrics.index"
    assert index.exists()
    assert command().stdout == command("--reread").stdout == first.stdout
    victim = project / "runs/direct/sweep/task-grid_pv0.0_rmkl0.0_s314159/metrics.json"
    victim.write_bytes(victim.read_bytes()[:40])
    assert command().stdout == first.stdout  # what was observed at completion
    for words in (["--reread"], []):
        assert f"{victim}: cut off after 40 bytes" in command(*words, exit_code=1).stdout

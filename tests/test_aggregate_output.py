"""What `slurmkit aggregate` prints and writes."""

import io
import os
from pathlib import Path

import orjson
import pandas as pd
import pytest
from aggregate_runs import AXES, Aggregate, aggregating, make_run, record, sweep
from forked_commands import ForkedCommands

from slurmkit.aggregate.aggregation import Aggregation, aggregate
from slurmkit.aggregate.choose import match_metrics, telling_metrics
from slurmkit.aggregate.format import clean, format_estimate, format_number, short_names
from slurmkit.aggregate.write import content_of, document, write
from slurmkit.collection import Collection
from slurmkit.errors import StoreError, UsageError
from slurmkit.states import State

GOLDEN = Path(__file__).parent / "golden" / "aggregate"
PROBE = "router_test_final/router_probe_accuracy"


def small(root: Path) -> Aggregation:
    """Return an aggregation with three seeds, a hole, and names that Markdown and LaTeX would trip over."""
    axes = {"task": ("sort_a|b", "50%_{x}"), "pv": (0, 0.1), "seed": (1, 2, 3)}
    runs = []
    for task in axes["task"]:
        for pv in axes["pv"]:
            for seed in axes["seed"]:
                done = (task, pv) != ("50%_{x}", 0) or seed == 1
                metrics = {"acc_1": 0.5 + pv + 0.01 * seed, "loss/val/total": 3805.0 + pv, "words": ["x", 1]}
                name = f"{axes['task'].index(task)}-{pv}-{seed}"
                cell = {"task": task, "pv": pv, "seed": seed}
                state = State.COMPLETED if done else State.PLANNED
                runs.append(make_run(root, name, cell, metrics if done else None, state=state))
    return aggregate("small", runs, axes, "seed", metrics=["*"])


@pytest.mark.parametrize(
    ("mean", "half_width", "text"),
    [
        (0.44912, 0.01234, "0.449 ± 0.012"),
        (0.449, float("nan"), "0.449"),
        (3805.2, 41.7, "3805 ± 42"),
        (3805.2, float("nan"), "3805"),
        (0.000006, float("nan"), "6e-06"),
        (1.0, 0.0, "1 ± 0"),
        (0.03, 4.4e-17, "0.03 ± 0"),
        (1e-9, 2e-10, "1e-09 ± 2e-10"),
        (float("nan"), float("nan"), "-"),
    ],
)
def test_a_mean_is_written_to_the_digits_that_its_interval_warrants(mean: float, half_width: float, text: str) -> None:
    assert format_estimate(mean, half_width) == text


def test_numbers_keep_four_digits() -> None:
    assert [format_number(v) for v in (0.98532, 38052.4, -0.5, 1e9)] == ["0.9853", "38052", "-0.5", "1e+09"]


def test_control_characters_cannot_reach_the_terminal() -> None:
    assert clean("a\x1b[31m\nb\u202e") == "a\\x1b[31m\\x0ab\\x202e"


def test_a_metric_is_called_by_its_shortest_unambiguous_ending() -> None:
    assert short_names(["a/x/n", "b/x/n", "c/m"]) == {"a/x/n": "a/x/n", "b/x/n": "b/x/n", "c/m": "m"}
    assert short_names(["n", "b/n"]) == {"n": "n", "b/n": "b/n"}


def test_metrics_are_named_by_globs_over_their_last_parts() -> None:
    keys = ["loss/val/kl", "loss/val/total", PROBE]
    assert match_metrics(["router_probe*", "loss/*"], keys) == [PROBE, "loss/val/kl", "loss/val/total"]
    with pytest.raises(UsageError, match="Did you mean loss/val/kl"):
        match_metrics(["loss/val/kl2"], keys)


def test_the_metrics_shown_by_default_are_results_and_never_a_total_loss() -> None:
    keys = ["a/majority_accuracy", "loss/val/kl", "loss/val/total", "peak_rss_mb", PROBE, "t/final_accuracy"]
    keys += [f"loss/val/fraction/{i}" for i in range(20)]
    assert telling_metrics(keys, frozenset({"loss/val/total"})) == [
        PROBE,
        "loss/val/kl",
        "peak_rss_mb",
        "t/final_accuracy",
    ]


@pytest.mark.parametrize("ending", [".md", ".tex", ".html"])
def test_tables_for_readers_are_golden(tmp_path: Path, ending: str) -> None:
    """Written anew where UPDATE_GOLDEN is set."""
    content = content_of(small(tmp_path), ending)
    golden = GOLDEN / f"small{ending}"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_bytes(content)
    assert content.decode() == golden.read_text(encoding="utf-8")


def test_csv_and_parquet_give_every_number_back(tmp_path: Path) -> None:
    made = small(tmp_path / "runs")
    write(made, tmp_path / "x.csv")
    write(made, tmp_path / "x.parquet")
    from_csv, from_parquet = pd.read_csv(tmp_path / "x.csv"), pd.read_parquet(tmp_path / "x.parquet")
    for table in (from_csv, from_parquet):
        assert table["acc_1"].dropna().tolist() == made.frame["acc_1"].dropna().tolist()
        assert table["acc_1"].isna().sum() == 2
        assert table["task"].tolist() == made.frame["task"].tolist()
        assert table["words"].iloc[0] == '["x",1]'
    assert list(from_csv.columns) == list(from_parquet.columns) == list(made.frame.columns)


def test_csv_by_cells_has_mean_half_width_and_n(tmp_path: Path) -> None:
    write(small(tmp_path / "runs"), tmp_path / "x.csv", one_row_a_run=False)
    table = pd.read_csv(tmp_path / "x.csv")
    assert table["acc_1/n"].tolist() == [3, 3, 1, 3]
    assert table["acc_1/mean"].tolist() == pytest.approx([0.52, 0.62, 0.51, 0.62])
    assert table["acc_1/half_width"].tolist()[:2] == pytest.approx([0.0248414] * 2, abs=1e-6)
    assert table["completed"].tolist() == [3, 3, 1, 3]


def test_json_gives_every_table_back(tmp_path: Path) -> None:
    made = small(tmp_path / "runs")
    write(made, tmp_path / "x.json")
    read = orjson.loads((tmp_path / "x.json").read_bytes())
    assert read == document(made)
    assert read["schema"] == 1
    assert [run["acc_1"] for run in read["runs"]].count(None) == 2
    assert read["not_comparable"] == ["loss/val/total"]


def test_formulas_are_data_in_csv(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", "r", {"task": "=1+1", "n": -1}, {"m": -0.5})
    write(aggregate("c", [run], {"task": ("=1+1",), "n": (-1,)}, None), tmp_path / "x.csv")
    (row,) = pd.read_csv(tmp_path / "x.csv").to_dict("records")
    assert (row["task"], row["n"], row["m"]) == ("=1+1", -1, -0.5)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    made = small(tmp_path / "runs")
    with pytest.raises(UsageError, match=r"\.csv, \.parquet, \.json, \.md, \.tex, \.html"):
        write(made, tmp_path / "x.xlsx")
    with pytest.raises(UsageError, match="mkdir"):
        write(made, tmp_path / "none" / "x.csv")
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(StoreError):
        write(made, tmp_path / "x.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "x.csv"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the sweep of 24 runs; two that were running are not submitted here."""
    runs = sweep(tmp_path / "made")
    record(tmp_path, "direct/sweep", runs, AXES)
    return tmp_path


@pytest.fixture
def command(project: Path, forked_commands: ForkedCommands) -> Aggregate:
    return aggregating(project, forked_commands)


def test_the_command_prints_cells_missing_runs_and_matched_differences(command: Aggregate) -> None:
    done = command()
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "addition 0.0 0.0 1/1 0.48 (n=1)" in lines
    assert "sorting 0.0 0.0 0/1 -" in lines
    assert "failed oom_host sorting 0.1 0.1 1" in lines
    assert "planned - base_conversion 0.0 0.0 1" in lines
    assert any(line.startswith("0.1 0.1 +0.03") and line.endswith("(n=4; naive +0.12)") for line in lines)
    assert "0.1 0.0 -0.02 ± 0 (n=4)" in lines
    assert "baseline guessed: --baseline pv=0.0,rmkl=0.0" in done.stderr
    assert "left out: loss/val/total" in done.stderr
    assert "\x1b" not in done.stdout


def test_the_command_s_json_and_python_give_the_same_numbers(project: Path, command: Aggregate) -> None:
    found = orjson.loads(command("--json", "--where", "pv=0.1", "--metric", "*probe*").stdout)
    frame = Collection.load("direct/sweep", project).to_frame()
    expected = frame.loc[frame["pv"] == 0.1, PROBE].tolist()
    assert str([run[PROBE] for run in found["runs"]]) == str([None if v != v else v for v in expected])
    assert len(found["runs"]) == 12
    assert found["baseline"] == {}, "the baseline pv=0.0 was filtered out"


def test_a_total_loss_is_shown_with_a_mark_and_not_compared(command: Aggregate) -> None:
    done = command("--metric", "total", "--by", "task,pv,rmkl")
    assert "total †" in done.stdout
    assert "† not comparable across settings" in done.stdout
    assert "not comparable" in done.stdout.split("Matched differences")[1]


def test_one_wrong_file_is_listed_and_ends_the_command_with_1(project: Path, command: Aggregate) -> None:
    victim = project / "runs/direct/sweep/task-grid_pv0.0_rmkl0.0_s314159/metrics.json"
    victim.write_bytes(victim.read_bytes()[:40])
    done = command("--output", "out.parquet", exit_code=1)
    assert f"{victim}: cut off after 40 bytes" in done.stdout
    assert "completed metrics_truncated grid 0.0 0.0 1" in " ".join(done.stdout.split())
    table = pd.read_parquet(io.BytesIO((project / "out.parquet").read_bytes()))
    assert table[PROBE].notna().sum() == 18


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["--output", "x.xlsx"], ".csv, .parquet, .json, .md, .tex, .html"),
        (["--by", "tusk"], "Did you mean task"),
        (["--metric", "nothing"], "no metric with numbers matches"),
        (["--baseline", "pv=0.7"], "pv has no value '0.7'"),
        (["--where", "pv=7"], "no run has '7'"),
    ],
)
def test_a_request_without_sense_ends_with_2_and_advice(command: Aggregate, words: list[str], advice: str) -> None:
    done = command(*words, exit_code=2)
    assert advice in done.stderr
    assert not done.stdout

"""Series over steps as a long table, their means and thinner ones; and swept values that changed nothing."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from aggregate_runs import make_run

from slurmkit.aggregate import downsample, mean_series, read_history, suspected_noops, to_frame
from slurmkit.records import RunStatus
from slurmkit.states import State

AXES = {"pv": (0.0, 0.1), "seed": (1, 2, 3)}


def log(run: RunStatus, points: list[dict[str, Any]], end: str = "") -> None:
    """Write a run's history, and what follows its last whole line."""
    lines = "".join(json.dumps(point) + "\n" for point in points)
    (run.run_dir / "history.jsonl").write_text(lines + end)


def series(root: Path) -> list[RunStatus]:
    """Return one cell with three seeds; the third stopped early."""
    runs = [make_run(root, f"s{seed}", {"pv": 0.0, "seed": seed}, {"m": 1.0}) for seed in (1, 2, 3)]
    log(runs[0], [{"step": 10, "loss": 1.0, "lr": 0.5}, {"step": 20, "loss": 3.0, "val": {"acc": 0.5}}])
    log(runs[1], [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 5.0, "word": "x", "gap": None}])
    log(runs[2], [{"step": 10, "loss": 6.0}], end='{"step": 20, "lo')
    return runs


def test_a_history_has_a_row_for_each_run_step_and_metric(tmp_path: Path) -> None:
    history, problems = read_history(series(tmp_path), AXES)
    assert list(history.columns) == ["pv", "seed", "id", "name", "state", "step", "metric", "value"]
    rows = list(history[["name", "step", "metric", "value"]].itertuples(index=False, name=None))
    assert rows == [
        ("s1", 10, "loss", 1.0),
        ("s1", 10, "lr", 0.5),
        ("s1", 20, "loss", 3.0),
        ("s1", 20, "val/acc", 0.5),
        ("s2", 10, "loss", 2.0),
        ("s2", 20, "loss", 5.0),
        ("s3", 10, "loss", 6.0),
    ]
    assert not problems, "a line that is being written is no problem"


def test_a_history_keeps_the_metrics_that_globs_name(tmp_path: Path) -> None:
    history, _ = read_history(series(tmp_path), AXES, ["val/*", "lr"])
    assert history["metric"].tolist() == ["lr", "val/acc"]


def test_a_run_that_went_back_to_a_checkpoint_counts_once_a_step(tmp_path: Path) -> None:
    run = make_run(tmp_path, "r", {}, None, state=State.RUNNING)
    log(run, [{"step": 1, "a": 1.0}, {"step": 2, "a": 2.0}, {"step": 2, "a": 2.5, "b": 1.0}, {"step": 3, "a": 3.0}])
    history, _ = read_history([run], {})
    assert history.loc[history["metric"] == "a", "value"].tolist() == [1.0, 2.5, 3.0]
    assert history["state"].tolist() == ["running"] * 4


def test_wrong_lines_are_skipped_and_named(tmp_path: Path) -> None:
    run = make_run(tmp_path, "r", {}, {"m": 1.0})
    (run.run_dir / "history.jsonl").write_text('{"step": 1, "a": 1}\n{"a": 2}\n{"step\n\n[3]\n{"step": 4, "a": 4}\n')
    history, (problem,) = read_history([run], {})
    assert history["step"].tolist() == [1, 4]
    assert problem.what == "line 2 is no JSON object with a whole number as 'step'; 3 such lines were skipped"


def test_without_any_series_there_is_an_empty_table(tmp_path: Path) -> None:
    history, problems = read_history([make_run(tmp_path, "r", {"pv": 0.0}, {"m": 1.0})], {"pv": (0.0,)})
    assert len(history) == 0
    assert list(history.columns)[-3:] == ["step", "metric", "value"]
    assert len(downsample(history)) == 0
    assert len(mean_series(history, ["pv"])) == 0
    assert not problems


def test_means_over_seeds_say_over_how_many_at_each_step(tmp_path: Path) -> None:
    """Step 10: 1, 2, 6: mean 3, s = sqrt(7), 4.30265 sqrt(7 / 3) = 6.57241. Step 20: 3, 5: mean 4, 12.7062."""
    history, _ = read_history(series(tmp_path), AXES)
    means = mean_series(history, ["pv"], AXES)
    loss = means[means["metric"] == "loss"]
    assert loss["step"].tolist() == [10, 20]
    assert loss["n"].tolist() == [3, 2]
    assert loss["mean"].tolist() == [3.0, 4.0]
    assert loss["half_width"].tolist() == pytest.approx([6.57241, 12.7062], abs=1e-4)
    alone = means[means["metric"] == "lr"]
    assert alone["n"].tolist() == [1]
    assert alone["half_width"].isna().all()


def test_a_thinner_series_keeps_its_ends_and_every_spike() -> None:
    values = np.sin(np.arange(10_000) / 500)
    values[4321], values[7777] = 50.0, -50.0
    long = pd.DataFrame({"name": "r", "metric": "m", "step": np.arange(10_000), "value": values})
    short = pd.DataFrame({"name": "s", "metric": "m", "step": np.arange(30), "value": 1.0})
    thin = downsample(pd.concat([long, short], ignore_index=True), points=200)
    drawn = thin[thin["name"] == "r"]
    assert len(drawn) <= 200
    assert drawn["step"].is_monotonic_increasing
    assert {0, 4321, 7777, 9999} <= set(drawn["step"])
    assert (long["value"].to_numpy()[drawn["step"]] == drawn["value"].to_numpy()).all(), "real points"
    assert (thin["name"] == "s").sum() == 30


RESULTS = {"a": 0.123, "b": 0.456, "c": 0.789, "d": 1.234}


def no_op_runs(root: Path, logged: bool = True) -> list[RunStatus]:
    """Return 2 tasks x 2 clip x 2 pv: clip changes nothing but clocks; pv does."""
    runs: list[RunStatus] = []
    for task in ("x", "y"):
        for clip in (1.0, 2.0):
            for pv in (0.0, 0.1):
                result = {key: value + pv + (task == "y") for key, value in RESULTS.items()}
                clocks = {"train/core_seconds": 10.0 + len(runs), "peak_rss_mb": 100.5 + len(runs), "clip": clip}
                axes = {"task": task, "clip": clip, "pv": pv}
                runs.append(make_run(root, f"{task}-{clip}-{pv}", axes, {**result, **clocks}))
                if logged:
                    log(runs[-1], [{"step": 1, "loss": result["a"], "seconds": float(len(runs)), "clip": clip}])
    return runs


NO_OP_AXES = {"task": ("x", "y"), "clip": (1.0, 2.0), "pv": (0.0, 0.1)}


def test_a_swept_value_that_changes_nothing_is_named(tmp_path: Path) -> None:
    runs = no_op_runs(tmp_path)
    (row,) = suspected_noops(to_frame(runs, NO_OP_AXES), runs, NO_OP_AXES).to_dict("records")
    assert (row["axes"], row["values"], row["same"], row["of"], row["with_series"]) == ("clip", "1.0 = 2.0", 4, 4, 4)
    assert row["runs"] == ["x-1.0-0.0", "x-2.0-0.0"]


def test_runs_whose_series_differ_in_the_last_digit_are_no_suspects(tmp_path: Path) -> None:
    runs = no_op_runs(tmp_path)
    for run in runs[:4]:
        log(run, [{"step": 1, "loss": math.nextafter(0.5, 1.0) if run.axes["clip"] == 1.0 else 0.5}])
    (row,) = suspected_noops(to_frame(runs, NO_OP_AXES), runs, NO_OP_AXES).to_dict("records")
    assert (row["same"], row["of"]) == (2, 4)


def test_metrics_that_differ_in_the_last_digit_are_no_suspects(tmp_path: Path) -> None:
    values = [{**RESULTS, "a": 0.5}, {**RESULTS, "a": math.nextafter(0.5, 1.0)}]
    runs = [make_run(tmp_path, f"r{i}", {"i": i}, value) for i, value in enumerate(values)]
    assert len(suspected_noops(to_frame(runs, {"i": (0, 1)}), runs, {"i": (0, 1)})) == 0


def test_a_few_round_numbers_agree_by_chance(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, f"r{i}", {"i": i}, {"acc": 1.0, "n": 1000, "loss": 0.25}) for i in range(2)]
    assert len(suspected_noops(to_frame(runs, {"i": (0, 1)}), runs, {"i": (0, 1)})) == 0


def test_seeds_with_equal_results_are_one_sample_and_named(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, f"s{seed}", {"seed": seed}, {**RESULTS, "seed": seed}) for seed in (1, 2, 3)]
    (row,) = suspected_noops(to_frame(runs, {"seed": (1, 2, 3)}), runs, {"seed": (1, 2, 3)}).to_dict("records")
    assert (row["axes"], row["values"], row["same"], row["of"], row["with_series"]) == ("seed", "1 = 2 = 3", 1, 1, 0)

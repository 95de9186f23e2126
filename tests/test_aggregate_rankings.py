"""Rankings, block maxima, pivots and fold changes, against values computed by hand."""

import math
from pathlib import Path

import pandas as pd
import pytest
from aggregate_runs import AXES, make_run, sweep

from slurmkit.aggregate import (
    Direction,
    best_per_group,
    block_maxima,
    describe_metrics,
    fold_changes,
    leading_blocks,
    matched_deltas,
    pivot,
    refuse_ranking,
    summarise,
    to_frame,
    without_block,
)
from slurmkit.aggregate.aggregation import aggregate
from slurmkit.aggregate.best import parse_ranking
from slurmkit.aggregate.views import Request, make_views
from slurmkit.errors import UsageError
from slurmkit.records import RunStatus
from slurmkit.states import State

ALIGNMENT = "controlled_test_final/alignment_one_to_one"
TOTAL = "loss/val/total_loss"
SPARSE: dict[tuple[str, str], dict[str, float]] = {
    ("A_base", "beta0p1_base"): {"grid": 0.2231, "add": 0.3312},
    ("A_base", "beta0p5_base"): {"grid": 0.224233, "sort": 0.1750, "add": 0.3310},
    ("B_twr_only", "beta0p1_twr1"): {"grid": 0.3000, "sort": 0.2100, "add": 0.331233},
    ("B_twr_only", "beta0p1_twr2"): {"grid": 0.6930, "sort": 0.27066, "add": 0.3280},
    ("D_router", "beta0p1_rsw1"): {"grid": 0.2258, "sort": 0.1754, "add": 0.332367},
}
"""Alignment of a sparse sweep, block and setting to task; the sorting run of beta0p1_base is missing."""
SPARSE_AXES = {
    "task": ("grid", "sort", "add"),
    "block": ("A_base", "B_twr_only", "D_router"),
    "setting": tuple(setting for _, setting in SPARSE),
    "seed": (1,),
}


@pytest.fixture
def sparse(tmp_path: Path) -> pd.DataFrame:
    return to_frame(sparse_runs(tmp_path), SPARSE_AXES)


def sparse_runs(root: Path) -> list[RunStatus]:
    """Return the runs of the sparse sweep; a token-weighted one has a larger total loss though it aligns better."""
    runs: list[RunStatus] = []
    for task in SPARSE_AXES["task"]:
        for (block, setting), values in SPARSE.items():
            axes = {"task": task, "block": block, "setting": setting, "seed": 1}
            metrics = {ALIGNMENT: values[task], TOTAL: 9.0 if "twr" in setting else 1.0} if task in values else None
            state = State.COMPLETED if metrics else State.FAILED
            runs.append(make_run(root, f"{task}-{setting}", axes, metrics, state=state))
    return runs


def test_the_best_setting_of_each_task_comes_with_its_run(sparse: pd.DataFrame) -> None:
    best = best_per_group(sparse, ALIGNMENT, Direction.MAX, ["task"], "seed", axes=SPARSE_AXES)
    found = [(r["task"], r["block"], r["setting"], r["value"], r["name"]) for r in best.to_dict("records")]
    assert found == [
        ("grid", "B_twr_only", "beta0p1_twr2", 0.6930, "grid-beta0p1_twr2"),
        ("sort", "B_twr_only", "beta0p1_twr2", 0.27066, "sort-beta0p1_twr2"),
        ("add", "D_router", "beta0p1_rsw1", 0.332367, "add-beta0p1_rsw1"),
    ]
    assert best["n"].tolist() == [1, 1, 1]
    assert best["half_width"].isna().all()
    assert best["cells"].tolist() == [5, 4, 5]


def test_with_a_block_left_out_the_next_best_comes_first(sparse: pd.DataFrame) -> None:
    rest = without_block(sparse, ["B_twr_only"])
    best = best_per_group(rest, ALIGNMENT, Direction.MAX, ["task"], "seed", axes=SPARSE_AXES)
    assert best["setting"].tolist() == ["beta0p1_rsw1", "beta0p1_rsw1", "beta0p1_rsw1"]
    assert best["value"].tolist() == [0.2258, 0.1754, 0.332367]
    with pytest.raises(UsageError, match="Did you mean B_twr_only"):
        without_block(sparse, ["B_twr"])


def test_block_maxima_and_the_range_of_the_other_blocks(sparse: pd.DataFrame) -> None:
    maxima = block_maxima(sparse, ALIGNMENT, Direction.MAX, ["task"], "seed", axes=SPARSE_AXES)
    assert maxima.loc[maxima["task"] == "grid", "value"].tolist() == [0.224233, 0.6930, 0.2258]
    assert maxima.loc[maxima["task"] == "add", "setting"].tolist() == ["beta0p1_base", "beta0p1_twr1", "beta0p1_rsw1"]
    leading = leading_blocks(maxima, Direction.MAX)
    assert leading["block"].tolist() == ["B_twr_only", "B_twr_only", "D_router"]
    assert leading["others_low"].tolist() == [0.224233, 0.1750, 0.3312]
    assert leading["others_high"].tolist() == [0.2258, 0.1754, 0.331233]
    assert leading["lead"].tolist() == pytest.approx([0.4672, 0.09526, 0.001134])


def test_the_lead_of_a_single_block_is_unknown(sparse: pd.DataFrame) -> None:
    only = sparse[sparse["block"] == "A_base"]
    leading = leading_blocks(block_maxima(only, ALIGNMENT, Direction.MIN, ["task"], "seed"), Direction.MIN)
    assert leading["others"].tolist() == [0, 0, 0]
    assert leading["lead"].isna().all()
    assert leading["value"].tolist() == [0.2231, 0.1750, 0.3310]


def seeded(root: Path) -> pd.DataFrame:
    """Return two settings of one task: the first has the best single seed, the second the better mean."""
    values = {("x", 1): 0.9, ("x", 2): 0.1, ("y", 1): 0.5, ("y", 2): 0.75, ("z", 1): 0.625, ("z", 2): 0.625}
    runs = [make_run(root, f"{s}{n}", {"s": s, "seed": n}, {"m": v}) for (s, n), v in values.items()]
    return to_frame(runs, {"s": ("x", "y", "z"), "seed": (1, 2)})


def test_settings_are_ranked_by_their_mean_over_seeds_not_by_a_lucky_one(tmp_path: Path) -> None:
    """Means 0.5, 0.625 and 0.625; s of 0.5 and 0.75 is 0.176777: half-width 12.7062 x 0.176777 / sqrt(2) = 1.58828."""
    best = best_per_group(seeded(tmp_path), "m", Direction.MAX, [], "seed", top=3)
    assert best["s"].tolist() == ["y", "z", "x"]
    assert best["rank"].tolist() == [1, 1, 3]
    assert best["value"].tolist() == pytest.approx([0.625, 0.625, 0.5])
    assert best["half_width"].tolist()[0] == pytest.approx(1.58828, abs=1e-4)
    assert best["half_width"].tolist()[1] == 0.0
    assert best["name"].tolist()[0] == "y2"
    assert best["run_value"].tolist()[0] == 0.75


def test_a_total_loss_ranks_no_settings_unless_asked_twice(tmp_path: Path) -> None:
    made = aggregate("sparse", sparse_runs(tmp_path), SPARSE_AXES, "seed")
    with pytest.raises(UsageError, match=r"cannot rank values of block, setting: a total loss changes .* --anyway"):
        make_views(made, Request(best=f"{TOTAL}:min", per=("task",)))
    with pytest.raises(UsageError, match="--anyway"):
        make_views(made, Request(block_maxima="total_loss"))
    (view,) = make_views(made, Request(best="total_loss", per=("task",), anyway=True))
    assert any("not comparable" in note for note in view.text.notes)
    make_views(made, Request(best="total_loss", per=("task", "block", "setting")))  # one setting: only seeds are ranked


def test_what_the_definition_says_of_a_metric_goes_before_its_name_and_its_runs() -> None:
    declared = {
        "loss/*": {"direction": "min", "format": ".2e"},
        "loss/val/total": {"comparable": True, "label": "J"},
        "acc": {"comparable": False},
    }
    infos = describe_metrics(["loss/val/total", "test/acc", "own", "seed"], declared, ["own", "loss/val/total"])
    total, acc, own, seed = infos.values()
    assert (total.label, total.direction, total.format, total.comparable) == ("J", Direction.MIN, ".2e", True)
    assert total.text(0.01234) == "1.23e-02"
    assert total.estimate(0.5, 0.25) == "5.00e-01 ± 2.50e-01"
    assert (acc.comparable, acc.because) == (False, "the definition's `metrics` say so")
    assert own.because == "the runs say so (own__comparable: false)"
    assert seed.direction is None


@pytest.mark.parametrize(
    ("key", "direction"),
    [
        ("router_test_final/router_probe_accuracy", Direction.MAX),
        ("router_test_final/router_probe_accuracy_majority", None),
        ("router_test_final/router_probe_accuracy_standard_error", None),
        ("controlled_test_final/local_strategy_full_coverage_rate", Direction.MAX),
        ("loss/val/reconstruction_loss", Direction.MIN),
        ("loss/val/posterior_variance", Direction.MIN),
        ("loss/val/fraction/kl", None),
        ("loss/val/baseline_reconstruction", None),
        ("train/tokens_per_core_second", None),
        ("latent/sigma_q_mean", None),
    ],
)
def test_the_trainer_s_metrics_have_a_direction_by_name(key: str, direction: Direction | None) -> None:
    assert describe_metrics([key])[key].direction == direction


def test_a_ranking_names_one_metric_and_a_direction() -> None:
    infos = describe_metrics(["a/accuracy", "b/accuracy", "b/width"])
    assert parse_ranking("a/accuracy:min", infos, option="--best")[1] is Direction.MIN
    assert parse_ranking("a/accuracy", infos, option="--best")[1] is Direction.MAX
    with pytest.raises(UsageError, match="2 metrics match"):
        parse_ranking("accuracy:max", infos, option="--best")
    with pytest.raises(UsageError, match="Write b/width:max or b/width:min"):
        parse_ranking("b/width", infos, option="--best")
    with pytest.raises(UsageError, match="--best b/widht"):
        parse_ranking("b/widht:max", infos, option="--best")


def test_a_comparable_metric_is_never_refused(sparse: pd.DataFrame) -> None:
    refuse_ranking(describe_metrics([ALIGNMENT])[ALIGNMENT], sparse, [], "seed")


def test_a_fold_change_is_the_geometric_mean_over_matched_runs(tmp_path: Path) -> None:
    """Ratios 1/4 and 1/16: geometric mean 1/8.

    The log ratios lie ln 2 around it: s = 0.98026, half-width 12.7062 x 0.98026 / sqrt(2) = 8.80727. Task c has no
    baseline, so the naive ratio is over other tasks: (2 + 1 + 600) / 3 over (8 + 16) / 2 = 16.75.
    """
    values = {(0, "a"): 8.0, (0, "b"): 16.0, (1, "a"): 2.0, (1, "b"): 1.0, (1, "c"): 600.0}
    runs = [make_run(tmp_path, f"{w}{t}", {"w": w, "task": t}, {"kl": v}) for (w, t), v in values.items()]
    frame = to_frame(runs, {"w": (0, 1), "task": ("a", "b", "c")})
    (row,) = fold_changes(frame, {"w": 0}, ["kl"]).to_dict("records")
    assert (row["n"], row["n_not_positive"]) == (2, 0)
    assert row["fold"] == pytest.approx(1 / 8)
    assert math.log(row["high"] / row["fold"]) == pytest.approx(8.80727, abs=1e-4)
    assert row["naive_fold"] == pytest.approx(16.75)


def test_values_that_are_not_positive_have_no_ratio(tmp_path: Path) -> None:
    values = {(0, "a"): 2.0, (0, "b"): 0.0, (1, "a"): 1.0, (1, "b"): 5.0}
    runs = [make_run(tmp_path, f"{w}{t}", {"w": w, "task": t}, {"kl": v}) for (w, t), v in values.items()]
    (row,) = fold_changes(to_frame(runs, {"w": (0, 1), "task": ("a", "b")}), {"w": 0}, ["kl"]).to_dict("records")
    assert (row["n"], row["n_not_positive"], row["fold"]) == (1, 1, 0.5)
    assert math.isnan(row["low"])
    assert math.isnan(row["naive_fold"]), "the same runs in both"


def test_matched_pairs_are_counted_by_cells_too(tmp_path: Path) -> None:
    cells = [(pv, task, seed) for pv in (0, 1) for task in "ab" for seed in (1, 2) if (pv, task, seed) != (0, "b", 2)]
    runs = [make_run(tmp_path, f"{p}{t}{s}", {"pv": p, "task": t, "seed": s}, {"m": 1.0 + p}) for p, t, s in cells]
    frame = to_frame(runs, {"pv": (0, 1), "task": ("a", "b"), "seed": (1, 2)})
    (row,) = matched_deltas(frame, {"pv": 0}, ["m"], seed_axis="seed").to_dict("records")
    assert (row["n"], row["common_cells"]) == (3, 2)
    assert (row["naive_baseline_mean"], row["naive_setting_mean"]) == (1.0, 2.0)


def test_a_pivot_has_one_axis_down_and_others_across(tmp_path: Path) -> None:
    frame = to_frame(sweep(tmp_path), AXES)
    probe = "router_test_final/router_probe_accuracy"
    summary = summarise(frame, ["task", "pv", "rmkl"], [probe], "seed", axes=AXES)
    table = pivot(summary, ["task"], ["pv", "rmkl"], probe, "mean")
    assert list(table.columns) == ["task", "0.0/0.0", "0.0/0.1", "0.1/0.0", "0.1/0.1"]
    assert table["task"].tolist() == list(AXES["task"])
    row = table[table["task"] == "sorting"].to_numpy().tolist()[0]
    assert row[2] == pytest.approx(0.21)
    assert [math.isnan(value) for value in row[1:]] == [True, False, True, True]


def test_a_setting_stands_for_its_block(sparse: pd.DataFrame, tmp_path: Path) -> None:
    """The block follows from the setting: nothing is averaged over it, and one seed is n=1, not one cell."""
    made = aggregate("sparse", sparse_runs(tmp_path / "again"), SPARSE_AXES, "seed", by=["task", "setting"])
    assert made.left_out == []
    assert made.summary["n"].max() == 1
    (view,) = make_views(
        aggregate("s", sparse_runs(tmp_path / "more"), SPARSE_AXES, "seed", metrics=["align*"]),
        Request(pivots=("task:setting",)),
    )
    assert view.text.headers == ["task", *SPARSE_AXES["setting"]]
    assert view.text.rows[1] == ["sort", "-", "0.175 (n=1)", "0.21 (n=1)", "0.2707 (n=1)", "0.1754 (n=1)"]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(pivots=("task",)), "expected rows:columns"),
        (Request(pivots=("task:task",)), "different axes"),
        (Request(pivots=("task:settign",)), "Did you mean setting"),
        (Request(best="alignment_one_to_one", per=("tusk",)), "Did you mean task"),
        (Request(without_blocks=("A_base",)), "Add --best"),
    ],
)
def test_a_request_that_makes_no_sense_says_what_to_write(tmp_path: Path, request_: Request, message: str) -> None:
    made = aggregate("sparse", sparse_runs(tmp_path), SPARSE_AXES, "seed")
    with pytest.raises(UsageError, match=message):
        make_views(made, request_)


def test_without_blocks_there_are_no_block_maxima(tmp_path: Path) -> None:
    made = aggregate("sweep", sweep(tmp_path), AXES, "seed")
    with pytest.raises(UsageError, match="no blocks"):
        make_views(made, Request(block_maxima="router_probe_accuracy"))
    with pytest.raises(UsageError, match="no blocks"):
        without_block(made.frame, ["x"])

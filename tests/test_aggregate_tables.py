"""Numbers of the tables, against values computed by hand."""

import math
import statistics
from pathlib import Path

import pandas as pd
import pytest
from aggregate_runs import AXES, make_run, sweep
from hypothesis import given
from hypothesis import strategies as st

from slurmkit.aggregate import completeness, guess_baseline, matched_deltas, missing_runs, summarise, to_frame
from slurmkit.aggregate.deltas import complete_baseline, parse_baseline
from slurmkit.aggregate.frame import mixed_commits
from slurmkit.aggregate.student import central_probability, t_half_width_factor
from slurmkit.errors import UsageError
from slurmkit.states import Reason, State

PROBE = "router_test_final/router_probe_accuracy"

T_975 = {1: 12.7062047, 2: 4.30265273, 3: 3.18244631, 4: 2.77644511, 9: 2.26215716, 30: 2.04227246, 120: 1.97993041}
"""Two-sided 95 % points of Student's t (Abramowitz and Stegun, table 26.10, to more digits)."""


@pytest.mark.parametrize(("df", "t"), [*T_975.items(), (1000, 1.96233908)])
def test_the_t_quantile_agrees_with_published_tables(df: int, t: float) -> None:
    assert t_half_width_factor(df) == pytest.approx(t, rel=1e-8)


def test_the_t_quantile_agrees_at_another_level() -> None:
    assert t_half_width_factor(2, 0.99) == pytest.approx(9.92484320, abs=1e-8)
    assert t_half_width_factor(5, 0.90) == pytest.approx(2.01504837, abs=1e-8)


@given(df=st.integers(1, 400), level=st.floats(0.5, 0.999))
def test_the_quantile_inverts_the_distribution_on_both_sides_of_the_switch(df: int, level: float) -> None:
    theta = math.atan(t_half_width_factor(df, level) / math.sqrt(df))
    assert central_probability(theta, df) == pytest.approx(level, abs=1e-7)


@pytest.mark.parametrize(("df", "level"), [(0, 0.95), (3, 1.0), (3, 0.0)])
def test_a_t_quantile_that_does_not_exist_is_refused(df: int, level: float) -> None:
    with pytest.raises(ValueError, match="df"):
        t_half_width_factor(df, level)


def seeds_frame(values: list[float | None]) -> pd.DataFrame:
    """Return a frame of one cell with a seed for each value; None: not completed."""
    return pd.DataFrame(
        {
            "task": "grid",
            "seed": range(len(values)),
            "id": [str(i) for i in range(len(values))],
            "name": "run",
            "state": ["running" if value is None else "completed" for value in values],
            "reason": pd.array([None] * len(values), dtype="str"),
            "attempt": 1,
            "commit": "a" * 40,
            "m": [math.nan if value is None else value for value in values],
        }
    )


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12))
def test_the_interval_is_the_textbook_s(values: list[float]) -> None:
    (row,) = summarise(seeds_frame([*values, None]), ["task"], ["m"], "seed").to_dict("records")
    n = len(values)
    expected = t_half_width_factor(n - 1) * statistics.stdev(values) / math.sqrt(n)
    assert row["n"] == row["completed"] == n
    assert row["planned"] == n + 1
    assert row["mean"] == pytest.approx(statistics.fmean(values), rel=1e-9, abs=1e-6)
    assert row["half_width"] == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_three_seeds_by_hand() -> None:
    """Mean 0.449; s = 0.005; 4.30265 x 0.005 / sqrt(3) = 0.012421."""
    (row,) = summarise(seeds_frame([0.444, 0.449, 0.454]), ["task"], ["m"], "seed").to_dict("records")
    assert row["mean"] == pytest.approx(0.449)
    assert row["half_width"] == pytest.approx(0.0124207, abs=1e-6)


def test_one_seed_has_no_interval() -> None:
    (row,) = summarise(seeds_frame([0.449]), ["task"], ["m"], "seed").to_dict("records")
    assert row["n"] == 1
    assert math.isnan(row["half_width"])


def test_a_frame_has_a_row_a_run_with_axes_first_and_metrics_last(tmp_path: Path) -> None:
    frame = to_frame(sweep(tmp_path), AXES)
    assert list(frame.columns) == [
        *AXES,
        *("id", "name", "state", "reason", "attempt", "commit"),
        *("loss/val/total", PROBE, "status"),
    ]
    assert len(frame) == 24
    assert frame["pv"].tolist()[:4] == [0.0, 0.0, 0.1, 0.1]
    assert frame[PROBE].notna().sum() == 19


def test_names_that_collide_are_kept_apart(tmp_path: Path) -> None:
    run = make_run(tmp_path, "run", {"state": 1, "lr": 0.1}, {"lr": 5.0, "name": 7.0})
    frame = to_frame([run], {"state": (1,), "lr": (0.1,)})
    (row,) = frame.to_dict("records")
    assert (row["axis/state"], row["lr"], row["metric/lr"], row["metric/name"]) == (1, 0.1, 5.0, 7.0)
    assert row["state"] == "completed"


def test_a_completed_run_with_a_wrong_file_is_missing_and_says_why(tmp_path: Path) -> None:
    axes = {"task": ("a", "b"), "seed": (1,)}
    runs = [make_run(tmp_path, t, {"task": t, "seed": 1}, content) for t, content in [("a", b"{"), ("b", b'{"m":1}')]]
    frame = to_frame(runs, axes)
    assert missing_runs(frame, ["task"]).to_dict("records") == [
        {"task": "a", "state": "completed", "reason": "metrics_truncated", "runs": 1}
    ]
    assert completeness(frame, ["task"])["completed"].tolist() == [0, 1]


def test_missing_cells_come_with_state_and_reason(tmp_path: Path) -> None:
    missing = missing_runs(to_frame(sweep(tmp_path), AXES), ["task"])
    counts = {(r["task"], r["state"], str(r["reason"])): r["runs"] for r in missing.to_dict("records")}
    assert counts == {("sorting", "failed", "oom_host"): 3, ("base_conversion", "running", "nan"): 2}


def test_rows_come_in_the_definition_s_order_whatever_the_runs_order(tmp_path: Path) -> None:
    frame = to_frame(sweep(tmp_path), AXES).iloc[::-1]
    summary = summarise(frame, ["pv", "task"], [PROBE], "seed", axes={**AXES, "pv": (0.1, 0.0)})
    assert summary["pv"].tolist() == [0.1] * 6 + [0.0] * 6
    assert summary["task"].tolist() == [*AXES["task"]] * 2


def test_missing_axis_values_make_a_cell_of_their_own(tmp_path: Path) -> None:
    values = (None, 0, "x")
    runs = [make_run(tmp_path, f"r{i}", {"a": value, "b": 1}, {"m": float(i)}) for i, value in enumerate(values)]
    frame = to_frame(runs, {"a": values, "b": (1,)})
    assert summarise(frame, ["a"], ["m"], None)["mean"].tolist() == [0.0, 1.0, 2.0]


def test_matched_differences_are_the_effect_where_naive_ones_are_the_choice_of_tasks(tmp_path: Path) -> None:
    """19 of 24 completed: the baseline lacks the highest and the lowest task, so its mean is over other tasks.

    Matched over 4 tasks the settings add 0.01, -0.02 and 0.03. Means over whatever each has: baseline
    (0.48 + 0.50 + 0.30 + 0.52) / 4 = 0.45; rmkl alone over 6 tasks 2.96 / 6 = 0.49333; both over 5 tasks
    2.85 / 5 = 0.57.
    """
    frame = to_frame(sweep(tmp_path), AXES)
    deltas = matched_deltas(frame, {"pv": 0.0, "rmkl": 0.0}, [PROBE], axes=AXES)
    rows = {(row["pv"], row["rmkl"]): row for row in deltas.to_dict("records")}
    assert {key: row["n"] for key, row in rows.items()} == {(0.0, 0.1): 4, (0.1, 0.0): 4, (0.1, 0.1): 4}
    effects = {key: row["difference"] for key, row in rows.items()}
    assert effects == pytest.approx({(0.0, 0.1): 0.01, (0.1, 0.0): -0.02, (0.1, 0.1): 0.03})
    assert rows[0.0, 0.1]["naive_difference"] == pytest.approx(2.96 / 6 - 0.45)
    assert rows[0.1, 0.1]["naive_difference"] == pytest.approx(0.57 - 0.45)
    assert math.isnan(rows[0.1, 0.0]["naive_difference"]), "both have the same tasks: nothing to distrust"
    assert rows[0.1, 0.1]["n_setting"] == 5
    assert rows[0.1, 0.1]["baseline_mean"] == pytest.approx(0.45)
    assert rows[0.1, 0.1]["setting_mean"] == pytest.approx(0.48)


def test_means_over_tasks_say_where_the_tasks_differ_and_give_the_common_ones(tmp_path: Path) -> None:
    frame = to_frame(sweep(tmp_path), AXES)
    summary = summarise(frame, ["pv", "rmkl"], [PROBE], "seed", axes=AXES)
    assert summary["cells"].tolist() == [4, 6, 4, 5]
    assert summary["mean"].tolist() == pytest.approx([0.45, 2.96 / 6, 0.43, 0.57])
    assert summary["uneven"].all()
    assert summary["common_cells"].tolist() == [4, 4, 4, 4]
    assert summary["common_mean"].tolist() == pytest.approx([0.45, 0.46, 0.43, 0.48])
    assert summary["half_width"].isna().all(), "the spread over tasks is no uncertainty"


def test_a_cell_with_more_seeds_weighs_no_more_in_a_mean_over_cells(tmp_path: Path) -> None:
    values = {("a", 1): 0.0, ("a", 2): 0.0, ("a", 3): 0.0, ("b", 1): 1.0}
    runs = [make_run(tmp_path, f"{t}{s}", {"pv": 0, "task": t, "seed": s}, {"m": v}) for (t, s), v in values.items()]
    (row,) = summarise(
        to_frame(runs, {"pv": (0,), "task": ("a", "b"), "seed": (1, 2, 3)}), ["pv"], ["m"], "seed"
    ).to_dict("records")
    assert (row["mean"], row["n"], row["cells"]) == (0.5, 4, 2)


def test_differences_are_matched_by_seed_too(tmp_path: Path) -> None:
    """Differences 1, 2, 3: mean 2, half-width 4.30265 x 1 / sqrt(3) = 2.48414; the fourth seed has no counterpart."""
    values = {(0, 1): 10.0, (0, 2): 20.0, (0, 3): 30.0, (1, 1): 11.0, (1, 2): 22.0, (1, 3): 33.0, (1, 4): 99.0}
    runs = [make_run(tmp_path, f"{pv}-{s}", {"pv": pv, "seed": s}, {"m": v}) for (pv, s), v in values.items()]
    frame = to_frame(runs, {"pv": (0, 1), "seed": (1, 2, 3, 4)})
    (row,) = matched_deltas(frame, {"pv": 0}, ["m"]).to_dict("records")
    assert (row["n"], row["n_setting"], row["n_baseline"]) == (3, 4, 3)
    assert row["difference"] == pytest.approx(2.0)
    assert row["half_width"] == pytest.approx(2.48414, abs=1e-4)
    assert row["naive_difference"] == pytest.approx(165 / 4 - 20)


def test_a_setting_without_any_counterpart_has_no_difference(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, t, {"pv": pv, "task": t}, {"m": 1.0}) for pv, t in [(0, "a"), (1, "b")]]
    frame = to_frame(runs, {"pv": (0, 1), "task": ("a", "b")})
    (row,) = matched_deltas(frame, {"pv": 0}, ["m"]).to_dict("records")
    assert row["n"] == 0
    assert math.isnan(row["difference"])
    assert row["naive_difference"] == 0.0


def test_differences_can_be_given_by_a_further_axis(tmp_path: Path) -> None:
    frame = to_frame(sweep(tmp_path), AXES)
    deltas = matched_deltas(frame, {"pv": 0.0, "rmkl": 0.0}, [PROBE], within=["task"], axes=AXES)
    row = deltas[(deltas["task"] == "grid") & (deltas["pv"] == 0.1) & (deltas["rmkl"] == 0.1)].to_dict("records")[0]
    assert row["n"] == 1
    assert row["difference"] == pytest.approx(0.03)
    assert row["n_baseline"] == 1


def test_a_baseline_is_guessed_from_zeros_or_from_a_word(tmp_path: Path) -> None:
    assert guess_baseline(to_frame(sweep(tmp_path / "a"), AXES), AXES, "seed") == {"pv": 0.0, "rmkl": 0.0}
    axes = {"task": ("a",), "block": ("A", "B"), "setting": ("beta0p1_base", "beta0p1_twr2"), "seed": (0, 1)}
    cells = [("A", "beta0p1_base"), ("B", "beta0p1_twr2")]
    runs = [
        make_run(tmp_path / "b", s, {"task": "a", "block": b, "setting": s, "seed": 0}, {"m": float(len(b + s))})
        for b, s in cells
    ]
    frame = to_frame(runs, axes)
    guess = guess_baseline(frame, axes, "seed")
    assert guess == {"block": "A", "setting": "beta0p1_base"}
    assert matched_deltas(frame, guess, ["m"])["n"].tolist() == [1], "settings of different blocks are matched"
    assert guess_baseline(frame, {"task": ("a", "b"), "lr": (0.1, 0.2), "seed": (0, 1)}, "seed") == {}


def test_a_setting_that_stands_in_two_blocks_needs_its_block(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, b, {"block": b, "setting": "base"}, {"m": 1.0}) for b in "AB"]
    frame = to_frame(runs, {"block": ("A", "B"), "setting": ("base",)})
    with pytest.raises(UsageError, match="block=A,setting=base"):
        complete_baseline(frame, {"setting": "base"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pv=0.0,rmkl=0.1", {"pv": 0.0, "rmkl": 0.1}),
        ("pv=0", {"pv": 0.0}),
        ("task=a,b", {"task": "a,b"}),
        ("task=a,b,pv=0.10", {"task": "a,b", "pv": 0.1}),
    ],
)
def test_a_baseline_is_read_as_the_axes_spell_it(text: str, expected: dict[str, object]) -> None:
    assert parse_baseline(text, {"pv": (0.0, 0.1), "rmkl": (0.0, 0.1), "task": ("a,b", "c")}) == expected


@pytest.mark.parametrize(
    ("text", "advice"),
    [("pv", "axis=value"), ("vp=0.0", "Known: pv, flag"), ("pv=0.3", "Did you mean 0.1"), ("flag=0", "false")],
)
def test_a_wrong_baseline_says_what_there_is(text: str, advice: str) -> None:
    with pytest.raises(UsageError, match=advice):
        parse_baseline(text, {"pv": (0.0, 0.1), "flag": (False, True)})


def test_a_baseline_that_no_run_has_is_refused(tmp_path: Path) -> None:
    frame = to_frame([make_run(tmp_path, "r", {"pv": 0.1}, {"m": 1.0})], {"pv": (0.0, 0.1)})
    with pytest.raises(UsageError, match=r"pv=0\.0: no run"):
        matched_deltas(frame, {"pv": 0.0}, ["m"])


def test_mixed_commits_are_counted_among_usable_runs(tmp_path: Path) -> None:
    commits = ["a" * 40, "a" * 40, "b" * 40]
    runs = [make_run(tmp_path, f"r{i}", {"i": i}, {"m": 1.0}, commit=c) for i, c in enumerate(commits)]
    failed = make_run(tmp_path, "f", {"i": 9}, None, state=State.FAILED, reason=Reason.ERROR, commit="d" * 40)
    assert mixed_commits(to_frame([*runs, failed], {"i": ()})) == {"a" * 40: 2, "b" * 40: 1}
    assert mixed_commits(to_frame([*runs[:2], failed], {"i": ()})) == {}

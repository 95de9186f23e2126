"""The data behind a report's figures, and what their captions count, against values worked out by hand."""

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.font_manager import FontProperties, findfont
from PIL import Image
from report_runs import (
    DENSE,
    LEVEL,
    SPARSE,
    Result,
    dense_result,
    made_report,
    make_collection,
    material_of,
    sparse_result,
)

from slurmkit.expand import Run
from slurmkit.report.figures.font import light_font
from slurmkit.report.figures.kept import fingerprint
from slurmkit.report.figures.recording import Recorder
from slurmkit.report.figures.series import means_over_seeds
from slurmkit.report.figures.standardised import standardise
from slurmkit.report.figures.style import PALETTE, Drawn, new_drawing, panels, power_text, same_scale, wrapped
from slurmkit.report.figures.tradeoff import pareto_front
from slurmkit.report.layout import Look, lay_out
from slurmkit.report.markdown import markdown
from slurmkit.report.model import Report, Section
from slurmkit.report.write import write
from slurmkit.states import State

PROBE = "router_test_final/router_probe_accuracy"


def data_of(report: Report, name: str) -> pd.DataFrame:
    return next(figure.data for figure in report.figures if figure.name == name)


def test_the_completion_grid_counts_cells_and_says_what_became_of_the_others(dense: Report) -> None:
    data = data_of(dense, "completion")
    assert len(data) == 24
    assert data["completed"].sum() == 19
    others = data.set_index(["panel", "setting"])["others"]
    assert others["sorting_algorithms", "pv=0.0, rmkl=0.0"] == "failed: oom_host"
    assert others["base_conversion", "pv=0.1, rmkl=0.0"] == "planned"
    assert dense.figures[0].caption.startswith("19/24 cells complete (19/24 runs).")


def test_final_metrics_hold_each_cell_and_leave_the_missing_ones_empty(dense: Report) -> None:
    data = data_of(dense, "final")
    probe = data[data["metric"] == PROBE].set_index(["panel", "setting"])
    assert probe.loc[("grid_pathfinding", "pv=0.1, rmkl=0.1"), "mean"] == pytest.approx(
        LEVEL["grid_pathfinding"] + 0.03
    )
    assert probe["n"].sum() == 19
    missing = probe.loc[("sorting_algorithms", "pv=0.1, rmkl=0.1")]
    assert math.isnan(missing["mean"])
    assert missing["others"] == "failed: oom_host"


def test_captions_count_cells_and_seeds(dense: Report, sparse: Report) -> None:
    captions = {figure.name: figure.caption for figure in dense.figures}
    assert captions["final"].startswith("19/24 cells, n=1 seed.")
    assert captions["series"].startswith("19/24 cells, n=1 seed.")
    assert captions["auxiliary"].startswith("15/24 cells, n=1 seed.")  # pv or rmkl is above 0
    assert next(f.caption for f in sparse.figures if f.name == "trade-off").startswith("62/63 cells, n=1 seed.")


def test_fold_changes_are_over_the_tasks_that_both_settings_have(dense: Report) -> None:
    data = data_of(dense, "folds").set_index(["metric", "setting", "panel"])
    over_all = data.loc[("loss/val/router_marginal_kl_to_prior", "pv=0.0, rmkl=0.1", "all matched")]
    assert over_all["fold"] == pytest.approx(1.0 / 3805.0)
    assert over_all["n"] == 4  # of six tasks, the baseline has four


def test_series_end_where_the_runs_ended(dense: Report) -> None:
    data = data_of(dense, "series")
    last = data[(data["step"] == 1000) & (data["metric"] == "val/router_probe_accuracy")]
    cell = last[(last["panel"] == "list_summation") & (last["setting"] == "pv=0.0, rmkl=0.0")]
    assert cell["mean"].item() == pytest.approx(0.52 * (1 - math.exp(-4) / 2))


def test_weighted_terms_are_those_with_a_weight(dense: Report) -> None:
    data = data_of(dense, "auxiliary")
    assert set(data["metric"]) == {
        "loss/train/weighted/posterior_variance",
        "loss/train/weighted/router_marginal_kl_to_prior",
    }
    assert "pv=0.0, rmkl=0.0" not in set(data["setting"])


def test_means_on_a_logarithmic_axis_are_geometric_with_bounds_above_0() -> None:
    values = {1: (1e-6, 1e-2, 1e-4), 2: (1e-6, 0.0, 1e-4)}  # at step 2 one seed has nothing to take the logarithm of
    runs = pd.DataFrame(
        [
            {"panel": 0, "setting": 0, "id": f"run-{n}", "metric": "term", "step": step, "value": value}
            for step, of_step in values.items()
            for n, value in enumerate(of_step)
        ]
    ).astype({"metric": "category"})
    plain, geometric = means_over_seeds(runs, log=False), means_over_seeds(runs, log=True)
    assert plain["mean"].tolist() == pytest.approx([0.010101 / 3, 0.000101 / 3])
    assert plain["low"].iloc[0] < 0
    assert geometric["step"].tolist() == [1]
    assert geometric["mean"].tolist() == pytest.approx([1e-4])
    factor = 10 ** (2 * 4.302653 / math.sqrt(3))  # t of 2 degrees of freedom; the logarithms' deviation is 2 decades
    assert geometric[["low", "high"]].iloc[0].tolist() == pytest.approx([1e-4 / factor, 1e-4 * factor], rel=1e-5)


def test_standardised_series_have_mean_0_and_deviation_1() -> None:
    z = standardise(pd.Series([1.0, 2.0, 3.0]))
    assert z.tolist() == pytest.approx([-math.sqrt(1.5), 0.0, math.sqrt(1.5)])
    assert standardise(pd.Series([0.1, 0.1, 0.1])).isna().all()


def test_the_pareto_front_is_what_nothing_beats() -> None:
    points = np.array([[1.0, 1.0], [2.0, 0.5], [2.0, 0.4], [0.5, 2.0], [1.0, 1.0], [0.4, 1.9]])
    assert pareto_front(points).tolist() == [True, True, False, True, True, False]


def test_the_front_of_a_task_follows_the_directions_of_its_metrics(sparse: Report) -> None:
    data = data_of(sparse, "trade-off")
    front = data[data["on_front"] & (data["panel"] == "multidigit_addition")]
    assert set(front["setting"]) == {"beta0p1_twr1", "beta0p1_rsw1"}  # most accurate, and best aligned


def test_a_setting_looks_the_same_in_every_figure_and_unlike_every_other(tmp_path: Path) -> None:
    make_collection(tmp_path, SPARSE, sparse_result)
    make_collection(tmp_path, DENSE, dense_result)
    for name, settings in (("sparse", 21), ("dense", 4)):
        layout = lay_out(material_of(tmp_path, name).aggregation)
        looks = [setting.look for setting in layout.settings]
        assert len(looks) == len(set(looks)) == settings
    assert [s.look for s in layout.settings if s.is_baseline] == [Look(0, 0, 0)]


def test_each_panel_is_a_task_and_the_block_is_no_part_of_a_label(tmp_path: Path) -> None:
    make_collection(tmp_path, SPARSE, sparse_result)
    layout = lay_out(material_of(tmp_path, "sparse").aggregation)
    assert layout.panels == ("sorting_algorithms", "grid_pathfinding", "multidigit_addition")
    assert layout.settings[5].label == "beta0p1_twr2"


def test_what_cannot_be_drawn_is_left_out_with_the_reason(sparse: Report) -> None:
    text = markdown(sparse)
    assert "Left out: Validation over steps: no run has logged such a series." in text
    assert "Left out: Interaction: it needs settings of exactly two swept numbers" in text


def test_labels_with_dollars_are_no_formulas(tmp_path: Path) -> None:
    swept = DENSE.replace("- list_summation", '- "$c^x$"')

    def result(run: Run) -> Result:
        return Result({"accuracy": 0.5, "alignment": 0.2})

    make_collection(tmp_path, swept, result)
    figures = made_report(tmp_path, "dense").figures
    assert len(figures) == 4
    for figure in figures:
        assert b">$c^x$</text>" in Drawn(figure.draw, figure.name).written("svg"), figure.name


def test_a_drawing_is_the_same_bytes_each_time_and_its_texts_are_texts(dense: Report) -> None:
    figure = next(figure for figure in dense.figures if figure.name == "folds")
    first, again = Drawn(figure.draw, figure.name), Drawn(figure.draw, figure.name)
    svg = first.written("svg")
    assert svg == again.written("svg")
    assert first.written("pdf") == again.written("pdf")
    assert b"posterior_variance</text>" in svg
    assert first.written("png").startswith(b"\x89PNG")


def test_nothing_in_a_drawing_is_cut_off_at_its_edge(dense: Report) -> None:
    for figure in (figure for figure in dense.figures if figure.name in {"completion", "series"}):
        picture = Image.open(io.BytesIO(Drawn(figure.draw, figure.name).written("png"))).convert("RGB")
        dots = np.asarray(picture)
        edges = [dots[:4], dots[-4:], dots[:, :4], dots[:, -4:]]
        assert all(bool((edge == 255).all()) for edge in edges), figure.name
        assert not bool((dots == 255).all())


def test_a_text_is_drawn_with_a_smaller_font_only_if_that_has_all_of_it() -> None:
    font = FontProperties(family="DejaVu Sans", size=8)
    light = light_font(font, "\u00d7 10\u207b\u2075 \u03b2 fi")
    assert Path(light.get_file()).stat().st_size < 200_000 < Path(findfont(font)).stat().st_size
    widths = [Recorder().get_text_width_height_descent("grid 0.97", own, ismath=False)[0] for own in (font, light)]
    assert widths[0] == pytest.approx(widths[1], rel=0.01)
    assert light_font(font, "\u0436") is font  # Cyrillic: DejaVu Sans itself has it


def test_a_figure_is_drawn_again_only_if_its_data_or_its_files_have_changed(dense: Report, tmp_path: Path) -> None:
    few = replace(dense, sections=(Section("Key figures", tuple(dense.figures[:1])),))
    told: list[str] = []
    write(few, tmp_path, told.append)
    assert len(told) == 2
    write(few, tmp_path, told.append)
    assert len(told) == 2
    (tmp_path / "figures" / "completion.pdf").write_bytes(b"cut off")
    write(few, tmp_path, told.append)
    assert (tmp_path / "figures" / "completion.pdf").read_bytes().startswith(b"%PDF")
    figure = few.figures[0]
    other = replace(figure, data=figure.data.assign(completed=0))
    assert fingerprint(other) != fingerprint(figure) != fingerprint(replace(figure, beside=("another label",)))


def test_bars_of_one_seed_are_its_own_standard_errors_and_say_so(tmp_path: Path) -> None:
    def result(run: Run) -> Result:
        return Result({PROBE: 0.5, f"{PROBE}_standard_error": 0.01, f"{PROBE}_majority": 0.4, "gap_share": 0.0})

    make_collection(tmp_path, DENSE, result)
    report = made_report(tmp_path, "dense")
    final = next(figure for figure in report.figures if figure.name == "final")
    assert final.data["metric"].unique().tolist() == [PROBE]  # what explains it is drawn with it
    assert final.data["half_width"].tolist() == pytest.approx([0.0196] * 24)
    assert set(final.data["interval_over"]) == {"test"}
    assert "1.96 standard errors of the run's own test" in final.caption
    assert "Grey lines" in final.caption


def test_marks_of_equal_values_are_all_seen(tmp_path: Path) -> None:
    def result(run: Run) -> Result:
        if run.axes["task"] != "list_summation":
            return Result(state=State.PLANNED)
        return Result({PROBE: 0.5, "router_test_final/final_answer_accuracy": 0.9})

    make_collection(tmp_path, DENSE, result)
    figure = next(figure for figure in made_report(tmp_path, "dense").figures if figure.name == "trade-off")
    assert "Of marks with equal values the first lies beneath and is larger." in figure.caption
    picture = Image.open(io.BytesIO(Drawn(figure.draw, figure.name).written("png"))).convert("RGB")
    dots = np.asarray(picture)[: picture.height * 3 // 4]  # without the legend
    colours = [tuple(bytes.fromhex(PALETTE[number].lstrip("#"))) for number in range(4)]
    assert all(int((dots == colour).all(axis=2).sum()) > 20 for colour in colours)


def test_many_settings_of_one_panel_are_listed_beside_it_and_only_those_that_are_drawn(tmp_path: Path) -> None:
    one = SPARSE.replace("[sorting_algorithms, grid_pathfinding, multidigit_addition]", "[sorting_algorithms]")
    make_collection(tmp_path, one, sparse_result)
    figure = next(figure for figure in made_report(tmp_path, "sparse").figures if figure.name == "trade-off")
    drawing = figure.draw()
    width, height = drawing.get_size_inches()
    assert height < width
    (legend,) = drawing.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert len(names) == 20
    assert "beta0p1_base" not in names  # it failed


@pytest.mark.parametrize(
    ("label", "lines"),
    [
        ("alignment_one_to_one", "alignment_\none_to_one"),
        ("router_marginal_kl_to_prior", "router_marginal_\nkl_to_prior"),
        ("accuracy", "accuracy"),
        ("averyveryverylongword", "averyveryverylongword"),
    ],
)
def test_labels_are_broken_into_lines_of_about_the_same_length(label: str, lines: str) -> None:
    assert wrapped(label, 18) == lines


def test_panels_have_one_scale_so_that_a_small_difference_does_not_look_large() -> None:
    drawing = new_drawing(4, 2)
    (row,) = panels(drawing, 1, 2)
    same_scale(row, [[0.955, 0.965], [0.74, 0.77]])
    widths = [high - low for low, high in (axes.get_ylim() for axes in row)]
    assert widths[0] == pytest.approx(widths[1])
    assert widths[1] == pytest.approx(1.16 * 0.03)


@pytest.mark.parametrize(
    ("value", "text"), [(0.02, "0.02"), (100.0, "100"), (3e-5, "3\u00d710\u207b\u2075"), (1e5, "10\u2075")]
)
def test_ticks_of_logarithmic_axes_are_plain_text(value: float, text: str) -> None:
    assert power_text(value) == text

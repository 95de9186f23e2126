"""What a report says, against two published reports and against hand-computed numbers; and how it is written down."""

from pathlib import Path

import pytest
from report_runs import DENSE, Result, dense_result, made_report, make_collection

from slurmkit.aggregate.text import TextTable
from slurmkit.definition.model import parse_definition
from slurmkit.errors import DefinitionError
from slurmkit.expand import Run
from slurmkit.report.markdown import code, markdown, text
from slurmkit.report.model import Command, Facts, Report, Section, Sentence
from slurmkit.states import Reason, State

GOLDEN = Path(__file__).parent / "golden" / "report" / "dense.md"


def section(report: Report, title: str) -> Section:
    return next(section for section in report.sections if section.title == title)


def facts(report: Report, title: str) -> dict[str, dict[str, str]]:
    """Return the lists of a section: title to name to value; of lists with the same title the first."""
    lists = [block for block in section(report, title).blocks if isinstance(block, Facts)]
    return {block.title: {fact.name: fact.value for fact in block.facts} for block in reversed(lists)}


def sentences(report: Report, title: str) -> list[str]:
    return [block.text for block in section(report, title).blocks if isinstance(block, Sentence)]


def table(report: Report, title: str, start: str) -> TextTable:
    tables = [block for block in section(report, title).blocks if isinstance(block, TextTable)]
    return next(found for found in tables if found.title.startswith(start))


def test_the_report_as_it_stands_in_the_golden_file(dense: Report) -> None:
    assert markdown(dense) == GOLDEN.read_text()


def test_the_best_runs_are_the_published_ones(sparse: Report) -> None:
    best = facts(sparse, "Best results")
    assert best["grid_pathfinding"]["setting"] == "beta0p1_twr2 (block B_twr_only); n=1 seed"
    assert best["grid_pathfinding"]["alignment_one_to_one"] == "0.693"
    assert best["grid_pathfinding"]["reconstruction_loss"] == "6e-06"
    assert best["sorting_algorithms"]["setting"].startswith("beta0p1_twr2 ")
    assert best["sorting_algorithms"]["alignment_one_to_one"] == "0.2707"
    assert best["multidigit_addition"]["setting"].startswith("beta0p1_rsw1 (block E_rsw_only)")
    assert best["multidigit_addition"]["alignment_one_to_one"] == "0.3324"
    assert best["grid_pathfinding"]["run"].startswith("runs/sparse/block-B_twr_only_setting-beta0p1_twr2_")


def test_the_best_comparison_is_of_another_block(sparse: Report) -> None:
    blocks = section(sparse, "Best results").blocks
    others = [b.facts[1].value for b in blocks if isinstance(b, Facts) and b.title == "Best outside of B_twr_only"]
    assert others == [
        "beta0p1_pe0p5_rmk0p5_rsw0p1 (block F_composites); n=1 seed",
        "beta0p5_base (block A_beta_only); n=1 seed",
    ]


def test_the_metrics_reach_as_far_as_published(sparse: Report) -> None:
    reach = facts(sparse, "Best results")["Range over all runs with results"]
    assert reach["mean_overall_final_answer_accuracy"] == "0.9853 to 1"
    assert reach["alignment_one_to_one"] == "0.1624 to 0.693"


def test_block_maxima_lie_within_the_published_bounds(sparse: Report) -> None:
    maxima = table(sparse, "Block maxima", "Largest alignment_one_to_one")
    values = {row[0]: [float(cell.partition(" ")[0]) for cell in row[1:]] for row in maxima.rows}
    assert maxima.headers == ["block", "sorting_algorithms", "grid_pathfinding", "multidigit_addition"]
    for block, (sorting, grid, addition) in values.items():
        if block != "B_twr_only":
            assert 0.1745 <= sorting < 0.1756
            assert 0.223 <= grid <= 0.226
        assert 0.331 <= addition < 0.3325
    assert values["B_twr_only"] == [0.2707, 0.693, 0.3312]


def test_the_negative_control_is_the_task_where_the_leading_block_does_not_lead(sparse: Report) -> None:
    assert [line for line in sentences(sparse, "Block maxima") if line.startswith("Negative control")] == [
        "Negative control: B_twr_only leads in 2 of 3 values of task, but not in multidigit_addition: "
        "0.3312 (beta0p1_twr1) against 0.3324 (beta0p1_rsw1) of E_rsw_only."
    ]


def test_matched_differences_stand_beside_the_naive_ones_that_holes_distort(dense: Report) -> None:
    deltas = table(dense, "Matched comparisons", "Matched differences from pv=0.0,rmkl=0.0")
    column = deltas.headers.index("router_probe_accuracy")
    cells = {tuple(row[:2]): row[column] for row in deltas.rows}
    # By hand: the baseline has no base_conversion (0.90) and no sorting (0.20); pv=0, rmkl=0.1 has both.
    naive = (0.49 + 0.53 + 0.31 + 0.51 + 0.91 + 0.21) / 6 - (0.48 + 0.52 + 0.30 + 0.50) / 4
    assert cells["0.0", "0.1"] == f"+0.01 ± 0 (n=4; naive +{naive:.4g})"
    assert cells["0.1", "0.0"] == "-0.02 ± 0 (n=4)"  # the same four tasks: nothing to distrust
    assert any(
        "Only the matched one compares like with like" in line for line in sentences(dense, "Matched comparisons")
    )


def test_missing_cells_come_with_what_would_fill_them(dense: Report) -> None:
    rows = table(dense, "Missing cells", "Without results").rows
    assert [row[:5] for row in rows if row[0] == "failed"] == [
        ["failed", "oom_host", "sorting_algorithms", pv, rmkl]
        for pv, rmkl in (("0.0", "0.0"), ("0.1", "0.0"), ("0.1", "0.1"))
    ]
    commands = [block.lines for block in section(dense, "Missing cells").blocks if isinstance(block, Command)]
    assert commands == [("slurmkit submit dense", "slurmkit resubmit dense --failed")]


def test_failures_come_with_their_evidence(dense: Report) -> None:
    (row,) = table(dense, "Metadata", "Failures by reason").rows
    assert row[:3] == ["oom_host", "3", "step .0 exit 0:125, limit 24 GB, peak 23.9 GB"]


def test_cost_counts_hours_of_what_was_asked_for(dense: Report) -> None:
    spent = facts(dense, "Cost")[""]
    assert spent["GPU-hours"].startswith("44.0 ")  # 22 runs of two hours with one GPU
    assert spent["CPU-hours"].startswith("176.0 ")
    assert spent["Wait in the queue"] == "median 10m00s, most 10m00s"


def test_provenance_tells_proof_and_what_retries_changed(tmp_path: Path) -> None:
    def retried(run: Run) -> Result:
        result = dense_result(run)
        if run.axes["task"] == "list_summation":
            return Result(result.metrics, result.history, attempts=2, changes={"train.batch_size": 16})
        return result

    make_collection(tmp_path, DENSE, retried)
    report = made_report(tmp_path, "dense")
    assert facts(report, "Provenance")[""]["Proof of pin"].startswith("19 of 22 attempts proved")
    assert facts(report, "Provenance")[""]["Imported"] == "losses/probe.py, train.py (by 19 attempts)"
    (row,) = table(report, "Provenance", "Configs that retries changed").rows
    assert row[:2] == ["train.batch_size=16", "4"]


def test_a_complete_collection_is_not_called_partial(tmp_path: Path) -> None:
    make_collection(tmp_path, DENSE.replace("      - base_conversion\n      - sorting_algorithms\n", ""), dense_result)
    report = made_report(tmp_path, "dense")
    assert report.partial == ""
    assert sentences(report, "Missing cells") == ["None: every planned run has results."]


def test_a_collection_without_any_result_has_a_report_all_the_same(tmp_path: Path) -> None:
    failed = Result(state=State.FAILED, reason=Reason.ERROR, evidence="stderr line 3: KeyError: 'x'")
    make_collection(tmp_path, DENSE, lambda _: failed)
    report = made_report(tmp_path, "dense")
    assert report.partial == "No run has results yet (24 failed: error)."
    assert [figure.name for figure in report.figures] == ["completion"]
    assert "KeyError" in markdown(report)


def test_the_definition_chooses_metrics_figures_and_what_is_best(tmp_path: Path) -> None:
    chosen = """\
report:
  panels: task
  baseline: {pv: 0.1, rmkl: 0.0}
  metrics: [router_probe_accuracy]
  best: posterior_variance:min
  figures: [final, completion]
"""
    make_collection(tmp_path, DENSE + chosen, dense_result)
    report = made_report(tmp_path, "dense")
    assert [figure.name for figure in report.figures] == ["final", "completion"]
    assert facts(report, "Best results")["list_summation"]["setting"].startswith("pv=0.1, rmkl=0.1;")
    deltas = table(report, "Matched comparisons", "Matched differences from pv=0.1,rmkl=0.0")
    assert deltas.headers == ["pv", "rmkl", "router_probe_accuracy"]


def test_globs_of_the_definition_that_name_no_metric_are_noted_and_no_error(tmp_path: Path) -> None:
    globs = """\
metrics:
  router_probe_accuracy: {label: probe}
  router_probe_acuracy: {label: typo}
report:
  metrics: [router_probe_accuracy, "controlled_*/alignment"]
  best: posterior_varianse:min
  accuracy: final_answer_accuracy
"""
    make_collection(tmp_path, DENSE + globs, dense_result)
    report = made_report(tmp_path, "dense")
    noted = [line for line in sentences(report, "Matched comparisons") if "names no metric" in line]
    assert noted == [
        "metrics: 'router_probe_acuracy' in the definition names no metric with numbers of any completed run",
        "report.metrics: 'controlled_*/alignment' in the definition names no metric with numbers of any completed run",
        "report.best: 'posterior_varianse' in the definition names no metric with numbers of any completed run",
    ]
    make_collection(tmp_path, DENSE.replace("name: dense", "name: none") + globs, lambda _: Result(state=State.PLANNED))
    assert not any("names no" in line for line in sentences(made_report(tmp_path, "none"), "Matched comparisons"))


ONE_TASK = "      - list_summation\n      - grid_pathfinding\n      - linear_equation_solving\n"
ONE_TASK += "      - base_conversion\n      - sorting_algorithms\n"
"""What to take from `DENSE` to leave one task."""


def test_one_task_and_one_setting_are_not_spoken_of_as_several(tmp_path: Path) -> None:
    one = DENSE.replace(ONE_TASK, "").replace("[0.0, 0.1]", "[0.1]")
    make_collection(tmp_path, one.replace("[314159]", "[1, 2]"), dense_result)
    report = made_report(tmp_path, "dense")
    said = [text for figure in report.figures for text in (figure.caption, figure.alt)]
    said += [block.text for found in report.sections for block in found.blocks if isinstance(block, Sentence)]
    assert len(said) > 10
    for word in ("each task", "sweep", "panel", "line for each", "across", "1 cells", "no line", "nothing"):
        assert [text for text in said if word in text.casefold()] == [], word
    assert "Left out: Trade-off: there is only one setting." in sentences(report, "Key figures")
    assert sentences(report, "Matched comparisons") == ["No differences: there is only one setting."]


def test_one_task_with_several_settings_has_no_panels(tmp_path: Path) -> None:
    make_collection(tmp_path, DENSE.replace(ONE_TASK, ""), dense_result)
    report = made_report(tmp_path, "dense")
    alts = {figure.name: figure.alt for figure in report.figures}
    assert alts["completion"] == "Grid of 4 settings: 4 of 4 cells are complete."
    assert "over training steps, a line for each setting: 4/4 cells" in alts["series"]
    assert not any("panel" in text for figure in report.figures for text in (figure.caption, figure.alt))


def test_panels_may_be_a_number_that_the_baseline_has_too(tmp_path: Path) -> None:
    make_collection(tmp_path, f"{DENSE.replace(ONE_TASK, '')}report: {{panels: pv}}\n", dense_result)
    report = made_report(tmp_path, "dense")
    folds = next(figure for figure in report.figures if figure.name == "folds")
    assert folds.title == "Fold changes against rmkl=0.0"
    of_panels = folds.data[folds.data["metric"] == "loss/val/router_marginal_kl_to_prior"].set_index("panel")["fold"]
    assert of_panels["0.0"] == pytest.approx(1.0 / 3805.0)
    assert of_panels["0.1"] == pytest.approx(2.0 / 3000.0)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("  panels: tsak", "report.panels: no axis of cells 'tsak'. Did you mean task?"),
        ("  panels: seed", "report.panels: no axis of cells 'seed'"),
        ("  baseline: {pv: 0.3}", "report.baseline.pv: "),
        ("  figures: [finals]", "report.figures[0]: 'finals' is no figure. Did you mean final"),
        ("  metric: [x]", "report.metric: unknown key. Did you mean metrics?"),
    ],
)
def test_a_wrong_choice_is_told_with_its_line(line: str, told: str) -> None:
    with pytest.raises(DefinitionError) as error:
        parse_definition(f"{DENSE}report:\n{line}\n".encode(), "sweep.yaml")
    number = len(DENSE.splitlines()) + 2
    assert str(error.value).startswith(f"sweep.yaml:{number}:")
    assert told in str(error.value)


def test_what_somebody_wrote_cannot_become_markup() -> None:
    assert text("a|b *c* _d_ e_f <b> 1. x") == "a\\|b \\*c\\* \\_d\\_ e_f \\<b\\> 1. x"
    assert text("- x") == "\\- x"
    assert text("1. x") == "1\\. x"
    assert text("0.5 x") == "0.5 x"
    assert code("a`b") == "`` a`b ``"

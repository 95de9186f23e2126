"""Settings against the baseline over the runs that both have, and the means of all cells."""

from slurmkit.aggregate.text import deltas_table, summary_table, unmatched_line, warnings
from slurmkit.report.choice import unmatched
from slurmkit.report.layout import ONE_SETTING, Layout
from slurmkit.report.material import Material
from slurmkit.report.model import Block, Section, Sentence, Tone

TITLE = "Matched comparisons"


def unmatched_lines(material: Material) -> list[str]:
    """Return a line for each glob of `metrics:` and `report:` that names no metric: a slip, or of runs to come."""
    aggregation = material.aggregation
    of_report = unmatched(list(aggregation.infos), material.asked_for)
    return [unmatched_line(key, glob) for key, glob in [*(("metrics", g) for g in aggregation.unmatched), *of_report]]


def comparisons(material: Material, layout: Layout) -> Section:
    """Compare settings with the baseline over the runs that both have, and tabulate all means."""
    aggregation = material.aggregation
    noted = unmatched_lines(material)
    blocks: list[Block] = [Sentence(line, Tone.WARNING) for line in warnings(aggregation) if line not in noted]
    blocks += [Sentence(line, Tone.NOTE) for line in noted]
    if not aggregation.metrics:
        return Section(TITLE, (*blocks, Sentence("No completed run has metrics with numbers yet.", Tone.NOTE)))
    if not len(aggregation.deltas):
        why = "No baseline is named or guessed, so no differences are shown."
        blocks.append(Sentence(layout.each_setting(why) or f"No differences: {ONE_SETTING}.", Tone.NOTE))
        return Section(TITLE, (*blocks, summary_table(aggregation)))
    if aggregation.baseline_is_guessed:
        why = "The baseline is guessed from names and zeros; `report: {baseline: ...}` in the definition names it."
        blocks.append(Sentence(why, Tone.NOTE))
    blocks.append(deltas_table(aggregation))
    if aggregation.deltas["naive_difference"].notna().any():
        what = (
            "Where a naive difference stands beside a matched one, the two settings have results for different cells. "
            "Only the matched one compares like with like."
        )
        blocks.append(Sentence(what, Tone.WARNING))
    return Section(TITLE, (*blocks, summary_table(aggregation)))

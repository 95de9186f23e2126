"""Settings against the baseline over the runs that both have, and the means of all cells."""

from slurmkit.aggregate.text import deltas_table, summary_table, warnings
from slurmkit.report.layout import ONE_SETTING, Layout
from slurmkit.report.material import Material
from slurmkit.report.model import Block, Section, Sentence, Tone

TITLE = "Matched comparisons"


def comparisons(material: Material, layout: Layout) -> Section:
    """Compare settings with the baseline over the runs that both have, and tabulate all means."""
    aggregation = material.aggregation
    blocks: list[Block] = [Sentence(line, Tone.WARNING) for line in warnings(aggregation)]
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

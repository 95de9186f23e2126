"""From what was read of a collection to what its report says."""

from slurmkit.report import cost, standing
from slurmkit.report.attempts import read_attempts
from slurmkit.report.best import best_results
from slurmkit.report.blocks import maxima_of_blocks
from slurmkit.report.choice import choose
from slurmkit.report.comparisons import comparisons
from slurmkit.report.design import design
from slurmkit.report.figures import figures
from slurmkit.report.layout import lay_out
from slurmkit.report.material import Material
from slurmkit.report.model import Report, Section


def build(material: Material) -> Report:
    """Put a report together from a collection, however much of it is complete.

    It states what was observed. Why it is so, and what follows, is the reader's to say.
    """
    asked = material.asked_for
    layout = lay_out(material.aggregation, asked.get("panels"))
    choice = choose(material.aggregation, asked)
    attempts = read_attempts(material.statuses, material.events)
    sections = (
        standing.metadata(material),
        design(material),
        Section("Key figures", tuple(figures(material, layout, choice))),
        best_results(material, layout, choice),
        maxima_of_blocks(material, layout, choice),
        comparisons(material, layout),
        standing.missing(material),
        cost.cost(material, attempts),
        cost.provenance(material, attempts),
    )
    return Report(
        collection=material.name,
        description=material.definition.get("description", ""),
        summary=standing.summary_line(material, choice),
        partial=standing.partial_line(material),
        sections=tuple(section for section in sections if section.blocks),
    )

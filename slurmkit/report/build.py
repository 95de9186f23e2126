"""From what was read of a collection to what its report says."""

from slurmkit.aggregate.text import deltas_table, summary_table, warnings
from slurmkit.report import standing
from slurmkit.report.material import Material
from slurmkit.report.model import Block, Report, Section, Sentence, Tone


def build(material: Material) -> Report:
    """Put a report together from a collection, however much of it is complete."""
    sections = [
        standing.metadata(material),
        _metrics(material),
        standing.missing(material),
    ]
    return Report(
        collection=material.name,
        description=material.definition.get("description", ""),
        summary=standing.summary_line(material),
        partial=standing.partial_line(material),
        sections=tuple(section for section in sections if section.blocks),
    )


def _metrics(material: Material) -> Section:
    aggregation = material.aggregation
    blocks: list[Block] = [Sentence(line, Tone.WARNING) for line in warnings(aggregation)]
    if not aggregation.metrics:
        return Section("Metrics", (*blocks, Sentence("No completed run has metrics with numbers yet.", Tone.NOTE)))
    blocks.append(summary_table(aggregation))
    if len(aggregation.deltas):
        blocks.append(deltas_table(aggregation))
    return Section("Metrics", tuple(blocks))

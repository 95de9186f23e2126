"""A comparison as JSON and as Markdown."""

from dataclasses import asdict

import orjson
import pandas as pd

from slurmkit.aggregate.text import TextTable
from slurmkit.comparison.build import SIDE, Comparison
from slurmkit.comparison.match import Place
from slurmkit.comparison.side import Side
from slurmkit.comparison.text import rows_of, tables, verdict
from slurmkit.records import Json
from slurmkit.report.markdown import text

DOCUMENT_SCHEMA = 1
"""Version of the JSON document. Raised when a reader of the old one could misread the new one."""


def document(comparison: Comparison) -> dict[str, Json]:
    """Return all of a comparison as plain JSON; what has no value is null."""
    c, m = comparison, comparison.matching
    return {
        "schema": DOCUMENT_SCHEMA,
        "a": _side(c.a),
        "b": _side(c.b),
        "axes": list(m.axes),
        "seed_axis": m.seed_axis if m.seeds else None,
        "seeds_paired": m.seeds_pair,
        "matched_by": [{"axis": how.axis, "keys": how.keys, "read": how.read, "how": how.how} for how in m.how],
        "matched": _cells(c),
        "only_a": [{"cell": _labels(c, place), "runs": runs} for place, runs in m.only[0].items()],
        "only_b": [{"cell": _labels(c, place), "runs": runs} for place, runs in m.only[1].items()],
        "pairs": [[a.status.name, b.status.name] for a, b in m.pairs()],
        "metrics": c.metrics,
        "other_metrics": c.other_metrics,
        "only_metrics": c.only_metrics,
        "not_comparable": c.refused,
        "differences": _rows(c, c.deltas),
        "per": c.per,
        "differences_per": _rows(c, c.per_deltas),
        **{
            name: [{**asdict(change), "everywhere": change.everywhere} for change in getattr(c, name)]
            for name in ("config", "resources", "definition", "versions")
        },
        "code": [asdict(change) for change in c.code],
        "problems": [{"run": p.run, "path": p.path, "flaw": p.flaw.value, "what": p.what} for p in c.problems],
        "notes": c.notes,
    }


def document_bytes(comparison: Comparison) -> bytes:
    """Return `document` as one line of JSON."""
    return orjson.dumps(document(comparison)) + b"\n"


def _side(side: Side) -> dict[str, Json]:
    return {
        "name": side.name,
        "created_at": side.header.get("created_at"),
        "commits": side.commits,
        "dirty_files": side.header.get("dirty_files") or [],
        "total": side.overview.total,
        "states": side.overview.states,
        "failures": {group.reason: group.size for group in side.overview.failures},
    }


def _labels(comparison: Comparison, place: Place) -> dict[str, str]:
    return dict(zip(comparison.matching.axes, place, strict=True))


def _cells(comparison: Comparison) -> list[dict[str, Json]]:
    """Return the matched cells, with the seeds of their runs on both sides."""
    seeds: list[dict[Place, list[str]]] = [{}, {}]
    for own, members in zip(seeds, comparison.matching.members, strict=True):
        for place, seed in members:
            own.setdefault(place, []).append(seed)
    a, b = seeds
    return [{"cell": _labels(comparison, place), "a": a[place], "b": b[place]} for place in comparison.matching.matched]


def _rows(comparison: Comparison, deltas: pd.DataFrame) -> list[dict[str, Json]]:
    """Return the rows of a matched comparison with a verdict; a refused metric has no difference."""
    rows: list[dict[str, Json]] = []
    for row in rows_of(deltas.drop(columns=SIDE)):
        named = {key: None if value != value else value for key, value in row.items()}
        if row["metric"] in comparison.refused:
            named |= {"difference": None, "half_width": None, "naive_difference": None}
        rows.append({**named, "verdict": verdict(comparison, row) or None})
    return rows


def markdown(comparison: Comparison) -> str:
    """Return a comparison as Markdown."""
    title = f"# {text(comparison.a.name)} and {text(comparison.b.name)}"
    return "\n\n".join([title, *(part for table in tables(comparison) for part in _markdown_table(table))]) + "\n"


def _markdown_table(table: TextTable) -> list[str]:
    rule = ["---"] * table.labels + ["---:"] * (len(table.headers) - table.labels)
    rows = [list(map(text, table.headers)), rule, *(list(map(text, row)) for row in table.rows)]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return [f"## {text(table.title)}", *([lines] if table.rows else []), *map(text, table.notes)]

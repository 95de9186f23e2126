"""An aggregation as a file: csv, parquet, json, md or tex, replaced as a whole."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pandas as pd

from slurmkit.aggregate.aggregation import Aggregation
from slurmkit.aggregate.frame import RUN_COLUMNS, axis_columns
from slurmkit.aggregate.text import TextTable, deltas_table, summary_table, warnings
from slurmkit.errors import UsageError
from slurmkit.files import write_atomic
from slurmkit.records import Json

DOCUMENT_SCHEMA = 1
"""Version of the JSON document. Raised when a reader of the old one could misread the new one."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "†": r"\textsuperscript{\dag}",
}
_MARKDOWN = {character: f"\\{character}" for character in "\\`*_[]<>|~"}


def check_path(path: Path) -> None:
    """Refuse a file that could not be written, before any work is done.

    Raises:
        UsageError: its ending is unknown, or its folder does not exist.
    """
    if path.suffix.lower() not in WRITERS:
        raise UsageError(
            f"--output {path}: unknown ending {path.suffix or '(none)'!r}. Use one of {', '.join(WRITERS)}."
        )
    if not path.parent.is_dir():
        raise UsageError(f"--output {path}: there is no folder {path.parent}. Make it first: mkdir -p {path.parent}")


def write(aggregation: Aggregation, path: Path, *, one_row_a_run: bool = True) -> None:
    """Write an aggregation to a file, in the form that its ending names.

    ``.csv`` and ``.parquet`` hold one row a run with all metrics, or one row a cell with means; ``.json`` holds
    `document`; ``.md`` and ``.tex`` (booktabs) hold the tables that the terminal shows.

    Texts are written as they are, also to csv: a quote put before ``=`` or ``-`` against spreadsheets that take a text
    for a formula would change the data for every other reader.

    Args:
        aggregation: what to write.
        path: the file.
        one_row_a_run: for csv and parquet; False: one row a cell.

    Raises:
        UsageError: `check_path`.
        StoreError: the file cannot be written; the old one stays.
    """
    check_path(path)
    write_atomic(path, WRITERS[path.suffix.lower()](aggregation, one_row_a_run))


def document(aggregation: Aggregation) -> dict[str, Json]:
    """Return all tables as plain JSON, under a version; what has no value is null."""
    a = aggregation
    return {
        "schema": DOCUMENT_SCHEMA,
        "collection": a.collection,
        "by": a.by,
        "seed_axis": a.seed_axis,
        "metrics": a.metrics,
        "other_metrics": a.other_metrics,
        "not_comparable": sorted(a.not_comparable),
        "cells": _records(a.cells),
        "summary": _records(a.summary),
        "missing": _records(a.missing),
        "baseline": a.baseline,
        "baseline_is_guessed": a.baseline_is_guessed,
        "deltas": _records(a.deltas),
        "commits": a.commits,
        "changed": a.changed,
        "warnings": warnings(a),
        "problems": [
            {"run": problem.run, "path": problem.path, "flaw": problem.flaw.value, "what": problem.what}
            for problem in a.problems
        ],
        "runs": _records(a.frame[[*axis_columns(a.frame), *RUN_COLUMNS, *a.metrics]]),
    }


def document_bytes(aggregation: Aggregation) -> bytes:
    """Return `document` as one line of JSON."""
    return orjson.dumps(document(aggregation)) + b"\n"


def _records(table: pd.DataFrame) -> list[dict[str, Json]]:
    """Return the rows as objects of plain values, NaN as None."""
    names = [str(name) for name in table.columns]
    columns = [[None if value != value else value for value in table[name].tolist()] for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def data_table(aggregation: Aggregation, *, one_row_a_run: bool) -> pd.DataFrame:
    """Return what csv and parquet hold: a run a row, or a cell a row with columns ``<metric>/mean`` and so on."""
    if one_row_a_run:
        return aggregation.frame.drop(columns=aggregation.other_metrics if aggregation.metrics_chosen else [])
    table = aggregation.cells.copy()
    for metric in aggregation.metrics:
        part = aggregation.summary[aggregation.summary["metric"] == metric].reset_index(drop=True)
        for column in ("mean", "half_width", "n", *(("cells", "common_mean") if aggregation.left_out else ())):
            table[f"{metric}/{column}"] = part[column]
    return table


def _csv(aggregation: Aggregation, one_row_a_run: bool) -> bytes:
    table = _with_json_texts(data_table(aggregation, one_row_a_run=one_row_a_run))
    return table.to_csv(index=False, lineterminator="\n").encode()


def _parquet(aggregation: Aggregation, one_row_a_run: bool) -> bytes:
    content = io.BytesIO()
    _with_json_texts(data_table(aggregation, one_row_a_run=one_row_a_run)).to_parquet(content, index=False)
    return content.getvalue()


def _with_json_texts(table: pd.DataFrame) -> pd.DataFrame:
    """Write lists, and values of mixed kinds, as JSON: no column of a file holds such."""
    for name in [str(name) for name in table.columns if table[name].dtype == np.dtype(object)]:
        column = [None if value is None or value != value else value for value in table[name].tolist()]
        if {type(value) for value in column} - {type(None)} == {str}:
            texts = column
        else:
            texts = [None if value is None else orjson.dumps(value).decode() for value in column]
        table = table.assign(**{name: pd.array(texts, dtype="str")})
    return table


def _json(aggregation: Aggregation, one_row_a_run: bool) -> bytes:  # noqa: ARG001 -- the document holds both
    return document_bytes(aggregation)


def _tables(aggregation: Aggregation) -> list[TextTable]:
    tables = [summary_table(aggregation)]
    return [*tables, deltas_table(aggregation)] if len(aggregation.deltas) else tables


def _markdown(aggregation: Aggregation, one_row_a_run: bool) -> bytes:  # noqa: ARG001 -- a table for readers
    blocks = [f"# {_markdown_text(aggregation.collection)}"]
    blocks += [f"> Warning: {_markdown_text(line)}" for line in warnings(aggregation)]
    for table in _tables(aggregation):
        rule = ["---"] * table.labels + ["---:"] * (len(table.headers) - table.labels)
        rows = [rule, *([_markdown_text(cell) for cell in row] for row in table.rows)]
        rows.insert(0, [_markdown_text(header) for header in table.headers])
        lines = [f"| {' | '.join(row)} |" for row in rows]
        blocks += [f"## {_markdown_text(table.title)}", "\n".join(lines), *map(_markdown_text, table.notes)]
    return ("\n\n".join(blocks) + "\n").encode()


def _markdown_text(text: str) -> str:
    return text.translate(str.maketrans(_MARKDOWN))


def _latex(aggregation: Aggregation, one_row_a_run: bool) -> bytes:  # noqa: ARG001 -- a table for readers
    blocks = ["% Needs \\usepackage{booktabs} and, for quotation marks, \\usepackage[T1]{fontenc}."]
    blocks += [f"% Warning: {line}" for line in warnings(aggregation)]
    for table in _tables(aggregation):
        lines = [f"\\begin{{tabular}}{{{'l' * table.labels}{'r' * (len(table.headers) - table.labels)}}}", "\\toprule"]
        lines += [_latex_row(table.headers), "\\midrule", *map(_latex_row, table.rows), "\\bottomrule"]
        lines += ["\\end{tabular}", *(f"% {note}" for note in table.notes)]
        blocks.append("\n".join([f"% {table.title}", *lines]))
    return ("\n\n".join(blocks) + "\n").encode()


def _latex_row(cells: list[str]) -> str:
    return " & ".join(cell.translate(str.maketrans(_LATEX)) for cell in cells) + r" \\"


WRITERS: dict[str, Callable[[Aggregation, bool], bytes]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".json": _json,
    ".md": _markdown,
    ".tex": _latex,
}
"""Ending to what makes the file's bytes."""

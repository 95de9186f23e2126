"""An aggregation as a file: csv, parquet, json, md, tex or html, replaced as a whole."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import pandas as pd

from slurmkit.aggregate.aggregation import Aggregation
from slurmkit.aggregate.frame import RUN_COLUMNS, axis_columns
from slurmkit.aggregate.markup import Page, html, latex, markdown
from slurmkit.aggregate.text import deltas_table, summary_table, warnings
from slurmkit.aggregate.views import View
from slurmkit.errors import UsageError
from slurmkit.files import write_atomic
from slurmkit.records import Json

DOCUMENT_SCHEMA = 1
"""Version of the JSON document. Raised when a reader of the old one could misread the new one."""

DATA_ENDINGS = (".csv", ".parquet")
"""Files of one table, for programs."""
_PAGES = {".md": markdown, ".tex": latex, ".html": html}
"""Files for readers: ending to what makes the bytes."""
ENDINGS = (*DATA_ENDINGS, ".json", *_PAGES)


def check_path(path: Path, endings: Sequence[str] = ENDINGS) -> None:
    """Refuse a file that could not be written, before any work is done.

    Raises:
        UsageError: its ending is unknown, or its folder does not exist.
    """
    if path.suffix.lower() not in endings:
        raise UsageError(
            f"--output {path}: unknown ending {path.suffix or '(none)'!r}. Use one of {', '.join(endings)}."
        )
    if not path.parent.is_dir():
        raise UsageError(f"--output {path}: there is no folder {path.parent}. Make it first: mkdir -p {path.parent}")


def write(aggregation: Aggregation, path: Path, views: Sequence[View] = (), *, one_row_a_run: bool = True) -> None:
    """Write an aggregation to a file, in the form that its ending names.

    ``.csv`` and ``.parquet`` hold one row a run with all metrics, or one row a cell with means, or what was asked for;
    ``.json`` holds `document`; ``.md``, ``.tex`` (booktabs) and ``.html`` hold the tables that the terminal shows.

    Texts are written as they are, also to csv: a quote put before ``=`` or ``-`` against spreadsheets that take a text
    for a formula would change the data for every other reader.

    Args:
        aggregation: what to write.
        path: the file.
        views: what was asked for instead of means and differences.
        one_row_a_run: for csv and parquet without views; False: one row a cell.

    Raises:
        UsageError: `check_path`; or several views of different kinds for a file of one table.
        StoreError: the file cannot be written; the old one stays.
    """
    check_path(path)
    write_atomic(path, content_of(aggregation, path.suffix.lower(), views, one_row_a_run=one_row_a_run))


def content_of(
    aggregation: Aggregation, ending: str, views: Sequence[View] = (), *, one_row_a_run: bool = True
) -> bytes:
    """Return what `write` writes into a file with some ending.

    Raises:
        UsageError: several views of different kinds for a file of one table.
    """
    if ending == ".json":
        return document_bytes(aggregation, views)
    if ending in DATA_ENDINGS:
        table = _one_table(views) if views else data_table(aggregation, one_row_a_run=one_row_a_run)
        return table_bytes(table, ending)
    tables = [view.text for view in views]
    if not views:
        tables = [summary_table(aggregation), *([deltas_table(aggregation)] if len(aggregation.deltas) else [])]
    return _PAGES[ending](Page(aggregation.collection, warnings(aggregation), tables))


def _one_table(views: Sequence[View]) -> pd.DataFrame:
    """Return what was asked for as one table; leading blocks, which follow from the maxima, are left out."""
    kinds = list(dict.fromkeys(view.name for view in views if view.name != "leading_blocks"))
    if len(kinds) > 1:
        raise UsageError(
            f"--output: csv and parquet hold one table, not {' and '.join(kinds)}. Ask for one, or write .json"
        )
    return pd.concat([view.table for view in views if view.name == kinds[0]], ignore_index=True)


def document(aggregation: Aggregation, views: Sequence[View] = ()) -> dict[str, Json]:
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
        "metric_info": {
            key: {
                "label": info.label,
                "direction": info.direction,
                "format": info.format,
                "comparable": info.comparable,
                "because": info.because,
            }
            for key, info in a.infos.items()
        },
        "cells": _records(a.cells),
        "summary": _records(a.summary),
        "missing": _records(a.missing),
        "baseline": a.baseline,
        "baseline_is_guessed": a.baseline_is_guessed,
        "deltas": _records(a.deltas),
        "views": [{"name": view.name, "title": view.text.title, "rows": _records(view.table)} for view in views],
        "suspected_noops": _records(a.noops),
        "commits": a.commits,
        "changed": a.changed,
        "warnings": warnings(a),
        "problems": [
            {"run": problem.run, "path": problem.path, "flaw": problem.flaw.value, "what": problem.what}
            for problem in a.problems
        ],
        "runs": _records(a.frame[[*axis_columns(a.frame), *RUN_COLUMNS, *a.metrics]]),
    }


def document_bytes(aggregation: Aggregation, views: Sequence[View] = ()) -> bytes:
    """Return `document` as one line of JSON."""
    return orjson.dumps(document(aggregation, views)) + b"\n"


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


def table_bytes(table: pd.DataFrame, ending: str) -> bytes:
    """Return a table as the bytes of a ``.csv`` or ``.parquet`` file."""
    plain = _with_json_texts(table)
    if ending == ".csv":
        return plain.to_csv(index=False, lineterminator="\n").encode()
    content = io.BytesIO()
    plain.to_parquet(content, index=False)
    return content.getvalue()


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write one table to a ``.csv`` or ``.parquet`` file.

    Raises:
        UsageError: another ending, or its folder does not exist.
        StoreError: the file cannot be written; the old one stays.
    """
    check_path(path, DATA_ENDINGS)
    write_atomic(path, table_bytes(table, path.suffix.lower()))


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

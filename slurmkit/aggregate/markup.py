"""Tables for readers in Markdown, LaTeX (booktabs) and HTML: the same cells, titles and notes."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from slurmkit.aggregate.text import TextTable

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
_STYLE = (
    "body{font:15px/1.4 system-ui,sans-serif;color-scheme:light dark;margin:2em auto;max-width:75em;padding:0 1em}"
    "table{border-collapse:collapse;border-block:2px solid;display:block;overflow-x:auto;max-width:max-content}"
    "th,td{padding:.2em .8em;text-align:left}td.value,th.value{text-align:right;font-variant-numeric:tabular-nums}"
    "thead th{border-bottom:1px solid}tbody th{font-weight:normal}"
)


@dataclass(frozen=True, slots=True)
class Page:
    """What to write.

    Attributes:
        title: of all.
        warnings: what a reader of the numbers has to know.
        tables: the tables.
    """

    title: str
    warnings: Sequence[str]
    tables: Sequence[TextTable]


def markdown(page: Page) -> bytes:
    """Return a page as Markdown with tables in GitHub's form."""
    blocks = [f"# {_markdown_text(page.title)}"]
    blocks += [f"> Warning: {_markdown_text(line)}" for line in page.warnings]
    for table in page.tables:
        rule = ["---"] * table.labels + ["---:"] * (len(table.headers) - table.labels)
        rows = [rule, *([_markdown_text(cell) for cell in row] for row in table.rows)]
        rows.insert(0, [_markdown_text(header) for header in table.headers])
        lines = [f"| {' | '.join(row)} |" for row in rows]
        blocks += [f"## {_markdown_text(table.title)}", "\n".join(lines), *map(_markdown_text, table.notes)]
    return ("\n\n".join(blocks) + "\n").encode()


def _markdown_text(text: str) -> str:
    return text.translate(str.maketrans(_MARKDOWN))


def latex(page: Page) -> bytes:
    """Return a page as LaTeX tables by booktabs, each a ``tabular`` of its own."""
    blocks = ["% Needs \\usepackage{booktabs} and, for quotation marks, \\usepackage[T1]{fontenc}."]
    blocks += [f"% Warning: {line}" for line in page.warnings]
    for table in page.tables:
        lines = [f"\\begin{{tabular}}{{{'l' * table.labels}{'r' * (len(table.headers) - table.labels)}}}", "\\toprule"]
        lines += [_latex_row(table.headers), "\\midrule", *map(_latex_row, table.rows), "\\bottomrule"]
        lines += ["\\end{tabular}", *(f"% {note}" for note in table.notes)]
        blocks.append("\n".join([f"% {table.title}", *lines]))
    return ("\n\n".join(blocks) + "\n").encode()


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cell.translate(str.maketrans(_LATEX)) for cell in cells) + r" \\"


def html(page: Page) -> bytes:
    """Return a page as one HTML file that needs no other."""
    title = escape(page.title)
    parts = ["<!doctype html>", '<html lang="en">', '<meta charset="utf-8">', f"<title>{title}</title>"]
    parts += ['<meta name="viewport" content="width=device-width, initial-scale=1">', f"<style>{_STYLE}</style>"]
    parts += [f"<h1>{title}</h1>", *(f"<p><strong>Warning:</strong> {escape(line)}</p>" for line in page.warnings)]
    for table in page.tables:
        parts += [f"<h2>{escape(table.title)}</h2>", "<table>", "<thead>", _html_row(table, table.headers, head=True)]
        parts += ["</thead>", "<tbody>", *(_html_row(table, row, head=False) for row in table.rows)]
        parts += ["</tbody>", "</table>", *(f"<p>{escape(note)}</p>" for note in table.notes)]
    return ("\n".join(parts) + "\n</html>\n").encode()


def _html_row(table: TextTable, cells: Sequence[str], *, head: bool) -> str:
    texts: list[str] = []
    for position, cell in enumerate(cells):
        label = position < table.labels
        tag = "th" if head or label else "td"
        scope = f' scope="{"col" if head else "row"}"' if tag == "th" else ""
        kind = "" if label else ' class="value"'
        texts.append(f"<{tag}{scope}{kind}>{escape(cell)}</{tag}>")
    return f"<tr>{''.join(texts)}</tr>"

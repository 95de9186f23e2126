"""A report as files: each replaced as a whole, so that two commands at once leave whole files of either."""

from collections.abc import Callable
from pathlib import Path

from slurmkit.definition.figure_names import FIGURES
from slurmkit.errors import StoreError
from slurmkit.files import write_atomic
from slurmkit.report.figures.kept import ENDINGS, Kept
from slurmkit.report.figures.style import Drawn
from slurmkit.report.html import html
from slurmkit.report.markdown import markdown
from slurmkit.report.model import Report

_IGNORE_ALL = b"*\n"


def default_folder(root: Path, collection: str) -> Path:
    """Return where a collection's report goes, and keep git from taking reports for changes of the project.

    A tree with changes is refused when a collection is created: a report must not be one. The ``.gitignore`` that says
    so is written only into an empty ``reports/`` folder, and may be deleted to have reports in git.

    Raises:
        StoreError: the folder cannot be made.
    """
    reports = root / "reports"
    _make(reports)
    if not any(reports.iterdir()):  # new, or whoever made it was killed before it said so
        write_atomic(reports / ".gitignore", _IGNORE_ALL)
    return reports / collection


def write(report: Report, folder: Path, tell: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Write a report into a folder, which is made if need be; files of an older report are replaced one by one.

    The page comes first, with its drawings in it; figures as PDF and PNG take longer, and Markdown shows them. A figure
    whose files are as they were written, and that would be drawn the same again, is left as it is. Of figures that
    this report does not have, older files are removed: they would pass for its own.

    Args:
        report: what it says.
        folder: where it goes.
        tell: is told what is being done.

    Returns:
        what the report consists of, the page to open first.

    Raises:
        StoreError: a file cannot be written; those written before are whole.
    """
    drawings = folder / "figures"
    _make(drawings)
    kept = Kept(drawings)
    fresh: dict[str, Drawn] = {}
    inline: dict[str, bytes] = {}
    for number, figure in enumerate(report.figures, 1):
        svg = kept.svg(figure)
        if svg is None:
            tell(f"drawing figure {number} of {len(report.figures)}: {figure.name}")
            fresh[figure.name] = Drawn(figure.draw, figure.name)
            svg = fresh[figure.name].written("svg")
            kept.write(figure, "svg", svg)
            kept.write(figure, "csv", figure.csv())
        inline[figure.name] = svg
    write_atomic(folder / "report.html", html(report, inline).encode(), durable=False)
    for figure in report.figures:
        if figure.name in fresh:
            tell(f"writing {figure.name} as PDF and PNG")
            for ending in ("pdf", "png"):
                kept.write(figure, ending, fresh[figure.name].written(ending))
    kept.remember()
    write_atomic(folder / "report.md", markdown(report).encode(), durable=False)
    for name in FIGURES:
        for ending in ENDINGS if name not in inline else ():
            (drawings / f"{name}.{ending}").unlink(missing_ok=True)
    pages = [folder / "report.html", folder / "report.md"]
    return [*pages, *(drawings / f"{name}.{ending}" for name in inline for ending in ENDINGS)]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made: {error.strerror}. Give another folder with --out.") from error

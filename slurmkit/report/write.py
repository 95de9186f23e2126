"""A report as files: each replaced as a whole, so that two commands at once leave whole files of either."""

from pathlib import Path

from slurmkit.definition.report_part import FIGURES
from slurmkit.errors import StoreError
from slurmkit.files import write_atomic
from slurmkit.report.figures.style import files_of
from slurmkit.report.html import html
from slurmkit.report.markdown import markdown
from slurmkit.report.model import Report

_IGNORE_ALL = b"*\n"


def default_folder(root: Path, collection: str) -> Path:
    """Return where a collection's report goes, and keep git from taking reports for changes of the project.

    A tree with changes is refused when a collection is created: a report must not be one. The ``.gitignore`` that says
    so is written only with a new ``reports/`` folder, and may be deleted to have reports in git.

    Raises:
        StoreError: the folder cannot be made.
    """
    reports = root / "reports"
    if not reports.exists():
        _make(reports)
        write_atomic(reports / ".gitignore", _IGNORE_ALL)
    return reports / collection


def write(report: Report, folder: Path) -> list[Path]:
    """Write a report into a folder, which is made if need be; files of an older report are replaced one by one.

    The pages come last: who finds a new page finds its figures. Of figures that this report does not have, older files
    are removed: they would pass for its own.

    Returns:
        what was written, the page to open first.

    Raises:
        StoreError: a file cannot be written; those written before are whole.
    """
    drawings = folder / "figures"
    _make(drawings)
    written: list[Path] = []
    inline: dict[str, bytes] = {}
    for figure in report.figures:
        made = files_of(figure.draw, figure.name)
        inline[figure.name] = made["svg"]
        made["csv"] = figure.data.to_csv(index=False, lineterminator="\n").encode()
        for ending, content in made.items():
            written.append(drawings / f"{figure.name}.{ending}")
            write_atomic(written[-1], content, durable=False)
    pages = {"report.html": html(report, inline), "report.md": markdown(report)}
    for name, text in pages.items():
        write_atomic(folder / name, text.encode(), durable=False)
    for name in FIGURES:
        for ending in _ENDINGS if name not in inline else ():
            (drawings / f"{name}.{ending}").unlink(missing_ok=True)
    return [*(folder / name for name in pages), *written]


_ENDINGS = ("svg", "pdf", "png", "csv")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made: {error.strerror}. Give another folder with --out.") from error

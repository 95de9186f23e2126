"""A report as files: each replaced as a whole, so that two commands at once leave whole files of either."""

from pathlib import Path

from slurmkit.errors import StoreError
from slurmkit.files import write_atomic
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

    Returns:
        what was written, the page to open first.

    Raises:
        StoreError: a file cannot be written; those written before are whole.
    """
    _make(folder)
    page = folder / "report.md"
    write_atomic(page, markdown(report).encode(), durable=False)
    return [page]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made: {error.strerror}. Give another folder with --out.") from error

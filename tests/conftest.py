"""The fixtures that the tests share."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from workplace import TRAINER, Workplace, git

if TYPE_CHECKING:
    from slurmkit.report.model import Report

pytest_plugins = ["slurm_fixtures", "worker_bench", "forked_commands"]

# The same examples each time, however long one takes.
settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Workplace]:
    """A committed repository with the test trainer; its queue ends with the test."""
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "-q")
    (root / "train.py").write_text(TRAINER)
    (root / ".gitignore").write_text("/runs/\n")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "Start")
    place = Workplace(root)
    yield place
    place.end_queue()


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> "Report":
    """Return the report of 24 runs of which 19 have results."""
    from report_runs import DENSE, dense_result, made_report, make_collection

    root = tmp_path_factory.mktemp("dense")
    make_collection(root, DENSE, dense_result)
    return made_report(root, "dense")


@pytest.fixture(scope="session")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> "Report":
    """Return the report of a sparse sweep of 63 runs of which 62 have results."""
    from report_runs import SPARSE, made_report, make_collection, sparse_result

    root = tmp_path_factory.mktemp("sparse")
    make_collection(root, SPARSE, sparse_result)
    return made_report(root, "sparse")

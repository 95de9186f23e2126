"""Throw-away Slurm clusters for the tests: each kind starts once in a session, and is idle when a test begins."""

import os
from collections.abc import Iterator

import pytest
from slurm_cluster import Cluster, lacking

CLUSTERS = ("nodes_cluster", "memory_cluster", "bare_cluster")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let all tests of one cluster run in one worker of ``pytest -n 2 --dist loadgroup``, so that it starts once.

    What is done on a cluster has the time of several waits (`slurm_cluster.PATIENCE_S`).
    """
    for item in items:
        asked = getattr(item, "fixturenames", ())
        if "require_slurm" in asked or "require_memory_limits" in asked:
            item.add_marker(pytest.mark.timeout(600))
        for name in CLUSTERS:
            if name in asked:
                item.add_marker(pytest.mark.xdist_group(name))
                break


def _require(kind: str) -> None:
    """Skip where no cluster of a kind can run; fail there if SLURMKIT_REQUIRE_SLURM is 1."""
    if why := lacking(kind):
        if os.environ.get("SLURMKIT_REQUIRE_SLURM") == "1":
            pytest.fail(f"SLURMKIT_REQUIRE_SLURM=1, but {why}")
        pytest.skip(why)


@pytest.fixture(scope="session")
def require_slurm() -> None:
    """For a test that starts a cluster of its own."""
    _require("nodes")


@pytest.fixture(scope="session")
def require_memory_limits() -> None:
    """For a test that starts a cluster with memory limits of its own."""
    _require("memory")


@pytest.fixture(scope="session")
def nodes_cluster(require_slurm: None) -> Iterator[Cluster]:
    """Four nodes with 64 CPUs each, accounting, preemption, a QOS with a limit; no memory limits."""
    with Cluster("nodes") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def memory_cluster(require_memory_limits: None) -> Iterator[Cluster]:
    """Four nodes that kill what takes more memory than it asked for; accounting, preemption."""
    with Cluster("memory") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def bare_cluster(require_slurm: None) -> Iterator[Cluster]:
    """Four nodes, and no accounting: sacct has nothing to say."""
    with Cluster("bare") as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def idle_after_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Cancel what a test left on a cluster, and start what it stopped there."""
    used = [request.getfixturevalue(name) for name in CLUSTERS if name in request.fixturenames]
    yield
    for cluster in used:
        cluster.reset()

"""Limits of a real cluster, held against what sbatch takes."""

from collections.abc import Iterator

import pytest
from slurm_cluster import Cluster, ClusterError

from slurmkit import files
from slurmkit.resources import Resources
from slurmkit.schedulers import Room
from slurmkit.schedulers.slurm.limits import Limits


@pytest.fixture
def cluster(nodes_cluster, monkeypatch) -> Cluster:
    """A cluster that this process's own calls go to."""
    monkeypatch.setenv("SLURM_CONF", nodes_cluster.env["SLURM_CONF"])
    return nodes_cluster


@pytest.fixture(scope="module")
def accounts(nodes_cluster) -> Iterator[None]:
    """An account with at most seven jobs, and below it one that lets this person have six; and a QOS for more."""
    cluster, change = nodes_cluster, ("sacctmgr", "-i")
    cluster.run(*change, "add", "account", "lab", "set", "GrpSubmitJobs=7", "GrpTRESMins=cpu=600")
    cluster.run(*change, "add", "account", "sub", "parent=lab")
    cluster.run(*change, "add", "qos", "wide", "set", "GrpSubmitJobs=9", "MaxSubmitJobsPerUser=8")
    cluster.run(*change, "add", "user", "root", "account=sub", "MaxSubmitJobs=6", "qos=normal,few,wide")
    cluster.wait(lambda: "Account=sub UserName=root" in manager(cluster), "the controller knows of the account")
    yield
    for kind, name in [("account", "sub"), ("account", "lab"), ("qos", "wide")]:
        cluster.wait(lambda kind=kind, name=name: deleted(cluster, kind, name), f"{kind} {name} is deleted")


def deleted(cluster: Cluster, kind: str, name: str) -> bool:
    """Delete an account or QOS; say whether it is gone: it stays while accounting has not heard of a job's end."""
    cluster.run("sacctmgr", "-i", "delete", kind, name, check=False)
    return not cluster.run("sacctmgr", "-n", "show", kind, name)


def manager(cluster: Cluster) -> str:
    return cluster.run("scontrol", "show", "assoc_mgr", "flags=assoc")


def takes(cluster: Cluster, tasks: int, *options: str) -> bool:
    """Submit an array that never starts; say whether Slurm took it."""
    command = ["sbatch", "--hold", "--output=/dev/null", f"--array=0-{tasks - 1}", *options, "--wrap=true"]
    return "Submitted" in cluster.run(*command, check=False)


def test_as_many_jobs_as_there_is_room_for_are_taken_and_not_one_more(cluster, tmp_path):
    limits, few = Limits.load(tmp_path), Resources(qos="few")
    assert takes(cluster, 2, "--qos=few")
    assert limits.room(few) == Room(3, "QOS few lets a user have 5 jobs submitted, 2 are")
    assert not takes(cluster, 4, "--qos=few")
    assert takes(cluster, 3, "--qos=few")
    assert limits.room(few) == Room(0, "QOS few lets a user have 5 jobs submitted, 5 are")
    assert limits.room(Resources()) is None


@pytest.mark.parametrize("qos", [None, "few", "wide"])
def test_accounts_and_qos_together_let_in_what_was_said(cluster, accounts, tmp_path, qos):
    asked, options = Resources(account="sub", qos=qos), ["--account=sub", *([f"--qos={qos}"] if qos else [])]
    assert takes(cluster, 2, "--account=sub")
    room = Limits.load(tmp_path).room(asked)
    assert room is not None
    assert room.jobs == {None: 4, "few": 5, "wide": 8}[qos]
    assert not takes(cluster, room.jobs + 1, *options)
    assert takes(cluster, room.jobs, *options)


def test_minutes_that_an_account_does_not_have_are_told(cluster, accounts, tmp_path):
    words = Limits.load(tmp_path).forecast(Resources(account="sub", cpus=2, time_s=3600), 6)
    assert words[0] == "at most 12.0 CPU-hours: 6 runs x (1h00m, 2 CPUs)"
    assert words[1] == "account lab has 10.0 of 10.0 CPU-hours left, and these may use 12.0 (GrpTRESMins)"


def test_arrays_are_taken_up_to_their_size(cluster, tmp_path):
    size = Limits.load(tmp_path).array_size
    assert takes(cluster, size)
    assert not takes(cluster, size + 1)


def test_partitions_are_as_they_were_configured(cluster, tmp_path):
    limits = Limits.load(tmp_path)
    short, main = limits.partition("short"), limits.partition(None)
    assert short is not None
    assert main is not None
    assert (short.max_time_s, main.name, main.max_time_s) == (60, "main", None)
    memory = cluster.run("sinfo", "-h", "-o", "%m", "-p", "main").split()
    assert main.max_mem_mb == int(memory[0])
    cap = limits.memory_cap(Resources())
    assert cap is not None
    cluster.run("sbatch", "--test-only", f"--mem={cap[0]}M", "--wrap=true")
    with pytest.raises(ClusterError, match="Requested node configuration is not available"):
        cluster.run("sbatch", "--test-only", f"--mem={cap[0] + 1}M", "--wrap=true")


def test_without_the_database_the_controller_still_tells_what_it_counts(cluster, tmp_path):
    assert takes(cluster, 1, "--qos=few")
    cluster.stop_accounting()
    room = Limits.load(tmp_path).room(Resources(qos="few"))
    assert room == Room(4, "QOS few lets a user have 5 jobs submitted, 1 is")
    assert not (tmp_path / "cluster.json").exists(), "half of the truth is not kept for an hour"


def test_without_the_controller_what_is_known_serves(cluster, tmp_path):
    known = Limits.load(tmp_path)
    record = files.read_json(tmp_path / "cluster.json")
    files.write_json(tmp_path / "cluster.json", {**record, "asked_at": record["asked_at"] - 7200})
    cluster.stop_controller()
    assert Limits.load(tmp_path) == known


def test_a_cluster_without_accounting_has_no_limit_of_jobs(bare_cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", bare_cluster.env["SLURM_CONF"])
    limits = Limits.load(tmp_path)
    assert limits.array_size == 1001
    assert limits.room(Resources()) is None
    assert (tmp_path / "cluster.json").exists()

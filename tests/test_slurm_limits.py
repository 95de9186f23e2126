"""What the cluster lets in, from texts that Slurm 22.05 printed, and how these are kept."""

import os
import time
from pathlib import Path

import pytest

from slurmkit import files
from slurmkit.errors import SchedulerError
from slurmkit.resources import Resources
from slurmkit.schedulers.slurm import limits
from slurmkit.schedulers.slurm.limits import Limits
from slurmkit.schedulers.slurm.quotas import (
    Applicant,
    Grant,
    Partition,
    QosLimits,
    bounds_of_jobs,
    bounds_of_minutes,
    default_qos,
    parse_config,
    parse_grants,
    parse_partitions,
    parse_qos,
    parse_usage,
)

# scontrol show assoc_mgr users=root flags=users,assoc,qos: three tasks under QOS fresh; account sub is below lab
USAGE = parse_usage((Path(__file__).parent / "golden" / "slurm" / "22.05-assoc_mgr.txt").read_text())
QOS = parse_qos("normal|||\nfew|5||\nfresh|4|9|12\nunused|2|3|\n")
PARTITIONS = """\
PartitionName=main AllowGroups=ALL Default=YES QoS=N/A DefaultTime=NONE MaxTime=UNLIMITED MaxMemPerNode=UNLIMITED
PartitionName=short AllowGroups=ALL Default=NO QoS=few DefaultTime=00:10:00 MaxTime=1-02:00:00 MaxMemPerNode=60000
"""
NODES = "main|128000|(null)\nmain|256000+|gpu:a100:4(S:0-1),mps:400\nshort|128000|gpu:2\n"
CONFIG = """\
MaxArraySize            = 1001
AccountingStorageEnforce = associations,limits,qos
SchedulerParameters     = (null)
"""


def who(account="sub", partition="main", qos=("normal",), user="root", uid=0) -> Applicant:
    return Applicant(user, uid, account, partition, qos)


def bounds(**asked):
    return {(bound.limit - bound.used, bound.whose) for bound in bounds_of_jobs(who(**asked), USAGE, QOS)}


def record(**changed):
    asked = {
        "schema": 1,
        "cluster": ["", "", os.getuid()],
        "asked_at": time.time(),
        "config": parse_config(CONFIG),
        "partitions": PARTITIONS,
        "nodes": NODES,
        "grants": "root||normal|normal,few\n",
        "qos": "few|5||\n",
    }
    return {**asked, **changed}


def test_the_account_of_a_person_and_all_above_it_limit_jobs():
    assert bounds() == {(3, "account sub lets root"), (4, "account lab lets all in it together")}
    assert USAGE.default_account == "root"


def test_the_limits_of_a_qos_take_the_place_of_the_accounts():
    assert bounds(qos=("fresh",)) == {
        (9, "QOS fresh lets all users together"),
        (6, "QOS fresh lets an account"),
        (1, "QOS fresh lets a user"),
    }


def test_a_qos_limits_only_what_it_has_a_limit_for():
    assert bounds(qos=("few",)) == {(5, "QOS few lets a user"), (4, "account lab lets all in it together")}


def test_the_qos_of_the_partition_comes_before_that_of_the_job():
    assert (5, "QOS few lets a user") in bounds(qos=("few", "fresh"))
    assert (6, "QOS fresh lets an account") in bounds(qos=("few", "fresh"))


def test_a_qos_that_nobody_has_used_has_the_limits_that_accounting_tells():
    assert bounds(account="root", qos=("unused",)) == {
        (2, "QOS unused lets a user"),
        (3, "QOS unused lets an account"),
    }


def test_without_any_limit_there_is_none():
    assert bounds(account="root") == set()
    assert bounds(account="elsewhere") == set()
    assert bounds_of_jobs(who(), parse_usage(""), {}) == []


def test_minutes_are_limited_by_the_qos_or_else_by_the_accounts():
    assert [b.limit for b in bounds_of_minutes(who(qos=("fresh",)), USAGE, "cpu")] == [600]
    assert [(b.limit, b.whose) for b in bounds_of_minutes(who(), USAGE, "cpu")] == [(1000, "account lab")]
    assert bounds_of_minutes(who(), USAGE, "gres/gpu") == []


def test_a_circle_of_accounts_ends():
    text = "ClusterName=c Account={} UserName=\n    ParentAccount={}\n"
    text = text.format("a", "b(2)") + text.format("b", "a(1)")
    assert bounds_of_jobs(who(account="a"), parse_usage(text), {}) == []


@pytest.mark.parametrize(
    ("grants", "expected"),
    [
        ("sub|||few,normal\n", "normal"),
        ("sub|||few\n", "few"),
        ("sub||few|few,normal\n", "few"),
        ("sub||few|few,normal\nsub|main|fresh|fresh,few\n", "fresh"),
        ("other||few|few\n", "normal"),
        ("", "normal"),
    ],
)
def test_the_qos_of_a_job_that_names_none(grants, expected):
    assert default_qos(parse_grants(grants), "sub", "main") == expected


def test_partitions_with_what_their_largest_nodes_have():
    assert parse_partitions(PARTITIONS, NODES) == {
        "main": Partition("main", True, None, None, 256000, 4, ""),
        "short": Partition("short", False, 93600, 600, 60000, 2, "few"),
    }


def test_a_grant_without_a_partition_holds_for_all():
    assert parse_grants("lab|||a,b\n") == [Grant("lab", "", "", ("a", "b"))]
    assert parse_qos("x|||\n") == {"x": QosLimits(None, None, None)}


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({"MaxArraySize": "1001"}, 1001),
        ({"MaxArraySize": "1001", "SchedulerParameters": "bf_interval=1,max_array_tasks=200"}, 200),
        ({"MaxArraySize": "100", "SchedulerParameters": "max_array_tasks=200"}, 100),
        ({}, 1001),
    ],
)
def test_the_size_of_an_array(config, size):
    assert Limits.from_json(record(config=config)).array_size == size


@pytest.mark.parametrize(
    ("word", "enforced"), [("limits", True), ("safe", True), ("associations,qos", False), ("none", False)]
)
def test_limits_hold_only_where_they_are_enforced(word, enforced):
    assert Limits.from_json(record(config={"AccountingStorageEnforce": word})).enforced is enforced


def test_memory_is_capped_by_the_largest_node_and_shared_by_packed_runs():
    known = Limits.from_json(record())
    assert known.memory_cap(Resources()) == (256000, "a job on partition main can have 250 GB a node")
    cap = known.memory_cap(Resources(partition="short", pack=4))
    assert cap == (15000, "a job on partition short can have 58.6 GB a node, shared by 4 packed runs")
    assert known.memory_cap(Resources(partition="gone")) is None


def test_of_several_partitions_the_most_generous_counts():
    either = Limits.from_json(record()).partition("short,main")
    assert either == Partition("short,main", False, None, None, 256000, 4, "")
    assert Limits.from_json(record()).partition("short,gone") is None


UNLIMITED = {"config": {"AccountingStorageEnforce": "none"}}


def test_a_dry_run_says_what_runs_may_use_and_what_cannot_be_had():
    known = Limits.from_json(record(**UNLIMITED))
    asked = Resources(partition="short", cpus=4, gpus=3, time_s=172800, mem_mb=40000, pack=2)
    assert known.forecast(asked, 10) == [
        "at most 1,920.0 CPU-hours and 720.0 GPU-hours: 10 runs x (2d00h, 4 CPUs, 3 GPUs shared by 2)",
        "partition short takes jobs of up to 1d02h, and these ask for 2d00h: they would never start",
        "partition short gives a job up to 58.6 GB a node, and these ask for 78.1 GB",
        "partition short has at most 2 GPUs a node, and these ask for 3",
    ]


def test_a_dry_run_that_fits_says_only_what_runs_may_use():
    words = Limits.from_json(record(**UNLIMITED)).forecast(Resources(partition="short"), 1)
    assert words == ["at most 0.2 CPU-hours: 1 run x (10m00s, 1 CPU)"]


def test_a_dry_run_says_that_a_partition_is_not_there():
    (word,) = Limits.from_json(record(**UNLIMITED)).forecast(Resources(partition="gone"), 1)
    assert word == "partition gone: this cluster has none of that name. It has: main, short."


@pytest.fixture
def no_slurm(monkeypatch, tmp_path):
    """No program of Slurm is on PATH, and no cluster is configured."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("SLURM_CONF", "SLURM_CLUSTERS"):
        monkeypatch.delenv(name, raising=False)


def test_what_was_asked_an_hour_ago_serves_while_slurm_is_away(tmp_path, no_slurm):
    files.write_json(tmp_path / "cluster.json", record(asked_at=time.time() - 7200, config={"MaxArraySize": "77"}))
    assert Limits.load(tmp_path).array_size == 77


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"7", b'{"schema": 1}', files.json_line(record(cluster=["/other/slurm.conf", "", os.getuid()]))],
    ids=["empty", "list", "number", "parts missing", "of another cluster"],
)
def test_what_cannot_be_used_is_asked_again(tmp_path, no_slurm, content):
    (tmp_path / "cluster.json").write_bytes(content)
    with pytest.raises(SchedulerError, match="scontrol: not found"):
        Limits.load(tmp_path)


FAKE_SCONTROL = """#!/bin/sh
echo "$@" >> "$LOG"
case "$*" in
  *config*) echo 'MaxArraySize            = 55' ;;
  *partition*) echo 'PartitionName=main Default=YES MaxTime=UNLIMITED' ;;
esac
"""


@pytest.fixture
def fake_slurm(monkeypatch, tmp_path, no_slurm):
    """scontrol and sinfo that note their calls; returns how many there were."""
    for name in ("scontrol", "sinfo"):
        program = tmp_path / name
        program.write_text(FAKE_SCONTROL)
        program.chmod(0o755)
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    return lambda: len((tmp_path / "log").read_text().splitlines())


def test_shells_ask_once_an_hour_and_only_their_owner_can_read_it(tmp_path, fake_slurm):
    folder = tmp_path / "runs" / ".slurm"
    assert Limits.load(folder).array_size == 55
    asked = fake_slurm()
    assert Limits.load(folder).array_size == 55
    assert fake_slurm() == asked
    assert (folder / "cluster.json").stat().st_mode & 0o777 == 0o600
    files.write_json(
        folder / "cluster.json", {**files.read_json(folder / "cluster.json"), "asked_at": time.time() + 9999}
    )
    Limits.load(folder)  # a clock that was set back
    assert fake_slurm() == 2 * asked


def test_a_disk_that_takes_nothing_is_no_obstacle(tmp_path, fake_slurm):
    (tmp_path / "runs").write_text("a file where the folder should be")
    assert Limits.load(tmp_path / "runs").array_size == 55


def test_where_nothing_is_enforced_no_limit_is_asked_for(tmp_path, fake_slurm):
    known = Limits.load(tmp_path / "x")
    asked = fake_slurm()
    assert known.room(Resources()) is None
    assert fake_slurm() == asked


def test_limits_that_cannot_be_asked_for_are_left_to_the_submission(no_slurm):
    assert Limits.from_json(record()).room(Resources()) is None


def test_a_person_without_a_name_is_a_number(monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 3_000_000_000)
    assert limits._user() == "3000000000"

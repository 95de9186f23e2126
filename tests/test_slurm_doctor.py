"""What doctor finds out about real clusters, through the installed command; nothing of it stays."""

import os
import shutil
import signal
import time

from slurm_cluster import Cluster
from workplace import Workplace

from slurmkit.schedulers.slurm import probe

SBATCH = """\
#!/bin/sh
job=$({sbatch} {options} "$@") || exit
for script; do :; done
cd "$(dirname "$script")"
{then}
echo "$job"
"""
"""Answers when the cluster has come so far that time decides nothing any more."""

WARN = """\
until [ -e started ]; do sleep 0.1; done
scontrol update "JobId=${job}_0" EndTime=now+100
"""
"""The task for SIGUSR2 hears it for sure, 30 s later at most: it asks for it 85 s before its end."""

ONLY_MEMORY = """\
scontrol release "${job}_0" "${job}_2"
until [ -e started ]; do sleep 0.1; done
state() { sacct --noheader --allocations --parsable2 --format=State "--jobs=${job}_2"; }
until [ "$(state)" = OUT_OF_MEMORY ]; do sleep 0.1; done
"""
"""Task 0 runs, and its end is an hour away; task 1 does not even start; task 2 has ended."""

JUDGED = """\
reasons() { squeue --noheader --array --format=%r "--jobs=$job" | sort --unique; }
until [ "$(reasons)" = PartitionTimeLimit ]; do sleep 0.1; done
"""


class OnCluster(Workplace):
    """A project whose commands talk to a throw-away cluster."""

    cluster: Cluster
    path: str = os.environ["PATH"]

    def environment(self) -> dict[str, str]:
        return super().environment() | self.cluster.env | {"PATH": self.path}

    def answer_when(self, then: str, options: str = "--time=60") -> None:
        """Have sbatch, called with some more options, wait for what some lines of shell wait for."""
        program = self.root.parent / "programs" / "sbatch"
        program.parent.mkdir()
        program.write_text(SBATCH.format(sbatch=shutil.which("sbatch"), options=options, then=then))
        program.chmod(0o755)
        self.path = f"{program.parent}:{self.path}"

    def doctor(self, *words: str) -> dict[str, tuple[str, str]]:
        """Return what doctor looked at, to its verdict and what it found."""
        lines = self.slurmkit("doctor", *words, exit_code=None).stdout.splitlines()
        rows = [(line[:8].strip(), *line[9:].split(": ", 1)) for line in lines]
        return {what: (verdict, found) for verdict, what, found in rows}

    def remains(self) -> list[str]:
        """Return the folders of doctor, and the jobs that are neither ended nor being ended."""
        folders = [path.name for path in self.root.rglob(".doctor-*")]
        return folders + self.cluster.run("squeue", "--noheader", "--states=pending,running").splitlines()


def on(workplace: Workplace, cluster: Cluster) -> OnCluster:
    place = OnCluster(workplace.root)
    place.cluster = cluster
    place.runs.mkdir()
    return place


def test_doctor_sees_signals_requeueing_accounting_and_the_shared_folder(workplace, nodes_cluster):
    place = on(workplace, nodes_cluster)
    place.answer_when(WARN)
    found = place.doctor("--wait", "80", "--partition", "urgent")
    assert "cluster throwaway" in found["Slurm"][1]
    assert found["partition main"] == ("ok", "no time limit, 62.5 GB a node, the default")
    assert found["partition short"][1].startswith("up to 1m00s")
    assert "below 1001" in found["array limit"][1]
    assert found["USR2 before the limit"] == ("ok", "delivered to the batch process")
    assert found["requeue"] == ("ok", "a job that is queued again starts again")
    assert found["out of memory"][0] == "warning"
    assert "does not enforce memory" in found["out of memory"][1]
    assert found["accounting"][0] == found["shared folder"][0] == "ok"
    assert place.remains() == []


def test_doctor_sees_out_of_memory_and_says_what_it_did_not_wait_for(workplace, memory_cluster):
    place = on(workplace, memory_cluster)
    place.answer_when(ONLY_MEMORY, "--time=60 --hold")
    found = place.doctor("--wait", "1")
    assert found["out of memory"] == ("ok", "a task that takes too much is ended, and shown as OUT_OF_MEMORY")
    assert found["USR2 before the limit"] == ("warning", "not seen within 1 s")
    assert found["requeue"][1].startswith("second start not seen within 1 s (clusters wait up to 2 minutes)")
    assert place.remains() == []


def test_a_job_that_does_not_start_is_a_warning_with_the_reason_and_is_cancelled(workplace, nodes_cluster):
    place = on(workplace, nodes_cluster)
    place.answer_when(JUDGED, "")
    found = place.doctor("--wait", "1", "--partition", "short")  # takes a minute at most, and doctor asks for two
    assert found["test job"][0] == "warning"
    assert "PartitionTimeLimit" in found["test job"][1]
    assert place.remains() == []


def test_what_is_there_when_the_time_is_over_is_seen(workplace, nodes_cluster, monkeypatch):
    """Also by a doctor that stood still all the while, and comes too late to look for the first time."""
    place = on(workplace, nodes_cluster)
    place.answer_when(JUDGED, "")
    monkeypatch.setenv("PATH", place.path)
    monkeypatch.setenv("SLURM_CONF", nodes_cluster.env["SLURM_CONF"])
    folder = place.runs / ".doctor-late"
    folder.mkdir()
    ((verdict, what, found),) = probe.jobs(folder, "short", 0.0, print)
    assert (verdict, what) == ("warning", "test job")
    assert "PartitionTimeLimit" in found


def test_sbatch_that_refuses_is_a_problem_in_its_own_words(workplace, nodes_cluster):
    place = on(workplace, nodes_cluster)
    verdict, found = place.doctor("--partition", "nowhere; touch here")["test job"]
    assert verdict == "problem"
    assert "invalid partition" in found
    assert not (place.root / "here").exists()


def test_without_a_job_only_the_controller_is_asked(workplace, nodes_cluster):
    place = on(workplace, nodes_cluster)
    before = nodes_cluster.run("squeue", "--noheader", "--states=all", "--format=%F").splitlines()
    found = place.doctor("--no-job")
    assert "partition main" in found
    assert "requeue" not in found
    assert nodes_cluster.run("squeue", "--noheader", "--states=all", "--format=%F").splitlines() == before


def test_ctrl_c_cancels_the_job_and_removes_its_folder(workplace, nodes_cluster):
    place = on(workplace, nodes_cluster)
    with nodes_cluster.nothing_starts():  # what waits does not end by itself
        process = place.start("doctor")
        listed = ("squeue", "--noheader", "--name=slurmkit-doctor")
        nodes_cluster.wait(lambda: nodes_cluster.run(*listed), "doctor submits something")
        os.kill(process.pid, signal.SIGINT)
        _, told = process.communicate()
        assert process.returncode == 130, told
        assert place.remains() == []


def test_the_folder_of_a_doctor_that_was_killed_goes_an_hour_later(workplace):
    old, young = workplace.root / ".doctor-old", workplace.root / ".doctor-young"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (time.time() - 7200,) * 2)
    workplace.slurmkit("doctor", "--no-job", exit_code=None)
    assert not old.exists()
    assert young.exists()

"""`--then report` on a real cluster: one small job, afterany."""

from pathlib import Path

from slurm_cluster import Cluster
from slurm_project import create, place

SWEEP = """\
name: sweep
command: ["{python}", trainer.py, "{config}", "{run_dir}"]
config: {act: complete}
axes:
  act: {values: {good: {}, bad: {act: bug}, slow: {act: sleep, seconds: 2}}}
resources: {cpus: 1, mem: 100M, time: 5m}
"""


def test_the_report_is_written_by_a_job_that_waits_for_all_however_they_end(
    tmp_path: Path, nodes_cluster: Cluster
) -> None:
    where = place(tmp_path, nodes_cluster, SLURMKIT_RUNS=str(tmp_path / "elsewhere"))  # the job must look there too
    create(where, SWEEP)
    with nodes_cluster.nothing_starts():
        told = where.submit("sweep", "--then", "report").stderr
        job = told.partition("as job ")[2].partition(",")[0]
        waiting = nodes_cluster.run("squeue", "--noheader", f"--jobs={job}", "--format=%T %E")
    assert waiting.startswith("PENDING afterany:")
    report = where.root / "reports/sweep/report.md"
    nodes_cluster.wait(lambda: nodes_cluster.states(job) in (["COMPLETED"], ["FAILED"]), "the job has ended")
    assert "2/3 complete, 1/3 failed" in report.read_text()

"""Collections come from definitions, and follow their edits without losing a run."""

import dataclasses
import json
import subprocess
import time

import pytest
from forked_commands import ForkedCommands, ForkedWorkplace
from workplace import SWEEP, Workplace, git

from slurmkit.collection import Collection


@pytest.fixture
def workplace(workplace: Workplace, forked_commands: ForkedCommands) -> ForkedWorkplace:
    return ForkedWorkplace(workplace.root, forked_commands)


def names(workplace, collection="sweep") -> list[str]:
    shown = json.loads(workplace.slurmkit("collection", "show", collection, "--json").stdout)
    return [run["name"] for run in shown["runs"]]


def test_a_dry_run_writes_nothing_and_prints_the_runs(workplace):
    path = workplace.define(SWEEP)
    refs = git(workplace.root, "show-ref")
    shown = workplace.slurmkit("collection", "create", str(path), "--dry-run")
    assert len(shown.stdout.splitlines()) == 4
    assert "2 task x 2 seed = 4 runs" in shown.stderr
    assert not workplace.runs.exists()
    assert git(workplace.root, "show-ref") == refs


def test_the_same_definition_gives_the_same_ids(workplace):
    path = workplace.define(SWEEP)
    first = workplace.slurmkit("collection", "create", str(path), "--dry-run").stdout
    assert workplace.slurmkit("collection", "create", str(path), "--dry-run").stdout == first


def test_all_problems_of_a_file_are_told_at_once(workplace):
    path = workplace.define(SWEEP.replace("cpus: 1", "cpu: 1").replace("time: 60s", "time: soon"))
    told = workplace.slurmkit("collection", "create", str(path), exit_code=2).stderr
    assert "7:13: resources.cpu" in told
    assert "cpus" in told
    assert "resources.time" in told


def test_a_check_refuses_bad_cells_before_the_queue_and_names_axes_without_effect(workplace):
    (workplace.root / "check.py").write_text(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    config = json.loads(line)\n"
        "    bad = ['task: sort is not known'] if config['task'] == 'sort' and config['score'] == 9 else []\n"
        "    print(json.dumps({'errors': bad, 'inactive': ['seed']}))\n"
    )
    checked = SWEEP + 'check: ["{python}", "check.py"]\n'
    path = workplace.define(checked)
    created = workplace.slurmkit("collection", "create", str(path))
    assert "seed is swept but has no effect in any run" in created.stderr
    path = workplace.define(checked.replace("score: 0.0", "score: 9").replace("name: sweep", "name: other"))
    refused = workplace.slurmkit("collection", "create", str(path), exit_code=2)
    assert refused.stderr.count("task: sort is not known") == 1, "one problem is told once, whatever runs have it"
    assert "2 runs, first task-sort_seed-1: task: sort is not known" in refused.stderr
    assert not (workplace.runs / "other").exists()
    assert "refs/slurmkit/other" not in git(workplace.root, "show-ref")


def test_a_check_that_breaks_is_told_with_its_last_lines(workplace):
    path = workplace.define(SWEEP + 'check: ["{python}", "-c", "raise ValueError(7)"]\n')
    assert "ValueError: 7" in workplace.slurmkit("collection", "create", str(path), exit_code=2).stderr


def test_extend_takes_over_what_is_said_of_metrics_where_no_run_changes(workplace):
    path = workplace.define(SWEEP)
    workplace.slurmkit("collection", "create", str(path))
    workplace.slurmkit("collection", "extend", str(path), exit_code=2)
    workplace.define(SWEEP + "metrics: {score: {label: points, direction: max}}\n")
    workplace.slurmkit("collection", "extend", str(path))
    assert Collection.load("sweep", workplace.root).metrics == {"score": {"label": "points", "direction": "max"}}
    assert len(workplace.states("sweep")) == 4


def test_extend_adds_retires_and_keeps(workplace):
    """add stays complete, sort is retired with its records, mul is new."""
    path = workplace.define(SWEEP)
    workplace.slurmkit("collection", "create", str(path), "--submit")
    workplace.wait("sweep")
    kept = (workplace.runs / "sweep/task-add_seed-1/metrics.json").read_bytes()
    workplace.define(SWEEP.replace("[add, sort]", "[add, mul]"))

    plan = workplace.slurmkit("collection", "extend", str(path), "--dry-run")
    assert "2 added, 2 removed, 0 changed, 2 kept" in plan.stderr
    assert len(names(workplace)) == 4

    workplace.slurmkit("collection", "extend", str(path), "--submit")
    states = workplace.wait("sweep")
    wanted = [f"task-{task}_seed-{seed}" for task in ("add", "mul") for seed in (1, 2)]
    assert states == dict.fromkeys(wanted, "completed")
    assert (workplace.runs / "sweep/task-add_seed-1/metrics.json").read_bytes() == kept
    assert (workplace.runs / "sweep/task-sort_seed-1/metrics.json").exists()
    assert workplace.status("sweep")["retired"] == 2


def test_a_retired_run_that_comes_back_has_its_results(workplace):
    path = workplace.define(SWEEP)
    workplace.slurmkit("collection", "create", str(path), "--submit")
    workplace.wait("sweep")
    workplace.define(SWEEP.replace("[add, sort]", "[add]"))
    workplace.slurmkit("collection", "extend", str(path))
    workplace.define(SWEEP)
    workplace.slurmkit("collection", "extend", str(path))
    assert workplace.states("sweep")["task-sort_seed-2"] == "completed"


def test_a_changed_config_makes_new_runs_beside_the_old(workplace):
    """The cell is the same, the config is not: the old result stays under its name."""
    path = workplace.define(SWEEP)
    workplace.slurmkit("collection", "create", str(path), "--submit")
    workplace.wait("sweep")
    workplace.define(SWEEP.replace("score: 0.0", "score: 0.75"))
    told = workplace.slurmkit("collection", "diff", "sweep", str(path))
    assert "changed  task-add_seed-1: score 0.0 -> 0.75" in told.stdout
    workplace.slurmkit("collection", "extend", str(path), "--submit")
    workplace.wait("sweep")
    new = [name for name in names(workplace) if name.startswith("task-add_seed-1~")]
    assert len(new) == 1
    assert json.loads((workplace.runs / "sweep" / new[0] / "metrics.json").read_text())["score"] == 0.75
    assert json.loads((workplace.runs / "sweep/task-add_seed-1/metrics.json").read_text())["score"] == 0.0


def test_new_runs_keep_the_pin_unless_another_commit_is_asked_for(workplace):
    path = workplace.define(SWEEP)
    workplace.slurmkit("collection", "create", str(path))
    first = git(workplace.root, "rev-parse", "HEAD")
    workplace.define(SWEEP.replace("[add, sort]", "[add, sort, mul]"))
    second = git(workplace.root, "rev-parse", "HEAD")
    workplace.slurmkit("collection", "extend", str(path), "--commit", "HEAD", "--submit")
    workplace.slurmkit("submit", "sweep")
    workplace.wait("sweep")

    def commit(name: str) -> str:
        return json.loads((workplace.runs / "sweep" / name / "attempts/1/started.json").read_text())["commit"]

    assert commit("task-add_seed-1") == first
    assert commit("task-mul_seed-1") == second
    assert second[:10] in workplace.slurmkit("aggregate", "sweep").stderr


def test_a_dry_run_of_an_extension_to_another_commit_writes_nothing(workplace):
    path = workplace.define(SWEEP)
    workplace.slurmkit("collection", "create", str(path))
    workplace.define(SWEEP.replace("[add, sort]", "[add, sort, mul]") + "check: [cat, pyproject.toml]\n")

    def everything() -> tuple[str, list[str], bytes]:
        files = sorted(str(each) for each in workplace.runs.rglob("*"))
        return git(workplace.root, "show-ref"), files, (workplace.runs / "sweep/.slurmkit/collection.json").read_bytes()

    before = everything()
    refused = workplace.slurmkit("collection", "extend", str(path), "--dry-run", "--commit", "HEAD", exit_code=2)
    assert "check: cat pyproject.toml: exit 1" in refused.stderr
    path.write_text(path.read_text().partition("check")[0])
    plan = workplace.slurmkit("collection", "extend", str(path), "--dry-run", "--commit", "HEAD")
    assert "2 added" in plan.stderr
    assert everything() == before


def test_an_extension_that_its_check_refuses_leaves_no_reference(workplace):
    path = workplace.define(SWEEP)
    workplace.slurmkit("collection", "create", str(path))
    refs = {line for line in git(workplace.root, "show-ref").splitlines() if "slurmkit" in line}
    workplace.define(SWEEP.replace("[add, sort]", "[add, sort, mul]") + 'check: ["false"]\n')
    workplace.slurmkit("collection", "extend", str(path), "--commit", "HEAD", exit_code=2)
    assert {line for line in git(workplace.root, "show-ref").splitlines() if "slurmkit" in line} == refs
    path.write_text(path.read_text().partition("check")[0])
    workplace.slurmkit("collection", "extend", str(path), "--commit", "HEAD")
    kept = json.loads(workplace.slurmkit("collection", "show", "sweep", "--json").stdout)["refs"]
    assert len(kept) == 2
    assert git(workplace.root, "rev-parse", kept[1]) == git(workplace.root, "rev-parse", "HEAD")


def test_an_extension_that_changes_nothing_says_so(workplace):
    path = workplace.define(SWEEP)
    workplace.slurmkit("collection", "create", str(path))
    assert "Nothing to do" in workplace.slurmkit("collection", "extend", str(path), exit_code=2).stderr


def test_delete_asks_and_refuses_while_runs_are_under_way(workplace):
    path = workplace.define(SWEEP.replace("act: complete", "act: sleep"))
    workplace.slurmkit("collection", "create", str(path), "--submit")
    assert (
        "First: slurmkit cancel sweep"
        in workplace.slurmkit("collection", "delete", "sweep", "--yes", exit_code=2).stderr
    )
    workplace.slurmkit("cancel", "sweep", "--all")
    workplace.wait("sweep")
    command = workplace.start("collection", "delete", "sweep")
    _, told = command.communicate("n\n")
    assert command.returncode == 130, told
    assert (workplace.runs / "sweep").exists()
    workplace.slurmkit("collection", "delete", "sweep", "--yes")
    assert not (workplace.runs / "sweep").exists()
    assert "refs/slurmkit/sweep" not in git(workplace.root, "show-ref")


def test_a_running_run_that_is_retired_can_be_cancelled_and_keeps_the_collection(workplace):
    sleeping = SWEEP.replace("act: complete", "act: sleep")
    path = workplace.define(sleeping)
    workplace.slurmkit("collection", "create", str(path), "--submit")
    workplace.define(sleeping.replace("[add, sort]", "[mul]"))
    workplace.slurmkit("collection", "extend", str(path))
    told = workplace.slurmkit("collection", "delete", "sweep", "--yes", exit_code=2).stderr
    assert "4 runs are queued, running or unknown. First: slurmkit cancel sweep --all" in told
    assert len(workplace.slurmkit("cancel", "sweep", "--all", "--dry-run").stdout.splitlines()) == 6

    cancelled = workplace.slurmkit("cancel", "sweep", "--all").stdout
    assert {line.split()[-1] for line in cancelled.splitlines()} >= {"task-add_seed-1", "task-sort_seed-2"}
    deadline = time.monotonic() + 100
    while "runs are queued" in workplace.slurmkit("collection", "delete", "sweep", "--yes", exit_code=None).stderr:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert not (workplace.runs / "sweep").exists()


def test_without_a_name_the_collection_last_touched_is_meant_and_named(workplace):
    for name in ("one", "two"):
        path = workplace.define(SWEEP.replace("name: sweep", f"name: {name}"), f"{name}.yaml")
        workplace.slurmkit("collection", "create", str(path))
    shown = workplace.slurmkit("status")
    assert "collection two (the one last touched)" in shown.stderr
    assert "one  0/4 complete" in shown.stdout
    workplace.slurmkit("status", "one")
    assert "collection one" in workplace.slurmkit("status").stderr


def test_without_git_the_error_says_what_to_do(workplace, tmp_path):
    bare = tmp_path / "elsewhere"
    bare.mkdir()
    (bare / "sweep.yaml").write_text(SWEEP)
    command = workplace.start("collection", "create", str(bare / "sweep.yaml"))
    command.communicate()
    place = dataclasses.replace(workplace, root=bare)
    assert "git init" in place.slurmkit("collection", "create", "sweep.yaml", exit_code=2).stderr


def test_init_makes_a_repository_in_which_the_first_sweep_runs(tmp_path, workplace):
    place = dataclasses.replace(workplace, root=tmp_path / "fresh")
    place.root.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=place.root, check=True)
    place.slurmkit("init")
    git(place.root, "add", "-A")
    git(place.root, "commit", "-q", "-m", "First")
    place.slurmkit("collection", "create", "collections/example.yaml", "--submit", "--wait")
    assert set(place.states("example").values()) == {"completed"}
    assert "left alone" in place.slurmkit("init").stderr
    place.end_queue()

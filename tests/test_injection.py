"""Hostile text in every field of a definition and in every argument: refused or taken as text, never executed."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from forked_commands import ForkedCommands, ForkedWorkplace
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workplace import Workplace, git

from slurmkit.store import Store

CANARY = "canary"

HOSTILE = {
    "newline": f"x\ntouch {CANARY}\n",
    "dollar": f"$(touch {CANARY})",
    "backquotes": f"`touch {CANARY}`",
    "quotes": f"'; touch {CANARY}; \"; touch {CANARY} #",
    "semicolon": f"; touch {CANARY} &",
    "dash": "-rf",
    "option": f"--output={CANARY}",
    "upload-pack": f"--upload-pack=touch {CANARY}",
    "up": f"../../{CANARY}",
    "absolute": f"/tmp/../{CANARY}",
    "long": "x" * 10_000,
    "unicode": "ключ 鍵 \N{PILE OF POO} \u202e\u0000"[:-1],
    "nul": "a\x00b",
    "surrogate": "\udc80",
    "escape": "\x1b]0;title\x07\x1b[2J",
    "braces": "{config.__class__} {0} {{}} {",
    "percent": "%s%n%(x)s",
    "yaml": f"!!python/object/apply:os.system ['touch {CANARY}']",
    "rich": "[bold red]x[/] [link=file:///etc/passwd]",
}

RECORDER = """\
import json, os, pathlib, sys
run_dir = pathlib.Path(sys.argv[2])
config = json.loads(pathlib.Path(sys.argv[1]).read_text())
words = {key: value for key, value in os.environ.items() if key.startswith("WORD_")}
(run_dir / "told.json").write_text(json.dumps([sys.argv, config, words]))
(run_dir / "metrics.json").write_text(json.dumps({"score": 1.0}))
"""


def base() -> dict[str, object]:
    """Return a definition that uses every field; JSON is YAML."""
    return {
        "name": "sweep",
        "description": "about",
        "tags": ["tag"],
        "command": ["{python}", "train.py", "{config}", "{run_dir}", "last"],
        "env": {"WORD": "value"},
        "config": {"text": "value", "nested": {"deep": "value"}, "seed": 0},
        "axes": {"task": {"key": "text", "values": ["one", "two"]}, "seed": {"key": "seed", "values": [1]}},
        "run_name": "{task}_s{seed}",
        "resources": {"mem": "300M", "time": "60s", "partition": "p", "account": "a", "qos": "q", "constraint": "c"},
        "on_failure": {"oom": {"resources.mem": "x2"}},
    }


def put(record: object, path: tuple[object, ...], value: object) -> None:
    """Set a value deep in a definition; a path that ends in "KEY" renames the key before it."""
    *folder, last = path
    if last == "KEY":
        *folder, key = folder
    for step in folder:
        record = record[step]  # type: ignore[index]
    if last == "KEY":
        record[value] = record.pop(key)  # type: ignore[index,attr-defined]
    else:
        record[last] = value  # type: ignore[index]


FIELDS: list[tuple[object, ...]] = [
    ("name",),
    ("description",),
    ("tags", 0),
    ("command", 0),
    ("command", 1),
    ("command", 4),
    ("env", "WORD"),
    ("env", "WORD", "KEY"),
    ("config", "text"),
    ("config", "nested", "deep"),
    ("config", "nested", "KEY"),
    ("axes", "task", "KEY"),
    ("axes", "task", "key"),
    ("axes", "task", "values", 0),
    ("axes", "seed", "values", 0),
    ("run_name",),
    ("resources", "mem"),
    ("resources", "time"),
    ("resources", "partition"),
    ("resources", "constraint"),
    ("on_failure", "oom", "KEY"),
    ("on_failure", "oom", "resources.mem"),
    ("check",),
    ("exclude",),
    ("needs",),
    ("HOSTILE", "KEY"),
]

CREATED: list[tuple[object, ...]] = [
    ("name",),
    ("description",),
    ("command", 0),
    ("command", 4),
    ("axes", "task", "values", 0),
    ("run_name",),
    ("check",),
]
"""Fields that reach a path, git, a command or a page: they go all the way."""


def write(path: Path, record: dict[str, object]) -> None:
    """Write a definition as JSON, its text in UTF-8; a lone surrogate gives bytes that are none."""
    path.write_bytes(json.dumps(record, ensure_ascii=False).encode(errors="surrogatepass"))


@dataclass
class Hostile(ForkedWorkplace):
    """A workplace whose commands end in a sentence and let no control character through."""

    def slurmkit(self, *words: str, exit_code: int | None = 0) -> "subprocess.CompletedProcess[str]":
        done = super().slurmkit(*words, exit_code=exit_code)
        assert done.returncode in {0, 1, 2}, (words, done.stderr)
        assert "\x1b" not in done.stdout + done.stderr, (words, done.stdout, done.stderr)
        return done

    def ask(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command that may well be refused."""
        return self.slurmkit(*words, exit_code=None)


def no_canary(place: Hostile) -> None:
    named = place.root.parent.rglob(f"{CANARY}*")
    assert [path for path in named if path.name != CANARY or not path.is_relative_to(place.root / ".git")] == []
    assert not Path("/", CANARY).exists()
    assert not Path("/tmp", CANARY).exists()


@pytest.fixture
def place(workplace: Workplace, forked_commands: ForkedCommands) -> Hostile:
    (workplace.root / "train.py").write_text(RECORDER)
    git(workplace.root, "commit", "-q", "-a", "-m", "Record what is told")
    return Hostile(workplace.root, forked_commands)


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_in_any_field_of_a_definition_is_refused_or_stays_text(place: Hostile, kind: str) -> None:
    text = HOSTILE[kind]
    path = place.root.parent / "base.yaml"
    write(path, base())
    place.slurmkit("collection", "create", str(path), "--name", "base")
    for number, field in enumerate(FIELDS):
        record = base()
        whole = {"check": [text], "exclude": [{"task": text}], "needs": {"base": {"collection": text}}}
        if field == ("HOSTILE", "KEY"):
            record[text] = 1
        elif field[0] in whole:
            record[str(field[0])] = whole[str(field[0])]
        else:
            put(record, field, text)
        path = place.root.parent / f"definition{number}.yaml"
        write(path, record)
        if field in CREATED:
            name = [] if field == ("name",) else ["--name", f"c{number}"]
            done = place.ask("collection", "create", str(path), *name)
        else:  # reads and expands it, too, and shows what it finds
            done = place.ask("collection", "diff", "base", str(path))
        assert done.returncode == 0 or done.stderr.startswith("slurmkit: ")
    for name in Store(place.runs).names():
        place.ask("collection", "show", name)
        place.ask("status", name)
    no_canary(place)


def test_hostile_text_reaches_config_arguments_and_environment_as_it_is(place: Hostile) -> None:
    """Real runs, whose command tells what it was given."""
    texts = [text for kind, text in HOSTILE.items() if kind not in {"nul", "surrogate", "braces"}]
    record = base()
    record["command"] = ["{python}", "train.py", "{config}", "{run_dir}", *texts]
    record["env"] = {f"WORD_{number}": text for number, text in enumerate(texts)}
    record["axes"] = {"task": {"values": {f"t{number}": {"text": text} for number, text in enumerate(texts)}}}
    record["run_name"] = "{task}"
    path = place.root.parent / "definition.yaml"
    write(path, record)
    place.slurmkit("collection", "create", str(path), "--submit")
    assert set(place.wait("sweep").values()) == {"completed"}
    for number, text in enumerate(texts):
        arguments, config, words = json.loads((place.runs / f"sweep/t{number}/told.json").read_text())
        assert arguments[3:] == texts
        assert config["text"] == text
        assert words == {f"WORD_{number}": text for number, text in enumerate(texts)}
    no_canary(place)


@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if kind != "nul"])  # no argument can hold a NUL
def test_hostile_text_in_any_argument_is_refused_or_stays_text(place: Hostile, kind: str) -> None:
    text = HOSTILE[kind]
    path = place.root.parent / "definition.yaml"
    write(path, base())
    place.slurmkit("collection", "create", str(path))
    commands = [
        ["status", text],
        ["status", "sweep", "--where", text],
        ["status", "sweep", "--where", f"task={text}"],
        ["status", "sweep", "--where", f"{text}=1"],
        ["status", "sweep", "--run", text],
        ["status", "sweep", "--state", text],
        ["submit", "sweep", "--reason", text, "--dry-run"],
        ["submit", "sweep", "--backend", text],
        ["resubmit", "sweep", "--failed", "--set", text],
        ["resubmit", "sweep", "--failed", "--set", f"text={text}"],
        ["resubmit", "sweep", "--state", "planned", "--set", f"{text}=1"],
        ["cancel", text, "--all"],
        ["logs", "sweep", "--run", text],
        ["aggregate", "sweep", "--metric", text],
        ["aggregate", "sweep", "--by", text],
        ["aggregate", "sweep", "--baseline", text],
        ["aggregate", "sweep", "--baseline", f"task={text}"],
        ["collection", "create", text],
        ["collection", "create", str(path), "--name", text],
        ["collection", "create", str(path), "--name", "other", "--commit", text],
        ["collection", "show", text],
        ["collection", "diff", "sweep", text],
        ["collection", "extend", text],
        ["collection", "extend", str(path), "--name", text],
        ["collection", "delete", text, "--yes"],
        ["run", text],
        [text],
    ]
    for words in commands:
        place.ask(*words)
    assert place.states("sweep") == {"one_s1": "planned", "two_s1": "planned"}
    no_canary(place)


@pytest.mark.parametrize("kind", ["newline", "dollar", "backquotes", "quotes", "dash", "unicode", "surrogate", "rich"])
def test_a_hostile_file_name_is_a_file_name(place: Hostile, kind: str) -> None:
    """A definition, a tracked file and a folder of such a name."""
    name = HOSTILE[kind].replace("/", "_")
    folder = place.root / f"d{name}"
    folder.mkdir()
    write(folder / name, base())
    (folder / f"{name}.txt").write_text("x")
    git(place.root, "add", "-A")
    git(place.root, "commit", "-q", "-m", "Add")
    (folder / "dirty").write_text("x")
    refused = place.slurmkit("collection", "create", str(folder / name), exit_code=None)
    assert refused.returncode == 2
    place.slurmkit("collection", "create", str(folder / name), "--allow-dirty", "--submit")
    assert set(place.wait("sweep").values()) == {"completed"}
    place.slurmkit("collection", "show", "sweep")
    place.slurmkit("aggregate", "sweep", "--output", str(folder / f"{name}.csv"))
    assert (folder / f"{name}.csv").is_file()
    no_canary(place)


@pytest.mark.parametrize("name", [f"a;touch${{IFS}}{CANARY}", f"$(touch${{IFS}}{CANARY})", "-branch", "ключ", "a'b\"c"])
def test_a_hostile_branch_name_is_a_branch(place: Hostile, name: str) -> None:
    path = place.root.parent / "definition.yaml"
    write(path, base())
    commit = git(place.root, "rev-parse", "HEAD")
    git(place.root, "update-ref", f"refs/heads/{name}", commit)
    git(place.root, "symbolic-ref", "HEAD", f"refs/heads/{name}")
    place.slurmkit("collection", "create", str(path), "--name", "head", "--submit")
    done = place.slurmkit("collection", "create", str(path), "--name", "named", "--commit", name, exit_code=None)
    assert done.returncode == (2 if name.startswith("-") else 0), done.stderr
    assert set(place.wait("head").values()) == {"completed"}
    assert json.loads((place.runs / "head/.slurmkit/collection.json").read_text())["commit"] == commit
    no_canary(place)


WORDS = st.text(st.characters(exclude_characters="\0", codec=None), max_size=30)


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(words=st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=5, max_size=20))
def test_any_argument_ends_in_a_sentence_and_never_in_a_traceback(
    place: Hostile, words: list[tuple[str, str, str]]
) -> None:
    for a, b, c in words:
        place.ask("resubmit", f"--where={a}", f"--set={b}", "--failed", "--dry-run", "--", c)

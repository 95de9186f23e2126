"""The documents tell the truth: links lead somewhere, commands parse, definitions expand, the reference is current."""

import contextlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from slurmkit.cli import cli
from slurmkit.definition.model import parse_definition
from slurmkit.expand import expand, resolve_config
from trainer.check import validate

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
END_OF_COMMAND = {"|", ">", ">>", "&&", ";", "2>", "&"}


def blocks(text: str, *languages: str) -> list[str]:
    """Return the fenced blocks of some languages."""
    return [body for language, body in FENCE.findall(text) if language in languages]


def shell_lines(text: str) -> list[str]:
    """Return the lines that a person would type, from blocks of shell."""
    lines = [line.removeprefix("$ ") for body in blocks(text, "sh", "bash", "console") for line in body.splitlines()]
    return [line for line in lines if line.strip()]


def mentions(text: str, word: str) -> list[str]:
    """Return code spans in running text that begin with a word and go on."""
    return [span for span in SPAN.findall(FENCE.sub("", text)) if span.startswith(f"{word} ")]


def slurmkit_words(line: str) -> list[str] | None:
    """Return the arguments of a line that calls slurmkit, up to a pipe, a comment or the next command."""
    words = shlex.split(line, comments=True)
    if words[:1] != ["slurmkit"]:
        return None
    end = next((place for place, word in enumerate(words) if word in END_OF_COMMAND), len(words))
    return words[1:end]


def problem_of(words: list[str], *, whole: bool) -> str:
    """Say what keeps click from parsing a command; empty: nothing does.

    Args:
        words: the arguments of slurmkit.
        whole: whether it is meant to be typed so; a mention in running text may leave arguments out.
    """
    command: click.Command = cli
    context: click.Context | None = None
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            while isinstance(command, click.Group):
                context = click.Context(command, info_name=command.name, parent=context)
                if not words or words[0].startswith("-"):
                    command.parse_args(context, words)
                    return ""
                name, found, words = command.resolve_command(context, words)
                assert found is not None, name
                command = found
            command.make_context(command.name, words, parent=context)
    except click.exceptions.Exit:  # --help and --version end there
        return ""
    except (click.MissingParameter, click.exceptions.NoArgsIsHelpError):
        return "something is missing" if whole else ""
    except click.UsageError as error:
        return error.format_message()
    return ""


def headings(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", NAMES)
def test_relative_links_lead_somewhere(name):
    path = ROOT / name
    for link in LINK.findall(FENCE.sub("", path.read_text())):
        if not link.startswith(("http://", "https://", "mailto:")):
            file, _, anchor = link.partition("#")
            target = path.parent / file if file else path
            assert target.exists(), f"{name}: {link} leads nowhere"
            assert not anchor or anchor in headings(target), f"{name}: {link}: no such heading"


@pytest.mark.parametrize("name", NAMES)
def test_commands_of_slurmkit_parse(name):
    text = (ROOT / name).read_text()
    for lines, whole in ((shell_lines(text), True), (mentions(text, "slurmkit"), False)):
        for line in lines:
            words = slurmkit_words(line)
            if words is not None:
                problem = problem_of(words, whole=whole)
                assert not problem, f"{name}: {line}: {problem}"


@pytest.mark.parametrize(
    ("words", "whole", "expected"),
    [
        ("submt demo", False, "Did you mean submit?"),
        ("status --wacth", False, "--wacth"),
        ("collection crate x.yaml", False, "crate"),
        ("collection create", True, "missing"),
        ("collection create", False, ""),
        ("resubmit --failed --set train.lr=0.1", True, ""),
        ("--help", True, ""),
    ],
)
def test_the_check_of_commands_finds_what_does_not_exist(words, whole, expected):
    problem = problem_of(words.split(), whole=whole)
    assert expected in problem
    assert bool(expected) == bool(problem)


def targets() -> set[str]:
    """Return the targets of the Makefile."""
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def named_targets(text: str) -> Iterator[str]:
    """Yield each target of `make` that a document names."""
    for line in [*shell_lines(text), *mentions(text, "make")]:
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            yield from (word for word in words[1:2] if "=" not in word and not word.startswith("-"))


@pytest.mark.parametrize("name", NAMES)
def test_make_targets_exist(name):
    assert set(named_targets((ROOT / name).read_text())) <= targets()


def test_the_makefile_declares_what_it_lists():
    listed = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "check", "bench", "help"} <= listed


def test_definitions_in_the_readme_expand():
    text = (ROOT / "README.md").read_text()
    found = blocks(text, "yaml")
    assert found
    for number, body in enumerate(found):
        runs = expand(parse_definition(body.encode(), f"README.md, block {number}")).runs
        claim = re.search(rf"{re.escape(body)}```\n\nThis is [\d x]+= (\d+) runs", text)
        assert claim is None or int(claim[1]) == len(runs)


def test_whole_definitions_for_the_trainer_pass_its_check():
    found = [body for document in DOCUMENTS for body in blocks(document.read_text(), "yaml") if "trainer, run" in body]
    assert found
    for body in found:
        definition = parse_definition(body.encode(), "docs")
        for run in expand(definition).runs:
            assert validate(resolve_config(definition.config, run.set))[0] == [], body


def test_the_command_reference_is_what_the_code_says():
    """`make docs` writes it anew."""
    done = subprocess.run(
        [sys.executable, "-m", "slurmkit.cli.reference"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (ROOT / "docs/commands.md").read_text() == done.stdout

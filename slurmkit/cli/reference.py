"""Writes docs/commands.md from the commands themselves: ``make docs``."""

from collections.abc import Iterator

import click

from slurmkit.cli import cli


def reference() -> str:
    """Return the command reference in Markdown."""
    lines = ["# Commands", "", "Made from the code by `make docs`. Exit codes: 0 fine, 1 something failed,"]
    lines += ["2 usage or definition, 3 scheduler out of reach, 130 interrupted.", ""]
    context = click.Context(cli, info_name="slurmkit", max_content_width=100, terminal_width=100)
    for command, name in _walk(cli, context):
        lines += [
            f"## {name}",
            "",
            "```",
            command.get_help(click.Context(command, info_name=name, terminal_width=100)),
            "```",
            "",
        ]
    return "\n".join(lines)


def _walk(group: click.Group, context: click.Context) -> Iterator[tuple[click.Command, str]]:
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        assert command is not None  # the group lists only what it has
        name = f"{context.info_name} {word}"
        if isinstance(command, click.Group):
            yield from _walk(command, click.Context(command, info_name=name))
        else:
            yield command, name


if __name__ == "__main__":
    click.echo(reference(), nl=False)

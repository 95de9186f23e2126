"""Writes docs/commands.md from the commands themselves: ``make docs``."""

from collections.abc import Iterator

import click

from slurmkit.cli import cli


def reference() -> str:
    """Return the command reference in Markdown."""
    lines = ["# Commands", "", "Made from the code by `make docs`. Exit codes: 0 fine, 1 something failed,"]
    lines += ["2 usage or definition, 3 scheduler out of reach, 130 interrupted.", ""]
    context = click.Context(cli, info_name="slurmkit", terminal_width=100, **cli.context_settings)
    for command, inner in _walk(cli, context):
        lines += [f"## {inner.command_path}", "", "```", command.get_help(inner), "```", ""]
    return "\n".join(lines)


def _walk(group: click.Group, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        assert command is not None  # the group lists only what it has
        inner = click.Context(command, info_name=word, parent=context)
        if isinstance(command, click.Group):
            yield from _walk(command, inner)
        else:
            yield command, inner


if __name__ == "__main__":
    click.echo(reference(), nl=False)

"""`slurmkit completion`: the shell's script."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that teaches your shell to complete slurmkit.

    \b
    bash:  slurmkit completion bash >> ~/.bashrc
    zsh:   slurmkit completion zsh >> ~/.zshrc
    fish:  slurmkit completion fish > ~/.config/fish/completions/slurmkit.fish
    """  # noqa: D301 -- \b is click's mark for lines that are not to be joined
    from slurmkit.cli import cli

    kind = get_completion_class(shell)
    assert kind is not None  # the choice above names only shells that click knows
    click.echo(kind(cli, {}, "slurmkit", "_SLURMKIT_COMPLETE").source())

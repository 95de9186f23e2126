"""The command line: a lazy click group, and the one place where errors are printed and turned into exit codes.

Exit codes: 0 fine, 1 something failed, 2 usage or definition, 3 scheduler out of reach, 130 interrupted.
"""

import gc
import importlib
import io
import os
import signal
import sys
from typing import NoReturn

import click

from slurmkit import __version__
from slurmkit.errors import SlurmkitError

# name: (module, attribute, one line of help); a module is imported only when its command is called
COMMANDS: dict[str, tuple[str, str, str]] = {
    "init": ("init", "init", "Make this repository ready: a definition, a tiny trainer, .gitignore."),
    "collection": ("collection", "collection", "Create, list, show, compare, extend and delete collections."),
    "submit": ("submit", "submit", "Submit the runs that have not been submitted."),
    "status": ("status", "status", "Show what is done, running or failed, and why."),
    "resubmit": ("submit", "resubmit", "Try again what failed, with what has to change."),
    "cancel": ("submit", "cancel", "End runs, or take them out of the queue."),
    "logs": ("logs", "logs", "Print a run's output, or follow it."),
    "aggregate": ("aggregate", "command", "Tabulate the metrics, with intervals and matched differences."),
    "compare": ("compare", "compare", "Compare two collections: results, config and code."),
    "report": ("report", "report", "Write what a collection has shown so far as a page with figures."),
    "run": ("run", "run", "Run one run here in the foreground, for debugging."),
    "doctor": ("doctor", "doctor", "Check git, the runs folder, the local queue and the machine."),
    "schema": ("schema", "schema", "Print the JSON Schema of definitions, for editors."),
    "completion": ("completion", "completion", "Print the script that teaches your shell to complete slurmkit."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called: `--help` needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of a day's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        return getattr(importlib.import_module(f"slurmkit.cli.{module}"), attribute)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for a word that is none, suggest the nearest."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, 1)
            hint = f" Did you mean {near[0]}?" if near else " See: slurmkit --help"
            ctx.fail(f"no command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="slurmkit")
def cli() -> None:
    """Sweeps as commit-pinned runs: submit, track, resubmit, tabulate.

    \b
    slurmkit collection create sweep.yaml --submit
    slurmkit status --watch
    slurmkit resubmit --failed
    slurmkit aggregate

    Without a name, a command means the collection last touched, and says so.
    Data goes to stdout, narration to stderr.
    """  # noqa: D301 -- \b is click's mark for lines that are not to be joined


def main() -> NoReturn:
    """Run the command line; never show a traceback for an error that a user can cause."""
    gc.set_threshold(100_000, 20, 100)  # a command reads many records once: looking for cycles among them is a loss
    try:
        status = cli.main(standalone_mode=False)
    except SlurmkitError as error:
        _end(str(error), error.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # people press Ctrl-C twice
        _end("interrupted. Runs that are queued or running go on; slurmkit status shows what was done.", 130)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        click.echo(printable(shown.getvalue()), err=True, nl=False)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of a pipe (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _end(f"{where}{error.strerror or error}", 1)
    sys.exit(status if isinstance(status, int) else 0)


def printable(text: str) -> str:
    """Write control characters as escapes: what somebody put into a name or a file can move no cursor."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


def _end(message: str, exit_code: int) -> NoReturn:
    for line in printable(message).splitlines():
        click.echo(f"slurmkit: {line}", err=True)
    sys.exit(exit_code)

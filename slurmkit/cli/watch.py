"""Follow a collection with a live display until all has ended."""

import sys
import time

from slurmkit.cli.common import narrate
from slurmkit.cli.render import Line, pipe_lines, terminal_lines
from slurmkit.collection import Collection
from slurmkit.collection.look import look
from slurmkit.overview import Overview

_INTERVAL_S = 1.0
_PLAIN_INTERVAL_S = 2.0


def follow(opened: Collection) -> None:
    """Show the collection again and again until all has ended; Ctrl-C stops watching, and the runs go on.

    In a pipe, a line is printed whenever the counts change.
    """
    try:
        summary = _live(opened) if sys.stdout.isatty() else _plain(opened)
    except KeyboardInterrupt:
        narrate(f"detached; the runs go on. slurmkit status {opened.name}")
        sys.exit(130)
    if summary.states.get("failed") or summary.states.get("blocked"):
        sys.exit(1)


def _look(opened: Collection) -> Overview:
    """Look afresh: an extension may have changed the collection since."""
    return look(Collection(opened.project, opened.project.store.existing(opened.name)))


def _live(opened: Collection) -> Overview:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)

    def drawn(summary: Overview) -> Text:
        return Text("\n").join(_text(line) for line in terminal_lines(summary, console.width))

    def _text(line: Line) -> Text:
        return Text.assemble(*[(text, style) if style else text for text, style in line], no_wrap=False)

    summary = _look(opened)
    with Live(drawn(summary), console=console, auto_refresh=False) as live:
        while not summary.at_rest:
            time.sleep(_INTERVAL_S)
            summary = _look(opened)
            live.update(drawn(summary), refresh=True)
    return summary


def _plain(opened: Collection) -> Overview:
    last = ""
    while True:
        summary = _look(opened)
        if summary.headline != last:
            last = summary.headline
            print(f"{time.strftime('%H:%M:%S')} {last}", flush=True)
        if summary.at_rest:
            print("\n".join(pipe_lines(summary)), flush=True)
            return summary
        time.sleep(_PLAIN_INTERVAL_S)

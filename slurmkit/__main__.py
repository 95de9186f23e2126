"""``python -m slurmkit``: the command line, where the script is not on PATH."""

from slurmkit.cli import main

main()

"""slurmkit: sweeps as commit-pinned runs, from a YAML to a table."""

__version__ = "0.1.0"

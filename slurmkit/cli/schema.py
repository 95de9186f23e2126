"""`slurmkit schema`: the JSON Schema of definitions."""

import click


@click.command()
def schema() -> None:
    """Print the JSON Schema of definitions, for editors.

    \b
    slurmkit schema > .slurmkit-schema.json
    # then, as a definition's first line:
    # yaml-language-server: $schema=../.slurmkit-schema.json
    """  # noqa: D301 -- \b is click's mark for lines that are not to be joined
    import json

    from slurmkit.definition.model import json_schema

    click.echo(json.dumps(json_schema(), indent=2))

"""What the shipped collections ask of the trainer."""

import json
from pathlib import Path

import pytest

from slurmkit.definition.model import load_definition
from slurmkit.expand import expand, resolve_config
from trainer.check import check_line

COLLECTIONS = sorted((Path(__file__).parents[2] / "collections").glob("*.yaml"))


@pytest.mark.parametrize("path", COLLECTIONS, ids=lambda path: path.stem)
def test_every_run_of_a_shipped_collection_passes_the_check_and_no_swept_key_is_inactive(path: Path) -> None:
    """Keys of the shared config may be: a report's weights of 0 for terms of the other kind of latent stand there."""
    definition = load_definition(path)
    for run in expand(definition).runs:
        answer = check_line(json.dumps(resolve_config(definition.config, run.set)))
        assert answer["errors"] == [], run.name
        assert not set(run.set) & set(answer["inactive"]), run.name

"""`slurmkit init`: make a repository ready for its first sweep."""

from pathlib import Path

import click

from slurmkit.cli.common import narrate
from slurmkit.files import write_atomic
from slurmkit.project import Project

_DEFINITION = """\
# A first sweep: 2 learning rates x 2 seeds = 4 runs of train.py.
name: example
command: ["{python}", "train.py", "{config}", "{run_dir}"]
config:
  steps: 200
  lr: 0.1
  seed: 0
axes:
  lr: {key: lr, values: [0.05, 0.2]}
  seed: {key: seed, values: [1, 2]}
resources: {cpus: 1, mem: 500M, time: 5m}
on_failure:
  oom: {resources.mem: x2, limit: 3}
"""

_TRAINER = '''\
"""The smallest trainer that slurmkit can run: config.json in, metrics.json out."""

import json
import random
import sys
from pathlib import Path

config = json.loads(Path(sys.argv[1]).read_text())
run_dir = Path(sys.argv[2])
rng = random.Random(config["seed"])
weight = 0.0
for _ in range(config["steps"]):  # least squares of y = 3 x + noise, one sample a step
    x = rng.gauss(0, 1)
    error = weight * x - (3 * x + rng.gauss(0, 0.1))
    weight -= config["lr"] * error * x
metrics = {"weight": weight, "loss/val/squared_error": (weight - 3) ** 2}
(run_dir / "metrics.json").write_text(json.dumps(metrics))
'''


@click.command()
def init() -> None:
    """Make this repository ready: a definition, a tiny trainer, and runs/ in .gitignore.

    Files that exist are left as they are.
    """
    project = Project.discover()
    _write(project.root / "collections" / "example.yaml", _DEFINITION)
    _write(project.root / "train.py", _TRAINER)
    ignore = project.root / ".gitignore"
    content = ignore.read_bytes() if ignore.exists() else b""  # bytes: a file name in it may be in any encoding
    if not {b"runs/", b"/runs/", b"runs", b"/runs"} & set(content.splitlines()):
        between = b"" if not content or content.endswith(b"\n") else b"\n"
        write_atomic(ignore, content + between + b"/runs/\n")
        narrate(f"added /runs/ to {ignore}")
    narrate("next:")
    if not (project.root / ".git").exists():
        narrate("  git init")
    narrate("  git add collections train.py .gitignore && git commit -m 'Add a first sweep'")
    narrate("  slurmkit collection create collections/example.yaml --submit --wait")
    narrate("  slurmkit aggregate")


def _write(path: Path, content: str) -> None:
    if path.exists():
        narrate(f"left alone: {path}")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content.encode())
    narrate(f"wrote {path}")

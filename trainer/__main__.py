"""Command line of the trainer: ``run`` one configuration, or ``check`` many."""

import argparse
import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.stop import StopRequest

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.records import RunRecords


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        the exit code: 0 done, 1 failed, 2 a configuration that cannot be used, 75 stopped and to be started again.
    """
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="carry out one run")
    run.add_argument("config", type=Path, help="configuration, JSON")
    run.add_argument("--run-dir", type=Path, required=True, help="everything is written below this folder")
    verbs.add_parser("check", help="read configurations as lines of JSON, answer one line each")
    asked = parser.parse_args(arguments)
    if asked.verb == "check":
        return check()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is a kill: no traceback, and what was saved is whole
    stop = StopRequest()
    stop.install()
    return carry_out(asked.config, asked.run_dir, stop)


def check() -> int:
    """Answer each line of standard input with its errors and its keys without effect."""
    from trainer.check import check_line

    for line in sys.stdin:
        if line.strip():
            print(json.dumps(check_line(line)), flush=False)
    return 0


def carry_out(config_path: Path, run_dir: Path, stop: StopRequest) -> int:
    """Carry out one run and record how it ended."""
    from trainer.check import load_config
    from trainer.errors import ConfigError, TrainerError
    from trainer.records import sole_writer

    try:
        config = load_config(config_path)
        with sole_writer(run_dir) as records:
            return _attempt(config, config_path, records, stop)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except TrainerError as error:
        print(error, file=sys.stderr)
        return 1


def _attempt(config: "Config", config_path: Path, records: "RunRecords", stop: StopRequest) -> int:
    """Run, and put on record what fails."""
    from trainer.errors import explanation
    from trainer.tracking import open_tracking

    try:
        records.tracking = open_tracking(config.report_to, records.folder, config.model_dump(mode="json"))
        _run(config, config_path, records, stop)
    except Exception as error:  # whatever it is: it is put on record, and raised again where one line does not do
        _record_failure(records, error)
        told = explanation(error, records.folder)
        if told is None:
            raise
        print(told, file=sys.stderr)
        return 1
    return 0


def _record_failure(records: "RunRecords", error: Exception) -> None:
    """Write down what ended a run, with its evidence."""
    from trainer.environment import memory_figures
    from trainer.errors import DivergedError, failure_kind

    kind = failure_kind(error)
    evidence: dict[str, object] = {}
    if isinstance(error, DivergedError):
        step = error.checkpoint_step
        checkpoint = None if step is None else {"step": step, "path": str(records.state_path)}
        evidence = {"step": error.step, "term": error.term, "value": str(error.value), "last_checkpoint": checkpoint}
    elif kind == "oom":
        evidence = {"memory": memory_figures()}
    try:
        records.error(kind=kind, error=error, **evidence)
    except OSError as unwritten:
        print(f"{records.folder}: error.json cannot be written: {unwritten.strerror}. Make room.", file=sys.stderr)


def _run(config: "Config", config_path: Path, records: "RunRecords", stop: StopRequest) -> None:
    from trainer.environment import allowed_threads, choose_device, provenance, quick_imports

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with quick_imports():
        import torch
        from transformers.utils import logging

        if config.mode == "base":
            from trainer.base import run_base as run_mode
        else:
            from trainer.disentangle import run_disentangle as run_mode
    logging.disable_progress_bar()
    torch.set_num_threads(allowed_threads())
    metrics = run_mode(config, records, stop)
    config_sha256 = hashlib.sha256(config_path.read_bytes()).hexdigest()
    whole = {**metrics, **provenance(config_sha256, choose_device(config.device)), "seed": config.seed}
    records.metrics({**whole, "mode": config.mode, "task": config.task.name, "status": "completed"})


if __name__ == "__main__":
    sys.exit(main())

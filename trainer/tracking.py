"""Trackers that are told the series of a run beside its own records: TensorBoard, W&B, trackio.

A tracker is an extra: it is imported only if it is asked for, hears of a point after that is on disk, and if it fails
the run goes on without it.
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}
"""What has to be installed for each tracker."""

PROJECT = "slurmkit"
"""Project that runs are filed under where a tracker wants one."""


class Tracker(Protocol):
    """What is told of a run."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take one point of the series."""
        ...

    def close(self) -> None:
        """Take it that nothing more comes."""
        ...


class Tracking:
    """Passes points on to trackers, and drops one that fails.

    Args:
        trackers: by name.
    """

    def __init__(self, trackers: Iterable[tuple[str, Tracker]]) -> None:
        self._trackers = dict(trackers)
        self._last_step = 0

    def point(self, point: Mapping[str, float | int | None]) -> None:
        """Pass on a point of the series: its ``step``, and the numbers beside it."""
        self._last_step = int(point["step"] or 0)
        values = {name: value for name, value in point.items() if name != "step" and value is not None}
        self._tell(lambda tracker: tracker.log(self._last_step, values))

    def end(self, metrics: Mapping[str, Any]) -> None:
        """Pass on the numbers among the final metrics, under ``final/``, and end."""
        numbers = {f"final/{name}": float(v) for name, v in metrics.items() if isinstance(v, int | float)}
        self._tell(lambda tracker: tracker.log(self._last_step, numbers))
        self._tell(lambda tracker: tracker.close())

    def _tell(self, message: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                message(tracker)
            except Exception as error:  # a foreign service's, of any kind: the run matters more
                del self._trackers[name]
                print(f"report_to: {name} failed and is left out from now on: {error}", file=sys.stderr)


def missing_packages(names: Iterable[str]) -> list[str]:
    """Return one line for each tracker that is asked for and not installed."""
    return [
        f"report_to: {name} is asked for, but the package {PACKAGES[name]} is not installed. "
        f"pip install {PACKAGES[name]}, or leave it out."
        for name in names
        if importlib.util.find_spec(PACKAGES[name]) is None
    ]


def open_tracking(names: Iterable[str], folder: Path, config: Mapping[str, Any]) -> Tracking:
    """Start the trackers; one that does not start is left out.

    Args:
        names: which; their packages are installed (`missing_packages`).
        folder: the run's directory; each tracker writes below it.
        config: of the run, to be shown.
    """
    started: list[tuple[str, Tracker]] = []
    for name in names:
        try:
            started.append((name, TRACKERS[name](folder, config)))
        except Exception as error:  # as in `Tracking._tell`
            print(f"report_to: {name} does not start and is left out: {error}", file=sys.stderr)
    return Tracking(started)


class TensorBoard:
    """Event files below ``tensorboard/``."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        del config  # stands in the run's directory
        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take one point of the series; on disk at once, since a run may be killed."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class Wandb:
    """W&B, offline unless the environment says otherwise (``WANDB_MODE``); ``wandb sync`` uploads a run later."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        import wandb  # pyright: ignore[reportMissingImports]  # an extra

        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.name,
            dir=str(folder),
            config=dict(config),
            mode=mode,
            settings=wandb.Settings(console="off", disable_git=True, silent=True),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take one point of the series."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


class Trackio:
    """trackio's local database, below ``trackio/`` unless ``TRACKIO_DIR`` says otherwise."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(folder / "trackio"))
        import trackio  # pyright: ignore[reportMissingImports]  # an extra

        self._run = trackio.init(project=PROJECT, name=folder.name, config=dict(config), embed=False)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take one point of the series."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


TRACKERS: Mapping[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "trackio": Trackio,
}

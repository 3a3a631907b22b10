"""Curves for TensorBoard and MLflow, behind one small interface. Both are optional, and both write files alone.

A tracker is told each epoch's line of the log. It may be told a line again: a reader still sees one curve. Where a line
differs from what was told before at its epoch, training was begun anew there, and the later part of that role's old
curve is dropped. Trackers never change training: they draw no random number and read no tensor.

Both packages write their own files as training goes on, so these are not written whole or not at all; the log of the
training (``log.jsonl``) stays the record.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from dermdistill.atomic import make_folder
from dermdistill.errors import ConfigError
from dermdistill.training.mlflow_tracker import MlflowTracker
from dermdistill.training.tracked import FOLDER, missing_package, numbers, refused, settings_text


class Tracker(Protocol):
    """Something that is told how a training goes."""

    def start(self, settings: Mapping[str, Any]) -> None:
        """Training starts, or goes on, with these settings (JSON-able, nested)."""

    def epoch(self, role: str, line: Mapping[str, Any]) -> None:
        """One epoch of ``role`` (``teacher`` or ``student``) is done; ``line`` is its line of the log."""

    def close(self, *, failed: bool = False) -> None:
        """Nothing more comes; ``failed`` where an error ended the training."""


class TensorBoardTracker:
    """Event files under ``tracking/tensorboard/ROLE``; TensorBoard keeps values as float32.

    A folder a role, because TensorBoard's ``purge_step`` drops the later points of all curves in a folder.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, run_name: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing_package("tensorboard", error) from error
        self.folder = folder / FOLDER / "tensorboard"
        self.text = f"    run: {run_name}"
        self.new_writer: Callable[..., Any] = SummaryWriter
        self.writers: dict[str, Any] = {}
        self.last: dict[str, int] = {}

    def start(self, settings: Mapping[str, Any]) -> None:
        """Keep the settings; they are written beside each role's curves."""
        lines = [f"    {key}: {value}" for key, value in settings_text(settings).items()]
        self.text = "\n".join([self.text, *lines])

    def epoch(self, role: str, line: Mapping[str, Any]) -> None:
        """Write one point a curve.

        Raises:
            OutputError: it cannot be written.
        """
        step = int(line["epoch"])
        with refused("tensorboard", self.folder):
            if role not in self.writers or step <= self.last[role]:
                self._open(role, step)
            for name, value in numbers(role, line).items():
                self.writers[role].add_scalar(name, value, step)
            self.writers[role].flush()
        self.last[role] = step

    def _open(self, role: str, step: int) -> None:
        """A new event file; readers drop what earlier files of this role hold from ``step`` on."""
        if role in self.writers:
            self.writers[role].close()
        self.writers[role] = self.new_writer(make_folder(self.folder / role), purge_step=step)
        self.writers[role].add_text("settings", self.text, step)

    def close(self, *, failed: bool = False) -> None:
        """Close the event files."""
        with refused("tensorboard", self.folder):
            for writer in self.writers.values():
                writer.close()


TRACKERS: dict[str, Callable[[Path, str], Tracker]] = {"tensorboard": TensorBoardTracker, "mlflow": MlflowTracker}


class _Trackers:
    """Several trackers as one, or none at all."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self.trackers = trackers

    def start(self, settings: Mapping[str, Any]) -> None:
        for tracker in self.trackers:
            tracker.start(settings)

    def epoch(self, role: str, line: Mapping[str, Any]) -> None:
        for tracker in self.trackers:
            tracker.epoch(role, line)

    def close(self, *, failed: bool = False) -> None:
        """Close all, also where one cannot be closed."""
        with ExitStack() as stack:
            for tracker in reversed(self.trackers):
                stack.callback(tracker.close, failed=failed)


@contextmanager
def open_trackers(names: Sequence[str], folder: Path, run_name: str) -> Iterator[Tracker]:
    """One tracker that forwards to all those named, closed at the end of the block; with no names it does nothing.

    Args:
        names: of ``TRACKERS``.
        folder: the run's folder; trackers write into its folder ``tracking``.
        run_name: how MLflow calls the run.

    Raises:
        ConfigError: an unknown name, or a package that is not installed.
        OutputError: a tracker cannot write.
    """
    unknown = sorted(set(names) - set(TRACKERS))
    if unknown:
        raise ConfigError(f"tracking: unknown {', '.join(unknown)}", rule=f"trackers: {', '.join(TRACKERS)}")
    trackers = _Trackers([TRACKERS[name](folder, run_name) for name in dict.fromkeys(names)])
    try:
        yield trackers
    except BaseException:
        trackers.close(failed=True)
        raise
    trackers.close()

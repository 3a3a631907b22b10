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
from dermdistill.run import RECORD
from dermdistill.training.mlflow_tracker import MlflowTracker
from dermdistill.training.tracked import missing_package, numbers, refused, settings_text

FOLDER = "tracking"
# Trainings of a run that share its tracking folder: one after the other, each with a role of its own.
SHARING = ("teacher", "student")


def tracking_place(training: Path) -> tuple[Path, str]:
    """Where the trackers of a training write, and how MLflow calls its run.

    Teacher and student of a run share ``RUN/tracking``. Any other training of a run or study, a control or a trial, has
    ``RUN/tracking/PLACE``, where PLACE is its folder's path in the run: many of these have one role, and several
    processes may train them at once. No stage counts ``RUN/tracking`` among its files, so that a viewer that touches a
    tracker's file makes no stage undone. Outside a run a training has its own ``tracking``.

    Args:
        training: folder of the training. The run is the nearest folder above it with a ``run.json``.

    Returns:
        the folder, absolute, and the name.
    """
    training = training.absolute()
    run = next((above for above in training.parents if (above / RECORD).is_file()), training)
    place = training.relative_to(run)
    own = Path() if place.as_posix() in SHARING else place
    return run / FOLDER / own, (Path(run.name) / own).as_posix()


class Tracker(Protocol):
    """Something that is told how a training goes."""

    def start(self, settings: Mapping[str, Any]) -> None:
        """Training starts, or goes on, with these settings (JSON-able, nested)."""

    def epoch(self, role: str, line: Mapping[str, Any]) -> None:
        """One epoch of ``role`` (``teacher`` or ``student``) is done; ``line`` is its line of the log."""

    def close(self, *, failed: bool = False) -> None:
        """Nothing more comes; ``failed`` where an error ended the training."""


class TensorBoardTracker:
    """Event files under ``tensorboard/ROLE`` of a tracking folder; TensorBoard keeps values as float32.

    A folder a role, because TensorBoard's ``purge_step`` drops the later points of all curves in a folder.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, run_name: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing_package("tensorboard", error) from error
        self.folder = folder / "tensorboard"
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
        folder: where they write, see ``tracking_place``.
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

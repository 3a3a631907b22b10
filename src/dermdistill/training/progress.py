"""What a person sees while a network trains: a bar with the time left, and one line an epoch."""

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class StepProgress:
    """A bar over steps of equal work.

    Args:
        title: what is done.
        steps: how many.
        done: steps already behind.
        console: where to; standard error by default.
    """

    def __init__(self, title: str, *, steps: int, done: int = 0, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.bar = Progress(
            TextColumn(f"  {title}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task(title, total=steps, completed=done)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def step(self) -> None:
        """One step is done."""
        self.bar.advance(self.task)


class TrainingProgress(StepProgress):
    """A bar over all steps of a training; without a terminal only the epochs' lines are printed.

    Args:
        role: ``teacher`` or ``student``.
        steps: of the whole training.
        done: steps already behind a resumed one.
        epochs: of the whole training.
        monitor: the validation figure that chooses the best epoch.
        console: where to; standard error by default.
    """

    def __init__(
        self, role: str, *, steps: int, done: int, epochs: int, monitor: str, console: Console | None = None
    ) -> None:
        super().__init__(role, steps=steps, done=done, console=console)
        self.role = role
        self.epochs = epochs
        self.monitor = monitor

    def epoch(self, record: dict[str, Any]) -> None:
        """One epoch is done; ``record`` is its line of the log."""
        star = " *" if record["best"] else ""
        self.console.print(
            f"  {self.role} epoch {record['epoch'] + 1}/{self.epochs}  loss {record['loss']:.4f}  "
            f"validation {self.monitor} {record['val'][self.monitor]:.4f}{star}  {record['seconds']:.0f} s",
            highlight=False,
        )

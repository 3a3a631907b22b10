"""What a person sees while a network trains: a bar with the time left, and one line an epoch."""

from typing import Any

from rich.console import Console

from dermdistill.progress import StepProgress


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

"""What can go wrong, as one tree of exceptions.

A user's mistake never ends in a bare traceback: the command line prints the message of any of these and ends with
status 2.

DermdistillError
├── ConfigError            a recipe, key or option that cannot work
├── DataError              faults in images, metadata or splits, all of them at once
├── WeightsError           weights that were asked for and cannot be had
├── TrainingError          training that must not go on
│   ├── NonFiniteLossError   a loss term is NaN or infinite
│   └── DeadTermError        a loss term stays zero or moves no weight
├── TargetsError           stored teacher targets that are stale, foreign or damaged
├── MissingExtraError      a package that only an extra brings
├── ExportError            an exported file that does not do what its source does
│   └── GateError            an exported file that has lost too much
├── BundleError            a bundle that is incomplete or was changed
├── RunFolderError         a run folder that cannot be used as asked
└── OutputError            a result that cannot be written
"""

from collections.abc import Sequence


class DermdistillError(Exception):
    """Base of all errors that a user can mend.

    Args:
        problem: what is wrong, with the file and the value.
        rule: what would be right.
        next_step: what to do about it.
    """

    def __init__(self, problem: str, *, rule: str = "", next_step: str = "") -> None:
        self.problem = problem
        self.rule = rule
        self.next_step = next_step
        parts = [problem]
        if rule:
            parts.append(f"Rule: {rule}")
        if next_step:
            parts.append(f"Next: {next_step}")
        super().__init__("\n".join(parts))


class ConfigError(DermdistillError):
    """A recipe, key or option that cannot work."""


class DataError(DermdistillError):
    """Faults in a data set, every one listed with its row or file.

    Args:
        faults: one line a fault, such as ``HAM10000_metadata.csv row 7: unknown diagnosis 'melanom'``.
    """

    def __init__(self, problem: str, *, faults: Sequence[str] = (), rule: str = "", next_step: str = "") -> None:
        self.faults = tuple(faults)
        listed = "".join(f"\n  - {fault}" for fault in self.faults)
        super().__init__(problem + listed, rule=rule, next_step=next_step)
        self.problem = problem


class WeightsError(DermdistillError):
    """Weights that were asked for and cannot be had."""


class TrainingError(DermdistillError):
    """Training that must not go on."""


class NonFiniteLossError(TrainingError):
    """A loss term, or a gradient, is NaN or infinite."""


class DeadTermError(TrainingError):
    """A loss term that stays zero or moves no weight."""


class TargetsError(DermdistillError):
    """Stored teacher targets that are stale, foreign or damaged."""


class MissingExtraError(DermdistillError):
    """A package that only an extra brings, and that was asked for."""


class ExportError(DermdistillError):
    """An exported file that does not do what its source does."""


class GateError(ExportError):
    """An exported file that has lost more than the recipe allows, or is larger."""


class BundleError(DermdistillError):
    """A bundle that is incomplete or whose bytes were changed."""


class RunFolderError(DermdistillError):
    """A run folder that cannot be used as asked."""


class OutputError(DermdistillError):
    """A result that cannot be written: read-only folder, full disk, name taken."""

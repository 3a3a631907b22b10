"""The record of an epoch: each loss term's value, weight and gradient norm; a dead or infinite one stops the run."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dermdistill.distill.objective import Terms
from dermdistill.errors import DeadTermError, NonFiniteLossError


def gradient_norms(terms: Terms, parameters: Iterable[nn.Parameter]) -> dict[str, float]:
    """Euclidean norm of each unweighted term's own gradient; the graph is kept for the step that follows."""
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    norms = {}
    for name, term in terms.items():
        if not term.value.requires_grad:
            norms[name] = 0.0
            continue
        gradients = torch.autograd.grad(term.value, wanted, retain_graph=True, allow_unused=True)
        squares = [gradient.float().square().sum() for gradient in gradients if gradient is not None]
        norms[name] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    return norms


class EpochRecord:
    """Sums of one epoch's terms, kept on the device so that no step waits for them.

    Args:
        role: ``teacher`` or ``student``, for messages.
        epoch: counted from 0.
    """

    def __init__(self, role: str, epoch: int) -> None:
        self.role = role
        self.epoch = epoch
        self.steps = 0
        self.images = 0
        self.sums: dict[str, Tensor] = {}
        self.weights: dict[str, float] = {}
        self.grad_norms: dict[str, float] = {}
        self.total_norm: Tensor | None = None

    def add(self, terms: Terms, images: int) -> None:
        """Take in the terms of one step."""
        for name, term in terms.items():
            value = term.value.detach()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.weights[name] = term.weight
        self.steps += 1
        self.images += images

    def add_gradient_norm(self, norm: Tensor) -> None:
        """Take in the norm of the whole gradient of one step, before clipping."""
        self.total_norm = norm.detach() if self.total_norm is None else self.total_norm + norm.detach()

    def check_finite(self) -> None:
        """Stop at the first NaN or infinity.

        Raises:
            NonFiniteLossError: names the term, or says that it is the gradient.
        """
        broken = [name for name, value in self.sums.items() if not bool(torch.isfinite(value))]
        if not broken and self.total_norm is not None and not bool(torch.isfinite(self.total_norm)):
            broken = ["the gradient (every loss term is finite)"]
        if broken:
            raise NonFiniteLossError(
                f"{self.role}, epoch {self.epoch + 1}, step {self.steps}: not finite: {', '.join(broken)}",
                rule="every loss term and gradient is a finite number",
                next_step=f"lower {self.role}.learning_rate, or set precision=32-true; this epoch was not kept",
            )

    def check_alive(self) -> None:
        """Stop where a term was zero for the whole epoch or moved no weight at its start.

        Raises:
            DeadTermError: names the term.
        """
        for name, value in self.sums.items():
            reason = ""
            if self.weights[name] > 0 and float(value.abs()) == 0:
                reason = "its value was zero throughout the epoch"
            elif self.weights[name] > 0 and self.grad_norms.get(name) == 0:
                reason = "it has no gradient"
            if reason:
                raise DeadTermError(
                    f"{self.role}, epoch {self.epoch + 1}: loss term {name!r} is dead: {reason}",
                    rule="a term with a weight changes the model",
                    next_step=f"set its weight to 0 ({self.role}.loss or {self.role}.distill), or mend it",
                )

    def summary(self) -> dict[str, Any]:
        """Means over the epoch, as JSON-able values."""
        means = {name: float(value) / self.steps for name, value in self.sums.items()}
        return {
            "images": self.images,
            "loss": sum(self.weights[name] * mean for name, mean in means.items()),
            "grad_norm": 0.0 if self.total_norm is None else float(self.total_norm) / self.steps,
            "terms": {
                name: {
                    "value": mean,
                    "weight": self.weights[name],
                    "grad_norm": self.grad_norms.get(name, 0.0),
                }
                for name, mean in means.items()
            },
        }

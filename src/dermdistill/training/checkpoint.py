"""Everything that a resumed run needs, in one safetensors file that is written whole or not at all."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.optim import Optimizer

from dermdistill.atomic import write_bytes
from dermdistill.errors import RunFolderError


@dataclass
class Progress:
    """Where training stands after a whole epoch.

    Attributes:
        inputs: hash of what the training was started with.
        epochs_done: whole epochs.
        step: optimizer steps so far.
        best_value: best validation figure.
        best_epoch: its epoch, counted from 0; -1 before the first.
        seconds: of training so far.
        log: one JSON-able record an epoch.
    """

    inputs: str
    epochs_done: int = 0
    step: int = 0
    best_value: float = float("-inf")
    best_epoch: int = -1
    seconds: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)


def flatten_optimizer(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's per-parameter tensors under names ``index.key``."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": value for index, entries in state.items() for key, value in entries.items()}


def restore_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what ``flatten_optimizer`` gave, each tensor in the memory layout of its parameter."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, entries in optimizer.state.items():
        for key, value in entries.items():
            if value.shape == parameter.shape:
                entries[key] = torch.empty_like(parameter).copy_(value)


def save_checkpoint(path: Path, progress: Progress, parts: dict[str, dict[str, Tensor]]) -> None:
    """Write progress and named tensors; the previous checkpoint stands until this one is complete.

    Args:
        path: a ``.safetensors`` file.
        progress: goes into the file's header.
        parts: e.g. ``{"model": state, "average": state}``.
    """
    tensors: dict[str, Tensor] = {}
    places: set[int] = set()
    for part, state in parts.items():
        for name, value in state.items():
            kept = value.detach().cpu().contiguous()
            # Modules that share a buffer (a quantizer's, say) get a copy each: the format refuses shared memory.
            tensors[f"{part}/{name}"] = kept.clone() if kept.data_ptr() in places else kept
            places.add(kept.data_ptr())
    # infinity has no JSON form, so the header is Python's superset of it
    metadata = {"progress": json.dumps(asdict(progress))}
    # bytes, not `save_file`: that reports a full disk as a damaged file
    write_bytes(path, save(tensors, metadata=metadata))


def load_checkpoint(path: Path, inputs: str) -> tuple[Progress, dict[str, dict[str, Tensor]]]:
    """Read what ``save_checkpoint`` wrote.

    Raises:
        RunFolderError: the file is damaged, or belongs to a training with other inputs.
    """
    next_step = f"delete {path.name} to train that stage from its start, or use another --out"
    try:
        with safe_open(path, framework="pt") as file:
            progress = Progress(**json.loads(file.metadata()["progress"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{path}: damaged checkpoint ({error})", next_step=next_step) from error
    if progress.inputs != inputs:
        raise RunFolderError(
            f"{path}: belongs to a training with other settings, data or teacher",
            rule="a checkpoint resumes only the training that wrote it",
            next_step=next_step,
        )
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        part, key = name.split("/", 1)
        parts.setdefault(part, {})[key] = value
    return progress, parts

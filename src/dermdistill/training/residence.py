"""Where stored images live while a network trains: in the device's memory where they fit, else on the host."""

import torch
from torch import Tensor

from dermdistill.data.augment import Images

# Of the device's free memory: the rest is for weights, activations and the optimizer.
LARGEST_SHARE = 0.5


def default_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resident(images: Images, device: torch.device, *, free_bytes: int | None = None) -> Images:
    """The images on the device if they take at most half of its free memory, otherwise as they are.

    Views are then made on the host, batch by batch, and moved: the same views, more slowly.

    Args:
        images: uint8 [N, S, S, 3].
        device: of the training; a CPU keeps the memory map.
        free_bytes: of the device; by default asked of CUDA.
    """
    if device.type == "cpu" or isinstance(images, Tensor):
        return images
    if free_bytes is None:
        free_bytes = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    return torch.tensor(images, device=device) if images.nbytes <= LARGEST_SHARE * free_bytes else images

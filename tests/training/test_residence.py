"""Images move to a device where they fit, and stay on the host where they do not."""

import numpy as np
import torch

from dermdistill.training.residence import resident

IMAGES = np.zeros((10, 4, 4, 3), dtype=np.uint8)
META = torch.device("meta")


def test_images_that_fit_in_half_of_the_free_memory_move() -> None:
    moved = resident(IMAGES, META, free_bytes=2 * IMAGES.nbytes)
    assert isinstance(moved, torch.Tensor) and moved.device == META and tuple(moved.shape) == IMAGES.shape


def test_images_that_do_not_fit_stay() -> None:
    assert resident(IMAGES, META, free_bytes=2 * IMAGES.nbytes - 1) is IMAGES


def test_a_cpu_keeps_the_memory_map() -> None:
    assert resident(IMAGES, torch.device("cpu")) is IMAGES


def test_what_moved_before_stays_where_it_is() -> None:
    tensor = torch.from_numpy(IMAGES)
    assert resident(tensor, META, free_bytes=0) is tensor

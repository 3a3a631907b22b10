"""The order of training images: a pure function of (seed, epoch), so a resumed run sees what an unbroken one sees."""

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
_STREAM = 0x0DE5


def epoch_order(labels: IntArray, *, seed: int, epoch: int, balanced: bool) -> IntArray:
    """Positions of training images in the order of an epoch.

    Args:
        labels: class index of each training image, [N].
        seed: of the run.
        epoch: counted from 0.
        balanced: draw N images with replacement so that classes come equally often; otherwise a permutation.

    Returns:
        int64 [N].
    """
    generator = np.random.default_rng([_STREAM, seed, epoch])
    if not balanced:
        return generator.permutation(len(labels)).astype(np.int64)
    counts = np.bincount(labels)
    weights = 1.0 / counts[labels]
    return generator.choice(len(labels), size=len(labels), p=weights / weights.sum()).astype(np.int64)


def batches(order: IntArray, batch_size: int) -> list[IntArray]:
    """An epoch's order cut in batches; a last incomplete one is left out unless it is the only one.

    Orders differ from epoch to epoch, so over a run no image is left out more than another.
    """
    if len(order) <= batch_size:
        return [order]
    return [order[start : start + batch_size] for start in range(0, len(order) - batch_size + 1, batch_size)]

"""Which training images set the ranges of a quantized network: a stratified sample."""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def calibration_rows(rows: Ints, labels: Ints, count: int, seed: int) -> Ints:
    """A seeded sample of different images in which each class has its share, and at least one image.

    Args:
        rows: of training images, [N]; repeats are taken as one.
        labels: class of each row, [N].
        count: images wanted; fewer where there are fewer.
        seed: of the draw.

    Returns:
        sorted rows, [count] or a few more where small classes were rounded up.
    """
    different, first = np.unique(rows, return_index=True)
    classes = labels[first]
    if count >= len(different):
        return different
    generator = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(classes):
        members = different[classes == label]
        share = max(1, round(count * len(members) / len(different)))
        chosen.append(generator.choice(members, size=share, replace=False))
    return np.sort(np.concatenate(chosen))

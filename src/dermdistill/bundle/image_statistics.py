"""What a picture looks like in a few named numbers: colour, light, sharpness, grain, direction, middle and border.

They know nothing of diagnoses. ``image_gate`` compares them with those of the training pictures, on a server or a
phone, so they are numpy alone and quick. All but colour and light depend on the side in pixels: compare pictures of one
size. Channels are taken to [0, 1] first.
"""

import numpy as np
import numpy.typing as npt

from dermdistill.errors import DataError

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]

SMALLEST = 16
BLOCK_PIXELS = 200_000  # of one pass: its planes stay in the processor's cache
BINS = 64
TINY = 1e-8  # below any energy that eight bits can show: one step in one of a million pixels
MOST_CORRELATED = 0.995  # keeps Fisher's z finite
RARE = 1e-3  # shares below it are alike
DARK, BRIGHT, SATURATED = 0.08, 0.95, 0.65

NAMES: tuple[str, ...] = (
    "luminance",  # mean of (R + G + B) / 3
    "red_green",  # mean of R - G
    "yellow_blue",  # mean of (R + G) / 2 - B
    "log_luminance_spread",  # log of the variance over cells of 4 x 4 pixels
    "log_red_green_spread",
    "log_yellow_blue_spread",
    "luminance_red_green",  # correlation over those cells, as Fisher's z
    "luminance_yellow_blue",
    "red_green_yellow_blue",
    "luminance_p05",  # percentiles over cells of 2 x 2
    "luminance_p50",
    "luminance_p95",
    "luminance_entropy",  # of a histogram of 64 bins, nats
    "log_dark_share",  # of cells of 2 x 2 with luminance below .08
    "log_bright_share",  # above .95
    "log_saturated_share",  # (max - min) / max of the channels above .65
    "log_not_skin_share",  # hue outside R > B and R > G - .02
    "middle_luminance",  # mean of the middle (half the side across) less that of the border
    "middle_red_green",
    "middle_yellow_blue",
    "log_uneven_luminance",  # of the four quarters
    "log_gradient",  # log of the mean squared step between neighbours: pixels, halves, quarters of the resolution
    "log_gradient_half",
    "log_gradient_quarter",
    "log_sharpness",  # log of the variance of the Laplacian (Pech-Pacheco et al., ICPR 2000)
    "log_colour_grain",  # log of the squared step in colour between cells of 2 x 2
    "log_direction",  # one direction only: coherence of the structure tensor (Bigun and Granlund 1987)
    "log_axes",  # log of energy along the rows and columns over that along the diagonals
    "log_tails",  # log of the kurtosis of steps: few edges on plain ground
)


def statistics(images: Images) -> Floats:
    """The numbers of ``NAMES`` for each picture.

    Args:
        images: uint8 [N, S, S, 3], RGB, S at least 16; a memory map is read block by block.

    Returns:
        float64 [N, F], finite for every picture.

    Raises:
        DataError: another shape or type.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or images.shape[1] != images.shape[2]:
        raise DataError(f"images are {images.dtype} {list(images.shape)}", rule="uint8 [N, S, S, 3]")
    side = images.shape[1]
    if side < SMALLEST:
        raise DataError(f"images have a side of {side} pixels", rule=f"at least {SMALLEST}")
    values = np.empty((len(images), len(NAMES)))
    step = max(1, BLOCK_PIXELS // side**2)
    for start in range(0, len(images), step):
        values[start : start + step] = _block(np.asarray(images[start : start + step]))
    return values


def column(values: Floats, name: str) -> Floats:
    """The statistic ``name`` of each picture, [N]."""
    return values[:, NAMES.index(name)]


def _block(images: Images) -> Floats:
    luminance = _luminance(images)
    channels = _half_channels(images)
    half = _opponent(channels)
    quarter = _halved(half)
    columns = (
        *quarter.mean(axis=(2, 3)),
        *_spreads(quarter),
        *_light(half[0]),
        *_rare_pixels(channels),
        *_middle(quarter),
        *(_log(_energy(plane)) for plane in (luminance, half[0], quarter[0])),
        _log(_laplacian(luminance)),
        _log(_energy(half[1]) + _energy(half[2])),
        *_directions(half[0]),
    )
    return np.stack(columns, axis=1).astype(np.float64)


def _log(values: npt.ArrayLike) -> Singles:
    return np.log(np.asarray(values) + TINY)


def _luminance(images: Images) -> Singles:
    """Mean of the channels of every pixel, [N, S, S]."""
    total = images[..., 0].astype(np.float32)
    total += images[..., 1]
    total += images[..., 2]
    total *= np.float32(1 / 765)
    return total


def _half_channels(images: Images) -> Singles:
    """R, G, B at half the resolution, [3, N, S // 2, S // 2]: whole numbers until the last step, for speed."""
    side = images.shape[1] // 2 * 2
    sums = np.empty((3, len(images), side // 2, side // 2), dtype=np.uint16)
    for channel, into in enumerate(sums):
        plane = images[:, :side, :side, channel].astype(np.uint16)
        rows = plane[:, 0::2] + plane[:, 1::2]
        np.add(rows[:, :, 0::2], rows[:, :, 1::2], out=into)
    return sums.astype(np.float32) * np.float32(1 / 1020)


def _opponent(channels: Singles) -> Singles:
    """Luminance, red against green, yellow against blue: [3, N, H, H] of R, G, B [3, N, H, H]."""
    red, green, blue = channels
    both = red + green
    return np.stack([(both + blue) / 3, red - green, both / 2 - blue])


def _halved(planes: Singles) -> Singles:
    """Means of 2 x 2 values, [3, N, H // 2, H // 2]; an odd last row or column is left out."""
    side = planes.shape[-1] // 2 * 2
    rows = planes[..., 0:side:2, :side] + planes[..., 1:side:2, :side]
    return np.asarray((rows[..., 0::2] + rows[..., 1::2]) / np.float32(4), dtype=np.float32)


def _spreads(planes: Singles) -> list[Singles]:
    """Log variances of the three planes and Fisher's z of their correlations."""
    centred = planes - planes.mean(axis=(2, 3), keepdims=True)
    flat = centred.reshape(3, planes.shape[1], -1)
    covariance = np.einsum("inp,jnp->ijn", flat, flat) / flat.shape[2]
    variance = covariance[range(3), range(3)]
    # A plane without spread correlates with nothing: the floor is far below what eight bits can show.
    pairs = [covariance[i, j] / (np.sqrt(variance[i] * variance[j]) + TINY) for i, j in ((0, 1), (0, 2), (1, 2))]
    return [*_log(variance), *(np.arctanh(MOST_CORRELATED * pair) for pair in pairs)]


def _light(luminance: Singles) -> list[Singles]:
    """Percentiles 5, 50 and 95 of luminance and its entropy, from histograms of 256 and 64 bins."""
    count = len(luminance)
    codes = (luminance.reshape(count, -1) * np.float32(255) + np.float32(0.5)).astype(np.int64)
    codes += 256 * np.arange(count)[:, None]
    histogram = np.bincount(codes.ravel(), minlength=256 * count).reshape(count, 256) / codes.shape[1]
    below = histogram.cumsum(axis=1)
    percentiles = [(below < share - 1e-9).sum(axis=1) / 255 for share in (0.05, 0.5, 0.95)]
    coarse = histogram.reshape(count, BINS, -1).sum(axis=2)
    entropy = -(coarse * np.log(coarse + TINY)).sum(axis=1)
    levels = np.arange(256) / 255
    shares = [histogram[:, levels < DARK].sum(axis=1), histogram[:, levels > BRIGHT].sum(axis=1)]
    return [*percentiles, entropy, *(np.log(share + RARE) for share in shares)]


def _rare_pixels(channels: Singles) -> list[Singles]:
    """Log shares of pixels with strong colour, and with a hue that no skin has."""
    red, green, blue = channels
    most = np.maximum(np.maximum(red, green), blue)
    least = np.minimum(np.minimum(red, green), blue)
    strong = most - least > np.float32(SATURATED) * most
    strange = (red <= blue) | (red <= green - np.float32(0.02))
    return [np.log(mask.mean(axis=(1, 2)) + RARE) for mask in (strong, strange)]


def _middle(planes: Singles) -> list[Singles]:
    """Middle less border of the three planes, and how uneven the light of the four quarters is."""
    side = planes.shape[-1]
    line = np.abs((np.arange(side) + 0.5) / side - 0.5)
    inside = (np.hypot(*np.meshgrid(line, line)) < 0.25).astype(np.float32)
    border = (np.maximum(*np.meshgrid(line, line)) > min(0.4, 0.5 - 1 / side)).astype(np.float32)
    weights = inside / inside.sum() - border / border.sum()
    contrast = planes.reshape(3, planes.shape[1], -1) @ weights.ravel()
    cut = side // 2
    quarters = [planes[0][:, rows, columns].mean(axis=(1, 2)) for rows in _ends(cut) for columns in _ends(cut)]
    return [*contrast, _log(np.var(quarters, axis=0))]


def _ends(cut: int) -> tuple[slice, slice]:
    return slice(None, cut), slice(-cut, None)


def _mean_square(steps: Singles) -> Singles:
    flat = steps.reshape(len(steps), -1)
    return np.asarray(np.einsum("np,np->n", flat, flat) / flat.shape[1], dtype=np.float32)


def _energy(plane: Singles) -> Singles:
    """Mean squared step between neighbours, along rows and columns."""
    return _mean_square(np.diff(plane, axis=1)) + _mean_square(np.diff(plane, axis=2))


def _laplacian(plane: Singles) -> Singles:
    values = -4 * plane[:, 1:-1, 1:-1]
    for neighbours in (plane[:, :-2, 1:-1], plane[:, 2:, 1:-1], plane[:, 1:-1, :-2], plane[:, 1:-1, 2:]):
        values += neighbours
    values -= values.mean(axis=(1, 2), keepdims=True)
    return _mean_square(values)


def _directions(plane: Singles) -> list[Singles]:
    """Coherence of the gradients, their preference for rows and columns, and the kurtosis of their length."""
    across = (plane[:, 1:-1, 2:] - plane[:, 1:-1, :-2]).reshape(len(plane), -1)
    down = (plane[:, 2:, 1:-1] - plane[:, :-2, 1:-1]).reshape(len(plane), -1)
    xx, yy, xy = across * across, down * down, across * down
    total = (xx + yy).mean(axis=1)
    difference, mixed = (xx - yy).mean(axis=1), 2 * xy.mean(axis=1)
    coherence = np.hypot(difference, mixed) / (total + TINY)
    # A gradient at angle t: (xx - yy)^2 is the fourth power of its length times cos^2 2t, 4 xy^2 the same of sin^2 2t.
    along, aslant = _mean_square(xx - yy), 4 * _mean_square(xy)
    kurtosis = _mean_square(xx + yy) / (total * total + TINY**2)
    return [
        np.log(coherence + 0.01),
        np.log((along + TINY**2) / (aslant + TINY**2)),
        np.log(kurtosis + 1),
    ]

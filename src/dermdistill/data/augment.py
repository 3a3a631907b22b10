"""Random views of stored images, made for a whole batch at once on the device that holds them.

A view is a pure function of (seed, epoch, row of the store): whoever shares the batch, wherever the image
stands in it, the view is the same to the last bit on a CPU. So a teacher and a student can see the same
picture in different runs, and any view can be made again. Three things give this: draws are counter-based
(``draws.py``, ``view_plan.py``); all work on a pixel is multiplication, addition or bilinear sampling (no
matrix product, whose order of sums may follow the batch); and what concerns one image is computed from that
image alone.

Order: one drawn artefact; flip, rotate, scale and shift in one sampling; colour and normalisation in one 3x3 matrix
and offset; blur; cut-out; mixup with another image's own view.

An artefact (ink, ruler, hair, dark corners, gel bubbles: ``corruptions.random_artefact``) is drawn over the stored
picture at its own size, from lengths that are shares of the side: teacher and student see the same one. It is drawn on
a CPU wherever the images live, at one to two milliseconds of one core for each picture that gets one; the others, and a
training without artefacts, pay nothing.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from dermdistill.config import AugmentConfig
from dermdistill.data.corruptions import random_artefact
from dermdistill.data.view_plan import (
    Draws,
    Floats,
    Rows,
    affine_maps,
    artefact_keys,
    blur_shares,
    colour_maps,
    cutout_boxes,
    draw,
    mixup_plan,
)
from dermdistill.errors import ConfigError, DataError
from dermdistill.preprocess import PreprocessSpec

Images = npt.NDArray[np.uint8] | Tensor

# Neighbour's and centre's weight of a 3-tap Gaussian with sigma 1 pixel.
BLUR_SIDE = float(np.exp(-0.5) / (1 + 2 * np.exp(-0.5)))
BLUR_CENTRE = 1 - 2 * BLUR_SIDE
# Pixels worked on at once on a CPU: more no longer fit its cache (up to 1.5 times as slow).
CHUNK_PIXELS = 2**15


@dataclass(frozen=True, eq=False)
class Views:
    """Augmented images of one batch, and with whom each was mixed.

    Args:
        images: float32 [B, 3, S, S], normalised.
        partners: int64 [B], store row that the image was mixed with; -1 where it was not.
        shares: float32 [B] in [0.5, 1], weight of the own image; 1 where it was not mixed.
    """

    images: Tensor
    partners: Tensor
    shares: Tensor


def warp(images: Tensor, maps: Tensor) -> Tensor:
    """Sample each image bilinearly through its map; beyond the edge it is mirrored, so no corner stays blank.

    Args:
        images: float32 [B, C, S, S].
        maps: float32 [B, 2, 3], see ``affine_maps``.

    Returns:
        float32 [B, C, S, S].
    """
    size = images.shape[-1]
    centres = (2 * torch.arange(size, device=images.device, dtype=torch.float32) + 1) / size - 1
    across = maps[:, :, 0, None] * centres
    down = maps[:, :, 1, None] * centres + maps[:, :, 2, None]
    grid = across[:, :, None, :] + down[:, :, :, None]
    return F.grid_sample(
        images, grid.permute(0, 2, 3, 1), mode="bilinear", padding_mode="reflection", align_corners=False
    )


def recolour(images: Tensor, maps: Tensor, out: Tensor) -> None:
    """Apply each image's colour map [B, 3, 4] to its pixels: float32 [B, 3, S, S] -> ``out``, of that shape.

    Each sum has three products, in an order that depends on neither the batch nor the threads; tests hold it to that.
    """
    torch.baddbmm(maps[:, :, 3:], maps[:, :, :3], images.flatten(2), out=out.view(len(out), 3, -1))


def gaussian_blur(images: Tensor) -> Tensor:
    """3x3 Gaussian, sigma 1 pixel, each channel alone, mirrored at the edge: [B, C, S, S] -> [B, C, S, S]."""
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    lines = (padded[..., :-2] + padded[..., 2:]).mul_(BLUR_SIDE).add_(padded[..., 1:-1] * BLUR_CENTRE)
    return (lines[..., :-2, :] + lines[..., 2:, :]).mul_(BLUR_SIDE).add_(lines[..., 1:-1, :] * BLUR_CENTRE)


def draw_artefacts(images: Tensor, keys: npt.NDArray[np.int64]) -> None:
    """Draw an artefact over each image with a key, in place.

    Args:
        images: float32 [B, 3, S, S], whole numbers from 0 to 255, on any device.
        keys: int64 [B], see ``view_plan.artefact_keys``.
    """
    for place in np.flatnonzero(keys >= 0):
        picture = images[place].permute(1, 2, 0).to("cpu", torch.uint8).numpy()
        drawn = torch.from_numpy(random_artefact(picture, int(keys[place])))
        images[place] = drawn.permute(2, 0, 1).to(images.device, torch.float32)


def blank_squares(images: Tensor, boxes: npt.NDArray[np.int64]) -> None:
    """Set each square (int64 [B, 3]: left, top, side) to 0, in place: the mean colour once normalised."""
    for place in np.flatnonzero(boxes[:, 2]):
        left, top, side = (int(value) for value in boxes[place])
        images[place, :, top : top + side, left : left + side] = 0.0


def _check(images: Images, rows: Rows, spec: PreprocessSpec) -> None:
    wanted = (spec.size, spec.size, 3)
    if tuple(images.shape[1:]) != wanted or str(images.dtype).removeprefix("torch.") != "uint8":
        raise ConfigError(
            f"stored images are {images.dtype} {list(images.shape)}",
            rule=f"uint8 [N, {spec.size}, {spec.size}, 3]",
        )
    if rows.size and not 0 <= int(rows.min()) <= int(rows.max()) < len(images):
        raise DataError(
            f"rows run from {rows.min()} to {rows.max()}",
            rule=f"rows of this store are 0 to {len(images) - 1}",
        )


def _gather(images: Images, rows: Rows) -> Tensor:
    """Stored pictures as float32 [B, 3, S, S] from 0 to 255, where the images live."""
    if isinstance(images, Tensor):
        picked = images[torch.from_numpy(rows).to(images.device)]
    else:
        picked = torch.from_numpy(np.asarray(images[rows]))
    return picked.permute(0, 3, 1, 2).float()


def plain_views(images: Images, rows: Rows, spec: PreprocessSpec) -> Tensor:
    """The stored pictures as a model sees them without augmentation; equals ``preprocess.normalise``.

    Args:
        images: uint8 [N, S, S, 3], the store's array or a tensor of it on any device.
        rows: int64 [B].
        spec: holds size, mean and std.

    Returns:
        float32 [B, 3, S, S] on the device of the images.

    Raises:
        ConfigError: the images are not of the spec's size.
        DataError: a row lies outside the store.
    """
    rows = np.asarray(rows, dtype=np.int64)
    _check(images, rows, spec)
    values = _gather(images, rows).contiguous()
    scale = torch.tensor(1.0 / (255.0 * np.asarray(spec.std)), dtype=torch.float32, device=values.device)
    offset = torch.tensor(-np.asarray(spec.mean) / np.asarray(spec.std), dtype=torch.float32, device=values.device)
    return values.mul_(scale[:, None, None]).add_(offset[:, None, None])


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is to be done to each image of a batch."""

    maps: Tensor
    colours: Tensor
    shares: Floats
    boxes: npt.NDArray[np.int64]
    artefacts: npt.NDArray[np.int64]


def _write_chunk(images: Tensor, plan: _Plan, part: slice, config: AugmentConfig, views: Tensor) -> None:
    """Fill ``views`` of one chunk, from float32 [b, 3, S, S] in 0 to 255."""
    # Sampling on the identity grid would round; where no geometry is asked for, pixels stay exact.
    moving = config.flip or config.rotate_degrees > 0 or config.scale > 0 or config.shift > 0
    recolour(warp(images, plan.maps[part]) if moving else images.contiguous(), plan.colours[part], views)


def _blur_some(views: Tensor, shares: Floats) -> None:
    """Blur those views whose share is above 0, in place."""
    blurred = np.flatnonzero(shares)
    if blurred.size:
        index = torch.from_numpy(blurred).to(views.device)
        weights = torch.from_numpy(shares[blurred]).to(views.device, torch.float32)[:, None, None, None]
        sharp = views[index]
        views[index] = (gaussian_blur(sharp) - sharp).mul_(weights).add_(sharp)


def _empty(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Room for views. On a CPU numpy's, which the system gives in huge pages: a fifth faster at 224 px."""
    if device.type == "cpu":
        return torch.from_numpy(np.empty(shape, dtype=np.float32))
    return torch.empty(shape, device=device)


def _own_views(images: Images, rows: Rows, draws: Draws, config: AugmentConfig, spec: PreprocessSpec) -> Tensor:
    """Each row's view before mixup: float32 [B, 3, S, S] on the device of the images."""
    device = images.device if isinstance(images, Tensor) else torch.device("cpu")
    plan = _Plan(
        maps=torch.from_numpy(affine_maps(draws, config)).to(device, torch.float32),
        colours=torch.from_numpy(colour_maps(draws, config, spec)).to(device, torch.float32),
        shares=blur_shares(draws, config),
        boxes=cutout_boxes(draws, config, spec.size),
        artefacts=artefact_keys(draws, config),
    )
    step = max(1, CHUNK_PIXELS // spec.size**2) if device.type == "cpu" else max(1, len(rows))
    views = _empty((len(rows), 3, spec.size, spec.size), device)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        gathered = _gather(images, rows[part])
        draw_artefacts(gathered, plan.artefacts[part])
        _write_chunk(gathered, plan, part, config, views[part])
    _blur_some(views, plan.shares)
    blank_squares(views, plan.boxes)
    return views


def make_views(
    images: Images,
    rows: Rows,
    *,
    epoch: int,
    seed: int,
    config: AugmentConfig,
    spec: PreprocessSpec,
    partner_rows: Rows,
) -> Views:
    """Augmented views of the given rows; see the module for what they depend on.

    A row that comes twice in one epoch gives the same view twice.

    Args:
        images: uint8 [N, S, S, 3], the store's array or a tensor of it on any device.
        rows: int64 [B].
        epoch: from 0.
        seed: of the run.
        config: which operations and how strong.
        spec: holds size, mean and std.
        partner_rows: int64 [P], rows that mixup may draw from: the training part, always in the same order.

    Raises:
        ConfigError: the images are not of the spec's size, or seed or epoch is negative.
        DataError: a row lies outside the store, or mixup has no partners.
    """
    rows, partner_rows = np.asarray(rows, dtype=np.int64), np.asarray(partner_rows, dtype=np.int64)
    _check(images, rows, spec)
    _check(images, partner_rows, spec)
    draws = draw(seed, epoch, rows)
    views = _own_views(images, rows, draws, config, spec)
    partners, shares = mixup_plan(draws, config, partner_rows)
    mixed = np.flatnonzero(partners >= 0)
    if mixed.size:
        # A partner shows the view that it has itself in this epoch: mixing adds no new view of anybody.
        others = _own_views(images, partners[mixed], draw(seed, epoch, partners[mixed]), config, spec)
        index = torch.from_numpy(mixed).to(views.device)
        own = torch.from_numpy(shares[mixed]).to(views.device)[:, None, None, None]
        views[index] = (views[index] * own).add_(others.mul_(1 - own))
    return Views(
        images=views,
        partners=torch.from_numpy(partners).to(views.device),
        shares=torch.from_numpy(shares).to(views.device),
    )

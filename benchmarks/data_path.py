"""Decode and augment: images per CPU-second of our data path and of the usual one in PyTorch.

Ours: every JPEG is decoded and resized once into the image store, then each epoch is `make_views` in batches. The
other: an `ImageFolder`-style data set (torchvision's own loader opens and decodes the JPEG with Pillow each time) with
torchvision.transforms.v2 one sample at a time, in a DataLoader of two workers. Same files, size and operations: flips,
rotation, zoom, shift, brightness, contrast, saturation, hue, blur, normalisation; no mixup, no cut-out.

- The other path runs its transforms on Pillow images or on tensors, whichever a probe finds faster at that size.
- CPU time is that of this process, its threads and its workers. What it costs to start and stop workers is measured
  with a data set of nothing and taken off theirs.
- Building the store (hash, decode, resize, write) counts as ours. `ratio` spreads it over --epochs: teacher and
  student share one store, as do later runs on the same images. `first_epoch` puts all of it on one epoch, `steady`
  leaves it out.
- The default size of the drawn files is that of a reduced HAM10000. Larger files favour the store.

Prints one JSON object: medians over interleaved repeats, and ratios of medians.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import default_loader
from torchvision.transforms import InterpolationMode, v2

from dermdistill.config import AugmentConfig, SyntheticConfig
from dermdistill.data.augment import make_views
from dermdistill.data.readers import read_catalog
from dermdistill.data.store import open_store
from dermdistill.data.synthetic import write_synthetic
from dermdistill.preprocess import PreprocessSpec
from dermdistill.provenance import origin

BATCH = 64
WORKERS = 2
TARGETS = {64: 15.0, 128: 7.0, 224: 4.5}
CONFIG = AugmentConfig(cutout=0, mixup=0)


class Cost(NamedTuple):
    """Seconds."""

    cpu: float
    wall: float


def cpu_seconds() -> float:
    """CPU time of this process and of those of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def cost(work: Callable[[], object]) -> Cost:
    cpu, wall = cpu_seconds(), time.perf_counter()
    work()
    return Cost(cpu_seconds() - cpu, time.perf_counter() - wall)


def median(costs: Sequence[Cost]) -> Cost:
    return Cost(statistics.median(one.cpu for one in costs), statistics.median(one.wall for one in costs))


class FolderDataset(Dataset[Tensor]):
    """What ImageFolder does for an image: open, decode, transform."""

    def __init__(self, paths: Sequence[str], transform: Callable[[Any], Tensor]) -> None:
        self.paths = paths
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(default_loader(self.paths[index]))


class NothingDataset(Dataset[Tensor]):
    """Two samples of nothing: what is left is the cost of workers that start and stop."""

    def __len__(self) -> int:
        return WORKERS

    def __getitem__(self, index: int) -> Tensor:
        return torch.zeros(1)


def usual_transforms(spec: PreprocessSpec, *, tensors: bool) -> Callable[[Any], Tensor]:
    """The operations of ``AugmentConfig``, of the same strength, on uint8 tensors or on Pillow images."""
    affine = v2.RandomAffine(
        degrees=CONFIG.rotate_degrees,
        translate=(CONFIG.shift, CONFIG.shift),
        scale=(1 / (1 + CONFIG.scale), 1 + CONFIG.scale),
        interpolation=InterpolationMode.BILINEAR,
    )
    colour = v2.ColorJitter(CONFIG.brightness, CONFIG.contrast, CONFIG.saturation, CONFIG.hue)
    blur = v2.RandomApply([v2.GaussianBlur(3, sigma=1.0)], p=CONFIG.blur)
    # Pillow resizes faster than tensors do, and to the pixels that our store holds.
    first = [v2.Resize((spec.size, spec.size), InterpolationMode.BILINEAR)]
    middle = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), affine, colour, blur]
    last = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(spec.mean, spec.std)]
    steps = [v2.PILToTensor(), *middle] if tensors else [*middle, v2.PILToTensor()]
    transform: Callable[[Any], Tensor] = v2.Compose([*first, *steps, *last])
    return transform


def load_here(dataset: FolderDataset) -> None:
    """Every sample once, in this process."""
    for index in range(len(dataset)):
        dataset[index]


def faster_transforms(paths: Sequence[str], spec: PreprocessSpec) -> tuple[str, Callable[[Any], Tensor]]:
    """The quicker of the two kinds on a few images, in this process, in turns."""
    kinds = {name: usual_transforms(spec, tensors=name == "tensors") for name in ("Pillow", "tensors")}
    datasets = {name: FolderDataset(paths[:50], transform) for name, transform in kinds.items()}
    taken: dict[str, list[Cost]] = {name: [] for name in kinds}
    for turn in range(4):
        for name, dataset in datasets.items():
            one = cost(partial(load_here, dataset))
            # the first turn warms up
            taken[name] += [one] if turn else []
    best = min(kinds, key=lambda name: median(taken[name]).cpu)
    return best, kinds[best]


def load_epoch(dataset: Dataset[Tensor]) -> Cost:
    """One pass in random order through a DataLoader; its workers end with it, so that their time is counted."""

    def work() -> None:
        for _ in DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=WORKERS):
            pass

    return cost(work)


def our_costs(catalog: pd.DataFrame, spec: PreprocessSpec, seed: int) -> tuple[Cost, Cost]:
    """Building the store, and one epoch of views in random order."""
    with tempfile.TemporaryDirectory() as cache:
        build = cost(lambda: open_store(catalog, spec, Path(cache), workers=WORKERS))
        images = open_store(catalog, spec, Path(cache)).images
        rows = np.random.default_rng(seed).permutation(len(images))

        def epoch() -> None:
            for start in range(0, len(rows), BATCH):
                batch = rows[start : start + BATCH]
                make_views(images, batch, epoch=0, seed=seed, config=CONFIG, spec=spec, partner_rows=batch)

        return build, cost(epoch)


def compare(catalog: pd.DataFrame, size: int, *, repeats: int, epochs: int) -> dict[str, Any]:
    """All figures at one size."""
    spec, images = PreprocessSpec(size), len(catalog)
    kind, transform = faster_transforms(list(catalog["path"]), spec)
    dataset = FolderDataset(list(catalog["path"]), transform)
    builds, views, usual, idle = [], [], [], []
    our_costs(catalog.head(2 * BATCH), spec, 0)
    for repeat in range(repeats):
        build, view = our_costs(catalog, spec, repeat)
        builds.append(build)
        views.append(view)
        idle.append(load_epoch(NothingDataset()))
        usual.append(load_epoch(dataset))
    build, view, start = median(builds), median(views), median(idle)
    theirs = Cost(median(usual).cpu - start.cpu, median(usual).wall - start.wall)
    ours = {
        "amortised": Cost(build.cpu / epochs + view.cpu, build.wall / epochs + view.wall),
        "first_epoch": Cost(build.cpu + view.cpu, build.wall + view.wall),
        "steady": view,
    }
    ratios = {name: round(theirs.cpu / one.cpu, 2) for name, one in ours.items()}
    result: dict[str, Any] = {
        "ours: images per CPU-second": {name: round(images / one.cpu, 1) for name, one in ours.items()},
        "ours: images per second": {name: round(images / one.wall, 1) for name, one in ours.items()},
        "ours: store, images per CPU-second": round(images / build.cpu, 1),
        "torchvision: images per CPU-second": round(images / theirs.cpu, 1),
        "torchvision: images per second": round(images / theirs.wall, 1),
        "torchvision: transforms on": kind,
        "torchvision: starting workers, CPU-seconds": round(start.cpu, 3),
        "ratio": ratios["amortised"],
        "ratios": ratios,
        "spread of the ratio over repeats": spread(usual, builds, views, start, epochs),
    }
    if size in TARGETS:
        result |= {"target": TARGETS[size], "met": ratios["amortised"] >= TARGETS[size]}
    return result


def spread(
    usual: Sequence[Cost], builds: Sequence[Cost], views: Sequence[Cost], start: Cost, epochs: int
) -> list[float]:
    """Least and greatest amortised ratio of a single repeat."""
    ratios = [
        (theirs.cpu - start.cpu) / (build.cpu / epochs + view.cpu)
        for theirs, build, view in zip(usual, builds, views, strict=True)
    ]
    return [round(min(ratios), 2), round(max(ratios), 2)]


def image_catalog(folder: Path | None, images: int, seed: int, drawn: Path) -> pd.DataFrame:
    """Ids and paths of ``images`` files: a random choice from a folder, or drawn by our generator."""
    if folder is None:
        config = SyntheticConfig(lesions=max(21, images), seed=seed, width=200, height=150)
        return read_catalog(write_synthetic(drawn, config), check_images=False).head(images)
    catalog = read_catalog(folder, check_images=False)
    return catalog.sample(n=min(images, len(catalog)), random_state=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder in HAM10000's layout; by default synthetic images, 200 x 150")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(TARGETS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=42, help="epochs that share the store: recipe edge has 16 + 26")
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's threads; a DataLoader's workers have one")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    # said where the machine has fewer cores than workers
    warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        catalog = image_catalog(given.data, given.images, given.seed, Path(folder) / "synthetic")
        sizes = {str(size): compare(catalog, size, repeats=given.repeats, epochs=given.epochs) for size in given.sizes}
    result = {
        "benchmark": "data_path",
        "data": "synthetic" if given.data is None else given.data.name,
        "images": len(catalog),
        "repeats": given.repeats,
        "epochs that share the store": given.epochs,
        "threads": given.threads,
        "workers": WORKERS,
        "sizes": sizes,
        **origin(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""How time and memory grow with the number of images: image store, one epoch of views, one epoch of stored targets.

Each measurement is a process of its own. Where the folder has too few images, files come again under other image ids:
they are hashed, decoded and stored again (but read from the page cache). Memory is counted from the point where
packages are loaded, one small set has passed through and the list of images is there:

- `peak_rss_mb`: growth of the greatest resident memory, with the pages of the mapped store that happen to be in memory;
- `peak_anonymous_mb`: the same without mapped files, sampled every 20 ms (Linux): what the process cannot give back.

Prints one JSON object: medians over interleaved repeats, images per second, and the exponent of time against the number
of images (slope in log-log; 1 is linear).
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from dermdistill.config import AugmentConfig, SyntheticConfig
from dermdistill.data.augment import make_views
from dermdistill.data.readers import read_catalog
from dermdistill.data.store import ImageStore, open_store
from dermdistill.data.synthetic import write_synthetic
from dermdistill.distill.targets import TargetStore
from dermdistill.preprocess import PreprocessSpec
from dermdistill.provenance import origin
from dermdistill.training.teachers import BATCH as ANSWERS
from dermdistill.training.teachers import StoredTeachers

BATCH = 64
CONFIG = AugmentConfig()
WARM_UP = 128
# Final logits and two exits of seven classes, and fused features of two branches and four depths.
LAYOUT = [("logits", [7]), ("exit_1", [7]), ("exit_2", [7]), ("fused", [256])]
STATUS = Path("/proc/self/status")
MIB = 2**20


def peak_rss() -> int:
    """Greatest resident memory of this process so far, bytes.

    On Linux not ru_maxrss, which begins with the peak of the process that started this one.
    """
    if STATUS.is_file():
        lines = STATUS.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def anonymous_memory() -> int:
    """Resident memory that no file backs, bytes; 0 where the system does not tell."""
    if not STATUS.is_file():
        return 0
    lines = STATUS.read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


@contextmanager
def memory_growth(result: dict[str, float]) -> Iterator[None]:
    """Put into ``result`` by how much memory grew at most within the block, MiB."""
    rss, anonymous = peak_rss(), anonymous_memory()
    highest, done = [anonymous], threading.Event()

    def sample() -> None:
        while not done.wait(0.02):
            highest[0] = max(highest[0], anonymous_memory())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        result["peak_rss_mb"] = (peak_rss() - rss) / MIB
        result["peak_anonymous_mb"] = (max(highest[0], anonymous_memory()) - anonymous) / MIB


@contextmanager
def timed(result: dict[str, float], name: str) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    result[f"{name}_seconds"] = time.perf_counter() - wall
    result[f"{name}_cpu_seconds"] = time.process_time() - cpu


def many_images(folder: Path, images: int) -> pd.DataFrame:
    """Ids and paths of ``images`` images; files come again under other ids where there are too few."""
    catalog = read_catalog(folder, check_images=False)[["image_id", "path"]]
    copies = [
        catalog.assign(image_id=f"{copy:04}_" + catalog["image_id"]) for copy in range(-(-images // len(catalog)))
    ]
    return pd.concat(copies, ignore_index=True).head(images)


def batches(images: int) -> Iterator[np.ndarray[Any, np.dtype[np.int64]]]:
    rows = np.random.default_rng(0).permutation(images)
    for start in range(0, images, BATCH):
        yield rows[start : start + BATCH]


def views_epoch(store: ImageStore, spec: PreprocessSpec) -> None:
    """One epoch of views in random order, with default settings."""
    everybody = np.arange(len(store.images))
    for rows in batches(len(store.images)):
        make_views(store.images, rows, epoch=0, seed=0, config=CONFIG, spec=spec, partner_rows=everybody)


def random_answers(images: int, width: int) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    """Answers in batches as large as a teacher gives them, so that what grows in memory is not the benchmark's."""
    generator = np.random.default_rng(0)
    for start in range(0, images, ANSWERS):
        yield generator.standard_normal((min(ANSWERS, images - start), width), dtype=np.float32)


def stored_teachers(folder: Path, image_ids: Sequence[str]) -> StoredTeachers:
    """Random answers of one teacher to one epoch, written as a teacher's are."""
    targets = TargetStore(folder, image_ids, LAYOUT)
    targets.write(0, random_answers(len(image_ids), targets.width))
    return StoredTeachers([targets], image_ids)


def targets_epoch(teachers: StoredTeachers, images: int, spec: PreprocessSpec) -> None:
    """One epoch of answers in random order, with the check of the file."""
    teachers.start_epoch(0)
    unseen = torch.empty(0)
    for rows in batches(images):
        teachers.signals(rows, unseen, spec)


def pass_through(catalog: pd.DataFrame, spec: PreprocessSpec, cache: Path, result: dict[str, float]) -> None:
    """Store, views and targets of a catalog, each timed."""
    with timed(result, "store"):
        store = open_store(catalog, spec, cache)
    with timed(result, "views"):
        views_epoch(store, spec)
    teachers = stored_teachers(cache / "targets", store.image_ids)
    with timed(result, "targets"):
        targets_epoch(teachers, len(store.images), spec)


def measure(folder: Path, images: int, size: int) -> dict[str, float]:
    """All figures of one number of images, in this process."""
    torch.set_num_threads(1)
    spec, result = PreprocessSpec(size), dict[str, float]()
    with tempfile.TemporaryDirectory() as cache:
        catalog = many_images(folder, images)
        pass_through(catalog.head(WARM_UP), spec, Path(cache) / "warm", {})
        with memory_growth(result):
            pass_through(catalog, spec, Path(cache) / "store", result)
    return result


def measure_apart(folder: Path, images: int, size: int) -> dict[str, float]:
    """``measure`` in a fresh process."""
    command = [sys.executable, __file__, "--data", str(folder), "--measure", str(images), "--size", str(size)]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return result


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Slope of log time against log number of images."""
    return round(float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0]), 3)


def growth(folder: Path, sizes: Sequence[int], size: int, repeats: int) -> dict[str, Any]:
    """Medians a number of images, and exponents."""
    runs: dict[int, list[dict[str, float]]] = {images: [] for images in sizes}
    for _ in range(repeats):
        for images in sizes:
            runs[images].append(measure_apart(folder, images, size))
    middle = {
        images: {name: statistics.median(run[name] for run in found) for name in found[0]}
        for images, found in runs.items()
    }
    parts = ("store", "views", "targets")
    table = {
        str(images): {name: round(value, 3) for name, value in row.items()}
        | {f"{part}_images_per_second": round(images / row[f"{part}_seconds"], 1) for part in parts}
        for images, row in middle.items()
    }
    if len(sizes) < 2:
        return {"images": table}
    exponents = {
        f"{part}_{kind}": exponent(sizes, [row[f"{part}_{kind}"] for row in middle.values()])
        for part in parts
        for kind in ("seconds", "cpu_seconds")
    }
    return {"images": table, "exponents": exponents}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder in HAM10000's layout; by default synthetic images, 200 x 150")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 5000, 10_000, 50_000], help="numbers of images")
    parser.add_argument("--size", type=int, default=64, help="side of the square input, pixels")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--drawn", type=int, default=1000, help="synthetic lesions to draw, each with 1 to 4 images")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.data, given.measure, given.size)))
        return
    with tempfile.TemporaryDirectory() as folder:
        data = given.data
        if data is None:
            config = SyntheticConfig(lesions=given.drawn, width=200, height=150)
            data = write_synthetic(Path(folder) / "synthetic", config)
        found = growth(data, sorted(set(given.sizes)), given.size, given.repeats)
    result = {
        "benchmark": "scaling",
        "data": "synthetic" if given.data is None else given.data.name,
        "size": given.size,
        "repeats": given.repeats,
        **found,
        **origin(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Bulk scoring with a bundle, against the loop that everybody writes; its memory; and a kill half-way.

In one run on one machine: images a second of `dermdistill score` and of a plain loop (Pillow, torchvision transforms,
the FP32 PyTorch student, one image at a time, all cores); peak memory over 1,000 to 100,000 images (the folder
repeated); and `kill -9` half-way through the folder, resumed. Prints one JSON object as its last line.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torchvision import transforms

from dermdistill.bundle.manifest import read_manifest
from dermdistill.bundle.score_source import CHUNK, SUFFIXES
from dermdistill.provenance import origin, sha256_json
from dermdistill.training.roles import load_trained

MAIN = "from dermdistill.cli import main; main()"
# VmHWM, not ru_maxrss: the latter begins with the peak of the process that started this one.
MEASURED = """
import sys
sys.argv[0] = "dermdistill"
try:
    from dermdistill.cli import main
    main()
finally:
    lines = open("/proc/self/status").read().splitlines()
    print("peak", next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")))
"""


def _table(folder: Path, paths: list[Path], count: int) -> Path:
    """A table of ``count`` paths: the given ones, repeated."""
    table = folder / f"images-{count}.parquet"
    names = [str(paths[index % len(paths)].resolve()) for index in range(count)]
    pq.write_table(pa.table({"path": names}), table)
    return table


def _command(code: str, bundle: Path, table: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-c", code, "score", str(bundle), str(table), "--out", str(out), *more]


def small_run(folder: Path) -> Path:
    """A run of one epoch on drawn lesions: enough to measure speed, not to predict anything."""
    words = ["run", "quick", "--out", str(folder)]
    settings = ("synthetic.lesions=700", "teacher.epochs=1", "student.epochs=1", "control=false")
    words += [word for setting in settings for word in ("--set", setting)]
    subprocess.run([sys.executable, "-c", MAIN, *words], check=True, capture_output=True)
    return folder


def photographs(folder: Path, count: int) -> list[Path]:
    """Up to ``count`` image files, no segmentation masks."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return [path for path in found if "segmentation" not in str(path.relative_to(folder)).lower()][:count]


def plain_loop(run: Path, paths: list[Path]) -> float:
    """Images a second, one at a time, from the file to the probabilities."""
    spec = read_manifest(run / "bundle").spec
    model = load_trained(run / "student").deployed().eval()
    change = transforms.Compose(
        [
            transforms.Resize((spec.size, spec.size)),
            transforms.ToTensor(),
            transforms.Normalize(spec.mean, spec.std),
        ]
    )
    with torch.inference_mode():
        for path in paths[:10]:
            model(change(Image.open(path).convert("RGB"))[None])
        begun = time.perf_counter()
        for path in paths:
            model(change(Image.open(path).convert("RGB"))[None]).softmax(1)
        return len(paths) / (time.perf_counter() - begun)


def scored(bundle: Path, table: Path, out: Path) -> dict[str, float]:
    """Seconds, images a second and peak megabytes of one whole command, its start included."""
    begun = time.perf_counter()
    done = subprocess.run(_command(MEASURED, bundle, table, out), check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - begun
    images = int(pq.read_metadata(out).num_rows)
    peak = int(done.stdout.split()[-1])
    return {
        "images": images,
        "seconds": round(seconds, 2),
        "images_per_second": round(images / seconds, 1),
        "peak_megabytes": peak,
    }


def killed_and_resumed(bundle: Path, table: Path, out: Path, images: int) -> dict[str, Any]:
    """``kill -9`` when half of the images are done; then go on and count every image."""
    process = subprocess.Popen(_command(MAIN, bundle, table, out), stdout=subprocess.DEVNULL)
    parts = out.with_name(f"{out.name}.parts")

    while len(list(parts.glob("0*.parquet"))) * CHUNK < images / 2:
        if process.poll() is not None:
            raise SystemExit("the job ended before it could be killed: give it more images")
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = sum(pq.read_metadata(path).num_rows for path in parts.glob("0*.parquet"))
    resumed = subprocess.run(
        _command(MAIN, bundle, table, out, "--resume"), check=True, capture_output=True, text=True
    ).stdout
    counts = Counter(pq.read_table(out, columns=["image"])["image"].to_pylist())
    once = set(counts.values()) == {1} and len(counts) == images
    return {
        "finished_before_the_kill": before,
        "rows": sum(counts.values()),
        "different_images": len(counts),
        "every_image_once_in_the_result": once,
        "finished_images_not_scored_again": f"{before:,} of them before" in resumed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of a finished run; by default a small one is made first")
    parser.add_argument("--data", type=Path, help="folder of images; by default those of that run")
    parser.add_argument("--images", type=int, default=10_000, help="for the speed and the kill")
    parser.add_argument("--loop-images", type=int, default=1_000, help="for the plain loop")
    parser.add_argument("--memory", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = options.run or small_run(folder / "run")
        bundle = run / "bundle"
        paths = photographs(options.data or run / "synthetic", options.images)
        count = len(paths)
        loop = plain_loop(run, paths[: options.loop_images])
        ours = scored(bundle, _table(folder, paths, count), folder / "speed")
        memory = [scored(bundle, _table(folder, paths, size), folder / f"memory-{size}") for size in options.memory]
        kill = killed_and_resumed(bundle, _table(folder, paths, count), folder / "killed", count)
        manifest = read_manifest(bundle)
    peaks = [one["peak_megabytes"] for one in memory]
    passed = kill["every_image_once_in_the_result"] and kill["finished_images_not_scored_again"]
    result = {
        "benchmark": "bulk_scoring",
        "images": count,
        "size": manifest.spec.size,
        "plain_loop_images_per_second": round(loop, 1),
        "score": ours,
        "score / plain loop": round(ours["images_per_second"] / loop, 2),
        "target": 6.0,
        "met": ours["images_per_second"] >= 6 * loop,
        "memory": memory,
        "largest peak / smallest peak": round(max(peaks) / min(peaks), 3),
        "killed_and_resumed": kill,
        "bundle_sha256": sha256_json(manifest.to_dict()),
        **origin(),
    }
    print(json.dumps(result))
    sys.exit(not passed)


if __name__ == "__main__":
    main()

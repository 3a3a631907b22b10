"""How much faster is the INT8 student than the same student in FP32, in ONNX Runtime and in PyTorch?

In one run on one thread, one image of 224 px at a time: the student of a run (or an EfficientNet-Lite0 with packaged
weights) and a MobileNetV3-Small, each in FP32 in PyTorch (in both memory layouts; the faster one counts), in FP32 and
static INT8 in ONNX Runtime, and with int8 weights alone. INT8 is timed as the predictor runs it, with exact products.
Two cases stand beside it: the same file with the products that ONNX Runtime computes by default, which overflow on x86
without VNNI (`vnni` says whether the processor has it), and a file with 7-bit weights (`compress.reduce_range`), whose
products cannot overflow. All take turns, round by round. `--full-size-teacher` also
compares sizes with a teacher of full-size branches. Prints one JSON object as its last line.
"""

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import nn

from dermdistill.bundle.predictor import OnnxClassifier, prepare
from dermdistill.bundle.score_source import SUFFIXES
from dermdistill.compress.onnx_export import INPUT_NAME, export_onnx, random_inputs
from dermdistill.compress.static_int8 import quantize_int8
from dermdistill.compress.weight_only import quantize_weights
from dermdistill.config import BranchConfig, CompressConfig, ModelConfig, SyntheticConfig
from dermdistill.data.synthetic import plan_lesion
from dermdistill.data.synthetic_photo import draw_photos
from dermdistill.models.build import build_model
from dermdistill.preprocess import PreprocessSpec
from dermdistill.provenance import origin
from dermdistill.recipes.load import load_recipe
from dermdistill.training.roles import load_description, load_trained

SPEC = PreprocessSpec(size=224)
CLASSES = 7
WARM_UP = 5
ONNX_CASES = ("onnx fp32", "int8", "int8 of 7 bits", "int8 weights")
OVERFLOWING = "int8 as by default"
LAYOUTS = {"default": torch.contiguous_format, "channels_last": torch.channels_last}
TARGETS = {"onnx fp32": 2.0, "pytorch fp32": 4.0}
SMALLER_TARGET = 0.9181
FULL_SIZE = (BranchConfig(backbone="vit_small"), BranchConfig(backbone="convnext_tiny"))

Run = Callable[[], object]
Figures = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """A network to measure, where its weights come from, and whether it is held to the targets."""

    name: str
    model: nn.Module
    weights: str
    has_targets: bool


def bare(branch: BranchConfig) -> nn.Module:
    """The deployed form of the recipe edge's student with another backbone."""
    config = load_recipe("edge").student.alone().model.model_copy(update={"branches": (branch,)})
    return build_model(config, classes=CLASSES, size=SPEC.size, seed=0).deployed().eval()


def student(run: Path | None) -> Network:
    if run is None:
        branch = BranchConfig(backbone="efficientnet_lite0", weights="offline", stages=5)
        return Network(
            "student", bare(branch), "efficientnet_lite0: packaged ImageNet weights, not trained further", True
        )
    description = load_description(run / "student")
    backbones = " + ".join(branch["backbone"] for branch in description["model"]["branches"])
    weights = f"{backbones}: trained at {description['size']} px, sha256 {description['sha256'][:12]}"
    return Network("student", load_trained(run / "student").deployed().eval(), weights, True)


def calibration(folder: Path | None, count: int) -> npt.NDArray[np.uint8]:
    """uint8 [N, S, S, 3]: files from all over a folder, or lesions drawn by rules."""
    if folder is None:
        return np.stack([prepare(image, SPEC) for image in drawn(count)])
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    paths = [path for path in found if "segmentation" not in str(path.relative_to(folder)).lower()]
    if not paths:
        raise SystemExit(f"{folder}: holds no images")
    return np.stack([prepare(path, SPEC) for path in paths[:: max(1, len(paths) // count)][:count]])


def drawn(count: int) -> Iterator[npt.NDArray[np.uint8]]:
    config = SyntheticConfig(width=320, height=240)
    for number in range(count):
        diagnosis = plan_lesion(config.seed, number).diagnosis
        for photo in draw_photos(diagnosis, (config.seed, number), 1, (config.width, config.height), config.artefacts):
            yield np.asarray(photo.image.convert("RGB"))


def in_pytorch(model: nn.Module, layout: torch.memory_format) -> Run:
    placed = copy.deepcopy(model).eval().to(memory_format=layout)
    image = torch.from_numpy(random_inputs(1, SPEC)).contiguous(memory_format=layout)

    def run() -> object:
        with torch.inference_mode():
            return placed(image)

    return run


def in_onnxruntime(path: Path) -> Run:
    classifier, image = OnnxClassifier(path, SPEC, threads=1), random_inputs(1, SPEC)
    return lambda: classifier.run(image)


def without_exact_products(path: Path) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    image = random_inputs(1, SPEC)
    return lambda: session.run(None, {INPUT_NAME: image})


def has_vnni() -> bool | None:
    """Whether the processor multiplies uint8 by int8 without overflow; None where that is not known."""
    try:
        words = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return None
    return bool({"avx_vnni", "avx512_vnni"} & set(words))


def export(network: Network, images: npt.NDArray[np.uint8], folder: Path) -> dict[str, Path]:
    """The ONNX files of a network by case."""
    files = {case: folder / f"{network.name}.{case.replace(' ', '-')}" for case in ONNX_CASES}
    export_onnx(network.model, SPEC, files["onnx fp32"])
    quantize_int8(files["onnx fp32"], files["int8"], images, SPEC, CompressConfig())
    reduced = CompressConfig(reduce_range=True)
    quantize_int8(files["onnx fp32"], files["int8 of 7 bits"], images, SPEC, reduced)
    quantize_weights(files["onnx fp32"], files["int8 weights"], SPEC)
    return files


def in_turn(runs: Mapping[str, Run], rounds: int, repeats: int) -> dict[str, npt.NDArray[np.float64]]:
    """Milliseconds [2, rounds, repeats] of each case, by the clock, and CPU time, which a busy machine changes less."""
    times = {name: np.empty((2, rounds, repeats)) for name in runs}
    for turn in range(rounds):
        for name, run in runs.items():
            for _ in range(WARM_UP):
                run()
            for index in range(repeats):
                begun, cpu = time.perf_counter(), time.process_time()
                run()
                taken = (time.perf_counter() - begun, time.process_time() - cpu)
                times[name][:, turn, index] = 1e3 * np.array(taken)
        medians = ", ".join(f"{name} {np.median(many[0, turn]):.2f}" for name, many in times.items())
        print(f"round {turn + 1} of {rounds}, ms: {medians}", flush=True)
    return times


def figures(times: npt.NDArray[np.float64]) -> Figures:
    """Milliseconds: the median of the rounds' medians, its extremes, percentiles over all runs; and by CPU time."""
    wall, cpu = np.median(times, axis=2)
    p5, p95 = np.percentile(times[0], (5, 95))
    names = ("median", "lowest_round", "highest_round", "p5", "p95", "cpu_median")
    values = (np.median(wall), wall.min(), wall.max(), p5, p95, np.median(cpu))
    return {name: round(float(value), 3) for name, value in zip(names, values, strict=True)} | {
        "repeats": times[0].size
    }


def speed_up(slow: npt.NDArray[np.float64], fast: npt.NDArray[np.float64]) -> Figures:
    """How many times as fast: of the medians, the extremes of the rounds, and of the medians of CPU time."""
    slow_rounds, fast_rounds = np.median(slow, axis=2), np.median(fast, axis=2)
    value, cpu = np.median(slow_rounds, axis=1) / np.median(fast_rounds, axis=1)
    each = slow_rounds[0] / fast_rounds[0]
    found = {"value": value, "low": each.min(), "high": each.max(), "by_cpu_time": cpu}
    return {name: round(float(ratio), 3) for name, ratio in found.items()}


def ratios(network: Network, times: Mapping[str, npt.NDArray[np.float64]]) -> Figures:
    layouts = [f"pytorch fp32 {layout}" for layout in LAYOUTS]
    faster = min(layouts, key=lambda case: float(np.median(np.median(times[case][0], axis=1))))
    found: Figures = {"faster_pytorch_layout": faster.removeprefix("pytorch fp32 ")}
    for name, target in TARGETS.items():
        ratio = speed_up(times[faster if name.startswith("pytorch") else name], times["int8"])
        met = {"met": ratio["value"] >= target, "met_by_cpu_time": ratio["by_cpu_time"] >= target}
        found[f"int8 / {name}"] = {**ratio, "target": target, **met} if network.has_targets else ratio
    others = ("int8 of 7 bits", OVERFLOWING, "int8 weights")
    return found | {f"{case} / onnx fp32": speed_up(times["onnx fp32"], times[case]) for case in others}


def full_size_teacher(folder: Path, student_bytes: int) -> Figures:
    """The fusion recipe's teacher with full-size branches: its size does not depend on its weights."""
    teacher: ModelConfig = load_recipe("fusion").teacher.model.model_copy(update={"branches": FULL_SIZE})
    model = build_model(teacher, classes=CLASSES, size=SPEC.size, seed=0).deployed().eval()
    path = folder / "teacher.onnx"
    export_onnx(model, SPEC, path)
    smaller = 1 - student_bytes / path.stat().st_size
    return {
        "branches": [branch.backbone for branch in FULL_SIZE],
        "weights": "random; the size does not depend on them",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "onnx_fp32_bytes": path.stat().st_size,
        "student_int8_bytes": student_bytes,
        "student_int8_is_smaller_by": round(smaller, 4),
        "target": SMALLER_TARGET,
        "met": smaller >= SMALLER_TARGET,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of a finished run, whose student is taken")
    parser.add_argument("--data", type=Path, help="folder of images to calibrate on; by default lesions are drawn")
    parser.add_argument("--calibration-images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=30, help="timed runs of each case in each round")
    parser.add_argument("--full-size-teacher", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    random = Network("mobilenetv3_small", bare(BranchConfig(backbone="mobilenetv3_small")), "random", False)
    networks = [student(options.run), random]
    images = calibration(options.data, options.calibration_images)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {network.name: export(network, images, folder) for network in networks}
        runs: dict[str, Run] = {}
        for network in networks:
            for layout, form in LAYOUTS.items():
                runs[f"{network.name}, pytorch fp32 {layout}"] = in_pytorch(network.model, form)
            own = files[network.name]
            runs |= {f"{network.name}, {case}": in_onnxruntime(path) for case, path in own.items()}
            runs[f"{network.name}, {OVERFLOWING}"] = without_exact_products(own["int8"])
        times = in_turn(runs, options.rounds, options.repeats)
        sizes = {owner: {case: path.stat().st_size for case, path in many.items()} for owner, many in files.items()}
        teacher = full_size_teacher(folder, sizes["student"]["int8"]) if options.full_size_teacher else None
    described = {
        network.name: {
            "weights": network.weights,
            "parameters": sum(parameter.numel() for parameter in network.model.parameters()),
            "bytes": sizes[network.name],
            "speed_up": ratios(
                network,
                {
                    case.removeprefix(f"{network.name}, "): many
                    for case, many in times.items()
                    if case.startswith(f"{network.name}, ")
                },
            ),
        }
        for network in networks
    }
    result = {
        "benchmark": "latency",
        "unit": "ms",
        "threads": 1,
        "batch": 1,
        "size": SPEC.size,
        "vnni": has_vnni(),
        "rounds": options.rounds,
        "calibration": {"images": len(images), "source": "drawn lesions" if options.data is None else "photographs"},
        "results": {case: figures(many) for case, many in times.items()},
        "networks": described,
        **({"full_size_teacher": teacher} if teacher else {}),
        **origin(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

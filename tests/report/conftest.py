"""A run folder in the form that the stages write, of random scores, so that its figures fit together."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw, ImageFilter
from sklearn import metrics as oracle

CODES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
TEST_COUNTS = {"akiec": 49, "bcc": 77, "bkl": 165, "df": 8, "mel": 167, "nv": 1006, "vasc": 21}
SKILL = {"teacher": 1.75, "student": 1.6, "student_int8": 1.57}
FILES = {
    "teacher": "teacher/model.onnx",
    "student": "bundle/model.onnx",
    "student_int8": "bundle/model.int8.onnx",
}
BYTES = {"teacher": 34_512_880, "student": 13_890_211, "student_int8": 3_671_004}
RECIPE = """name: edge
task: diagnosis
seed: 0
data: {size: 64, protocol: lesion, seed: 42}
student:
  distill: {alpha: 0.3, beta: 0.3, gamma: 0.4, temperature: 2.0}
"""
Change = Callable[[dict[str, Any]], None]


def interval(value: float, width: float = 0.018) -> dict[str, float]:
    return {"value": value, "low": value - width, "high": min(value + 0.9 * width, max(value, 0.9995))}


def scores(labels: np.ndarray, skill: float, seed: int) -> np.ndarray:
    draws = np.random.default_rng(seed)
    logits = draws.normal(size=(len(labels), len(CODES)))
    logits[np.arange(len(labels)), labels] += skill
    logits[:, CODES.index("nv")] += 0.7
    powers = np.exp(1.2 * logits)
    return powers / powers.sum(axis=1, keepdims=True)


def reliability(correct: np.ndarray, confidence: np.ndarray) -> tuple[list[dict[str, Any]], float]:
    bins, error = [], 0.0
    for place in range(15):
        low, high = place / 15, (place + 1) / 15
        inside = (confidence > low) & (confidence <= high)
        n = int(inside.sum())
        mean = (float(confidence[inside].mean()), float(correct[inside].mean())) if n else (None, None)
        error += n / len(correct) * abs(mean[0] - mean[1]) if n else 0.0
        bins.append({"low": low, "high": high, "n": n, "confidence": mean[0], "accuracy": mean[1]})
    return bins, error


def model_block(labels: np.ndarray, probs: np.ndarray) -> dict[str, Any]:
    predicted = probs.argmax(axis=1)
    mel = labels == CODES.index("mel")
    mel_probs = probs[:, CODES.index("mel")]
    fpr, tpr, thresholds = oracle.roc_curve(mel, mel_probs)
    precision, recall, _ = oracle.precision_recall_curve(mel, mel_probs)
    youden, at_95 = int(np.argmax(tpr - fpr)), int(np.argmax(tpr >= 0.95))
    bins, ece = reliability(predicted == labels, probs.max(axis=1))
    confusion = oracle.confusion_matrix(labels, predicted)
    per_class: dict[str, Any] = {}
    for index, code in enumerate(CODES):
        true, called = labels == index, predicted == index
        shares = {
            "sensitivity": called[true].mean(),
            "specificity": (~called)[~true].mean(),
            "ppv": true[called].mean(),
            "npv": (~true)[~called].mean(),
            "auc": oracle.roc_auc_score(true, probs[:, index]),
        }
        cells = {name: interval(float(value)) for name, value in shares.items()}
        per_class[code] = {"n": int(true.sum()), **cells}
    macro_auc = float(np.mean([block["auc"]["value"] for block in per_class.values()]))
    return {
        "diagnosis": {
            "accuracy": interval(float((predicted == labels).mean())),
            "balanced_accuracy": interval(float(oracle.balanced_accuracy_score(labels, predicted)), 0.031),
            "macro_f1": interval(float(oracle.f1_score(labels, predicted, average="macro")), 0.029),
            "weighted_f1": interval(float(oracle.f1_score(labels, predicted, average="weighted"))),
            "macro_auc": interval(macro_auc, 0.011),
            "ece": interval(ece, 0.012),
        },
        "melanoma": {
            "roc_auc": interval(float(oracle.roc_auc_score(mel, mel_probs))),
            "pr_auc": interval(float(oracle.average_precision_score(mel, mel_probs)), 0.04),
            "sensitivity": interval(float(tpr[youden]), 0.03),
            "specificity": interval(float(1 - fpr[youden])),
            "sensitivity_at_95_sensitivity": interval(float(tpr[at_95]), 0.02),
            "specificity_at_95_sensitivity": interval(float(1 - fpr[at_95]), 0.04),
            "ece": interval(ece / 2, 0.008),
        },
        "per_class": per_class,
        "confusion": confusion.tolist(),
        "thresholds": {"youden": float(thresholds[youden]), "at_95_sensitivity": float(thresholds[at_95])},
        "curves": {
            "roc": {"fpr": fpr.tolist(), "tpr": tpr.tolist()},
            "pr": {"recall": recall.tolist(), "precision": precision.tolist()},
            "reliability": bins,
        },
    }


def compared(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    names = ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "macro_auc", "ece")
    pairs = {name: (first["diagnosis"][name], second["diagnosis"][name]) for name in names}
    pairs["roc_auc"] = (first["melanoma"]["roc_auc"], second["melanoma"]["roc_auc"])
    return {name: interval(one["value"] - other["value"], 0.006) for name, (one, other) in pairs.items()}


def evaluation() -> dict[str, Any]:
    labels = np.repeat(np.arange(7), list(TEST_COUNTS.values()))
    models = {
        name: model_block(labels, scores(labels, skill, seed)) for seed, (name, skill) in enumerate(SKILL.items())
    }
    return {
        "task": "diagnosis",
        "classes": list(CODES),
        "protocol": "lesion",
        "leaky": False,
        "n": {"images": len(labels), "lesions": 1121, "per_class": dict(TEST_COUNTS)},
        "models": models,
        "differences": {
            "student - teacher": compared(models["student"], models["teacher"]),
            "student_int8 - student": compared(models["student_int8"], models["student"]),
        },
        "files": {
            name: {
                "path": FILES[name],
                "bytes": size,
                "sha256": f"{place:x}" * 64,
                "latency_ms": {"median": 9.13 / 2**place, "p5": 8.7 / 2**place, "p95": 11.2 / 2**place}
                | {"repeats": 200, "threads": 1},
            }
            for place, (name, size) in enumerate(BYTES.items())
        },
        "size_ratios": {
            "student_int8 / student": BYTES["student_int8"] / BYTES["student"],
            "student_int8 / teacher": BYTES["student_int8"] / BYTES["teacher"],
        },
        "bootstrap": {"samples": 1000, "seed": 0, "unit": "lesion", "level": 0.95},
        "notes": ["df: n = 8 in the test part, ten or fewer: its figures say little"],
    }


def split_info() -> dict[str, Any]:
    shares = {"train": 4.67, "val": 1.0, "test": 1.0}
    counts = {part: {code: round(n * f) for code, n in TEST_COUNTS.items()} for part, f in shares.items()}
    images = {part: sum(by_class.values()) for part, by_class in counts.items()}
    return {
        "protocol": "lesion",
        "seed": 42,
        "leaky": False,
        "catalog_sha256": "c" * 64,
        "split_sha256": "d" * 64,
        "counts": counts,
        "images": images,
        "lesions": {part: round(0.75 * n) for part, n in images.items()},
        "fractions": {part: n / sum(images.values()) for part, n in images.items()},
    }


def audit() -> dict[str, Any]:
    near = {"a": "ISIC_0027001", "b": "ISIC_0031992", "distance": 0.0312, "parts": ["train", "test"]}
    return {
        "protocol": "lesion",
        "promises_disjoint": True,
        "passed": True,
        "lesions_across": {"count": 0, "lesions": []},
        "exact_copies_across": {"count": 0, "test_share": 0.0, "pairs": []},
        "near_copies": {"count": 1, "different_lesions": 1, "threshold": 0.05, "pairs": [near]},
        "images_sharing_lesion_across": {"share": 0.0, "melanoma_share": 0.0},
    }


def log(role: str, epochs: int) -> list[dict[str, Any]]:
    draws = np.random.default_rng(len(role))
    names = {"teacher": ("classification", "exit_1", "exit_2")}.get(
        role, ("classification", "logits_kd", "exit_kd_1", "exit_kd_2", "fused_features")
    )
    lines: list[dict[str, Any]] = []
    best = 0.0
    for epoch in range(epochs):
        fall = np.exp(-epoch / 6)
        terms = {
            name: {
                "value": float((0.35 + 1.4 * fall) * (1 + 0.3 * place) + 0.03 * draws.normal()),
                "weight": 0.4 if place == 0 else 0.15,
                "grad_norm": float((0.4 + fall) * 3 / (place + 1) * np.exp(0.15 * draws.normal())),
            }
            for place, name in enumerate(names)
        }
        auc = 0.93 - 0.16 * fall + 0.004 * draws.normal()
        figures = {
            "macro_auc": auc,
            "balanced_accuracy": auc - 0.27,
            "melanoma_auc": auc - 0.045,
            "loss": 0.9,
        }
        lines.append(
            {
                "epoch": epoch,
                "seconds": 61.2,
                "learning_rate": 0.002 * float(np.cos(epoch / epochs * 1.5)),
                "images": 6972,
                "loss": sum(term["value"] * term["weight"] for term in terms.values()),
                "grad_norm": 1.9 * float(fall) + 0.4,
                "terms": terms,
                "val": {key: float(value) for key, value in figures.items()},
                "best": bool(auc > best),
            }
        )
        best = max(best, auc)
    return lines


def provenance() -> dict[str, Any]:
    def facts(role: str, epochs: int) -> dict[str, Any]:
        best = max(line["epoch"] for line in log(role, epochs) if line["best"])
        return {"epochs_run": epochs, "best_epoch": best, "monitor": "macro_auc", "seconds": 61.2 * epochs}

    return {
        "command": "dermdistill run edge --data ../shared/ham10000 --out runs/edge-64 --set data.size=64",
        "code": {"version": "0.1.0", "commit": "4f0c2a9be1" + "0" * 30, "dirty": False},
        "machine": {"cpu": "A Processor @ 2.5 GHz", "cores": 2, "system": "Linux x86_64", "python": "3.11.9"},
        "packages": {"numpy": "2.4.0", "onnxruntime": "1.23.0", "torch": "2.15.0", "timm": "1.0.22"},
        "seed": 7,
        "recipe": {"name": "edge", "sha256": "e" * 64},
        "data": {"source": "HAM10000", "images": 9958, "lesions": 7470}
        | {"catalog_sha256": "c" * 64, "store_sha256": "f" * 64, "split_sha256": "d" * 64},
        "weights": {
            "teacher": [{"backbone": "efficientnet_lite2", "weights": "offline", "sha256": "1" * 64}],
            "student": [{"backbone": "efficientnet_lite0", "weights": "offline", "sha256": "2" * 64}],
        },
        "models": {
            "teacher": {"parameters": 8_512_331, "sha256": "3" * 64},
            "student": {"parameters": 3_380_204, "sha256": "4" * 64},
        },
        "training": {"teacher": facts("teacher", 16), "student": facts("student", 24)},
        "seconds": {"catalog": 8.1, "teacher": 980.0, "student": 1466.0, "evaluation": 41.0},
        "finished": "2025-11-22T07:31:00+00:00",
    }


def catalog() -> pd.DataFrame:
    draws = np.random.default_rng(3)
    codes = np.repeat(list(TEST_COUNTS), [6 * n for n in TEST_COUNTS.values()])
    ages = 5 * np.round(
        (40 + 4 * np.array([CODES.index(code) % 5 for code in codes]) + draws.normal(0, 13, len(codes))) / 5
    )
    ages = np.clip(ages, 5, 85)
    ages[::90] = np.nan
    return pd.DataFrame(
        {
            "image_id": [f"ISIC_{row:07d}" for row in range(len(codes))],
            "diagnosis": codes,
            "diagnosis_source": draws.choice(["histo", "follow_up", "consensus", "confocal"], len(codes)),
            "age": ages,
            "sex": draws.choice(["male", "female", "unknown"], len(codes), p=[0.54, 0.45, 0.01]),
        }
    )


def write_pictures(folder: Path, name: str, seed: int) -> None:
    draws = np.random.default_rng(seed)
    picture = Image.new("RGB", (64, 64), (226, 178, 160))
    box = [float(edge) for edge in (*draws.integers(10, 20, 2), *draws.integers(42, 56, 2))]
    colour = tuple(int(value) for value in draws.integers((90, 50, 40), (150, 95, 75)))
    ImageDraw.Draw(picture).ellipse(box, fill=colour)
    picture = picture.filter(ImageFilter.GaussianBlur(2.5))
    picture.save(folder / f"{name}.png")
    heat = Image.new("RGB", (64, 64), (30, 40, 150))
    ImageDraw.Draw(heat).ellipse([edge * 0.9 + 3 for edge in box], fill=(250, 200, 40))
    Image.blend(picture, heat.filter(ImageFilter.GaussianBlur(8)), 0.45).save(folder / f"{name}_cam.png")


def explanations(folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True)
    pairs = [(code, code) for code in CODES] + list(zip(CODES, (*CODES[1:], CODES[0]), strict=True))
    items = []
    for row, (true, predicted) in enumerate(pairs):
        name = f"ISIC_{30000 + row:07d}"
        write_pictures(folder, name, row)
        item = {"image_id": name, "true": true, "predicted": predicted, "prob": 0.41 + 0.04 * row}
        files = {"image": f"{name}.png", "overlay": f"{name}_cam.png"}
        scores = {"energy": 0.61, "energy_prior": 0.52, "iou": None, "iou_prior": 0.4, "pointing": 1.0}
        maps = {
            method: {"overlay": files["overlay"], "blank": False, "scores": scores} for method in ("grad_cam", "lime")
        }
        items.append({**item, "correct": true == predicted, **files, "maps": maps})
    failure = {"test": "deletion", "value": 0.5, "limit": 0.4, "n": 30, "sentence": "deletion: no better than chance"}
    methods = {
        "grad_cam": {"made_from": {}, "failures": [], "untested": []},
        "lime": {"made_from": {"samples": 1000}, "failures": [failure], "untested": ["randomisation"]},
    }
    return {"target": "predicted class", "methods": methods, "tests": method_tests(), "items": items}


def method_tests() -> dict[str, Any]:
    """The block of ``pipeline/explaining.py``: two methods, one of them measured less."""

    def cell(value: float | None, n: int = 30) -> dict[str, Any]:
        bounds = (None, None) if value is None else (value - 0.05, value + 0.05)
        return {"value": value, "low": bounds[0], "high": bounds[1], "n": n}

    names = ("energy", "energy_prior", "moved_energy", "moved_energy_prior", "deletion", "deletion_random", "blank")
    own = {name: cell(0.1 + 0.1 * place) for place, name in enumerate(names)}
    measures, by_chance = (dict.fromkeys(("pearson", "spearman", "iou"), cell(value, 4)) for value in (0.9, 0.4))
    pair = {"title": "FP32 and INT8 student", "method": "lime", "n": 4, "measures": measures, "by_chance": by_chance}
    return {
        "images": 30,
        "lesions": 30,
        "per_class": {"mel": 30},
        "moved": 25,
        "refused": {"there is no mask": 5},
        "costly_images": 4,
        "scores": {"grad_cam": {**own, "randomisation": cell(0.3, 4)}, "lime": {**own, "energy": cell(None, 0)}},
        "lime": {"overlap": cell(0.72, 4), "r2": cell(0.6, 4)},
        "agreement": {"int8, lime": pair},
        "bootstrap": {"samples": 50, "unit": "lesion", "level": 0.95},
    }


def manifest() -> dict[str, Any]:
    files = {
        name: {"sha256": f"{place:x}" * 64, "bytes": BYTES[key]}
        for place, (name, key) in enumerate({"model.onnx": "student", "model.int8.onnx": "student_int8"}.items())
    }
    return {"format": 1, "task": "diagnosis", "classes": list(CODES), "files": files}


def write_run(folder: Path, change: dict[str, Change] | None = None) -> Path:
    """Write the run folder; ``change`` maps a file's key to a function that alters its content first."""
    contents: dict[str, Any] = {
        "evaluation/evaluation.json": evaluation(),
        "provenance.json": provenance(),
        "split.json": split_info(),
        "audit.json": audit(),
        "explanations/explanations.json": explanations(folder / "explanations"),
        "bundle/manifest.json": manifest(),
    }
    for name, content in contents.items():
        if change and name in change:
            change[name](content)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    for role, epochs in (("teacher", 16), ("student", 24)):
        (folder / role).mkdir()
        lines = [json.dumps(line) + "\n" for line in log(role, epochs)]
        (folder / role / "log.jsonl").write_text("".join(lines))
    (folder / "recipe.yaml").write_text(RECIPE)
    catalog().to_parquet(folder / "catalog.parquet")
    return folder


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a fake run into a new folder: ``make_run({"split.json": alter})``."""

    def make(change: dict[str, Change] | None = None, name: str = "run") -> Path:
        return write_run(tmp_path / name, change)

    return make


def compressed(macro_auc: float, same_label: float, largest: float, **facts: Any) -> dict[str, Any]:
    """A file's entry of ``compression.json``; the PyTorch student has macro AUC .9."""
    return {
        "runtime": "onnxruntime",
        "n": 1000,
        "logits": {"largest": 10 * largest, "mean": largest},
        "probabilities": {"largest": largest, "mean": largest / 10},
        "same_label": same_label,
        "metrics": {"macro_auc": macro_auc, "balanced_accuracy": 0.61, "melanoma_auc": None, "accuracy": 0.745},
        "differences": {"macro_auc": macro_auc - 0.9, "balanced_accuracy": 0.01, "melanoma_auc": None, "accuracy": 0.0},
        "faults": [],
        "error_grows_at": "",
        "layers": [],
        **facts,
    }


def layers(**decibels: float) -> list[dict[str, Any]]:
    return [{"layer": layer, "decibels": value} for layer, value in decibels.items()]


@pytest.fixture
def record() -> dict[str, Any]:
    """A small ``compression.json``: static INT8 with two layers in float beside quantization-aware training."""
    metrics = {"macro_auc": 0.9, "balanced_accuracy": 0.6, "melanoma_auc": None, "accuracy": 0.745}
    sensitivity = {f"layer{place}": 20.0 + place for place in range(11)} | {"stem": 12.34567, "head": 200.0}
    fell = {"float_layers": [], **compressed(0.88, 0.97, 0.2)}
    return {
        "reference": {"val": metrics, "test": metrics},
        "gate": {"macro_auc": 0.005, "balanced_accuracy": 0.01, "same_label": 0.985},
        "calibration_images": 1512,
        "method": "percentile",
        "choices": {
            "float_layers": ["stem", "layer0"],
            "float_layers_tried": [
                fell,
                {**fell, "float_layers": ["stem"]},
                {**compressed(0.899, 0.99, 0.1), "float_layers": ["stem", "layer0"]},
            ],
            "sensitivity": layers(**sensitivity),
            "int8": "static",
            "int8_chosen_by": "val macro_auc",
            "int8_on_validation": {
                "static": {**metrics, "macro_auc": 0.91234},
                "aware": {**metrics, "macro_auc": 0.90123},
            },
        },
        "files": {
            "aware": compressed(
                0.89123,
                0.9,
                0.31,
                file="aware.onnx",
                how="static, quantization-aware training",
                shipped=False,
                bytes=3_456_789,
                layers=layers(stem=9.0, body=4.0, head=7.0),
                error_grows_at="stem (the input -> 9.0 dB)",
            ),
            "student": compressed(
                0.9, 1.0, 4.4703e-08, file="model.onnx", how="exported", shipped=True, bytes=12_345_678
            ),
            "student_int8": compressed(
                0.9012,
                0.9934,
                0.0567,
                file="model.int8.onnx",
                how="static, after training",
                shipped=True,
                bytes=3_210_987,
                layers=layers(stem=200.0, body=31.23456, head=28.0),
                error_grows_at="body (200.0 -> 31.2 dB)",
            ),
        },
    }


@pytest.fixture(scope="session")
def write_fake_run() -> Callable[..., Path]:
    """``write_run`` for fixtures of a whole module."""
    return write_run


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete fake run that tests only read."""
    return write_run(tmp_path_factory.mktemp("report") / "run")

"""The evaluation stage: every model on the test part, by the runtime that a user of its file would take.

Probabilities go into one table, and figures are computed from that; who is failed, what breaks a model, and what it
should not answer need the pictures as well (``evidence.py``).
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermdistill.atomic import write_json
from dermdistill.bundle.latency import latency_ms
from dermdistill.bundle.manifest import read_manifest
from dermdistill.bundle.predictor import OnnxClassifier, flipped_probabilities
from dermdistill.config import Recipe
from dermdistill.evaluate.decide import Decided, decide_all
from dermdistill.evaluate.evaluation import evaluate_predictions
from dermdistill.evaluate.predictions import (
    CONTROL,
    FLIPPED_INT8,
    MODELS,
    predictions_frame,
    read_predictions,
    write_predictions,
)
from dermdistill.pipeline.context import Context
from dermdistill.pipeline.evidence import Shown, gate_evidence, robustness_evidence, subgroup_evidence
from dermdistill.preprocess import PreprocessSpec
from dermdistill.provenance import sha256_file
from dermdistill.report.case_pictures import write_case_pictures

MODEL_FILES = {
    "teacher": "teacher/model.onnx",
    "student": "bundle/model.onnx",
    "student_int8": "bundle/model.int8.onnx",
    CONTROL: "controls/no_teacher/model.onnx",
}


def evaluated_models(recipe: Recipe) -> tuple[str, ...]:
    """Names of the models that a run evaluates."""
    flipped = (FLIPPED_INT8,) if recipe.evaluate.flips else ()
    return (*MODELS, *((CONTROL,) if recipe.has_control else ()), *flipped)


def _spec_of(context: Context, name: str) -> PreprocessSpec:
    return context.teacher_spec if name == "teacher" else context.spec


def _predictions(context: Context, name: str, part: str) -> pd.DataFrame:
    """Predictions of an exported model on one part, by ONNX Runtime as a user of the file would get them."""
    if name == FLIPPED_INT8:
        return flipped_rows(context, part, context.path / MODEL_FILES["student_int8"])
    spec = _spec_of(context, name)
    classifier = OnnxClassifier(context.path / MODEL_FILES[name], spec, threads=_threads(context))
    return part_rows(context, name, part, classifier.logits(_images(context, spec, part)))


def flipped_rows(context: Context, part: str, path: Path) -> pd.DataFrame:
    """Predictions of the INT8 student's average over reflections; its softmax is that average."""
    classifier = OnnxClassifier(path, context.spec, threads=_threads(context))
    probs = flipped_probabilities(classifier, _images(context, context.spec, part))
    return part_rows(context, FLIPPED_INT8, part, np.log(np.maximum(probs, np.finfo(np.float32).tiny)))


def _images(context: Context, spec: PreprocessSpec, part: str) -> npt.NDArray[np.uint8]:
    store = context.stores.at(spec)
    return np.asarray(store.images[store.rows(context.split.ids(part))])


def part_rows(context: Context, name: str, part: str, logits: npt.NDArray[np.float32]) -> pd.DataFrame:
    """Rows of ``predictions_frame`` of logits [N, K] of one part, in the split's order."""
    rows = context.catalog.set_index("image_id", drop=False).loc[context.split.ids(part)]
    return predictions_frame(name, part, rows, logits, context.recipe.task, models=None)


def evaluate(context: Context, inputs: str) -> None:
    """All models on the test part, thresholds from validation; files, sizes and latency beside them."""
    recipe, folder = context.recipe, context.path / "evaluation"
    protocol, leaky = context.split.info["protocol"], bool(context.split.info["leaky"])
    models = evaluated_models(recipe)
    frame = pd.concat(
        [_predictions(context, name, part) for name in models for part in ("val", "test")], ignore_index=True
    )
    path = folder / "predictions.parquet"
    write_predictions(frame, path, task=recipe.task, protocol=protocol, models=models)
    saved = read_predictions(path, task=recipe.task, protocol=protocol, models=models)
    decided = decide_all(saved, recipe.task)
    result = evaluate_predictions(
        saved, task=recipe.task, protocol=protocol, leaky=leaky, config=recipe.evaluate, models=models, decided=decided
    )
    files = {name: _file_facts(context, name) for name in models if name in MODEL_FILES}
    size = {name: facts["bytes"] for name, facts in files.items()}
    result["files"] = files
    result["size_ratios"] = {
        "student_int8 / student": size["student_int8"] / size["student"],
        "student_int8 / teacher": size["student_int8"] / size["teacher"],
    }
    write_case_pictures(folder / "cases", result["cases"], context.catalog)
    write_json(folder / "evaluation.json", result | _evidence(context, saved[saved["split"] == "test"], decided))


def _evidence(context: Context, test: pd.DataFrame, decided: Decided) -> dict[str, Any]:
    """What needs the pictures; of a test part that repeats images each counts once."""
    recipe, gate = context.recipe, read_manifest(context.path / "bundle").gate
    models = [name for name in evaluated_models(recipe) if name in MODEL_FILES]
    rows = {name: test[test["model"] == name].drop_duplicates("image_id") for name in models}
    ids = rows[models[0]]["image_id"].tolist()
    catalog = context.catalog.set_index("image_id", drop=False).loc[ids]
    labels, lesions = rows[models[0]]["label"].to_numpy(dtype=np.int64), catalog["lesion_id"].to_numpy()
    shown = {}
    for name in models:
        spec = _spec_of(context, name)
        store = context.stores.at(spec)
        classifier = OnnxClassifier(context.path / MODEL_FILES[name], spec, threads=_threads(context))
        shown[name] = Shown(classifier, np.asarray(store.images[store.rows(ids)]), decided[name][0])
    decisions = {name: own.decisions for name, own in shown.items()}
    task, config = recipe.task, recipe.evaluate
    found = {
        "subgroups": subgroup_evidence(rows, decisions, catalog, task=task, config=config),
        "robustness": robustness_evidence(shown, labels, lesions, ids, task=task, config=config),
        "gate": gate and gate_evidence(gate, shown, labels, lesions, ids, task=task, config=config),
    }
    return {name: block for name, block in found.items() if block is not None}


def _threads(context: Context) -> int:
    return context.recipe.threads or os.cpu_count() or 1


def _file_facts(context: Context, name: str) -> dict[str, Any]:
    path = context.path / MODEL_FILES[name]
    return {
        "path": MODEL_FILES[name],
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
        "latency_ms": latency_ms(path, _spec_of(context, name), repeats=context.recipe.evaluate.latency_repeats),
    }

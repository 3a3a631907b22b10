"""The stages of a run. Each is a function of the context that writes its files; ``STAGES`` gives their order.

Adding a stage is one function and one entry: what it reads (earlier stages, settings) and what it writes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermdistill.atomic import atomic_folder, write_json, write_text
from dermdistill.bundle.latency import latency_ms
from dermdistill.bundle.manifest import CARD_FILE, write_manifest
from dermdistill.bundle.predictor import OnnxClassifier
from dermdistill.compress.onnx_export import export_onnx
from dermdistill.compress.qat import qat_settings, train_quantized
from dermdistill.config import Recipe
from dermdistill.data.audit import audit_split
from dermdistill.data.catalog import catalog_sha256, write_catalog
from dermdistill.data.copies import exact_copies
from dermdistill.data.readers import read_catalog
from dermdistill.data.split import make_split, write_split
from dermdistill.data.synthetic import write_synthetic
from dermdistill.errors import DataError
from dermdistill.evaluate.evaluation import evaluate_predictions, validation_thresholds
from dermdistill.evaluate.predictions import CONTROL, MODELS, predictions_frame, read_predictions, write_predictions
from dermdistill.explain.pictures import choose_items, write_explanations
from dermdistill.labels import class_names
from dermdistill.pipeline.compression import FOLDER, QAT_FOLDER, calibration_images, compress_student
from dermdistill.pipeline.context import Context
from dermdistill.pipeline.teachers import adopt_teacher, other_teacher_hashes, student_teaching, taken_teacher_hash
from dermdistill.preprocess import PreprocessSpec
from dermdistill.provenance import code_version, sha256_file
from dermdistill.report.model_card import NOTICE_FILE, CardFacts, data_notice, model_card
from dermdistill.training.roles import load_description, load_trained, train_role

MODEL_FILES = {
    "teacher": "teacher/model.onnx",
    "student": "bundle/model.onnx",
    "student_int8": "bundle/model.int8.onnx",
    CONTROL: "controls/no_teacher/model.onnx",
}


def make_catalog(context: Context, inputs: str) -> None:
    """Read the images, or draw synthetic ones first."""
    if context.source is None:
        drawn = read_catalog(write_synthetic(context.path / "synthetic", context.recipe.synthetic))
        catalog = drawn.assign(source="synthetic")
    else:
        catalog = read_catalog(context.source)
    write_catalog(catalog, context.path / "catalog.parquet")


def split_images(context: Context, inputs: str) -> None:
    """Split, keeping exact copies together where the protocol promises that."""
    split = make_split(context.catalog, context.recipe.data, same_image=exact_copies(context.catalog))
    write_split(split, context.path)


def audit(context: Context, inputs: str) -> None:
    """Prove the split; a protocol that promises disjoint parts and fails ends the run."""
    report = audit_split(context.catalog, context.split)
    write_json(context.path / "audit.json", report)
    if not report["passed"]:
        raise DataError(
            f"the split leaks: {report['lesions_across']['count']} lesions and "
            f"{report['exact_copies_across']['count']} exact copies lie in more than one part",
            rule=f"protocol {report['protocol']!r} promises none",
            next_step=f"see {context.path / 'audit.json'}; mend the split file, or use protocol lesion",
        )


def train_teacher(context: Context, inputs: str) -> None:
    """Train the teacher, or take that of another run, and export it."""
    folder, run = context.path / "teacher", context.recipe.teacher.run
    if run is not None:
        adopt_teacher(Path(run), context.path, context.split)
    else:
        train_role("teacher", context.recipe, context.training_data(context.teacher_spec), folder=folder, inputs=inputs)
    export_onnx(load_trained(folder).deployed(), context.teacher_spec, context.path / MODEL_FILES["teacher"])


def train_student(context: Context, inputs: str) -> None:
    """Distil the student."""
    data = context.training_data(context.spec)
    source, shapes = student_teaching(context.recipe, context.path / "teacher", context.split, context.stores, data)
    train_role(
        "student",
        context.recipe,
        data,
        folder=context.path / "student",
        inputs=inputs,
        teachers=source,
        shapes=shapes,
    )


def train_control(context: Context, inputs: str) -> None:
    """Train the same deployed network on the labels alone, and export it."""
    folder = context.path / "controls" / CONTROL
    recipe = context.recipe.model_copy(update={"student": context.recipe.student.alone()})
    train_role("student", recipe, context.training_data(context.spec), folder=folder, inputs=inputs)
    export_onnx(load_trained(folder).deployed(), context.spec, context.path / MODEL_FILES[CONTROL])


def evaluated_models(recipe: Recipe) -> tuple[str, ...]:
    """Names of the models that a run evaluates."""
    return (*MODELS, CONTROL) if recipe.has_control else MODELS


def train_quantized_student(context: Context, inputs: str) -> None:
    """Train the student on while INT8 is simulated, taught as before."""
    recipe = context.recipe.model_copy(update={"student": qat_settings(context.recipe)})
    data = context.training_data(context.spec)
    source, shapes = student_teaching(recipe, context.path / "teacher", context.split, context.stores, data)
    train_quantized(
        load_trained(context.path / "student"),
        context.recipe,
        data,
        calibration_images(context),
        folder=context.path / QAT_FOLDER,
        inputs=inputs,
        teachers=source,
        shapes=shapes,
    )


def make_bundle(context: Context, inputs: str) -> None:
    """Export the student for every runtime, measure and gate each file, and write card and manifest beside them.

    The bundle is written whole or not at all. Each model's decision thresholds come from its own scores on validation.
    """
    recipe, source = context.recipe, _named_source(context.catalog)
    with atomic_folder(context.path / "bundle") as bundle:
        record, validation = compress_student(context, bundle)
        thresholds = {
            name: validation_thresholds(_frame(context, name, "val", logits)) for name, logits in validation.items()
        }
        provenance = {
            "code": code_version(),
            "recipe": recipe.name,
            "student_sha256": sha256_file(context.path / "student" / "model.safetensors"),
            "quantization": {
                "calibration_images": record["calibration_images"],
                "method": record["method"],
                "int8": record["choices"]["int8"],
                "float_layers": record["choices"]["float_layers"],
            },
        }
        files = record["files"]
        card = CardFacts(
            recipe=recipe,
            split=context.split.info,
            source=source,
            images=len(context.catalog),
            lesions=int(context.catalog["lesion_id"].nunique()),
            student_parameters=load_description(context.path / "student")["parameters"],
            variants={name: files[name]["bytes"] for name in validation},
            thresholds=thresholds,
            figures=[
                {"variant": name, "n": files[name]["n"], "same_label": files[name]["same_label"]}
                | files[name]["metrics"]
                for name in validation
            ],
            provenance={
                **{key: value for key, value in context.provenance("").items() if key not in ("command", "finished")},
                **provenance,
            },
            calibration_images=record["calibration_images"],
            qat_epochs=recipe.compress.qat_epochs if record["choices"]["int8"] == "aware" else 0,
        )
        write_text(bundle / CARD_FILE, model_card(card))
        notice = data_notice(source)
        if notice is not None:
            write_text(bundle / NOTICE_FILE, notice)
        write_manifest(bundle, task=recipe.task, spec=context.spec, thresholds=thresholds, provenance=provenance)


def _named_source(catalog: pd.DataFrame) -> str:
    """The data set's name; drawn lesions are called so, also those in a real data set's layout."""
    name = str(catalog["source"].iloc[0])
    drawn = bool((catalog["diagnosis_source"] == "synthetic").any())
    return f"{name}, synthetic" if drawn and "synthetic" not in name.lower() else name


def _spec_of(context: Context, name: str) -> PreprocessSpec:
    return context.teacher_spec if name == "teacher" else context.spec


def _predictions(context: Context, name: str, part: str) -> pd.DataFrame:
    """Predictions of an exported model on one part, by ONNX Runtime as a user of the file would get them."""
    spec = _spec_of(context, name)
    store = context.stores.at(spec)
    images = store.images[store.rows(context.split.ids(part))]
    return _frame(context, name, part, OnnxClassifier(context.path / MODEL_FILES[name], spec).logits(images))


def _frame(context: Context, name: str, part: str, logits: npt.NDArray[np.float32]) -> pd.DataFrame:
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
    result = evaluate_predictions(
        saved, task=recipe.task, protocol=protocol, leaky=leaky, config=recipe.evaluate, models=models
    )
    files = {name: _file_facts(context, name) for name in models}
    size = {name: facts["bytes"] for name, facts in files.items()}
    result["files"] = files
    result["size_ratios"] = {
        "student_int8 / student": size["student_int8"] / size["student"],
        "student_int8 / teacher": size["student_int8"] / size["teacher"],
    }
    write_json(folder / "evaluation.json", result)


def _file_facts(context: Context, name: str) -> dict[str, Any]:
    path = context.path / MODEL_FILES[name]
    return {
        "path": MODEL_FILES[name],
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
        "latency_ms": latency_ms(path, _spec_of(context, name), repeats=context.recipe.evaluate.latency_repeats),
    }


def explain(context: Context, inputs: str) -> None:
    """Grad-CAM of the student on correct and wrong test images."""
    recipe = context.recipe
    saved = read_predictions(
        context.path / "evaluation" / "predictions.parquet",
        task=recipe.task,
        protocol=context.split.info["protocol"],
        models=evaluated_models(recipe),
    )
    test = saved[(saved["model"] == "student") & (saved["split"] == "test")].drop_duplicates("image_id")
    items = choose_items(test, correct=recipe.explain.correct, wrong=recipe.explain.wrong, seed=recipe.seed)
    model = load_trained(context.path / "student")
    images = context.store.images[context.store.rows([item["image_id"] for item in items])]
    write_explanations(
        model,
        model.cam_layers(context.spec.size),
        images,
        context.spec,
        items,
        context.path / "explanations",
        classes=class_names(recipe.task),
    )


@dataclass(frozen=True)
class Stage:
    """One stage: its work, what it reads and what it writes.

    Attributes:
        work: does it.
        reads: earlier stages whose files it depends on.
        settings: the part of the recipe that it depends on.
        writes: files and folders in the run folder.
        wanted: whether a recipe has this stage.
    """

    work: Callable[[Context, str], None]
    reads: tuple[str, ...]
    settings: Callable[[Recipe], Any]
    writes: tuple[str, ...]
    wanted: Callable[[Recipe], bool] = lambda recipe: True


def _network(role: str) -> Callable[[Recipe], Any]:
    # Defaults are left out, so that a setting which a later version adds, and a recipe does not use, retrains nothing.
    keys = {role, "task", "seed", "threads", "augment"}
    return lambda recipe: {
        **recipe.model_dump(mode="json", include=keys, exclude_defaults=True),
        "size": recipe.data.model_dump(exclude_defaults=True),
    }


def _aware(recipe: Recipe) -> Any:
    return recipe.compress.model_dump(mode="json", include={"qat_epochs", "qat_learning_rate", "calibration_images"})


STAGES: dict[str, Stage] = {
    "catalog": Stage(make_catalog, (), lambda recipe: recipe.synthetic.model_dump(mode="json"), ("catalog.parquet",)),
    "split": Stage(
        split_images,
        ("catalog",),
        lambda recipe: recipe.data.model_dump(mode="json"),
        ("split.csv", "split.json"),
    ),
    "audit": Stage(audit, ("catalog", "split"), lambda recipe: None, ("audit.json",)),
    "teacher": Stage(train_teacher, ("catalog", "split"), _network("teacher"), ("teacher",)),
    "student": Stage(train_student, ("catalog", "split", "teacher"), _network("student"), ("student",)),
    "control": Stage(
        train_control,
        ("catalog", "split"),
        _network("student"),
        ("controls",),
        wanted=lambda recipe: recipe.has_control,
    ),
    "quantized": Stage(
        train_quantized_student,
        ("catalog", "split", "teacher", "student"),
        lambda recipe: {"student": _network("student")(recipe), "compress": _aware(recipe)},
        (QAT_FOLDER,),
        wanted=lambda recipe: recipe.compress.qat_epochs > 0,
    ),
    "bundle": Stage(
        make_bundle,
        ("split", "student", "quantized"),
        lambda recipe: recipe.model_dump(mode="json", include={"compress", "seed", "task", "data"}),
        ("bundle", FOLDER),
    ),
    "evaluation": Stage(
        evaluate,
        ("split", "teacher", "control", "bundle"),
        lambda recipe: recipe.evaluate.model_dump(mode="json"),
        ("evaluation",),
    ),
    "explanations": Stage(
        explain,
        ("student", "evaluation"),
        lambda recipe: recipe.model_dump(mode="json", include={"explain", "seed"}),
        ("explanations",),
    ),
}


def _listing(folder: Path) -> list[Any]:
    """Where a folder lies, and name, bytes and time of change of its files: mended data are read again."""
    files = [(str(path), path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [str(folder.resolve()), *([name, stat.st_size, stat.st_mtime_ns] for name, stat in files)]


def stage_inputs(context: Context, name: str) -> str:
    """Hash of everything that a stage reads; the stages before it must be done."""
    stage = STAGES[name]
    source: Path | None = context.source if name == "catalog" else None
    return context.inputs(
        name,
        *(earlier for earlier in stage.reads if STAGES[earlier].wanted(context.recipe)),
        recipe=stage.settings(context.recipe),
        source=_listing(source) if source else "",
        other_teachers=other_teacher_hashes(context.recipe) if name == "student" else [],
        taken_teacher=taken_teacher_hash(context.recipe) if name == "teacher" else "",
        catalog=catalog_sha256(context.catalog) if "catalog" in stage.reads else "",
    )

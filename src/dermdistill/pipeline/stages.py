"""The stages of a run. Each is a function of the context that writes its files; ``STAGES`` gives their order.

Adding a stage is one function and one entry: what it reads (earlier stages, settings) and what it writes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermdistill.atomic import write_json
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
from dermdistill.evaluate.predictions import CONTROL
from dermdistill.pipeline.bundling import make_bundle
from dermdistill.pipeline.compression import FOLDER, QAT_FOLDER, calibration_images
from dermdistill.pipeline.context import Context
from dermdistill.pipeline.evaluating import MODEL_FILES, evaluate
from dermdistill.pipeline.explaining import explain
from dermdistill.pipeline.teachers import adopt_teacher, other_teacher_hashes, student_teaching, taken_teacher_hash
from dermdistill.training.roles import load_trained, train_role


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
        lambda recipe: {
            **recipe.model_dump(mode="json", include={"compress", "seed", "task", "data"}),
            "flips": recipe.evaluate.flips,
        },
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
        ("teacher", "student", "bundle", "evaluation"),
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

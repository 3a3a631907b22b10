"""Where the models of an evaluation come from, a run or a bundle, and what those have seen."""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import yaml

from dermdistill.bundle.decisions import POINTS, Decisions
from dermdistill.bundle.fingerprints import read_fingerprints, seen_images
from dermdistill.bundle.manifest import Manifest, read_manifest
from dermdistill.bundle.pack import bundle_of
from dermdistill.bundle.variants import VARIANTS
from dermdistill.config import Recipe
from dermdistill.data.catalog import load_catalog
from dermdistill.data.overlap import Seen
from dermdistill.data.split import load_split
from dermdistill.errors import BundleError
from dermdistill.evaluate.decide import decide_on_validation
from dermdistill.evaluate.predictions import validate_predictions
from dermdistill.labels import Task
from dermdistill.preprocess import PreprocessSpec

TEACHER = "teacher"
TEACHER_FILE = Path("teacher") / "model.onnx"


@dataclass(frozen=True)
class OtherModel:
    """One model file and what its validation part decided."""

    name: str
    path: Path
    spec: PreprocessSpec
    decisions: Decisions


@dataclass(frozen=True)
class Source:
    """Where the models come from.

    Attributes:
        name: of the run's or bundle's folder.
        run: the run's folder; None of a bundle alone.
        bundle: the bundle's folder.
        manifest: of the bundle.
        models: every ONNX model of the bundle; before them a run's teacher.
    """

    name: str
    run: Path | None
    bundle: Path
    manifest: Manifest
    models: tuple[OtherModel, ...]


def read_source(source: Path) -> Source:
    """The models of a run or a bundle, their bytes verified.

    Raises:
        BundleError: it is neither, was changed, or holds no model for ONNX Runtime.
    """
    bundle = bundle_of(source)
    manifest = read_manifest(bundle)
    run = source if bundle != source else None
    models = [
        OtherModel(name, bundle / variant.file, manifest.spec, _with_all_points(manifest.decisions_of(name)))
        for name, variant in VARIANTS.items()
        if variant.runtime == "onnxruntime" and variant.file in manifest.files
    ]
    if not models:
        raise BundleError(
            f"{bundle}: holds no model for ONNX Runtime",
            rule="other sets are evaluated with ONNX Runtime",
            next_step="pack the bundle again with model.onnx or model.int8.onnx",
        )
    teacher = _teacher(run, manifest.task) if run is not None else []
    return Source(source.resolve().name, run, bundle, manifest, (*teacher, *models))


def _with_all_points(decisions: Decisions) -> Decisions:
    """The decisions with a threshold, or none, for every operating point: a bundle may lack some or all."""
    return replace(decisions, thresholds={point: decisions.thresholds.get(point) for point in POINTS})


def _teacher(run: Path, task: Task) -> list[OtherModel]:
    """The run's teacher, decided on the run's own validation part; none where its file or answers are gone."""
    stored = run / "evaluation" / "predictions.parquet"
    if not (run / TEACHER_FILE).is_file() or not stored.is_file():
        return []
    recipe = Recipe.model_validate(yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8")))
    rows = pd.read_parquet(stored)
    validation = rows[(rows["model"] == TEACHER) & (rows["split"] == "val")]
    checked = validate_predictions(
        validation, task=task, protocol=recipe.data.protocol, models=(TEACHER,), parts=("val",)
    )
    decisions, _ = decide_on_validation(checked, task)
    return [OtherModel(TEACHER, run / TEACHER_FILE, recipe.data.preprocess(recipe.teacher.size), decisions)]


def what_was_seen(models: Source) -> Seen | None:
    """What the models learnt from and were chosen by; None where nothing says it.

    A bundle says it in ``seen_images.json``. Of a run without that file its catalog, split and images are read.

    Raises:
        BundleError: the bundle's file cannot be used.
        DataError: the run's images are not where they were.
    """
    seen = read_fingerprints(models.bundle)
    if seen is not None or models.run is None or not (models.run / "catalog.parquet").is_file():
        return seen
    catalog, split = load_catalog(models.run / "catalog.parquet"), load_split(models.run)
    # An oversampled split repeats images, and a part that was learnt from counts before the test part.
    part_of = split.table.drop_duplicates("image_id").set_index("image_id")["split"]
    for part in ("val", "train"):
        part_of[split.table["image_id"][split.table["split"] == part]] = part
    parts = catalog["image_id"].map(part_of).astype(str).tolist()
    paths = [Path(path) for path in catalog["path"]]
    return seen_images(catalog["image_id"].tolist(), catalog["lesion_id"].tolist(), paths, parts)

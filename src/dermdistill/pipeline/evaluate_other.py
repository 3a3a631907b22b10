"""A finished model on images from elsewhere: what it has seen of them, its answers, figures, report.

Nothing is fitted or chosen on the new images. Calibration, thresholds and prediction sets are those of each model's own
validation part, from the bundle's manifest; a run's teacher, which is in no bundle, gets its own from the run's stored
predictions on validation. Before any figure the new set is compared with what the model has seen.
"""

import datetime as dt
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dermdistill.atomic import atomic_folder, write_json
from dermdistill.bundle.fingerprints import SEEN_FILE
from dermdistill.bundle.manifest import MANIFEST_FILE
from dermdistill.bundle.predictor import OnnxClassifier
from dermdistill.config import EvaluateConfig
from dermdistill.data.other_sets import OtherSet, detect_reader, read_other_set
from dermdistill.data.overlap import LISTED, Overlap, Seen, find_overlap, picture_looks
from dermdistill.data.store import open_store
from dermdistill.errors import BundleError, ConfigError, DataError
from dermdistill.evaluate import bootstrap, notes
from dermdistill.evaluate.evaluation import evaluate_test
from dermdistill.evaluate.partial_labels import (
    Scoring,
    called_by_name,
    choose_scoring,
    lesion_lines,
    melanoma_decisions,
    melanoma_rows,
    other_rows,
)
from dermdistill.labels import Task
from dermdistill.pipeline.evidence import Shown, gate_evidence, robustness_evidence, subgroup_evidence
from dermdistill.pipeline.model_source import OtherModel, Source, read_source, what_was_seen
from dermdistill.provenance import origin, sha256_file, sha256_json

PROTOCOL = "other set"
THREADS = 2
Json = dict[str, Any]


def evaluate_other(
    source: Path,
    on: Path,
    *,
    reader: str | None = None,
    out: Path,
    drop_overlap: bool = False,
    unchecked: bool = False,
    config: EvaluateConfig | None = None,
    command: str = "",
) -> Json:
    """Evaluate a run's models, or a bundle's, on images from elsewhere, and write a folder about it.

    Args:
        source: a run folder, or a bundle folder.
        on: the images, as ``reader`` reads them.
        reader: a key of ``other_sets.OTHER_READERS``; by default the one that the folder looks like.
        out: the folder to write, whole or not at all; it is not there yet, or empty.
        drop_overlap: leave out what the model has seen; otherwise any such image is an error.
        unchecked: go on where the source does not say what it has seen.
        config: bootstrap and calibration bins.
        command: for the provenance.

    Returns:
        The content of ``evaluation.json``.

    Raises:
        BundleError: no bundle there, or one that is damaged or does not say what it has seen.
        DataError: the set cannot be read, or overlaps with what the model has seen, or nothing is left of it.
        ConfigError: an unknown reader, or ``out`` holds something.
        OutputError: ``out`` cannot be written.
    """
    settings, models = config or EvaluateConfig(), read_source(source)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"{out}: is there already", next_step="choose another --out, or remove it")
    other = read_other_set(on, reader or detect_reader(on))
    frame, overlap, seen = _compared(models, other, on, drop_overlap=drop_overlap, unchecked=unchecked)
    scoring = choose_scoring(frame["diagnosis"].tolist(), models.manifest.task)
    with atomic_folder(out) as folder, tempfile.TemporaryDirectory(prefix=".pictures.", dir=folder) as scratch:
        shown = _shown(models.models, frame, Path(scratch))
        rows = _predicted(shown, frame, models.manifest.task)
        result = {
            **_figures(rows, models, scoring, settings),
            **_evidence(shown, rows, frame, models, scoring, settings),
            "protocol": PROTOCOL,
            "leaky": False,
            "source": _about(models, on, other, len(frame)),
            "overlap": _overlap_block(overlap, seen, dropped=len(other.frame) - len(frame)),
            "scored": [*scoring.lines, *lesion_lines(frame, other.outside)],
        }
        few = notes.few_cases(result["n"]["per_class"], 0)
        result["notes"] = [_overlap_line(result["overlap"]), *result["scored"], *few, *result["notes"]]
        rows.to_parquet(folder / "predictions.parquet", index=False)
        write_json(folder / "evaluation.json", result)
        write_json(folder / "provenance.json", _provenance(models, on, other, frame, settings, command))
        _write_report(folder, result, frame)
    return result


def _compared(
    models: Source, other: OtherSet, on: Path, *, drop_overlap: bool, unchecked: bool
) -> tuple[pd.DataFrame, Overlap | None, Seen | None]:
    """The images to evaluate, and what was found; the images of the set are decoded here, whatever else happens."""
    frame = other.frame
    views = picture_looks([Path(path) for path in frame["path"]], frame["image_id"].tolist())
    try:
        seen = what_was_seen(models)
    except (BundleError, DataError) as error:
        if not unchecked:
            raise DataError(
                f"{models.name}: what its models have seen cannot be read, so overlap cannot be checked",
                faults=getattr(error, "faults", ()) or (error.problem,),
                next_step="mend this, or go on with --unchecked: the result will say that nobody checked",
            ) from error
        seen = None
    if seen is None:
        if not unchecked:
            raise BundleError(
                f"{models.name}: does not say what its models have seen, so overlap with {on} cannot be checked",
                rule=f"a bundle has {SEEN_FILE}; a run has its catalog and its images",
                next_step="write the bundle again with this version, or go on with --unchecked: the result will say "
                "that nobody checked",
            )
        return frame, None, None
    overlap = find_overlap(frame["image_id"].tolist(), frame["lesion_id"].tolist(), views, seen)
    if not overlap.image_ids:
        return frame, overlap, seen
    if not drop_overlap:
        raise _overlaps(models, on, overlap)
    rest = frame[~frame["image_id"].isin(overlap.image_ids)].reset_index(drop=True)
    if rest.empty:
        raise DataError(
            f"{on}: the model has seen all {len(frame)} images; none is left to evaluate",
            rule="a model is tested on images that it has not seen",
            next_step="give images from elsewhere",
        )
    return rest, overlap, seen


def _overlaps(models: Source, on: Path, overlap: Overlap) -> DataError:
    copies = [
        f"{name} ({f'as {seen}, ' if seen else ''}distance {distance:.4f})" for name, seen, distance in overlap.copies
    ]
    kinds = (
        ("carry the name of a training or validation image", overlap.names),
        ("show a picture of training or validation", copies),
        ("show a lesion of training or validation", overlap.lesions),
    )
    return DataError(
        f"{on}: {models.name} has seen {len(overlap.image_ids)} of its {overlap.images} images",
        faults=[f"{len(found)} {what}: {_first(found)}" for what, found in kinds if found],
        rule="a model is tested on images that it has not seen: figures on these would be too good",
        next_step="--drop-overlap evaluates the rest",
    )


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")


def _shown(models: Sequence[OtherModel], frame: pd.DataFrame, scratch: Path) -> dict[str, Shown]:
    """Every model with the images at its own input size, which lie in a folder that the caller takes away."""
    shown = {}
    for model in models:
        store = open_store(frame, model.spec, scratch)
        images = store.images[store.rows(frame["image_id"])]
        shown[model.name] = Shown(OnnxClassifier(model.path, model.spec, threads=THREADS), images, model.decisions)
    return shown


def _predicted(shown: Mapping[str, Shown], frame: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Raw probabilities of every model on every image."""
    return pd.concat(
        [other_rows(name, frame, model.raw(model.images), task) for name, model in shown.items()], ignore_index=True
    )


def _evidence(
    shown: Mapping[str, Shown],
    rows: pd.DataFrame,
    frame: pd.DataFrame,
    source: Source,
    scoring: Scoring,
    settings: EvaluateConfig,
) -> Json:
    """Who is failed, what breaks a model, what it should not answer; the first alone where labels are partial."""
    task, gate = source.manifest.task, source.manifest.gate
    own = {name: rows[rows["model"] == name].reset_index(drop=True) for name in shown}
    decisions = {name: model.decisions for name, model in shown.items()}
    if scoring.task != task:
        two = {name: melanoma_decisions(model) for name, model in decisions.items()}
        own = {name: melanoma_rows(table, decisions[name]) for name, table in own.items()}
        return {"subgroups": subgroup_evidence(own, two, frame, task=scoring.task, config=settings)}
    labels = next(iter(own.values()))["label"].to_numpy(dtype=np.int64)
    lesions, ids = frame["lesion_id"].to_numpy(), frame["image_id"].tolist()
    found = {
        "subgroups": subgroup_evidence(own, decisions, frame, task=task, config=settings),
        "robustness": robustness_evidence(shown, labels, lesions, ids, task=task, config=settings),
        "gate": gate and gate_evidence(gate, shown, labels, lesions, ids, task=task, config=settings),
    }
    return {name: block for name, block in found.items() if block is not None}


def _figures(rows: pd.DataFrame, source: Source, scoring: Scoring, settings: EvaluateConfig) -> Json:
    """All figures; where models of seven are scored by melanoma alone, that, and ``called`` beside it."""
    decisions = {model.name: model.decisions for model in source.models}
    own = {name: rows[rows["model"] == name].reset_index(drop=True) for name in decisions}
    if scoring.task == source.manifest.task:
        table = pd.concat(own.values(), ignore_index=True)
        return evaluate_test(table, task=scoring.task, config=settings, decisions=decisions)
    table = pd.concat([melanoma_rows(own[name], decisions[name]) for name in own], ignore_index=True)
    two = {name: melanoma_decisions(model) for name, model in decisions.items()}
    result = evaluate_test(table, task="melanoma", config=settings, decisions=two)
    first = next(iter(own.values()))
    weights = bootstrap.lesion_weights(
        first["lesion_id"], samples=settings.bootstrap_samples, seed=settings.bootstrap_seed
    )
    return {**result, "called": {name: called_by_name(own[name], weights) for name in own}}


def _about(source: Source, on: Path, other: OtherSet, images: int) -> Json:
    recipe = source.manifest.provenance.get("recipe")
    return {
        "run" if source.run is not None else "bundle": source.name,
        "recipe": recipe.get("name") if isinstance(recipe, dict) else recipe,
        "manifest_sha256": sha256_file(source.bundle / MANIFEST_FILE),
        "models": [model.name for model in source.models],
        "data": on.resolve().name,
        "reader": other.reader,
        "images": images,
        "left_out": sum(other.outside.values()),
    }


def _overlap_block(overlap: Overlap | None, seen: Seen | None, *, dropped: int) -> Json:
    if overlap is None or seen is None:
        return {"checked": False, "dropped": 0}
    parts = {part: seen.parts.count(part) for part in ("train", "val")}
    found = overlap.to_dict()
    return {
        "checked": f"{parts['train']} training and {parts['val']} validation images, by name, picture and lesion",
        "images": overlap.images,
        "ids": found["by_name"]["count"],
        "near_copies": found["near_copies"]["count"],
        "lesions": found["by_lesion"]["count"],
        "dropped": dropped,
        "details": found,
    }


def _overlap_line(block: Json) -> str:
    """The line that stands before any figure."""
    if not block["checked"]:
        return (
            "OVERLAP NOT CHECKED: nothing says what the model has seen. If it learnt from these images, every figure "
            "is too good"
        )
    kinds = f"{block['ids']} by name, {block['near_copies']} near copies, {block['lesions']} by lesion"
    seen = block["ids"] + block["near_copies"] + block["lesions"]
    what = (
        f"{block['dropped']} of {block['images']} were dropped ({kinds})"
        if seen
        else f"none of {block['images']} overlaps"
    )
    return f"overlap with {block['checked']}: {what}"


def _provenance(
    source: Source, on: Path, other: OtherSet, frame: pd.DataFrame, settings: EvaluateConfig, command: str
) -> Json:
    """Where the figures come from, without any path of this machine."""
    contents = [
        [image_id, lesion, diagnosis, sha256_file(Path(path))]
        for image_id, lesion, diagnosis, path in frame[["image_id", "lesion_id", "diagnosis", "path"]].itertuples(
            index=False, name=None
        )
    ]
    return {
        "command": command,
        **origin(),
        "data": {
            "source": on.resolve().name,
            "reader": other.reader,
            "images": len(frame),
            "lesions": int(frame["lesion_id"].nunique()),
            "left_out": other.outside,
            "content_sha256": sha256_json(contents),
        },
        "bundle": {
            "manifest_sha256": sha256_file(source.bundle / MANIFEST_FILE),
            "provenance": dict(source.manifest.provenance),
        },
        "models": {model.name: {"sha256": sha256_file(model.path)} for model in source.models},
        "evaluate": settings.model_dump(mode="json"),
        "finished": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def _write_report(folder: Path, result: Json, frame: pd.DataFrame) -> None:
    """The page, and beside it the pictures of the cases that it shows."""
    from dermdistill.report.case_pictures import write_case_pictures
    from dermdistill.report.evaluation_page import write_evaluation_report

    write_case_pictures(folder / "cases", result["cases"], frame)
    write_evaluation_report(folder)

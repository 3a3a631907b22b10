"""The bundle stage: the student for every runtime, what validation decides for each file, gate, card and manifest."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dermdistill.atomic import atomic_folder, write_text
from dermdistill.bundle.decisions import Decisions
from dermdistill.bundle.fingerprints import write_fingerprints
from dermdistill.bundle.image_gate import ImageGate, fit_gate
from dermdistill.bundle.manifest import CARD_FILE, read_manifest, write_manifest
from dermdistill.bundle.variants import VARIANTS
from dermdistill.evaluate.decide import decide_on_validation
from dermdistill.evaluate.predictions import FLIPPED_INT8
from dermdistill.pipeline.compression import RECORD, compress_student
from dermdistill.pipeline.context import Context
from dermdistill.pipeline.evaluating import flipped_rows, part_rows
from dermdistill.provenance import code_version, sha256_file
from dermdistill.report.model_card import NOTICE_FILE, CardFacts, data_notice, model_card
from dermdistill.training.roles import load_description


def make_bundle(context: Context, inputs: str) -> None:
    """Export the student for every runtime, measure and gate each file, and write card and manifest beside them.

    The bundle is written whole or not at all. What each model's answers mean comes from its own scores on validation.
    """
    recipe, source = context.recipe, _named_source(context.catalog)
    with atomic_folder(context.path / "bundle") as bundle:
        record, validation = compress_student(context, bundle)
        decisions = {
            name: decide_on_validation(part_rows(context, name, "val", logits), recipe.task)[0]
            for name, logits in validation.items()
        }
        if recipe.evaluate.flips:
            rows = flipped_rows(context, "val", bundle / VARIANTS["student_int8"].file)
            decisions[FLIPPED_INT8] = decide_on_validation(rows, recipe.task)[0]
        write_text(bundle / CARD_FILE, model_card(_card_facts(context, record, decisions)))
        notice = data_notice(source)
        if notice is not None:
            write_text(bundle / NOTICE_FILE, notice)
        _write_seen(context, bundle)
        write_manifest(
            bundle,
            task=recipe.task,
            spec=context.spec,
            decisions=decisions,
            gate=_fitted_gate(context),
            provenance=_origin(context, record),
        )


def write_run_card(context: Context) -> None:
    """``MODEL_CARD.md`` of a run folder: that of the bundle with what the evaluation has found since."""
    record, evaluation = (
        json.loads((context.path / name).read_text(encoding="utf-8")) for name in (RECORD, "evaluation/evaluation.json")
    )
    decisions = read_manifest(context.path / "bundle").decisions
    write_text(context.path / CARD_FILE, model_card(_card_facts(context, record, decisions, evaluation)))


def _origin(context: Context, record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "code": code_version(),
        "recipe": context.recipe.name,
        "student_sha256": sha256_file(context.path / "student" / "model.safetensors"),
        "quantization": {
            "calibration_images": record["calibration_images"],
            "method": record["method"],
            "int8": record["choices"]["int8"],
            "float_layers": record["choices"]["float_layers"],
        },
    }


def _card_facts(
    context: Context,
    record: Mapping[str, Any],
    decisions: Mapping[str, Decisions],
    evaluation: Mapping[str, Any] | None = None,
) -> CardFacts:
    recipe, files = context.recipe, record["files"]
    shipped = [name for name in VARIANTS if name in files]
    provenance = {key: value for key, value in context.provenance("").items() if key not in ("command", "finished")}
    return CardFacts(
        recipe=recipe,
        split=context.split.info,
        source=_named_source(context.catalog),
        images=len(context.catalog),
        lesions=int(context.catalog["lesion_id"].nunique()),
        student_parameters=load_description(context.path / "student")["parameters"],
        variants={name: files[name]["bytes"] for name in shipped},
        thresholds={name: own.thresholds for name, own in decisions.items()},
        figures=[
            {"variant": name, "n": files[name]["n"], "same_label": files[name]["same_label"]} | files[name]["metrics"]
            for name in shipped
        ],
        provenance={**provenance, **_origin(context, record)},
        calibration_images=record["calibration_images"],
        qat_epochs=recipe.compress.qat_epochs if record["choices"]["int8"] == "aware" else 0,
        evaluation=evaluation,
        decisions=decisions,
    )


def _write_seen(context: Context, bundle: Path) -> None:
    """Which images the model has seen, so that another test set can be compared with them."""
    part_of = {image: part for part in ("train", "val") for image in context.split.ids(part)}
    rows = context.catalog[context.catalog["image_id"].isin(part_of)]
    write_fingerprints(
        bundle,
        image_ids=rows["image_id"].tolist(),
        lesion_ids=rows["lesion_id"].tolist(),
        paths=[Path(path) for path in rows["path"]],
        parts=[part_of[image] for image in rows["image_id"]],
    )


def _fitted_gate(context: Context) -> ImageGate:
    """What training pictures look like; validation pictures say what is still usual."""
    images = context.store.images
    train, val = (np.unique(context.rows(part)) for part in ("train", "val"))
    return fit_gate(np.asarray(images[train]), np.asarray(images[val]))


def _named_source(catalog: pd.DataFrame) -> str:
    """The data set's name; drawn lesions are called so, also those in a real data set's layout."""
    name = str(catalog["source"].iloc[0])
    drawn = bool((catalog["diagnosis_source"] == "synthetic").any())
    return f"{name}, synthetic" if drawn and "synthetic" not in name.lower() else name

"""What tests say of every method of explanation on a sample of a run's test part.

The block ``tests`` of ``explanations.json``: ``images``, ``lesions``, ``per_class``, ``moved``, ``refused``,
``costly_images``; ``scores`` {METHOD: {SCORE: cell}}; ``lime``, null without that method: ``overlap`` of its top
segments between seeds and ``r2`` of its fits, cells; ``agreement`` {PAIR: {``title``, ``method``, ``n``, ``measures``
{MEASURE: cell}, ``by_chance`` the same with maps of other images, null for one image}}; ``bootstrap``. Cells are
{``value``, ``low``, ``high``, ``n``}, means over the images that define them with intervals over lesions.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from dermdistill.bundle.predictor import OnnxClassifier
from dermdistill.evaluate import bootstrap
from dermdistill.evaluate.metrics import ratio
from dermdistill.evaluate.robustness import robustness_sample
from dermdistill.explain.agreement import agreement, agreement_by_chance
from dermdistill.explain.cases import Cases, make_cases
from dermdistill.explain.explainer import Maps, Scores, maps_of
from dermdistill.explain.lime import lime_fits, top_overlap
from dermdistill.explain.methods import maps_by
from dermdistill.explain.scorers import ArrayScorer
from dermdistill.explain.scores import ScoreSettings, curve_baselines, score_method, some_rows
from dermdistill.explain.verdict import untested, verdict
from dermdistill.labels import class_names
from dermdistill.pipeline.context import Context
from dermdistill.pipeline.evaluating import MODEL_FILES
from dermdistill.pipeline.explained import BY_GRADIENTS, Explained
from dermdistill.preprocess import normalise
from dermdistill.progress import StepProgress
from dermdistill.training.roles import load_trained

Weights = npt.NDArray[np.uint16]
Json = dict[str, Any]


def explanation_tests(context: Context, own: Explained) -> tuple[Json, dict[str, Json]]:
    """The block ``tests``, and {METHOD: {``failures``, ``untested``}}.

    Args:
        context: the run.
        own: its student.
    """
    config, table = own.config, own.test
    labels, lesions = table["label"].to_numpy(dtype=np.int64), table["lesion_id"].to_numpy()
    rows = table.iloc[robustness_sample(labels, lesions, config.scored_images, own.seed)]
    ids = rows["image_id"].tolist()
    weights = drawn_weights(context, rows)
    with StepProgress("tests of explanations", steps=len(config.methods) + 4) as bar:
        cases = make_cases(own.pictures(ids), own.masks(ids), own.spec, own.scorer, seed=own.seed)
        maps: dict[str, Maps] = {
            method: maps_of(own.explainer(method), own.model, cases.plain.images, cases.plain.classes)
            for method in config.methods
        }
        bar.step()
        found = _scores(own, cases, maps, bar)
        lime = _lime(own, cases, weights) if "lime" in config.methods else None
        bar.step()
        agreements = _agreements(context, own, cases, maps, ids, weights)
        bar.step()
    codes = class_names(context.recipe.task)
    block = {
        "images": len(rows),
        "lesions": int(rows["lesion_id"].nunique()),
        "per_class": {code: int((rows["label"] == index).sum()) for index, code in enumerate(codes)},
        "moved": len(cases.moved),
        "refused": cases.refused,
        "costly_images": min(config.costly_images, len(rows)),
        "scores": {
            method: {name: cell(values, weights) for name, values in scores.items()} for method, scores in found.items()
        },
        "lime": lime,
        "agreement": agreements,
        "bootstrap": {"samples": len(weights), "unit": "lesion", "level": bootstrap.LEVEL},
    }
    facts = {
        method: {"failures": [one.to_dict() for one in verdict(scores)], "untested": untested(scores)}
        for method, scores in found.items()
    }
    return block, facts


def _scores(own: Explained, cases: Cases, maps: Mapping[str, Maps], bar: StepProgress) -> dict[str, dict[str, Scores]]:
    """Every score of every method."""
    costly = own.config.costly_images
    how = ScoreSettings(seed=own.seed, sensitivity_images=costly, randomisation_images=costly)
    baselines = curve_baselines(own.scorer, cases, how)
    bar.step()
    found: dict[str, dict[str, Scores]] = {}
    for method in own.config.methods:
        found[method] = score_method(
            own.explainer(method),
            own.model,
            cases,
            how,
            scorer=own.scorer,
            randomised_by=maps_by(method, own.settings(method)),
            maps=maps[method],
            baselines=baselines,
        )
        bar.step()
    return found


def drawn_weights(context: Context, rows: pd.DataFrame) -> Weights:
    """Bootstrap weights [samples, N] over the lesions of some images, as the recipe's evaluation draws them."""
    how = context.recipe.evaluate
    return bootstrap.lesion_weights(
        rows["lesion_id"].to_numpy(), samples=how.bootstrap_samples, seed=how.bootstrap_seed
    )


def cell(values: Scores, weights: Weights) -> Json:
    """Mean over the images that define a score, its interval over lesions, and how many images these are.

    Args:
        values: float64 [N], NaN where not defined.
        weights: [samples, N] of ``drawn_weights``.

    Returns:
        ``value``, ``low``, ``high``, ``n``; null where nothing is defined.
    """
    defined = np.isfinite(values)
    drawn = weights[:, defined].astype(np.float64)
    samples = ratio(drawn @ values[defined], drawn.sum(axis=1))
    value = float(values[defined].mean()) if defined.any() else np.nan
    return {**bootstrap.estimate(value, samples), "n": int(defined.sum())}


def _costly(own: Explained, cases: Cases) -> npt.NDArray[np.int64]:
    """Rows of the images of the costly tests, the same as those of ``score_method``."""
    return some_rows(len(cases.plain), own.config.costly_images, own.seed)


def _lime(own: Explained, cases: Cases, weights: Weights) -> Json:
    """Share of LIME's strongest segments that two seeds have in common, and how well its linear models fit."""
    rows = _costly(own, cases)
    few, drawn = cases.plain.some(rows), weights[:, rows]
    settings = own.settings("lime")
    fits = [
        lime_fits(own.scorer, few.images, few.classes, replace(settings, seed=seed))
        for seed in (own.seed, own.seed + 1)
    ]
    fit = np.array([[one.r2 for one in of_seed] for of_seed in fits], dtype=np.float64).mean(axis=0)
    return {"overlap": cell(top_overlap(fits), drawn), "r2": cell(fit, drawn)}


def _agreements(
    context: Context, own: Explained, cases: Cases, maps: Mapping[str, Maps], ids: list[str], weights: Weights
) -> Json:
    """Does the student look where its teacher looks, and its INT8 file where it looks itself."""
    found: Json = {}
    first = own.config.methods[0]
    teacher = context.path / "teacher"
    if (teacher / "model.safetensors").is_file():
        spec = context.teacher_spec
        inputs = np.asarray(context.stores.at(spec).images[context.stores.at(spec).rows(ids)])
        theirs = maps_of(
            maps_by(first, own.settings(first)),
            load_trained(teacher),
            torch.from_numpy(normalise(inputs, spec)),
            cases.plain.classes,
        )
        found[f"teacher, {first}"] = _pair("Student and teacher", first, maps[first], theirs, weights, own.seed)
    int8 = ArrayScorer(
        OnnxClassifier(context.path / MODEL_FILES["student_int8"], own.spec, threads=torch.get_num_threads())
    )
    rows = _costly(own, cases)
    few, drawn = cases.plain.some(rows), weights[:, rows]
    for method in (name for name in own.config.methods if name != BY_GRADIENTS):
        of_int8 = maps_by(method, own.settings(method), scorer=int8)
        theirs = maps_of(of_int8, own.model, few.images, few.classes)
        found[f"int8, {method}"] = _pair("FP32 and INT8 student", method, maps[method][rows], theirs, drawn, own.seed)
    return found


def _pair(title: str, method: str, first: Maps, second: Maps, weights: Weights, seed: int) -> Json:
    def cells(measured: Mapping[str, Scores]) -> Json:
        return {name: cell(values, weights) for name, values in measured.items()}

    return {
        "title": title,
        "method": method,
        "n": len(first),
        "measures": cells(agreement(first, second)),
        "by_chance": cells(agreement_by_chance(first, second, seed=seed)) if len(first) > 1 else None,
    }

"""The explanation stage: heat maps of shown cases by every method, and what tests say of each method.

``explanations/explanations.json`` has, beside the shown ``items`` (``explain/pictures.py``): ``methods`` {METHOD:
{``made_from``, ``failures``, ``untested``}}; ``tests``, null where they are off: {``images``, ``lesions``,
``per_class``, ``moved``, ``refused``, ``costly_images``, ``scores`` {METHOD: {SCORE: cell and ``n``}}, ``stability``
cell of LIME's top segments between seeds, ``agreement`` {PAIR: {``title``, ``n``, MEASURE: cell}}, ``bootstrap``}.
Cells are {``value``, ``low``, ``high``}, means over images with intervals over lesions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from dermdistill.bundle.predictor import OnnxClassifier
from dermdistill.config import ExplainConfig
from dermdistill.data.decode import decode_image
from dermdistill.data.lesion_size import read_mask
from dermdistill.evaluate import bootstrap
from dermdistill.evaluate.metrics import ratio
from dermdistill.evaluate.predictions import read_predictions
from dermdistill.evaluate.robustness import robustness_sample
from dermdistill.explain.agreement import agreement
from dermdistill.explain.cases import Cases, Shown, make_cases
from dermdistill.explain.explainer import Scores, maps_of
from dermdistill.explain.lime import LimeSettings, lime_stability
from dermdistill.explain.localisation import localisation, mask_at
from dermdistill.explain.methods import explain as explain_images
from dermdistill.explain.methods import maps_by
from dermdistill.explain.pictures import choose_items, write_gallery
from dermdistill.explain.scorecam import ScoreCamSettings
from dermdistill.explain.scorers import ArrayScorer, NetworkScorer
from dermdistill.explain.scores import ScoreSettings, score_method
from dermdistill.explain.verdict import untested, verdict
from dermdistill.labels import class_names
from dermdistill.pipeline.context import Context
from dermdistill.pipeline.evaluating import MODEL_FILES, evaluated_models
from dermdistill.preprocess import PreprocessSpec, normalise, resize_image
from dermdistill.progress import StepProgress
from dermdistill.training.roles import load_trained

STUDENT = "student"
Json = dict[str, Any]


@dataclass(frozen=True)
class Explained:
    """The student of a run and the images that may be shown to it.

    Attributes:
        model: what is explained.
        spec: its preprocessing.
        test: rows of its predictions on the test part, an image once.
        catalog: by ``image_id``.
        config: the recipe's section.
        seed: the recipe's.
    """

    model: nn.Module
    spec: PreprocessSpec
    test: pd.DataFrame
    catalog: pd.DataFrame
    config: ExplainConfig
    seed: int

    def settings(self, method: str) -> Any:
        """Of a method; None: its defaults."""
        chosen = {
            "score_cam": ScoreCamSettings(channels=self.config.score_channels),
            "lime": LimeSettings(samples=self.config.lime_samples, seed=self.seed),
        }
        return chosen.get(method)

    def pictures(self, image_ids: Sequence[str]) -> list[npt.NDArray[np.uint8]]:
        """As they were photographed, uint8 [H, W, 3]."""
        return [decode_image(Path(path)) for path in self.catalog.loc[list(image_ids), "path"]]

    def resized(self, image_id: str) -> npt.NDArray[np.uint8]:
        """An image as the student is given it, uint8 [S, S, 3]."""
        return resize_image(self.pictures([image_id])[0], self.spec)

    def masks(self, image_ids: Sequence[str]) -> list[npt.NDArray[np.bool_] | None]:
        """Of the lesions, bool [H, W]; None where there is no mask."""
        paths = self.catalog.loc[list(image_ids), "mask_path"]
        return [read_mask(Path(path)) if isinstance(path, str) and path else None for path in paths]


def explained_student(context: Context) -> Explained:
    """The trained student of a run with its predictions."""
    saved = read_predictions(
        context.path / "evaluation" / "predictions.parquet",
        task=context.recipe.task,
        protocol=context.split.info["protocol"],
        models=evaluated_models(context.recipe),
    )
    test = saved[(saved["model"] == STUDENT) & (saved["split"] == "test")].drop_duplicates("image_id")
    return Explained(
        load_trained(context.path / STUDENT),
        context.spec,
        test.reset_index(drop=True),
        context.catalog.set_index("image_id", drop=False),
        context.recipe.explain,
        context.recipe.seed,
    )


def explain(context: Context, inputs: str) -> None:
    """Shown cases and, unless they are off, tests of the methods on a sample of the test part."""
    own = explained_student(context)
    tests, facts = _tests(context, own) if own.config.scored_images else (None, {})
    items = choose_items(own.test, correct=own.config.correct, wrong=own.config.wrong, seed=own.seed)
    ids = [str(item["image_id"]) for item in items]
    images = np.asarray(context.store.images[context.store.rows(ids)])
    masks = _masks(own, ids)
    codes = class_names(context.recipe.task)
    targets = torch.tensor([codes.index(item["predicted"]) for item in items], dtype=torch.int64)
    inputs_ = torch.from_numpy(normalise(images, own.spec)) if ids else torch.zeros(0, 3, own.spec.size, own.spec.size)
    maps: dict[str, npt.NDArray[np.float32]] = {}
    scores: dict[str, list[dict[str, float | None]]] = {}
    methods: Json = {}
    for method in own.config.methods:
        maps[method], made_from = _maps(own, method, inputs_, targets)
        scores[method] = _item_scores(maps[method], masks)
        methods[method] = {"made_from": made_from, **facts.get(method, {"failures": [], "untested": None})}
    write_gallery(
        context.path / "explanations",
        items,
        images,
        masks,
        maps,
        scores=scores,
        facts={"model": STUDENT, "methods": methods, "tests": tests},
    )


def _masks(own: Explained, ids: Sequence[str]) -> npt.NDArray[np.bool_]:
    side = (own.spec.size, own.spec.size)
    found = [np.zeros(side, np.bool_) if mask is None else mask_at(mask, own.spec) for mask in own.masks(ids)]
    return np.array(found, dtype=np.bool_).reshape(-1, *side)


def _maps(own: Explained, method: str, images: Tensor, targets: Tensor) -> tuple[npt.NDArray[np.float32], Json]:
    """Maps of the shown images, and what made them."""
    if not len(images):
        return np.zeros((0, *images.shape[2:]), dtype=np.float32), {}
    found = explain_images(own.model, images, method, targets, own.settings(method))
    return found.maps.clamp(max=1).cpu().numpy(), found.made_from


def _item_scores(maps: npt.NDArray[np.float32], masks: npt.NDArray[np.bool_]) -> list[dict[str, float | None]]:
    """Agreement with the mask of each shown image, beside the centre prior's; nothing where no mask is known."""
    scores = localisation(maps, masks) if len(maps) else {}
    return [
        {name: bootstrap.number_or_none(float(values[row])) for name, values in scores.items()}
        for row in range(len(maps))
    ]


def _tests(context: Context, own: Explained) -> tuple[Json, dict[str, Json]]:
    """The block ``tests``, and what each method fails."""
    config, table = own.config, own.test
    labels, lesions = table["label"].to_numpy(dtype=np.int64), table["lesion_id"].to_numpy()
    rows = table.iloc[robustness_sample(labels, lesions, config.scored_images, own.seed)]
    ids = rows["image_id"].tolist()
    cases = make_cases(own.pictures(ids), own.masks(ids), own.spec, NetworkScorer(own.model), seed=own.seed)
    how = ScoreSettings(
        seed=own.seed, sensitivity_images=config.costly_images, randomisation_images=config.costly_images
    )
    weights = bootstrap.lesion_weights(
        rows["lesion_id"].to_numpy(),
        samples=context.recipe.evaluate.bootstrap_samples,
        seed=context.recipe.evaluate.bootstrap_seed,
    )
    found: dict[str, dict[str, Scores]] = {}
    with StepProgress("methods of explanation", steps=len(config.methods)) as bar:
        for method in config.methods:
            found[method] = score_method(maps_by(method, own.settings(method)), own.model, cases, how)
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
            method: {name: _cell(values, weights) for name, values in scores.items()}
            for method, scores in found.items()
        },
        "stability": _stability(own, cases, weights),
        "agreement": _agreements(context, own, cases, ids, weights),
        "bootstrap": {"samples": len(weights), "unit": "lesion", "level": bootstrap.LEVEL},
    }
    facts = {
        method: {"failures": [one.to_dict() for one in verdict(scores)], "untested": untested(scores)}
        for method, scores in found.items()
    }
    return block, facts


def _cell(values: Scores, weights: npt.NDArray[np.uint16]) -> Json:
    """Mean over the images that define a score, its interval over lesions, and how many images these are."""
    defined = np.isfinite(values)
    drawn = weights[:, defined].astype(np.float64)
    samples = ratio(drawn @ values[defined], drawn.sum(axis=1))
    value = float(values[defined].mean()) if defined.any() else np.nan
    return {**bootstrap.estimate(value, samples), "n": int(defined.sum())}


def _few(own: Explained, shown: Shown) -> Shown:
    """The images of the costly tests."""
    return shown.some(np.arange(min(own.config.costly_images, len(shown)), dtype=np.int64))


def _stability(own: Explained, cases: Cases, weights: npt.NDArray[np.uint16]) -> Json | None:
    """Share of LIME's five most important segments that two seeds have in common."""
    if "lime" not in own.config.methods:
        return None
    few = _few(own, cases.plain)
    overlaps = lime_stability(
        NetworkScorer(own.model), few.images, few.classes, own.settings("lime"), seeds=(own.seed, own.seed + 1)
    )
    return _cell(overlaps, weights[:, : len(few)])


def _agreements(
    context: Context, own: Explained, cases: Cases, ids: Sequence[str], weights: npt.NDArray[np.uint16]
) -> Json:
    """Does the student look where its teacher looks, and its INT8 file where it looks itself."""
    found: Json = {}
    first = own.config.methods[0]
    teacher = context.path / "teacher"
    if (teacher / "model.safetensors").is_file():
        spec = context.teacher_spec
        inputs = np.asarray(context.stores.at(spec).images[context.stores.at(spec).rows(ids)])
        other = maps_of(
            maps_by(first, own.settings(first)),
            load_trained(teacher),
            torch.from_numpy(normalise(inputs, spec)),
            cases.plain.classes,
        )
        mine = maps_of(maps_by(first, own.settings(first)), own.model, cases.plain.images, cases.plain.classes)
        found[f"teacher, {first}"] = _pair("Student and teacher", first, mine, other, weights)
    int8 = context.path / MODEL_FILES["student_int8"]
    few = _few(own, cases.plain)
    for method in (name for name in own.config.methods if name != "grad_cam"):
        scorer = ArrayScorer(OnnxClassifier(int8, own.spec))
        settings = own.settings(method)
        mine = maps_of(maps_by(method, settings), own.model, few.images, few.classes)
        other = maps_of(maps_by(method, settings, scorer=scorer), own.model, few.images, few.classes)
        found[f"int8, {method}"] = _pair("FP32 and INT8 student", method, mine, other, weights[:, : len(few)])
    return found


def _pair(
    title: str,
    method: str,
    first: npt.NDArray[np.float32],
    second: npt.NDArray[np.float32],
    weights: npt.NDArray[np.uint16],
) -> Json:
    measured: Mapping[str, Scores] = agreement(first, second)
    return {
        "title": title,
        "method": method,
        "n": len(first),
        **{name: _cell(values, weights) for name, values in measured.items()},
    }

"""A reader study of a finished run: which images experts see, and under which maps."""

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from dermdistill.errors import ConfigError, RunFolderError
from dermdistill.explain.localisation import centre_prior
from dermdistill.explain.methods import METHODS
from dermdistill.pipeline.context import Context
from dermdistill.pipeline.execute import kept_recipe
from dermdistill.pipeline.explained import Explained, explained_student
from dermdistill.preprocess import normalise
from dermdistill.review.sampling import ItemPlan, Sample, sample_items
from dermdistill.review.study import Study, write_study
from dermdistill.run import RunFolder

# Longer side of the pictures that raters see, pixels.
LONGER_SIDE = 1024
Maps = dict[tuple[str, str], npt.NDArray[np.float32]]


def create_study(
    run: Path,
    out: Path,
    *,
    title: str,
    size: int,
    methods: Sequence[str],
    repeats: int,
    shams: float,
    seed: int,
) -> Sample:
    """Sample test images of a run, make their maps by its FP32 student, and write the study's folder.

    The model's answer that raters see is the student's: the class of the largest raw probability. Maps explain that
    class.

    Args:
        run: a finished run.
        out: folder to write, whole or not at all.
        title: what raters read above every page.
        size: images; each of another lesion.
        methods: names of ``METHODS``, dealt in turn.
        repeats: items shown twice, for agreement within raters.
        shams: share of the images whose map is a sham, in [0, 0.5].
        seed: of the sample, the order and the maps.

    Returns:
        What was sampled, with notes on what could not be had.

    Raises:
        RunFolderError: the run is not finished.
        ConfigError: an unknown method, or numbers out of their ranges.
        DataError: predictions or images that cannot be used.
        OutputError: ``out`` holds something, or cannot be written.
    """
    unknown = sorted(set(methods) - set(METHODS))
    if unknown or not methods:
        raise ConfigError(f"unknown methods {unknown}", rule=f"some of {', '.join(METHODS)}")
    own = _student(run)
    sample = sample_items(own.test, size=size, methods=methods, repeats=repeats, shams=shams, seed=seed)
    maps = _maps(own, sample.plans)
    prior = centre_prior(own.spec.size, own.spec.size)
    items = tuple(plan.item for plan in sample.plans)
    created = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    write_study(
        out,
        Study(title, seed, created, sample.classes, items),
        {item.item: _picture(own, item.image_id) for item in items},
        {plan.item.item: maps[plan.item.method, plan.map_of] if plan.map_of else prior for plan in sample.plans},
    )
    return sample


def _student(run: Path) -> Explained:
    recipe = kept_recipe(run)
    if recipe is None or not (run / "evaluation" / "predictions.parquet").is_file():
        raise RunFolderError(
            f"{run}: is no finished run",
            rule="a study is made from a run's test images and its student's answers",
            next_step="finish the run with --resume, or name another folder",
        )
    return explained_student(Context(recipe, RunFolder(run), None))


def _maps(own: Explained, plans: Sequence[ItemPlan]) -> Maps:
    """{(method, image): its map}, for the class that the student answers there."""
    wanted: dict[str, set[str]] = defaultdict(set)
    for plan in plans:
        if plan.map_of:
            wanted[plan.item.method].add(plan.map_of)
    columns = [name for name in own.test.columns if name.startswith("prob_")]
    answers = own.test.set_index("image_id")[columns]
    found: Maps = {}
    for method, image_ids in wanted.items():
        explainer, ordered = own.explainer(method), sorted(image_ids)
        for image_id in ordered:
            inputs = torch.from_numpy(normalise(own.resized(image_id)[None], own.spec))
            target = torch.tensor([int(answers.loc[image_id].to_numpy().argmax())], dtype=torch.int64)
            found[method, image_id] = explainer(own.model, inputs, target)[0].clamp(max=1).cpu().numpy()
    return found


def _picture(own: Explained, image_id: str) -> npt.NDArray[np.uint8]:
    picture: Any = Image.fromarray(own.pictures([image_id])[0])
    picture.thumbnail((LONGER_SIDE, LONGER_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(picture, dtype=np.uint8)

"""The explanation stage: heat maps of shown cases by every method, and what tests say of each method.

``explanations/explanations.json`` has, beside the shown ``items`` (``explain/pictures.py``): ``methods`` {METHOD:
{``made_from``, ``failures``, ``untested``}}, and ``tests`` (``explanation_tests.py``), null where they are off.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dermdistill.evaluate import bootstrap
from dermdistill.explain.explanation import Explanation
from dermdistill.explain.localisation import localisation, mask_at
from dermdistill.explain.pictures import choose_items, write_gallery
from dermdistill.labels import class_names
from dermdistill.pipeline.context import Context
from dermdistill.pipeline.explained import STUDENT, Explained, explained_student
from dermdistill.pipeline.explanation_tests import explanation_tests
from dermdistill.preprocess import normalise

# Of what a method says of its own map beside the map, what is shown under it.
SHOWN_FIGURES = ("r2",)
Json = dict[str, Any]


def explain(context: Context, inputs: str) -> None:
    """Shown cases and, unless they are off, tests of the methods on a sample of the test part."""
    own = explained_student(context)
    tests, facts = explanation_tests(context, own) if own.config.scored_images else (None, {})
    items = choose_items(own.test, correct=own.config.correct, wrong=own.config.wrong, seed=own.seed)
    ids = [str(item["image_id"]) for item in items]
    images = np.asarray(context.store.images[context.store.rows(ids)])
    masks = _masks(own, ids)
    codes = class_names(context.recipe.task)
    targets = torch.tensor([codes.index(item["predicted"]) for item in items], dtype=torch.int64)
    maps: dict[str, npt.NDArray[np.float32]] = {}
    scores: dict[str, list[dict[str, float | None]]] = {}
    methods: Json = {}
    for method in own.config.methods:
        found = own.explained(method, torch.from_numpy(normalise(images, own.spec)), targets) if ids else None
        maps[method] = found.maps.clamp(max=1).cpu().numpy() if found else np.zeros(masks.shape, np.float32)
        scores[method] = _item_scores(found, maps[method], masks)
        facts_of = facts.get(method, {"failures": [], "untested": None})
        methods[method] = {"made_from": found.made_from if found else {}, **facts_of}
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


def _item_scores(
    found: Explanation | None, maps: npt.NDArray[np.float32], masks: npt.NDArray[np.bool_]
) -> list[dict[str, float | None]]:
    """Of each shown image agreement with its mask, beside the centre prior's, and the method's own figures."""
    if found is None:
        return []
    own = {name: values for name, values in found.figures.items() if name in SHOWN_FIGURES}
    return [
        {
            name: bootstrap.number_or_none(float(values[row]))
            for name, values in {**localisation(maps, masks), **own}.items()
        }
        for row in range(len(maps))
    ]

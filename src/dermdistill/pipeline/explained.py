"""The student of a run, and the images of its test part that its explanations are made of."""

from collections.abc import Sequence
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
from dermdistill.evaluate.predictions import read_predictions
from dermdistill.explain.explainer import Explainer
from dermdistill.explain.explanation import Explanation
from dermdistill.explain.lime import LimeSettings
from dermdistill.explain.methods import explain, maps_by
from dermdistill.explain.scorecam import ScoreCamSettings
from dermdistill.explain.scorers import ArrayScorer, Scorer
from dermdistill.pipeline.context import Context
from dermdistill.pipeline.evaluating import MODEL_FILES, evaluated_models
from dermdistill.preprocess import PreprocessSpec, resize_image
from dermdistill.training.roles import load_trained

STUDENT = "student"
# It differentiates; every other method asks for scores alone.
BY_GRADIENTS = "grad_cam"


@dataclass(frozen=True)
class Explained:
    """The student of a run and the images that may be shown to it.

    Attributes:
        model: what is explained.
        scorer: its FP32 file in ONNX Runtime, which has its logits (the bundle's parity gate checks that) in a quarter
            of the time that the network needs.
        spec: its preprocessing.
        test: rows of its predictions on the test part, an image once.
        catalog: by ``image_id``.
        config: the recipe's section.
        seed: the recipe's.
    """

    model: nn.Module
    scorer: Scorer
    spec: PreprocessSpec
    test: pd.DataFrame
    catalog: pd.DataFrame
    config: ExplainConfig
    seed: int

    def settings(self, method: str) -> Any:
        """Of a method; None: its defaults."""
        return method_settings(method, self.config, self.seed)

    def scored_by(self, method: str) -> Scorer | None:
        """What a method asks for scores; None: the network itself."""
        return None if method == BY_GRADIENTS else self.scorer

    def explainer(self, method: str) -> Explainer:
        """A method as what the scores of maps take."""
        return maps_by(method, self.settings(method), scorer=self.scored_by(method))

    def explained(self, method: str, images: Tensor, targets: Tensor) -> Explanation:
        """Maps of images float32 [B, 3, S, S] for the classes int64 [B]."""
        return explain(self.model, images, method, targets, self.settings(method), scorer=self.scored_by(method))

    def pictures(self, image_ids: Sequence[str]) -> list[npt.NDArray[np.uint8]]:
        """As they were photographed, uint8 [H, W, 3]."""
        return pictures_of(self.catalog, image_ids)

    def resized(self, image_id: str) -> npt.NDArray[np.uint8]:
        """An image as the student is given it, uint8 [S, S, 3]."""
        return resize_image(self.pictures([image_id])[0], self.spec)

    def masks(self, image_ids: Sequence[str]) -> list[npt.NDArray[np.bool_] | None]:
        """Of the lesions, bool [H, W]; None where there is no mask."""
        return masks_of(self.catalog, image_ids)


def method_settings(method: str, config: ExplainConfig, seed: int) -> Any:
    """What a recipe sets of a method; None: its defaults."""
    chosen = {
        "score_cam": ScoreCamSettings(channels=config.score_channels),
        "lime": LimeSettings(samples=config.lime_samples, seed=seed),
    }
    return chosen.get(method)


def pictures_of(catalog: pd.DataFrame, image_ids: Sequence[str]) -> list[npt.NDArray[np.uint8]]:
    """Images as they were photographed, uint8 [H, W, 3]; the catalog is indexed by ``image_id``."""
    return [decode_image(Path(path)) for path in catalog.loc[list(image_ids), "path"]]


def masks_of(catalog: pd.DataFrame, image_ids: Sequence[str]) -> list[npt.NDArray[np.bool_] | None]:
    """Of their lesions, bool [H, W]; None where there is no mask."""
    paths = catalog.loc[list(image_ids), "mask_path"]
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
        ArrayScorer(OnnxClassifier(context.path / MODEL_FILES[STUDENT], context.spec, threads=torch.get_num_threads())),
        context.spec,
        test.reset_index(drop=True),
        context.catalog.set_index("image_id", drop=False),
        context.recipe.explain,
        context.recipe.seed,
    )

"""The part of an evaluation that needs the pictures: who it fails, what breaks it, and what it should not answer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermdistill.bundle.decisions import Decisions
from dermdistill.bundle.image_gate import ImageGate
from dermdistill.bundle.predictor import OnnxClassifier, softmax
from dermdistill.config import EvaluateConfig
from dermdistill.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt_all, picture_key
from dermdistill.data.lesion_size import lesion_sizes
from dermdistill.data.skin_tone import skin_tones
from dermdistill.evaluate.evaluation import SHIPPED, scored_rows
from dermdistill.evaluate.out_of_distribution import ood_block
from dermdistill.evaluate.robustness import robustness_block, robustness_sample
from dermdistill.evaluate.subgroup_axes import axes_of
from dermdistill.evaluate.subgroups import SubgroupScores, subgroups_block
from dermdistill.labels import Task, class_names

Images = npt.NDArray[np.uint8]
Json = dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """One model file and the test images as it is shown them.

    Attributes:
        classifier: the file in its runtime.
        images: uint8 [N, S, S, 3] at its own input size.
        decisions: what validation decided for it.
    """

    classifier: OnnxClassifier
    images: Images
    decisions: Decisions

    def raw(self, images: Images) -> npt.NDArray[np.float32]:
        """Raw probabilities float32 [N, K]."""
        return softmax(self.classifier.logits(images))


def subgroup_evidence(
    rows: Mapping[str, pd.DataFrame],
    decisions: Mapping[str, Decisions],
    catalog_rows: pd.DataFrame,
    *,
    task: Task,
    config: EvaluateConfig,
) -> Json:
    """Figures of every model by age, sex, site, source of the label, size and skin tone.

    Args:
        rows: {model: rows of ``predictions_frame`` on the test part}, of the same images in the same order.
        decisions: of these models.
        catalog_rows: of these images in the same order.
        task: names the classes.
        config: bootstrap and permutations.
    """
    scores = {}
    for model, own in decisions.items():
        scored = scored_rows(rows[model], task, config.calibration_bins, own)
        scores[model] = SubgroupScores(
            labels=scored.labels,
            predicted=scored.predicted,
            melanoma=scored.melanoma,
            melanoma_probs=scored.melanoma_probs,
            threshold=own.thresholds.get("at_95_sensitivity"),
            classes=class_names(task),
        )
    return subgroups_block(
        scores,
        axes_of(catalog_rows, skin_tones(catalog_rows), lesion_sizes(catalog_rows)),
        catalog_rows["lesion_id"].to_numpy(),
        samples=config.bootstrap_samples,
        seed=config.bootstrap_seed,
        permutations=config.permutations,
    )


def robustness_evidence(
    models: Mapping[str, Shown],
    labels: npt.NDArray[np.int64],
    lesion_ids: npt.NDArray[Any],
    image_ids: Sequence[str],
    *,
    task: Task,
    config: EvaluateConfig,
) -> Json | None:
    """Figures under drawn artefacts and corruptions, of a sample of the test images; None where that is off."""
    if not config.robustness_images:
        return None
    seed = config.bootstrap_seed
    chosen = robustness_sample(labels, lesion_ids, config.robustness_images, seed)
    return robustness_block(
        {name: shown.raw for name, shown in models.items()},
        {name: np.asarray(shown.images[chosen]) for name, shown in models.items()},
        labels[chosen],
        lesion_ids[chosen],
        [image_ids[index] for index in chosen],
        calibrations={name: shown.decisions.calibration for name, shown in models.items()},
        thresholds={name: shown.decisions.thresholds for name, shown in models.items()},
        task=task,
        seed=seed,
        samples=config.bootstrap_samples,
        bootstrap_seed=seed,
    )


class _Spoilt(Mapping[str, Images]):
    """Pictures under every kind of corruption at its strongest, made when they are asked for."""

    def __init__(self, pictures: Images, image_ids: Sequence[str], seed: int) -> None:
        self.pictures = pictures
        self.draws = [picture_key(seed, image_id) for image_id in image_ids]

    def __getitem__(self, kind: str) -> Images:
        return corrupt_all(self.pictures, kind, max(SEVERITIES), self.draws)

    def __iter__(self) -> Iterator[str]:
        return iter(CORRUPTIONS)

    def __len__(self) -> int:
        return len(CORRUPTIONS)


def gate_evidence(
    gate: ImageGate,
    models: Mapping[str, Shown],
    labels: npt.NDArray[np.int64],
    lesion_ids: npt.NDArray[Any],
    image_ids: Sequence[str],
    *,
    task: Task,
    config: EvaluateConfig,
) -> Json | None:
    """What the image gate refuses: of test images, of the same images spoilt, and of images without skin."""
    if not config.not_skin_images:
        return None
    shown = models[SHIPPED] if SHIPPED in models else models[list(models)[-1]]
    seed = config.bootstrap_seed
    chosen = robustness_sample(labels, lesion_ids, config.robustness_images or 1, seed)
    return ood_block(
        gate,
        np.asarray(shown.images),
        lesion_ids,
        labels,
        class_names(task),
        probs_of=shown.raw,
        calibrate=shown.decisions.calibration.apply,
        seed=seed,
        count=config.not_skin_images,
        corrupted=_Spoilt(np.asarray(shown.images[chosen]), [image_ids[index] for index in chosen], seed),
        corrupted_rows=chosen,
        samples=config.bootstrap_samples,
    )

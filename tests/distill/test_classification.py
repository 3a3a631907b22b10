"""The classification loss that a configuration means."""

import pytest
import torch

from dermdistill.config import LossConfig
from dermdistill.distill.classification import classification_loss
from dermdistill.distill.losses import cross_entropy, label_targets
from dermdistill.errors import ConfigError

LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
TARGETS = label_targets(torch.tensor([0, 0, 0, 1, 1, 2]), 3)
COUNTS = torch.tensor([30, 20, 10])


def test_plain_loss_is_cross_entropy() -> None:
    loss = classification_loss(LossConfig(), COUNTS)
    assert loss(LOGITS, TARGETS).item() == pytest.approx(cross_entropy(LOGITS, TARGETS).item())


def test_class_weights_have_mean_one_over_images() -> None:
    loss = classification_loss(LossConfig(class_weights=True), COUNTS)
    # equal logits: every image costs log 3, weighted; the batch has the training frequencies
    assert loss(torch.zeros(6, 3), TARGETS).item() == pytest.approx(torch.log(torch.tensor(3.0)).item())


def test_logit_adjustment_asks_more_of_rare_classes() -> None:
    loss = classification_loss(LossConfig(logit_adjustment=1.0), COUNTS)
    zeros = torch.zeros(1, 3)
    rare, common = (loss(zeros, label_targets(torch.tensor([k]), 3)).item() for k in (2, 0))
    assert rare == pytest.approx(torch.log(torch.tensor(6.0)).item()) and common < rare


def test_focal_alpha_weighs_melanoma() -> None:
    loss = classification_loss(LossConfig(focal_gamma=2.0, focal_alpha=0.75), torch.tensor([9, 1]))
    zeros = torch.zeros(1, 2)
    rest, melanoma = (loss(zeros, label_targets(torch.tensor([k]), 2)).item() for k in (0, 1))
    assert melanoma == pytest.approx(3 * rest)


@pytest.mark.parametrize("counts", [[5, 0, 3], [0, 0, 1]])
def test_class_without_training_images_is_refused(counts: list[int]) -> None:
    with pytest.raises(ConfigError, match="at least one training image"):
        classification_loss(LossConfig(), torch.tensor(counts))


def test_alpha_with_seven_classes_is_refused() -> None:
    with pytest.raises(ConfigError, match="alpha"):
        classification_loss(LossConfig(focal_gamma=2.0, focal_alpha=0.75), torch.ones(7))

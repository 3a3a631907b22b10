"""Logits of a model on stored images, and the figures that choose the best epoch. Validation part only."""

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import nn

from dermdistill.data.augment import Images, plain_views
from dermdistill.labels import Task, class_names, melanoma_index
from dermdistill.preprocess import PreprocessSpec

FloatArray = npt.NDArray[np.float32]


@torch.no_grad()
def predict_logits(
    model: nn.Module,
    images: Images,
    rows: npt.NDArray[np.int64],
    spec: PreprocessSpec,
    *,
    batch_size: int = 256,
) -> FloatArray:
    """Logits of images as they are, in evaluation mode.

    Args:
        model: gives ``Output`` or logits [B, K].
        images: uint8 [N, S, S, 3], the store's array or a tensor of it on any device.
        rows: which of them, [M].
        spec: preprocessing.
        batch_size: images at once.

    Returns:
        float32 [M, K].
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    parts = []
    for start in range(0, len(rows), batch_size):
        views = plain_views(images, rows[start : start + batch_size], spec).to(device)
        output = model(views.contiguous(memory_format=torch.channels_last))
        parts.append((output if isinstance(output, torch.Tensor) else output.logits).float().cpu().numpy())
    model.train(was_training)
    return np.concatenate(parts)


def validation_figures(logits: FloatArray, labels: npt.NDArray[np.int64], task: Task) -> dict[str, float]:
    """Figures in [0, 1] (loss: nats) on the validation part; a class without images there is left out of the mean AUC.

    Args:
        logits: [N, K].
        labels: [N].
        task: names the classes.
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    probs = np.exp(log_probs)
    aucs = {
        index: float(roc_auc_score(labels == index, probs[:, index]))
        for index in range(len(class_names(task)))
        if 0 < (labels == index).sum() < len(labels)
    }
    return {
        "macro_auc": float(np.mean(list(aucs.values()))),
        "balanced_accuracy": float(balanced_accuracy_score(labels, probs.argmax(axis=1))),
        "melanoma_auc": aucs.get(melanoma_index(task), 0.5),
        "loss": float(-log_probs[np.arange(len(labels)), labels].mean()),
    }

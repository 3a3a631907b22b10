from collections import namedtuple
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from dermdistill.bundle.predictor import OnnxClassifier
from dermdistill.errors import ConfigError
from dermdistill.explain.scorers import ArrayScorer, NetworkScorer, scorer_name, scores_of
from dermdistill.preprocess import PreprocessSpec


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(3, 4)

    def forward(self, images: Tensor) -> tuple[Tensor, str]:
        return namedtuple("Output", "logits note")(self.head(self.drop(images.mean(dim=(2, 3)))), "note")


def mean_colour_file(path: Path) -> Path:
    """An ONNX classifier whose three logits are the means of red, green and blue."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["out"]),
    ]
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 16, 16])
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 3])
    model = helper.make_model(
        helper.make_graph(nodes, "mean", [given], [output]), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    onnx.save(model, path)
    return path


def test_network_scorer_gives_logits_in_evaluation_mode_and_gives_the_mode_back() -> None:
    model, images = Net().train(), torch.randn(3, 3, 8, 8)
    scores = NetworkScorer(model)(images)
    torch.testing.assert_close(scores, model.head(images.mean(dim=(2, 3))).detach())
    assert model.training and model.drop.training and not scores.requires_grad


def test_array_scorer_gives_the_logits_of_an_onnx_file(tmp_path: Path) -> None:
    classifier = OnnxClassifier(mean_colour_file(tmp_path / "model.int8.onnx"), PreprocessSpec(16))
    scorer, images = ArrayScorer(classifier), torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(scorer(images.to(memory_format=torch.channels_last)), images.mean(dim=(2, 3)))
    assert scorer_name(scorer) == "model.int8.onnx"


def test_scores_do_not_depend_on_the_batches() -> None:
    seen: list[int] = []

    def look(images: Tensor) -> Tensor:
        seen.append(len(images))
        return images.mean(dim=(2, 3))

    images = torch.randn(7, 3, 8, 8)
    assert torch.equal(scores_of(look, images, 3), images.mean(dim=(2, 3)))
    assert seen == [3, 3, 1] and scorer_name(look) == "look"


@pytest.mark.parametrize(
    "scores", [torch.zeros(2), torch.zeros(3, 4), torch.full((2, 4), torch.inf), np.zeros((2, 4)), None]
)
def test_scores_of_another_form_are_refused(scores: object) -> None:
    with pytest.raises(ConfigError, match="finite scores"):
        scores_of(lambda images: scores, torch.zeros(2, 3, 8, 8), 2)  # type: ignore[arg-type, return-value]

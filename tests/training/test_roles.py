"""Building the objective of a role."""

import numpy as np
import torch

from dermdistill.config import BranchConfig, ModelConfig, StudentConfig
from dermdistill.distill.objective import StudentObjective, TeacherShape
from dermdistill.models.build import build_model
from dermdistill.preprocess import PreprocessSpec
from dermdistill.training.loop import TrainingData
from dermdistill.training.roles import build_objective

MODEL = ModelConfig(
    branches=(BranchConfig(backbone="small_cnn", options={"widths": [2, 4, 6, 8]}),), exits=(1,), fusion_width=8
)


def projection(before: int, seed: int) -> torch.Tensor:
    """The projection's weights where the process had drawn other numbers before."""
    data = TrainingData(
        images=np.zeros((7, 16, 16, 3), dtype=np.uint8),
        labels=np.arange(7),
        train_rows=np.arange(7),
        val_rows=np.arange(7),
        spec=PreprocessSpec(16),
        task="diagnosis",
    )
    model = build_model(MODEL, classes=7, size=16, seed=1)
    torch.manual_seed(before)
    objective = build_objective(StudentConfig(model=MODEL), data, model, (TeacherShape(1.0, 8),), seed=seed)
    assert isinstance(objective, StudentObjective)
    return torch.cat([projection.weight.detach().flatten() for projection in objective.projections.values()])


def test_projection_depends_on_the_seed_alone_so_that_a_resumed_student_starts_as_an_unbroken_one() -> None:
    assert torch.equal(projection(before=0, seed=5), projection(before=1, seed=5))
    assert not torch.equal(projection(before=0, seed=5), projection(before=0, seed=6))

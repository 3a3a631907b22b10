"""Every named student builds and answers; the small ones are small."""

import pytest
import torch

from dermdistill.config import ModelConfig
from dermdistill.models.backbones import BACKBONES
from dermdistill.models.build import build_model
from dermdistill.models.hybrid import HybridClassifier
from dermdistill.models.students import STUDENTS
from dermdistill.models.weights import OFFLINE, without_weights

LARGEST = {"nano": 800_000, "lite0": 3_300_000}


def built(name: str) -> HybridClassifier:
    """The student's network with random weights, which need no package."""
    branches = tuple(without_weights(branch) for branch in STUDENTS[name].branches())
    return build_model(ModelConfig(branches=branches), classes=7, size=32, seed=0).eval()


@pytest.mark.parametrize("name", STUDENTS)
def test_student_builds_and_takes_images_of_another_size(name: str) -> None:
    network = built(name).deployed()
    with torch.inference_mode():
        shapes = [tuple(network(torch.zeros(2, 3, size, size)).shape) for size in (32, 64)]
    assert shapes == [(2, 7), (2, 7)]


@pytest.mark.parametrize(("name", "most"), LARGEST.items())
def test_small_students_are_small(name: str, most: int) -> None:
    assert built(name).deployed().parameter_count() < most


def test_titles_are_one_line_each_and_differ() -> None:
    titles = [student.title for student in STUDENTS.values()]
    assert len(set(titles)) == len(titles) and not [title for title in titles if "\n" in title or not title]


@pytest.mark.parametrize("name", STUDENTS)
def test_packaged_weights_are_asked_for_where_they_exist_and_the_title_says_so(name: str) -> None:
    student = STUDENTS[name]
    for branch in student.branches():
        assert branch.backbone in BACKBONES
        assert branch.weights == ("offline" if branch.backbone in OFFLINE else "none")
    assert student.pretrained == ("ImageNet weights" in student.title) != ("random start" in student.title)

import json

import numpy as np
import pytest

from dermdistill.explain.verdict import TESTS, untested, verdict

NAN = np.nan
PASSING = {
    "randomisation": np.array([0.3, 0.5, NAN]),
    "moved_energy": np.array([0.3, 0.2, NAN]),
    "moved_energy_prior": np.array([0.1, 0.2, NAN]),
    "deletion": np.array([0.2, 0.3, NAN]),
    "deletion_random": np.array([0.3, 0.3, 0.1]),
}


def test_method_that_passes_every_test_has_no_failure() -> None:
    assert verdict(PASSING) == [] and untested(PASSING) == []


@pytest.mark.parametrize(
    ("name", "values", "test", "figures"),
    [
        ("randomisation", [0.5, 0.52, NAN], "randomisation", (0.51, 0.5, 2)),
        ("moved_energy", [0.1, 0.2, NAN], "centring", (0.15, 0.15, 2)),
        ("deletion", [0.3, 0.3, NAN], "deletion", (0.3, 0.3, 2)),
    ],
)
def test_failure_is_named_with_its_figures(
    name: str, values: list[float], test: str, figures: tuple[float, float, int]
) -> None:
    (failure,) = verdict({**PASSING, name: np.array(values)})
    assert failure.test == test
    assert (failure.value, failure.limit, failure.n) == (*map(pytest.approx, figures[:2]), figures[2])
    assert failure.sentence.startswith(f"{test}: ") and failure.sentence.endswith("(2 images)")
    assert f"{failure.value:.2f}" in failure.sentence
    json.dumps(failure.to_dict(), allow_nan=False)


def test_correlation_of_one_half_passes() -> None:
    assert verdict({**PASSING, "randomisation": np.array([0.5, 0.5, NAN])}) == []


def test_sides_are_compared_on_the_images_that_define_both() -> None:
    scores = {**PASSING, "deletion": np.array([0.25, 0.1, NAN]), "deletion_random": np.array([0.2, NAN, 0.9])}
    (failure,) = verdict(scores)
    assert (failure.test, failure.limit, failure.n) == ("deletion", 0.2, 1)
    assert failure.sentence.endswith("(1 image)")


def test_measured_score_that_no_image_defines_is_a_failure_without_figures() -> None:
    (failure,) = verdict({**PASSING, "moved_energy": np.full(3, NAN)})
    assert (failure.test, failure.value, failure.limit, failure.n) == ("centring", None, None, 0)
    assert "nothing was shown" in failure.sentence


def test_scores_that_were_not_measured_are_untested_and_no_failure() -> None:
    assert untested({}) == list(TESTS) and verdict({}) == []

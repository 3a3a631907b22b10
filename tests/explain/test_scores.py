from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dermdistill.errors import ConfigError
from dermdistill.explain import deletion, randomisation, sensitivity
from dermdistill.explain.cases import Cases, make_cases
from dermdistill.explain.explainer import maps_of
from dermdistill.explain.gradcam import grad_cam
from dermdistill.explain.localisation import centre_prior, energy_in_mask, pointing_game
from dermdistill.explain.scorers import NetworkScorer
from dermdistill.explain.scores import BETTER, ScoreSettings, curve_baselines, means, score_method
from dermdistill.explain.verdict import untested, verdict
from dermdistill.preprocess import PreprocessSpec

SPEC = PreprocessSpec(24, mean=(0.6, 0.5, 0.5), std=(0.2, 0.2, 0.2))
QUICK = ScoreSettings(steps=4, random_orders=2, draws=2, repeats=2)


class Detector(nn.Module):
    """Class 0 where much of the picture is dark, and a classifier that can be randomised."""

    def __init__(self) -> None:
        super().__init__()
        self.dark = nn.Conv2d(3, 2, 1)
        self.act = nn.ReLU()
        self.head = nn.Linear(2, 2)
        with torch.no_grad():
            self.dark.weight[:] = torch.tensor([-1.0, 1.0])[:, None, None, None]
            self.dark.bias[:] = torch.tensor([-1.0, 0.0])
            self.head.weight[:] = torch.tensor([[4.0, 0.0], [0.0, 0.01]])
            self.head.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.act(self.dark(images)).mean(dim=(2, 3)))


def _cam(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    assert isinstance(model, Detector)
    return grad_cam(model, images, classes, model.act)


def _centre(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    return torch.from_numpy(centre_prior(*images.shape[2:])).expand(len(images), -1, -1)


def _cases() -> Cases:
    pictures, masks = [], []
    rows, columns = np.mgrid[:60, :80]
    for radius in (8, 11, 14, 29, 10, 12):
        mask = np.hypot(rows - 30, columns - 40) <= radius
        pictures.append(np.where(mask[..., None], np.uint8([70, 30, 30]), np.uint8([220, 170, 150])))
        masks.append(mask)
    return make_cases(pictures, [*masks[:-1], None], SPEC, NetworkScorer(Detector()), seed=0)


def test_every_score_is_an_array_over_the_same_images() -> None:
    cases, model = _cases(), Detector()
    found = score_method(_cam, model, cases, QUICK)
    assert all(values.shape == (6,) and values.dtype == np.float64 for values in found.values())
    baselines = {name for name in found if name.endswith(("_prior", "_random"))}
    assert set(found) - baselines == set(BETTER)
    maps = maps_of(_cam, model, cases.plain.images, cases.plain.classes)
    there = maps_of(_cam, model, cases.moved.images, cases.moved.classes)
    np.testing.assert_array_equal(found["energy"], energy_in_mask(maps, cases.plain.masks))
    assert cases.moved_rows.tolist() == [0, 1, 2, 4]
    np.testing.assert_array_equal(found["moved_pointing"][cases.moved_rows], pointing_game(there, cases.moved.masks))
    assert np.isnan(found["moved_pointing"][[3, 5]]).all() and np.isnan(found["iou"][5])


def test_scores_are_those_of_the_functions_alone() -> None:
    cases, model = _cases(), Detector()
    images, classes = cases.plain.images, cases.plain.classes
    found = score_method(_cam, model, cases, replace(QUICK, seed=3))
    maps = maps_of(_cam, model, images, classes)
    curves = [
        deletion.deletion_curves(NetworkScorer(model), images, classes, of, seed=3, steps=4).areas()
        for of in (maps, *(deletion.random_maps(6, 24, 24, seed=seed) for seed in (3, 4)))
    ]
    for name in ("deletion", "insertion"):
        np.testing.assert_allclose(found[name], curves[0][name])
        np.testing.assert_allclose(found[f"{name}_random"], (curves[1][name] + curves[2][name]) / 2)
    alone = sensitivity.max_sensitivity(_cam, model, images, classes, seed=3, draws=2)
    np.testing.assert_allclose(found["sensitivity"], alone)
    alone = randomisation.randomisation_test(_cam, model, images, classes, seed=3, repeats=2)
    np.testing.assert_allclose(found["randomisation"], alone)


def test_costly_scores_are_measured_on_as_many_images_as_asked() -> None:
    how = replace(QUICK, curve_images=2, sensitivity_images=3, randomisation_images=0)
    found = score_method(_centre, Detector(), _cases(), how)
    counts = {name: values["n"] for name, values in means(found).items()}
    assert (counts["deletion"], counts["deletion_random"], counts["sensitivity"]) == (2, 2, 3)
    assert "randomisation" not in found and untested(found) == ["randomisation"]
    defined = [set(np.flatnonzero(np.isfinite(found[name]))) for name in ("deletion", "sensitivity")]
    assert defined[0] < defined[1]


def test_scorer_of_another_model_gives_the_curves_and_no_randomisation() -> None:
    cases, model = _cases(), Detector()

    def constant(images: Tensor) -> Tensor:
        return torch.zeros(len(images), 2)

    found = score_method(_cam, model, cases, QUICK, scorer=constant)
    np.testing.assert_allclose(found["deletion"], 0.5)
    assert untested(found) == ["randomisation"]


def test_scorer_of_the_same_model_leaves_randomisation_to_the_network() -> None:
    cases, model = _cases(), Detector()

    def of_a_file(_: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        return _cam(model, images, classes)

    blind = score_method(of_a_file, model, cases, QUICK)["randomisation"]
    np.testing.assert_allclose(blind, 1, err_msg="it does not notice another network")
    by_file = score_method(of_a_file, model, cases, QUICK, scorer=NetworkScorer(model), randomised_by=_cam)
    np.testing.assert_array_equal(by_file["randomisation"], score_method(_cam, model, cases, QUICK)["randomisation"])


def test_baselines_of_one_method_serve_another() -> None:
    cases, model = _cases(), Detector()
    how = replace(QUICK, curve_images=4)
    baselines = curve_baselines(NetworkScorer(model), cases, how)
    assert set(baselines) == {"deletion_random", "insertion_random", "deletion_prior", "insertion_prior"}
    given, measured = (score_method(_cam, model, cases, how, baselines=one) for one in (baselines, None))
    assert set(given) == set(measured)
    for name, values in measured.items():
        np.testing.assert_array_equal(given[name], values)
    assert curve_baselines(NetworkScorer(model), cases, replace(how, curve_images=0)) == {}


def test_without_moved_lesions_their_scores_are_absent() -> None:
    cases = _cases()
    none = np.zeros(0, np.int64)
    found = score_method(_centre, Detector(), replace(cases, moved=cases.moved.some(none), moved_rows=none), QUICK)
    assert not any(name.startswith("moved") for name in found)
    assert untested(found) == ["centring"]


def test_sound_method_passes_and_one_that_sees_nothing_fails() -> None:
    cases, model = _cases(), Detector()
    sound, centre = (score_method(method, model, cases, QUICK) for method in (_cam, _centre))
    assert verdict(sound) == []
    assert {failure.test for failure in verdict(centre)} == {"randomisation", "centring"}
    np.testing.assert_array_equal(centre["energy"], centre["energy_prior"])
    assert sound["moved_energy"][0] > 0.9


def test_method_is_not_helped_by_blank_maps() -> None:
    def nothing(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        return torch.zeros(len(images), *images.shape[2:])

    found = score_method(nothing, Detector(), _cases(), QUICK)
    assert found["blank"].tolist() == [1] * 6
    assert [(one.test, one.value, one.n) for one in verdict(found)] == [
        ("randomisation", None, 0),
        ("centring", None, 0),
        ("deletion", None, 0),
    ]


def test_means_leave_out_what_is_not_defined() -> None:
    found = means({"a": np.array([1.0, np.nan, 2.0]), "b": np.array([np.nan])})
    assert found == {"a": {"value": 1.5, "n": 2}, "b": {"value": None, "n": 0}}


@pytest.mark.parametrize("change", [{"steps": 0}, {"curve_images": -1}, {"repeats": 0}])
def test_settings_that_measure_nothing_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1 each"):
        ScoreSettings(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize("factor", [-1.0, 2.0, float("nan")])
def test_method_that_leaves_the_range_is_refused(factor: float) -> None:
    def wild(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        return torch.ones(len(images), *images.shape[2:]) * factor

    with pytest.raises(ConfigError, match=r"outside 0\.\.1"):
        score_method(wild, Detector(), _cases(), QUICK)

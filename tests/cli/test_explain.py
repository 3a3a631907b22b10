"""``dermdistill explain``: the explanations of a finished run are made anew, and nothing else is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tests.cli.conftest import Call

from dermdistill.explain.cases import make_cases
from dermdistill.explain.explainer import maps_of
from dermdistill.explain.gradcam import grad_cam
from dermdistill.explain.localisation import energy_in_mask
from dermdistill.explain.methods import maps_by
from dermdistill.explain.scorers import NetworkScorer
from dermdistill.explain.target_layers import target_layers
from dermdistill.pipeline import explained
from dermdistill.pipeline.context import Context
from dermdistill.pipeline.execute import kept_recipe
from dermdistill.pipeline.explained import explained_student, masks_of
from dermdistill.preprocess import normalise
from dermdistill.provenance import sha256_file, sha256_json
from dermdistill.run import RunFolder
from dermdistill.training.roles import load_trained

OTHERS = ("evaluation/predictions.parquet", "bundle/manifest.json", "student/model.safetensors")


def explanations(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "explanations" / "explanations.json").read_text())
    return content


def test_explains_again_with_other_settings_and_nothing_else_changes(call: Call, finished: Path) -> None:
    before = {name: sha256_file(finished / name) for name in OTHERS}
    wishes = ("--set", "explain.scored_images=9", "--set", "explain.methods=[score_cam]")
    done = call("explain", finished, *wishes)
    assert done.status == 0, done.err
    assert f"report: {finished / 'report.html'}" in done.out
    content = explanations(finished)
    assert content["tests"]["images"] == 9 and list(content["methods"]) == ["score_cam"]
    assert yaml.safe_load((finished / "recipe.yaml").read_text())["explain"]["scored_images"] == 9
    provenance = json.loads((finished / "provenance.json").read_text())
    recipe = kept_recipe(finished)
    assert recipe is not None
    assert provenance["recipe"] == {"name": recipe.name, "sha256": sha256_json(recipe.model_dump(mode="json"))}
    explained = provenance["explained"]
    assert explained["command"] == f"dermdistill explain {finished.name} {' '.join(wishes)}"
    assert set(explained) == {"command", "code", "machine", "packages", "finished"}
    assert {name: sha256_file(finished / name) for name in OTHERS} == before
    assert "on 9 test images" in (finished / "report.html").read_text() or content["methods"]["score_cam"]["failures"]

    again = call("results", "add", finished, "tiny", "--results", finished.parent / "results")
    assert again.status == 0, again.err
    kept = finished.parent / "results" / "tiny" / "explanations.json"
    assert json.loads(kept.read_text())["tests"] == content["tests"]
    assert "image_id" not in kept.read_text() and "ISIC" not in kept.read_text()


def test_student_is_scored_by_its_own_file(finished: Path) -> None:
    recipe = kept_recipe(finished)
    assert recipe is not None
    own = explained_student(Context(recipe, RunFolder(finished), None))
    ids = own.test["image_id"].tolist()[:3]
    images = torch.from_numpy(normalise(np.stack([own.resized(one) for one in ids]), own.spec))
    torch.testing.assert_close(own.scorer(images), NetworkScorer(own.model)(images), atol=1e-4, rtol=1e-3)
    targets = own.scorer(images).argmax(dim=1)
    for method in ("score_cam", "lime"):
        by_file, by_network = (
            maps_of(explainer, own.model, images, targets)
            for explainer in (own.explainer(method), maps_by(method, own.settings(method)))
        )
        np.testing.assert_allclose(by_file, by_network, atol=2e-3)
        assert by_file.any()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("student.epochs=5", "--set student: is no key of this command"),
        ("explain.scored_image=5", "explain.scored_image"),
        ("explain.methods=[saliency]", "explain.methods"),
    ],
)
def test_settings_of_anything_else_are_refused_and_nothing_is_touched(
    call: Call, finished: Path, setting: str, expected: str
) -> None:
    before = sha256_file(finished / "explanations" / "explanations.json"), sha256_file(finished / "recipe.yaml")
    done = call("explain", finished, "--set", setting)
    assert done.status == 2
    assert expected in done.err
    assert (
        sha256_file(finished / "explanations" / "explanations.json"),
        sha256_file(finished / "recipe.yaml"),
    ) == before


def test_folder_that_is_no_finished_run_is_refused(call: Call, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = call("explain", tmp_path / "empty")
    assert done.status == 2
    assert "is no finished run" in done.err


def test_altered_student_is_refused(call: Call, finished: Path) -> None:
    with (finished / "student" / "model.safetensors").open("ab") as file:
        file.write(b"x")
    before = sha256_file(finished / "explanations" / "explanations.json")
    done = call("explain", finished)
    assert done.status == 2
    assert "student: not finished, or with files that were altered since" in done.err
    assert sha256_file(finished / "explanations" / "explanations.json") == before


def test_layers_are_tried_on_validation_images_alone(
    call: Call, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def pictures(catalog: Any, ids: Any) -> Any:
        seen.extend(ids)
        return explained.pictures_of(catalog, ids)

    monkeypatch.setattr("dermdistill.pipeline.layer_trials.pictures_of", pictures)
    file = tmp_path / "layers.json"
    done = call("layers", finished, "--images", "8", "--random", "3", "--out", file)
    assert done.status == 0, done.err
    recipe = kept_recipe(finished)
    assert recipe is not None
    context = Context(recipe, RunFolder(finished), None)
    assert len(seen) == 8 and set(seen) <= set(context.split.ids("val")) - set(context.split.ids("test"))

    result = json.loads(file.read_text())
    model = load_trained(finished / "student")
    (chosen,) = target_layers(model, context.spec.size)
    by_name = {layer["name"]: layer for layer in result["layers"]}
    assert [name for name, layer in by_name.items() if layer["chosen"]] == [chosen.name]
    assert len(by_name) > 3 and f"{chosen.name} <- the rule" in done.out
    assert result["images"] == 8 and result["moved"] > 0 and result["code"] and result["plan"]["role"] == "student"
    # The same maps, scored by hand.
    catalog = context.catalog.set_index("image_id", drop=False)
    cases = make_cases(
        pictures(catalog, seen[:8]), masks_of(catalog, seen[:8]), context.spec, NetworkScorer(model), seed=recipe.seed
    )
    for name, layer in by_name.items():
        maps = grad_cam(model, cases.moved.images, cases.moved.classes, model.get_submodule(name)).numpy()
        energy = energy_in_mask(maps, cases.moved.masks)
        expected = float(np.nanmean(energy)) if np.isfinite(energy).any() else None
        assert layer["scores"]["moved_energy"]["value"] == (expected and pytest.approx(expected, abs=1e-4))
        assert layer["scores"]["randomisation"]["n"] <= 3 and layer["scores"]["blank"]["n"] == 8


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--only", "blocks.9"), "no layer has blocks.9 in its name"),
        (("--role", "teacher", "--only", "stages.9"), "no layer has stages.9 in its name"),
        (("--method", "lime"), "lime"),
    ],
)
def test_layers_that_are_not_there_are_refused(
    call: Call, finished: Path, words: tuple[str, ...], expected: str
) -> None:
    done = call("layers", finished, *words)
    assert done.status == 2
    assert expected in done.err


def test_layers_of_no_run_are_refused(call: Call, tmp_path: Path) -> None:
    done = call("layers", tmp_path)
    assert done.status == 2
    assert "is no run" in done.err

"""``dermdistill explain``: the explanations of a finished run are made anew, and nothing else is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tests.cli.conftest import Call

from dermdistill.explain.explainer import maps_of
from dermdistill.explain.methods import maps_by
from dermdistill.explain.scorers import NetworkScorer
from dermdistill.pipeline.context import Context
from dermdistill.pipeline.execute import kept_recipe
from dermdistill.pipeline.explained import explained_student
from dermdistill.preprocess import normalise
from dermdistill.provenance import sha256_file, sha256_json
from dermdistill.run import RunFolder

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

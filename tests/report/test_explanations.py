"""The part on explanations: what stands under a map, marks of failed tests, tables, and folders of older versions."""

from pathlib import Path

from tests.report.conftest import explanations, method_tests

from dermdistill.report.explanations import explained, explanations_markdown, kept_explanations


def test_a_failed_test_marks_every_map_of_its_method(tmp_path: Path) -> None:
    shown = explained(tmp_path, explanations(tmp_path / "explanations"))
    assert shown is not None
    for item in shown["items"]:
        assert [(one["title"], one["failed"]) for one in item["maps"]] == [("Grad-CAM", []), ("LIME", ["deletion"])]
    assert "LIME fails: deletion: no better than chance." in shown["sentences"]
    assert "Grad-CAM passed every test that was made, on 30 test images, one a lesion." in shown["sentences"]


def test_scores_under_a_map_leave_out_what_is_undefined_and_stand_beside_the_blob(tmp_path: Path) -> None:
    shown = explained(tmp_path, explanations(tmp_path / "explanations"))
    assert shown is not None
    first = shown["items"][0]
    assert first["maps"][0]["scores"] == "energy .61, point in"
    assert first["prior"] == "energy .52, IoU .40"


def test_table_puts_each_score_beside_its_baseline(tmp_path: Path) -> None:
    shown = explained(tmp_path, explanations(tmp_path / "explanations"))
    assert shown is not None
    rows = {(row.title, row.remark): [str(cell) for cell in row.cells] for row in shown["tests"]["rows"]}
    assert rows["Energy in the lesion", "30 images"] == [".100 (.050-.150)", "not computable"]
    assert rows["", "blob in the centre"][0].startswith(".400"), "of the moved lesions, the last with that name"
    assert rows["Correlation after random weights (at most .5)", "4 images"][1] == "not measured"
    pair, chance = shown["tests"]["agreement"]
    assert [str(cell) for cell in pair.cells] == [".900 (.850-.950)"] * 3
    assert (chance.title, chance.remark) == ("", "maps of two different images")
    assert [str(cell) for cell in chance.cells] == [".400 (.350-.450)"] * 3
    assert any(
        "share .72 of their five strongest segments; its linear models explain .60" in line
        for line in shown["sentences"]
    )
    assert method_tests()["agreement"]


def test_run_of_an_older_version_shows_its_one_map_and_says_that_nothing_was_tested(tmp_path: Path) -> None:
    content = explanations(tmp_path / "explanations")
    old = {"method": "grad-cam", "target": "predicted class", "items": content["items"]}
    for item in old["items"]:
        del item["maps"]
    shown = explained(tmp_path / "explanations", old)
    assert shown is not None
    assert shown["items"][0]["maps"][0]["picture"].startswith("data:image/png")
    assert shown["sentences"] == ["The methods were not tested in this run: nothing says how far their maps hold."]
    assert shown["tests"] is None


def test_no_explanations_are_none(tmp_path: Path) -> None:
    assert explained(tmp_path, None) is None


def test_page_of_results_has_the_tests_and_the_failures(tmp_path: Path) -> None:
    content = kept_explanations(explanations(tmp_path / "explanations"))
    assert set(content) == {"model", "target", "methods", "tests"}
    page = explanations_markdown(content)
    assert "- LIME fails: deletion: no better than chance." in page
    assert "| Energy in the lesion (30 images) | .100 (.050-.150) | not computable |" in page
    assert "| maps of two different images | .400 (.350-.450) |" in page
    assert "Made by" not in page
    again = explanations_markdown(content, {"command": "dermdistill explain runs/a", "code": {"commit": "4f0c" * 10}})
    assert "Made by `dermdistill explain runs/a`, commit 4f0c4f0c4f0c." in again
    assert explanations_markdown({**content, "tests": None}) == ""

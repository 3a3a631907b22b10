"""A study of a finished run from the command line: made, summed up, shown in the report."""

import json
import random
from pathlib import Path

import pandas as pd
import pytest
from tests.cli.conftest import Call

from dermdistill.review.export import COLUMNS
from dermdistill.review.study import read_study


def simulated_answers(folder: Path, path: Path) -> Path:
    """What three simulated raters said."""
    draw, study = random.Random(0), read_study(folder)
    rows = [
        {
            "rater": rater,
            "item": item.item,
            "before": draw.choice(study.classes),
            "after": item.predicted,
            **{scale: draw.randint(1, 5) for scale in ("spatial", "trust", "usefulness")},
            "comment": "",
            "region": "[[[0.2, 0.2], [0.8, 0.2], [0.5, 0.9]]]",
            "seconds": 9.5,
            "answered_at": "2026-01-01T00:00:00.000+00:00",
            "simulated": True,
        }
        for rater in ("one", "two", "three")
        for item in study.items
    ]
    pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(path, index=False)
    return path


def test_create_summary_and_report(call: Call, finished: Path, tmp_path: Path) -> None:
    made = call("review", "create", finished, "--size", 8, "--repeats", 2, "--shams", 0.25, "--title", "Maps")
    assert made.status == 0, made.err
    folder = finished / "review"
    study = read_study(folder)
    assert study.title == "Maps" and len(study.items) == 10
    assert sum(bool(item.sham) for item in study.items if not item.repeat_of) == 2
    test = pd.read_parquet(finished / "evaluation" / "predictions.parquet")
    own = test[(test["model"] == "student") & (test["split"] == "test")].set_index("image_id")
    for item in study.items:
        probs = own.loc[item.image_id, [f"prob_{code}" for code in study.classes]].to_numpy(dtype=float)
        assert study.classes[probs.argmax()] == item.predicted
    assert f"study: {folder} (10 items)" in made.out

    early = call("review", "summary", folder)
    assert early.status == 2
    assert "there are no answers" in early.err

    answers = simulated_answers(folder, tmp_path / "answers.csv")
    done = call("review", "summary", folder, "--answers", answers, "--samples", 50)
    assert done.status == 0, done.err
    assert "30 answers of 3 raters; 0 missing" in done.out
    assert "TEST DATA" in done.err
    summary = json.loads((folder / "summary" / "summary.json").read_text())
    assert summary["simulated"] is True
    assert call("report", finished).status == 0
    page = (finished / "report.html").read_text()
    assert "What experts said of the maps" in page and "Simulated raters." in page


def test_same_seed_makes_the_same_study_and_an_existing_one_is_kept(call: Call, finished: Path, tmp_path: Path) -> None:
    words = ("review", "create", finished, "--size", 6, "--repeats", 1, "--methods", "grad_cam", "--seed", 3)
    assert call(*words, "--out", tmp_path / "a").status == call(*words, "--out", tmp_path / "b").status == 0
    first, second = (sorted(path for path in (tmp_path / name).rglob("*.png")) for name in "ab")
    assert [path.name for path in first] == [path.name for path in second]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))
    again = call(*words, "--out", tmp_path / "a")
    assert again.status == 2
    assert str(tmp_path / "a") in again.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--methods", "saliency"), "unknown methods ['saliency']"),
        (("--size", 1), "--size"),
        (("--shams", 0.9), "--shams"),
    ],
)
def test_wishes_that_cannot_be_had_are_refused(
    call: Call, finished: Path, words: tuple[object, ...], expected: str
) -> None:
    done = call("review", "create", finished, *words)
    assert done.status == 2
    assert expected in done.err
    assert not (finished / "review").exists()


def test_folder_that_is_no_run_is_refused(call: Call, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = call("review", "create", tmp_path / "empty")
    assert done.status == 2
    assert "is no finished run" in done.err


def test_explanations_of_the_run_are_of_every_method_and_tested(finished: Path) -> None:
    content = json.loads((finished / "explanations" / "explanations.json").read_text())
    assert list(content["methods"]) == ["grad_cam", "score_cam", "lime"]
    assert content["tests"]["images"] == 6
    scores = content["tests"]["scores"]
    for own in scores.values():
        assert {"energy", "energy_prior", "iou", "deletion", "deletion_random", "randomisation", "blank"} <= set(own)
    assert scores["grad_cam"]["energy_prior"] == scores["lime"]["energy_prior"], "the same images and masks"
    agreement = content["tests"]["agreement"]
    assert set(agreement) == {"teacher, grad_cam", "int8, score_cam", "int8, lime"}
    assert agreement["teacher, grad_cam"]["n"] == 6
    assert set(agreement["teacher, grad_cam"]["by_chance"]) == {"pearson", "spearman", "iou"}
    assert agreement["int8, lime"]["by_chance"] is None, "of one image there is no other"
    assert set(content["tests"]["lime"]) == {"overlap", "r2"}
    assert all("r2" in item["maps"]["lime"]["scores"] for item in content["items"])
    for item in content["items"]:
        for one in item["maps"].values():
            assert (finished / "explanations" / one["overlay"]).is_file()

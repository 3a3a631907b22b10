import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dermdistill.bundle.decisions import Calibration, Decisions
from dermdistill.config import EvaluateConfig
from dermdistill.errors import RunFolderError
from dermdistill.evaluate.evaluation import evaluate_test
from dermdistill.evaluate.predictions import prob_columns
from dermdistill.labels import class_names
from dermdistill.report.evaluation_page import warnings, write_evaluation_report

Json = dict[str, Any]
CLASSES = class_names("diagnosis")
OVERLAP = {"checked": "70 images", "images": 285, "ids": 3, "near_copies": 2, "lesions": 0, "dropped": 5, "details": {}}


def predictions(images: int = 280) -> pd.DataFrame:
    draws = np.random.default_rng(0)
    labels = np.arange(images) % len(CLASSES)
    logits = draws.normal(size=(images, len(CLASSES))) + 1.6 * np.eye(len(CLASSES))[labels]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    facts = {
        "model": "student_int8",
        "split": "test",
        "image_id": [f"IMG_{row:04d}" for row in range(images)],
        "lesion_id": [f"LES_{row // 2:04d}" if row % 14 < 2 else f"LES_{row + 1000:04d}" for row in range(images)],
        "diagnosis": [CLASSES[label] for label in labels],
        "label": labels,
    }
    return pd.DataFrame({**facts, **dict(zip(prob_columns("diagnosis"), probs.T, strict=True))})


@pytest.fixture(scope="module")
def measured() -> Json:
    """Every block that ``evaluate_test`` gives, of random answers."""
    decisions = Decisions(
        Calibration.of_temperature(1.3, len(CLASSES)),
        {"youden": 0.2, "at_80_sensitivity": 0.15, "at_90_sensitivity": 0.1, "at_95_sensitivity": 0.07},
        quantiles=(0.9,) * len(CLASSES),
        confidence=0.4,
    )
    frame = predictions()
    config = EvaluateConfig(bootstrap_samples=50)
    result = evaluate_test(frame, task="diagnosis", config=config, decisions={"student_int8": decisions})
    return {
        **result,
        "protocol": "other set",
        "leaky": False,
        "source": {"bundle": "edge <b>", "models": ["student_int8"], "images": 280},
        "overlap": OVERLAP,
        "scored": ["all seven diagnoses", "280 images show <i>lesions"],
    }


def write_folder(folder: Path, content: Json) -> Path:
    (folder / "evaluation.json").write_text(json.dumps(content))
    facts = {"code": {"version": "0.2"}, "data": {"source": "PH2 & more", "content_sha256": "f" * 64}}
    (folder / "provenance.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory, measured: Json) -> str:
    return write_evaluation_report(write_folder(tmp_path_factory.mktemp("other"), measured)).read_text()


@pytest.fixture(scope="module")
def special(tmp_path_factory: pytest.TempPathFactory, measured: Json) -> str:
    """The page of a set that nobody checked, that lacks diagnoses, and of which one picture is there."""
    share = {"value": 0.6, "low": 0.5, "high": 0.7}
    entry = {"n": 40, "lesions": 40, "sensitivity": share, "called": {"nv": 16, "mel": 24}}
    called = {"student_int8": {"mel": entry, "df": {**entry, "n": 4}}}
    changes = {"overlap": {"checked": False, "dropped": 0}, "called": called}
    folder = write_folder(tmp_path_factory.mktemp("special"), {**measured, **changes})
    (folder / "cases").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "cases" / f"{least_certain(measured)}.jpg")
    return write_evaluation_report(folder).read_text()


def least_certain(measured: Json) -> str:
    return str(measured["cases"]["least_certain"][0]["image_id"])


def plain(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<(style|script)>.*?</\1>|<[^>]+>", " ", html, flags=re.S))


def test_page_has_evidence_and_nothing_of_training(html: str) -> None:
    ids = re.findall(r'<(?:section|header) id="([a-z]+)"', html)
    assert ids == [
        *("summary", "purpose", "tested", "results", "classes", "curves"),
        *("use", "calibration", "abstention", "cases", "failures", "notes", "provenance"),
    ]
    assert re.findall(r'<a href="#([a-z]+)">', html.partition("</nav>")[0]) == ids
    assert set(re.findall(r'href="#([a-z-]+)"', html)) <= set(ids)
    for words in ("Split proof", "Compression", "Recipe", "Not part of this evaluation"):
        assert words not in plain(html)


def test_page_says_what_was_tested(html: str, measured: Json) -> None:
    text = plain(html)
    assert "PH2 &amp; more: 280 images of 260 lesions" in text
    for words in ("edge &lt;b&gt;", "all seven diagnoses", "280 images show &lt;i&gt;lesions", "f" * 64):
        assert words in text
    facts = {
        "Compared with": "70 images",
        "Images compared": "285",
        "Images with the id of one that it learnt from": "3",
        "Near copies of one that it learnt from": "2",
        "Left out for that reason": "5",
    }
    for title, value in facts.items():
        assert f"{title} {value} " in text
    area = measured["models"]["student_int8"]["diagnosis"]["macro_auc"]["value"]
    assert f"Macro AUC {area:.3f}".replace("0.", ".") in text


def test_set_that_nobody_checked_is_warned_of(html: str, special: str) -> None:
    words = "Nobody checked whether the model learnt from these images"
    assert words in plain(special) and words not in plain(html)
    assert "Nothing was checked" in plain(special)


@pytest.mark.parametrize(
    ("dropped", "said"),
    [(3, []), (1, ["2 of these images may be ones that the model learnt from: every figure is too good."])],
)
def test_seen_images_that_stayed_are_warned_of(dropped: int, said: list[str]) -> None:
    assert warnings({"overlap": {**OVERLAP, "dropped": dropped}}) == said


def test_set_without_all_diagnoses_shows_what_its_images_are_called(special: str) -> None:
    assert "mel Melanoma 40 .600 (.500-.700) nv 16, mel 24" in plain(special)
    assert "df Dermatofibroma 4 too few (4)" in plain(special)


def test_pictures_of_the_folder_are_shown_as_cases(html: str, special: str, measured: Json) -> None:
    assert re.search(rf'<img src="data:image/jpeg;base64,[^"]+" alt="{least_certain(measured)}"', special)
    assert "<img" not in html


def test_page_is_one_file_and_always_the_same(html: str, tmp_path: Path, measured: Json) -> None:
    assert write_evaluation_report(write_folder(tmp_path, measured)).read_text() == html
    addresses = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert "Content-Security-Policy" in html


@pytest.mark.parametrize("name", ["evaluation.json", "provenance.json"])
@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_missing_or_damaged_file_is_named(tmp_path: Path, measured: Json, name: str, content: str | None) -> None:
    path = write_folder(tmp_path, measured) / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(RunFolderError) as caught:
        write_evaluation_report(path.parent)
    assert str(path) in caught.value.problem
    assert not (path.parent / "report.html").exists()

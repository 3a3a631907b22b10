"""The part on what experts said: only what raters gave, and test data named as such."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dermdistill.report.reader_study import reader_study
from dermdistill.report.rendering import render_page
from dermdistill.review.sampling import sample_items
from dermdistill.review.study import Study
from dermdistill.review.summary import summarise

CODES = ("mel", "nv")
SCALES = ("spatial", "trust", "usefulness")


def summary(*, simulated: bool) -> dict[str, Any]:
    """Of a real study with drawn answers: raters like true maps, and not the shams."""
    rng = np.random.default_rng(0)
    probs = rng.dirichlet((1, 1), size=60)
    predictions = pd.DataFrame(
        {
            "image_id": [f"i{row}" for row in range(60)],
            "lesion_id": [f"l{row}" for row in range(60)],
            "label": rng.integers(0, 2, 60),
            "prob_mel": probs[:, 0],
            "prob_nv": probs[:, 1],
        }
    )
    sample = sample_items(predictions, size=40, methods=["grad_cam"], repeats=12, shams=0.4, seed=0)
    study = Study("Maps", 0, "2026-01-01T00:00:00+00:00", sample.classes, tuple(plan.item for plan in sample.plans))
    rows = [
        {
            "rater": rater,
            "item": item.item,
            "before": str(rng.choice(CODES)),
            "after": item.predicted,
            **{
                scale: int(rng.integers(1, 3)) + (0 if item.sham else 3) for scale in ("spatial", "trust", "usefulness")
            },
            "comment": "",
            "region": "",
            "seconds": 20.0,
            "answered_at": "2026-01-01T00:00:00+00:00",
            "simulated": simulated,
        }
        for rater in ("a", "b", "c")
        for item in study.items
    ]
    return summarise(study, pd.DataFrame(rows), lambda item: np.zeros((8, 8), np.uint8), samples=50)


@pytest.fixture(scope="module")
def of_people() -> dict[str, Any]:
    return summary(simulated=False)


def test_sentences_and_rows_are_those_of_the_summary(of_people: dict[str, Any]) -> None:
    shown = reader_study(of_people)
    assert shown is not None
    assert shown["sentences"][0] == "3 raters gave 156 answers to 52 items; 0 are missing."
    assert sum("true maps were rated better than the shams" in line for line in shown["sentences"]) == 3
    alpha = of_people["agreement"]["scales"]["spatial"]["alpha"]["value"]
    assert shown["agreement"][0].cells[0].value == f"{alpha:.3f}".replace("0.", ".", 1)
    titles = {row.title for row in shown["ratings"]}
    assert {"All true maps", "Grad-CAM", "Sham: all shams", "Sham: a blob in the centre"} <= titles
    assert shown["diagnosis"][0].remark.endswith(" answers")


def test_test_data_carry_a_banner_and_people_none(of_people: dict[str, Any]) -> None:
    pages = [
        render_page("parts/reader_study.html.j2", {"reader_study": reader_study(one)})
        for one in (of_people, summary(simulated=True))
    ]
    assert "Simulated raters." not in pages[0]
    assert "Simulated raters." in pages[1]


def test_without_a_summary_the_report_says_nothing() -> None:
    assert reader_study(None) is None
    assert render_page("parts/reader_study.html.j2", {"reader_study": None}).strip() == ""


def test_the_file_is_looked_for_where_the_command_writes_it() -> None:
    from dermdistill.cli.review import FOLDER
    from dermdistill.report.reader_study import SUMMARY
    from dermdistill.review.summary_files import SUMMARY_FILE

    assert Path(SUMMARY) == Path(FOLDER) / "summary" / SUMMARY_FILE

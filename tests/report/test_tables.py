from typing import Any

import pytest

from dermdistill.report import tables

CONFUSION = [[30, 5, 5], [2, 6, 1], [4, 0, 96]]  # classes a (40), b (9), c (100)


def entry(n: int) -> dict[str, Any]:
    return {"n": n, **{name: {"value": 0.5, "low": 0.4, "high": 0.6} for name in tables.PER_CLASS}}


@pytest.fixture
def small() -> dict[str, Any]:
    per_class = {"a": entry(40), "b": entry(9), "c": entry(100)}
    return {"classes": ["a", "b", "c"], "models": {"m": {"confusion": CONFUSION, "per_class": per_class}}}


def cells(row: tables.Row) -> list[str]:
    return [str(cell) for cell in row.cells]


def test_class_of_ten_or_fewer_shows_no_figure(small: dict[str, Any]) -> None:
    row = tables.per_class_rows(small, "m")[1]
    assert cells(row) == ["9"] + ["too few (9)"] * 5


def test_class_of_eleven_shows_figures(small: dict[str, Any]) -> None:
    small["models"]["m"] |= {"confusion": [[30, 5, 5], [0, 11, 0], [4, 0, 96]]}
    small["models"]["m"]["per_class"]["b"] = entry(11)
    assert cells(tables.per_class_rows(small, "m")[1]) == ["11"] + [".500 (.400-.600)"] * 5


def test_share_that_rests_on_ten_or_fewer_images_shows_their_number(small: dict[str, Any]) -> None:
    small["models"]["m"]["confusion"] = [[6, 17, 17], [2, 6, 1], [1, 0, 99]]
    row = tables.per_class_rows(small, "m")[0]
    shown = dict(zip(tables.PER_CLASS, cells(row)[1:], strict=True))
    assert shown["ppv"] == "too few (9)"
    assert shown["sensitivity"] == shown["npv"] == ".500 (.400-.600)"


def test_confusion_rows_rank_mistakes_and_spare_small_classes(small: dict[str, Any]) -> None:
    rows = tables.confusion_rows(small, "m")
    assert [row.title for row in rows[:3]] == ["a called b", "a called c", "c called a"]
    assert cells(rows[0]) == ["5", "12.5%"]
    assert cells(next(row for row in rows if row.title == "b called a")) == ["2", "too few (9)"]


def test_file_rows_compare_with_both_other_files() -> None:
    files = {"teacher": {"bytes": 1000}, "student": {"bytes": 400}, "student_int8": {"bytes": 100}}
    teacher, student, int8 = (cells(row) for row in tables.file_rows({"files": files}))
    assert teacher[1:3] == ["150.0% larger", "-"]
    assert student[1:3] == ["-", "60.0% smaller"]
    assert int8[1:3] == ["75.0% smaller", "90.0% smaller"]


def test_metric_rows_keep_unknown_metrics_and_align_models() -> None:
    known = {"value": 0.9, "low": 0.8, "high": 1.0}
    models = {"a": {"diagnosis": {"brier": known}}, "b": {"diagnosis": {"accuracy": known}}}
    rows = tables.metric_rows({"models": models}, "diagnosis")
    assert [(row.title, cells(row)) for row in rows] == [
        ("Accuracy", ["not computable", ".900 (.800-1.000)"]),
        ("Brier", [".900 (.800-1.000)", "not computable"]),
    ]


def test_difference_of_roc_auc_is_called_melanomas() -> None:
    pairs = {"student - teacher": {"roc_auc": {"value": -0.01, "low": -0.02, "high": 0.0}}}
    (row,) = tables.difference_rows({"differences": pairs})
    assert row.title == "Melanoma ROC AUC"
    assert cells(row) == ["-.010 (-.020 to .000)"]


def test_term_rows_give_smallest_and_last_gradient_norm() -> None:
    norms = (3.0, 0.5, 0.7)
    log = [{"terms": {"kd": {"value": 2.0 - i, "weight": 0.3, "grad_norm": n}}} for i, n in enumerate(norms)]
    assert cells(tables.term_rows(log)[0]) == ["0.3", "2", "0", "0.5", "0.7"]


def test_audit_examples_name_lesions_and_pairs() -> None:
    audit = {
        "lesions_across": {
            "count": 1,
            "lesions": [{"lesion_id": "L1", "parts": ["train", "test"], "images": 2}],
        },
        "exact_copies_across": {"count": 1, "pairs": [{"a": "x", "b": "y"}]},
        "near_copies": {"count": 0, "threshold": 0.05, "pairs": []},
    }
    assert tables.audit_examples(audit) == [
        "lesion: lesion_id L1; parts train, test; images 2",
        "exact: a x; b y",
    ]

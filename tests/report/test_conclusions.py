from copy import deepcopy
from typing import Any

import pytest

from dermdistill.report.conclusions import conclusions

Json = dict[str, Any]
PLACES = {"use", "calibration", "abstention", "gate", "subgroups", "robustness"}


def cell(value: float | None, low: float | None = None, high: float | None = None) -> Json:
    return {"value": value, "low": low, "high": high}


def gap(value: float, best: str = "young", worst: str = "old") -> Json:
    return {**cell(value, value - 0.1, value + 0.1), "best": best, "worst": worst, "p_holm": 0.031}


def drop(value: float | None) -> Json:
    return {"drop": {"balanced_accuracy": cell(value)}}


@pytest.fixture
def evaluation() -> Json:
    model: Json = {
        "diagnosis": {
            "accuracy": cell(0.8, 0.78, 0.82),
            "balanced_accuracy": cell(0.7, 0.65, 0.74),
            "macro_auc": cell(0.95, 0.94, 0.96),
        },
        "melanoma": {
            "roc_auc": cell(0.9, 0.88, 0.92),
            "pr_auc": cell(0.6, 0.5, 0.7),
            "sensitivity_at_95_sensitivity": cell(0.93, 0.89, 0.96),
            "specificity_at_95_sensitivity": cell(0.61, 0.58, 0.64),
        },
        "confusion": [[900, 100], [60, 107]],
        "use": {
            "images": 1167,
            "melanomas": 167,
            "decision_curve": {"better": [{"low": 0.02, "high": 0.31}, {"low": 0.4, "high": 0.4}]},
            "operating_points": {"at_95_sensitivity": {"found": 155, "number_needed": cell(4.12, 3.5, 5.01)}},
        },
        "calibration": {
            "method": "vector",
            "before": {"label": {"ece": cell(0.14, 0.12, 0.16)}, "melanoma": {"ece": cell(0.07, 0.05, 0.09)}},
            "after": {
                "label": {"ece": cell(0.02, 0.01, 0.04)},
                "melanoma": {"ece": cell(0.03, 0.02, 0.05), "slope": cell(1.0, 0.9, 1.1)},
            },
        },
        "conformal": {
            "level": 0.9,
            "coverage": cell(0.91, 0.89, 0.93),
            "mean_size": cell(1.84),
            "per_class": {
                "rest": {"n": 1000, "coverage": cell(0.92)},
                "mel": {"n": 167, "coverage": cell(0.88, 0.82, 0.93)},
                "df": {"n": 9, "coverage": cell(0.1)},
            },
        },
        "selective": {"threshold": 0.55, "coverage": cell(0.79, 0.77, 0.81), "accuracy": cell(0.87, 0.85, 0.89)},
    }
    pair = {
        "macro_auc": cell(-0.002, -0.004, 0.001),
        "balanced_accuracy": cell(-0.02, -0.03, -0.01),
        "roc_auc": cell(None),
    }
    return {
        "classes": ["rest", "mel"],
        "leaky": False,
        "n": {"images": 1167, "lesions": 900, "per_class": {"rest": 1000, "mel": 167}},
        "models": {"student_int8": model},
        "differences": {"student_int8 - student": pair},
        "size_ratios": {"student_int8 / student": 0.266},
        "gate": {
            "clean": {"any": {"n": 1167, "flagged": 12, "share": cell(0.0103, 0.005, 0.016)}},
            "melanomas": {"n": 167, "flagged": 2},
            "not_skin": {"all": {"n": 700, "flagged": 0.971}},
        },
        "subgroups": {
            "axes": {
                "age": {"title": "Age, years", "unavailable": None},
                "label_source": {"title": "Source", "unavailable": None},
                "skin_tone": {"title": "Skin tone, by ITA", "unavailable": "it was not measured"},
            },
            "models": {
                "student_int8": {
                    "age": {"gaps": {"melanoma_auc": gap(0.1), "sensitivity_at_95_sensitivity": gap(0.21)}},
                    "label_source": {"gaps": {"melanoma_auc": gap(0.12, "a", "b")}},
                }
            },
        },
        "robustness": {
            "kinds": {name: {"title": name.capitalize()} for name in ("ink", "hair", "blur", "noise", "jpeg")},
            "models": {
                "student_int8": {
                    "clean": {"balanced_accuracy": cell(0.7, 0.6, 0.8)},
                    "kinds": {
                        "hair": drop(0.05),
                        "ink": drop(0.31),
                        "blur": drop(-0.2),
                        "noise": drop(0.12),
                        "jpeg": drop(0.01),
                    },
                }
            },
        },
    }


def told(evaluation: Json, **options: Any) -> dict[str, str]:
    settings = {"own": True, "places": PLACES} | options
    return {item.question: item.text for item in conclusions(evaluation, "student_int8", **settings)}


def test_every_question_is_answered_with_its_evidence(evaluation: Json) -> None:
    found = conclusions(evaluation, "student_int8", own=True, places=PLACES)
    assert [item.evidence for item in found] == [
        *("split", "classes", "results", "results", "use", "calibration", "abstention", "gate"),
        *("subgroups", "robustness", "purpose"),
    ]


def test_headline_figures_come_with_intervals(evaluation: Json) -> None:
    said = told(evaluation)
    assert said["What was tested?"].startswith(
        "The INT8 student, on 1,167 test images of 900 lesions, 167 of the images"
    )
    assert (
        said["How good is it?"]
        == "Macro AUC .950 (.940-.960), balanced accuracy .700 (.650-.740), accuracy .800 (.780-.820)."
    )
    assert (
        "specificity is .610 (.580-.640) and sensitivity came out as .930 (.890-.960)"
        in said["Does it find melanomas?"]
    )


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.80, 0.94, "is missed beyond chance"), (0.9, 0.96, "is within"), (0.96, 0.99, "is exceeded beyond chance")],
)
def test_target_sensitivity_is_judged_by_the_interval(evaluation: Json, low: float, high: float, words: str) -> None:
    evaluation["models"]["student_int8"]["melanoma"]["sensitivity_at_95_sensitivity"] = cell(0.93, low, high)
    assert f"the target {words}" in told(evaluation)["Does it find melanomas?"]


def test_too_few_melanomas_give_no_figures_of_them(evaluation: Json) -> None:
    evaluation["n"]["per_class"]["mel"] = 10
    evaluation["models"]["student_int8"]["use"]["melanomas"] = 10
    said = told(evaluation)
    assert said["Does it find melanomas?"] == "There are too few melanomas (10) to say how well it finds them."
    assert "Are its decisions worth having?" not in said
    assert "melanoma" not in said["Do its probabilities hold?"]
    assert "mel (10)" in said["What must it not be used for?"]


def test_compression_names_what_changed_beyond_chance(evaluation: Json) -> None:
    said = told(evaluation)["What did making it small cost?"]
    assert said == (
        "INT8 minus FP32, paired: macro AUC -.002 (-.004 to +.001), balanced accuracy -.020 (-.030 to -.010); balanced "
        "accuracy beyond chance. Its file is 73.4% smaller than FP32."
    )
    evaluation["differences"]["student_int8 - student"]["balanced_accuracy"] = cell(-0.02, -0.05, 0.01)
    assert "none of them beyond chance" in told(evaluation)["What did making it small cost?"]


def test_decisions_name_ranges_and_what_is_missed(evaluation: Json) -> None:
    said = told(evaluation)["Are its decisions worth having?"]
    assert "threshold probabilities of 2% to 31% and 40%" in said
    assert "refers 4.1 (3.5-5.0) images for each melanoma found and misses 12 of 167" in said
    evaluation["models"]["student_int8"]["use"]["decision_curve"]["better"] = []
    assert "at no threshold probability" in told(evaluation)["Are its decisions worth having?"]


@pytest.mark.parametrize(("slope", "words"), [(0.7, "too extreme."), (1.0, "neither"), (1.4, "too timid.")])
def test_calibration_says_before_after_and_slope(evaluation: Json, slope: float, words: str) -> None:
    evaluation["models"]["student_int8"]["calibration"]["after"]["melanoma"]["slope"] = cell(
        slope, slope - 0.1, slope + 0.1
    )
    said = told(evaluation)["Do its probabilities hold?"]
    assert "of its answers: .020 (.010-.040), without calibration .140 (.120-.160) (vector scaling" in said
    assert f"probabilities are {words}" in said


def test_sets_name_the_class_that_is_covered_least(evaluation: Json) -> None:
    said = told(evaluation)["Does it know what it does not know?"]
    assert "91.0% (89.0-93.0) of lesions with 1.8 diagnoses on average; least often for mel, 88.0% (82.0-93.0)" in said
    assert "less than 55% sure of, it answers 79.0% (77.0-81.0)" in said and "instead of 80.0%." in said


def test_gate_says_its_cost_and_its_use(evaluation: Json) -> None:
    assert told(evaluation)["Does it notice what is no lesion?"] == (
        "Its gate refuses 1.0% (0.5-1.6) of good images, among them 2 of 167 melanomas, and 97.1% of 700 drawn "
        "pictures that show no skin."
    )


def test_subgroups_give_the_largest_gap_of_each_figure(evaluation: Json) -> None:
    said = told(evaluation)["Whom does it fail?"]
    assert "melanoma sensitivity at the 95% threshold: .210 (.110-.310), by age, old against young (p = .031" in said
    assert "melanoma AUC: .120 (.020-.220), by source of the label, b against a" in said
    assert said.endswith("Nothing is known about groups by skin tone.")


def test_robustness_gives_the_worst_three(evaluation: Json) -> None:
    assert told(evaluation)["What breaks it?"] == (
        "Balanced accuracy, .700 (.600-.800) on clean pictures, falls most under ink (-.310), noise (-.120) and hair "
        "(-.050), on average over severities."
    )
    for entry in evaluation["robustness"]["models"]["student_int8"]["kinds"].values():
        entry["drop"]["balanced_accuracy"] = cell(-0.01)
    assert "falls under none of 5 ways" in told(evaluation)["What breaks it?"]


def test_missing_blocks_give_no_sentence(evaluation: Json) -> None:
    bare = {key: evaluation[key] for key in ("classes", "n", "models")}
    model = bare["models"]["student_int8"]
    bare["models"] = {"student_int8": {key: model[key] for key in ("diagnosis", "melanoma", "confusion")}}
    assert set(told(bare)) == {
        *("What was tested?", "How good is it?", "Does it find melanomas?", "What must it not be used for?"),
    }


def test_undefined_figures_are_left_out(evaluation: Json) -> None:
    def emptied(content: Any) -> Any:
        if isinstance(content, dict):
            values = {key: emptied(value) for key, value in content.items()}
            return values | dict.fromkeys(values.keys() & {"value", "low", "high"})
        return [emptied(item) for item in content] if isinstance(content, list) else content

    better = deepcopy(evaluation["models"]["student_int8"]["use"]["decision_curve"])
    evaluation = emptied(evaluation)
    evaluation["models"]["student_int8"]["use"]["decision_curve"] = better
    said = " ".join(told(evaluation).values())
    assert "None" not in said and "nan" not in said
    assert "Macro AUC" not in said and "Largest gap" not in said and "falls" not in said


def test_sentence_without_its_section_points_to_the_results(evaluation: Json) -> None:
    found = conclusions(evaluation, "student_int8", own=False, places=set())
    assert {item.evidence for item in found} == {"tested", "classes", "results", "purpose"}
    assert "images from elsewhere" in found[0].text


def test_leaky_evaluation_says_so_first(evaluation: Json) -> None:
    evaluation["leaky"] = True
    assert "every figure is too good" in told(evaluation)["What was tested?"]

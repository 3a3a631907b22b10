"""The model card: what it must say, on which facts, and what it must never hold."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermdistill.bundle.decisions import Calibration, Decisions
from dermdistill.bundle.variants import VARIANTS
from dermdistill.evaluate import metrics
from dermdistill.evaluate.bootstrap import lesion_weights
from dermdistill.evaluate.calibration_blocks import calibration_block, conformal_block, selective_block
from dermdistill.evaluate.subgroup_axes import Axis
from dermdistill.evaluate.subgroups import SubgroupScores, subgroups_block
from dermdistill.labels import DIAGNOSES
from dermdistill.recipes.load import load_recipe
from dermdistill.report.checklists import checklists
from dermdistill.report.formats import difference, estimate
from dermdistill.report.making import pathless
from dermdistill.report.model_card import CardFacts, data_notice, model_card

COUNTS = {
    "train": {"akiec": 229, "bcc": 360, "bkl": 769, "df": 81, "mel": 779, "nv": 4693, "vasc": 100},
    "val": {"akiec": 49, "bcc": 77, "bkl": 165, "df": 17, "mel": 167, "nv": 1006, "vasc": 21},
    "test": {"akiec": 49, "bcc": 77, "bkl": 165, "df": 10, "mel": 167, "nv": 1006, "vasc": 11},
}
SPLIT = {
    "protocol": "lesion",
    "seed": 42,
    "leaky": False,
    "counts": COUNTS,
    "images": {part: sum(counts.values()) for part, counts in COUNTS.items()},
    "lesions": {"train": 5235, "val": 1116, "test": 1119},
}
FIGURES = [
    {"variant": "student", "n": 1485, "macro_auc": 0.9541, "balanced_accuracy": 0.7512, "melanoma_auc": 0.9087}
    | {"accuracy": 0.8219, "same_label": 1.0},
    {"variant": "student_int8", "n": 1485, "macro_auc": None, "balanced_accuracy": None, "melanoma_auc": 0.9043}
    | {"accuracy": 0.8172, "same_label": 1484 / 1485},
]
PROVENANCE = {
    "code": {"version": "0.1.0", "commit": "c0ffee" * 6, "dirty": False},
    "machine": {"cpu": "A Processor", "cores": 2},
    "packages": {"onnxruntime": "1.23.0"},
    "student_sha256": "a1" * 32,
    "data": {"catalog_sha256": "b2" * 32},
}


@pytest.fixture
def make_facts() -> Callable[..., CardFacts]:
    """Facts of a run on HAM10000, with other values on request."""

    def make(recipe: str = "edge", settings: list[str] | None = None, **changes: Any) -> CardFacts:
        facts = CardFacts(
            recipe=load_recipe(recipe, settings),
            split=SPLIT,
            source="HAM10000",
            images=10015,
            lesions=7470,
            student_parameters=3_283_911,
            variants={"student": 13_650_001, "student_int8": 3_910_002},
            thresholds={
                "student": {"youden": 0.21344, "at_95_sensitivity": 0.06127},
                "student_int8": {"youden": 0.31344, "at_95_sensitivity": None},
            },
            figures=FIGURES,
            provenance=PROVENANCE,
            calibration_images=512,
            qat_epochs=3,
        )
        return dataclasses.replace(facts, **changes)

    return make


def section(card: str, title: str) -> str:
    return card.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def cells(text: str, first: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_card_is_deterministic(make_facts: Any) -> None:
    assert model_card(make_facts()) == model_card(make_facts())
    assert model_card(make_facts(lesions=7469)) != model_card(make_facts())


def test_card_says_what_the_model_is_not_for(make_facts: Any) -> None:
    card = model_card(make_facts())
    told = section(card, "What it is not for")
    for words in (
        "Clinical use", "not a medical device", "diagnosis", "your own skin", "not dermatoscopic",
        "fair skin, from Austria and Australia",
    ):  # fmt: skip
        assert words in told
    assert "Not a medical device" in card.partition("\n## ")[0]


def test_every_class_stands_in_order_with_its_name(make_facts: Any) -> None:
    told = section(model_card(make_facts()), "Input and output")
    wanted = [f"{place}. `{item.code}`: {item.name}" for place, item in enumerate(DIAGNOSES, start=1)]
    assert [line for line in told.splitlines() if re.match(r"\d\. ", line)] == wanted
    assert "128 x 128 pixels" in told


def test_thresholds_stand_by_file_and_say_where_they_were_chosen(make_facts: Any) -> None:
    told = section(model_card(make_facts()), "Input and output")
    assert cells(told, "ONNX Runtime FP32") == ["ONNX Runtime FP32", ".0613", ".2134"]
    assert cells(told, "ONNX Runtime INT8") == ["ONNX Runtime INT8", "not defined on the validation part", ".3134"]
    assert "validation part (1,502 images, 167 of them melanomas), not on the test part" in told


def test_files_stand_with_their_bytes(make_facts: Any) -> None:
    told = section(model_card(make_facts(variants={name: 1000 + i for i, name in enumerate(VARIANTS)})), "Files")
    for index, variant in enumerate(VARIANTS.values()):
        assert cells(told, f"`{variant.file}`")[1:] == [variant.runtime, variant.precision, f"1,00{index}"]


def test_figures_are_those_that_were_given_and_undefined_ones_say_so(make_facts: Any) -> None:
    told = section(model_card(make_facts()), "Figures")
    assert cells(told, "ONNX Runtime FP32")[1:] == ["1,485", ".954", ".751", ".909", ".822", "1,485 of 1,485"]
    undefined = ["not defined on this part"] * 2
    assert cells(told, "ONNX Runtime INT8")[1:] == ["1,485", *undefined, ".904", ".817", "1,484 of 1,485"]
    assert "point estimates" in told and "evaluation/evaluation.json" in told
    assert section(model_card(make_facts(figures=[])), "Figures").strip() == "None were made."


def test_classes_with_ten_or_fewer_test_images_are_named(make_facts: Any) -> None:
    assert "10 or fewer test images: `df` (10)." in section(model_card(make_facts()), "Known limits")
    many = {**SPLIT, "counts": {**COUNTS, "test": {**COUNTS["test"], "df": 11}}}
    assert "or fewer test images" not in model_card(make_facts(split=many))


def test_melanoma_card_counts_its_two_classes(make_facts: Any) -> None:
    card = model_card(make_facts("melanoma"))
    told = section(card, "Training data")
    assert cells(told, "`rest`")[1:] == ["6,232", "1,335", "1,318"]
    assert cells(told, "`mel`")[1:] == ["779", "167", "167"]
    assert "2. `mel`: Melanoma" in card and "`df`" not in card


def test_leaky_split_is_marked_loudly_and_often(make_facts: Any) -> None:
    split = {**SPLIT, "protocol": "published", "leaky": True}
    card = model_card(make_facts(split=split))
    assert "> **LEAKY SPLIT.**" in card.partition("\n## ")[0]
    for title in ("Training data", "Figures"):
        assert "**LEAKY SPLIT.** The protocol published" in section(card, title)
    assert "No lesion is in two parts" not in card
    assert "LEAKY" not in model_card(make_facts())


def test_repeated_images_are_said_to_be_counted_as_copies(make_facts: Any) -> None:
    assert "every copy counts" in section(model_card(make_facts(images=9000)), "Training data")
    assert "every copy counts" not in model_card(make_facts())


@pytest.mark.parametrize(
    ("source", "said", "unsaid"),
    [
        ("HAM10000", ("CC BY-NC 4.0", "10.1038/sdata.2018.161", "non-commercially, with attribution"), "drawn"),
        ("synthetic", ("drawn lesions", "good for nothing but tests"), "CC BY-NC"),
        ("synthetic lesions (HAM10000 layout)", ("drawn lesions", "good for nothing but tests"), "CC BY-NC"),
        ("folder", ("terms are not known here",), "non-commercially"),
    ],
)
def test_licence_goes_by_the_source(source: str, said: tuple[str, ...], unsaid: str, make_facts: Any) -> None:
    told = section(model_card(make_facts(source=source)), "Licence")
    assert [words for words in ("MIT", *said) if words not in told] == []
    assert unsaid not in told


def test_synthetic_card_makes_no_claim_about_people(make_facts: Any) -> None:
    card = model_card(make_facts(source="synthetic"))
    assert "> **Trained on drawn lesions.**" in card.partition("\n## ")[0]
    told = card.partition("\n## Checklists\n")[0]
    assert "fair skin" not in told and "histopathology" not in told and "HAM10000" not in told


def test_making_names_recipe_networks_weights_and_quantization(make_facts: Any) -> None:
    settings = ["student.distill.attention=7", "student.distill.temperature=3.5"]
    told = section(model_card(make_facts(settings=settings)), "How it was made")
    for words in (
        "Recipe: edge.", "efficientnet_lite2", "efficientnet_lite0", "alpha 0.3", "beta 0.3", "gamma 0.4",
        "temperature 3.5", "attention 7", "3 epochs of quantization-aware training, from ranges on 512 training images",
    ):  # fmt: skip
        assert words in told
    assert "relational" not in told
    after = section(model_card(make_facts(qat_epochs=0)), "How it was made")
    assert "without quantization-aware training; ranges by minmax on 512 training images" in after


def test_student_without_a_teacher_is_not_called_distilled(make_facts: Any) -> None:
    settings = ["student.distill.alpha=0", "student.distill.beta=0", "student.distill.gamma=1"]
    card = model_card(make_facts(settings=settings))
    told = section(card, "How it was made")
    assert "learnt from labels alone" in told and "Teacher:" not in told and "Control:" not in told
    assert "distilled" not in card.partition("\n## ")[0]


def test_distillation_without_a_control_is_said_to_prove_nothing(make_facts: Any) -> None:
    told = section(model_card(make_facts(settings=["control=false"])), "How it was made")
    assert "Control: none; nothing here shows that distillation helped" in told


def test_quantization_is_none_where_every_file_is_fp32(make_facts: Any) -> None:
    told = section(model_card(make_facts(variants={"student": 9, "student_executorch": 9})), "How it was made")
    assert "Quantization: none\n" in told


def test_provenance_is_all_there(make_facts: Any) -> None:
    extra = {"command": "", "quantization": {"float_layers": []}}
    told = section(model_card(make_facts(provenance={**PROVENANCE, **extra})), "Provenance")
    assert "command" not in told and "- quantization float layers: none" in told.splitlines()
    for line in (
        "- code commit: " + "c0ffee" * 6, "- code with uncommitted changes: no", "- machine processor: A Processor",
        "- packages onnxruntime: 1.23.0", "- student sha256: " + "a1" * 32, "- data catalog sha256: " + "b2" * 32,
    ):  # fmt: skip
        assert line in told.splitlines()


def test_card_holds_no_absolute_path(make_facts: Any) -> None:
    recipe = load_recipe("edge", ["description=from /srv/people/me/notes.txt"])
    branch = recipe.student.model.branches[0].model_copy(update={"weights": "/srv/my work/people/w.safetensors"})
    model = recipe.student.model.model_copy(update={"branches": (branch,)})
    student = recipe.student.model_copy(update={"model": model})
    teacher = recipe.teacher.model_copy(update={"run": "/srv/people/me/run"})
    card = model_card(
        make_facts(
            recipe="edge",
            source="/srv/people/me/data",
            provenance={
                **PROVENANCE,
                "command": "dermdistill run edge --data=/srv/people/me/photos",
                "list": ["/srv/x"],
            },
        )
    ) + model_card(
        dataclasses.replace(
            make_facts(), recipe=recipe.model_copy(update={"student": student, "teacher": teacher}), source="folder"
        )
    )
    assert "/srv" not in card and "people" not in card.replace("People whom", "")
    for left in ("notes.txt", "w.safetensors", "--data=photos"):
        assert left in card
    assert "trained by another run" in card


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/me/x.yaml and ~/y", "x.yaml and y"),
        ("file:///home/me/x", "file:x"),
        ("a:/home/me/x/", "a:x/"),
        ("https://a.org/b/c and/or ../d/e, 10.1/f / g", "https://a.org/b/c and/or ../d/e, 10.1/f / g"),
    ],
)
def test_pathless_leaves_the_last_part_of_absolute_paths_alone(text: str, left: str) -> None:
    assert pathless(text) == left


def test_names_from_outside_are_taken_literally(make_facts: Any) -> None:
    card = model_card(make_facts(source="a|b <script> *c*"))
    assert "<script>" not in card and r"a\|b &lt;script&gt; \*c\*" in card


def test_data_notice_is_for_ham10000_alone() -> None:
    notice = data_notice("HAM10000")
    assert notice is not None and notice.startswith("# Data notice\n")
    for words in (
        "CC BY-NC 4.0",
        "10.1038/sdata.2018.161",
        "Tschandl",
        "Rosendahl",
        "Kittler",
        "non-commercial",
        "MIT",
    ):
        assert words in notice
    assert [data_notice(name) for name in ("synthetic", "synthetic lesions (HAM10000 layout)", "folder")] == [None] * 3


def test_notice_lies_in_the_package() -> None:
    import dermdistill

    files = Path(dermdistill.__file__).parent / "report" / "templates"
    assert (files / "ham10000_notice.md").read_text() == data_notice("HAM10000")


K = len(DIAGNOSES)
DECISIONS = {
    "student": Decisions(Calibration.of_temperature(2.0, K), {"youden": 0.2, "at_95_sensitivity": 0.06}),
    "student_int8": Decisions(
        Calibration("vector", (1.0,) * K, (0.1,) * K),
        {"youden": 0.31, "at_80_sensitivity": 0.3, "at_95_sensitivity": None},
        (0.9,) * (K - 1) + (None,),
        0.9,
        0.4321,
    ),
}


@pytest.fixture(scope="module")
def evaluation() -> dict[str, Any]:
    """Blocks as the evaluation makes them, of random scores; spoilt photographs by hand."""
    rng = np.random.default_rng(2)
    labels, lesions = rng.integers(0, K, 420), np.arange(420) // 2
    raw = rng.dirichlet(np.ones(K), 420) * 0.6 + 0.4 * np.eye(K)[labels]
    weights = lesion_weights(lesions, samples=20, seed=0)
    models, scores = {}, {}
    for name, own in DECISIONS.items():
        probs = own.calibration.apply(raw)
        melanoma, melanoma_probs = labels == 4, probs[:, 4]
        cell = {"value": 0.9, "low": 0.85, "high": 0.95}
        models[name] = {
            "diagnosis": {"macro_auc": cell, "balanced_accuracy": cell, "accuracy": cell},
            "melanoma": {
                "roc_auc": cell,
                "sensitivity": {"value": 0.71, "low": 0.6, "high": 0.8},
                "specificity_at_80_sensitivity": {"value": 0.83, "low": 0.8, "high": 0.9},
                "sensitivity_at_95_sensitivity": {"value": None, "low": None, "high": None},
            },
            "per_class": {d.code: {"n": 60, **dict.fromkeys(("sensitivity", "ppv"), cell)} for d in DIAGNOSES},
            "confusion": metrics.confusion(labels, raw).astype(int).tolist(),
            "calibration": calibration_block(labels, raw, probs, own.calibration, {}, "diagnosis", weights, 15),
            "conformal": conformal_block(labels, probs, own, "diagnosis", weights, lesion_ids=lesions),
            "selective": selective_block(raw.argmax(1) == labels, probs.max(axis=1), own, weights),
        }
        scores[name] = SubgroupScores(
            labels, raw.argmax(axis=1), melanoma, melanoma_probs, 0.3, tuple(d.code for d in DIAGNOSES)
        )
    axes = {
        "sex": Axis("Sex", ("female", "male"), (lesions % 2).astype(np.int64)),
        "skin_tone": Axis("Skin tone", (), np.empty(0, dtype=np.int64), unavailable="it was not measured"),
    }
    drop = {"value": 0.05, "low": 0.01, "high": 0.09}
    spoilt = {"mean": {}, "drop": {"balanced_accuracy": drop, "melanoma_auc": {**drop, "value": -0.002}}}
    return {
        "classes": [d.code for d in DIAGNOSES],
        "n": {"images": 420, "lesions": 210},
        "models": models,
        "subgroups": subgroups_block(scores, axes, lesions, samples=20, seed=0, permutations=20),
        "robustness": {
            "sample": {"images": 77},
            "severities": [1, 3],
            "kinds": {"hair": {"title": "Hair", "group": "artefact"}},
            "models": {"student_int8": {"groups": {"artefact": spoilt, "all": spoilt}, "kinds": {"hair": spoilt}}},
        },
    }


EVIDENCE = ("When it should abstain", "Calibration", "Operating points", "Subgroups", "Robustness")


def test_card_without_evaluation_is_valid_and_says_what_is_not_available(make_facts: Any) -> None:
    card = model_card(make_facts(thresholds={"student": {}, "student_int8": {}}))
    for title in EVIDENCE:
        assert section(card, title).startswith("\nNot available: "), title
    assert "No figure here shows how much." in section(card, "Known limits")


def test_card_names_users_kind_of_study_and_exclusions(make_facts: Any) -> None:
    card = model_card(make_facts())
    assert "Users: researchers" in section(card, "Intended use") and "7 classes" in section(card, "Intended use")
    assert "retrospective" in section(card, "Training data")
    parts = sum(SPLIT["images"].values())
    assert f"{10015 - parts:,} images of the catalog are in no part." in section(card, "Training data")
    assert "none was left out" in section(model_card(make_facts(images=parts)), "Training data")
    assert "none was left out" not in section(model_card(make_facts(images=parts - 1)), "Training data")
    assert "one person may have lesions in two parts" in section(card, "Training data")
    other = section(model_card(make_facts(source="folder")), "Training data")
    assert "retrospective" not in other and "one person may" not in other


def test_evaluated_card_lacks_nothing(make_facts: Any, evaluation: dict[str, Any]) -> None:
    card = model_card(make_facts(evaluation=evaluation, decisions=DECISIONS))
    for title in EVIDENCE:
        assert "Not available" not in section(card, title), title
    assert "The section Robustness shows how much." in section(card, "Known limits")


def test_figures_have_intervals_where_an_evaluation_is_given(make_facts: Any, evaluation: dict[str, Any]) -> None:
    told = section(model_card(make_facts(evaluation=evaluation)), "Figures")
    assert "| ONNX Runtime INT8 | .900 (.850-.950) | .900 (.850-.950) | .900 (.850-.950) | .900 (.850-.950) |" in told
    assert "420 images of 210 lesions" in told
    assert "None were made" not in section(model_card(make_facts(evaluation=evaluation, figures=[])), "Figures")
    assert cells(told, "`nv`")[1:4] == ["60", ".900 (.850-.950)", "not computable"]


def test_calibration_shows_before_and_after(make_facts: Any, evaluation: dict[str, Any]) -> None:
    told = section(model_card(make_facts(evaluation=evaluation, decisions=DECISIONS)), "Calibration")
    assert "- ONNX Runtime FP32: one temperature" in told and "ONNX Runtime INT8: a scale and a bias" in told
    for stage in ("before", "after"):
        block = evaluation["models"]["student"]["calibration"][stage]
        row = cells(told, f"ONNX Runtime FP32, {stage}")
        assert row[1] == str(estimate(block["label"]["ece"])) and row[3] == str(estimate(block["melanoma"]["slope"]))
        assert row[4] == str(difference(block["melanoma"]["intercept"])) and " to " in row[4]
    assert "test part is not available" in section(model_card(make_facts(decisions=DECISIONS)), "Calibration")


def test_operating_points_show_test_figures_beside_thresholds(make_facts: Any, evaluation: dict[str, Any]) -> None:
    thresholds = {name: own.thresholds for name, own in DECISIONS.items()}
    told = section(model_card(make_facts(evaluation=evaluation, thresholds=thresholds)), "Operating points")
    assert cells(told, "ONNX Runtime INT8, Youden")[1:] == [".3100", ".710 (.600-.800)", "not available"]
    assert cells(told, "ONNX Runtime INT8, 80% sensitivity")[1:] == [".3000", "not available", ".830 (.800-.900)"]
    undefined = ["not computable", "not computable", "not available"]
    assert cells(told, "ONNX Runtime INT8, 95% sensitivity")[1:] == undefined


def test_abstention_says_what_the_predictor_answers(make_facts: Any, evaluation: dict[str, Any]) -> None:
    told = section(model_card(make_facts(evaluation=evaluation, decisions=DECISIONS)), "When it should abstain")
    assert "`abstain`" in told and "`low_confidence`" in told
    assert "INT8: `low_confidence` below a calibrated probability of its label of .4321" in told
    assert "hold the true diagnosis of 90% of each class; 1 class with too few images is in every set." in told
    assert "FP32: no confidence is too low." in told and "FP32: no prediction sets." in told
    selective = evaluation["models"]["student_int8"]["selective"]
    assert f"share answered {estimate(selective['coverage'])}, accuracy of these" in told
    assert "no skin" not in told
    gate = {"clean": {"any": {"n": 420, "flagged": 9}}, "not_skin": {"all": {"n": 300, "flagged": 0.97}}}
    seen = make_facts(evaluation=evaluation | {"gate": gate}, decisions=DECISIONS)
    told = section(model_card(seen), "When it should abstain")
    assert "flags 9 of 420 test images, and 97.0% of 300 drawn pictures that show no skin" in told


def test_mean_over_flips_is_named_as_such(make_facts: Any) -> None:
    own = {"student_int8_flips": DECISIONS["student_int8"]}
    card = model_card(make_facts(decisions=own, thresholds={name: one.thresholds for name, one in own.items()}))
    assert "- ONNX Runtime INT8, mean over flips: a scale and a bias" in section(card, "Calibration")
    assert cells(section(card, "Operating points"), "ONNX Runtime INT8, mean over flips, Youden")[1] == ".3100"


def test_subgroups_give_numbers_gaps_and_what_is_unavailable(make_facts: Any, evaluation: dict[str, Any]) -> None:
    told = section(model_card(make_facts(evaluation=evaluation)), "Subgroups")
    gap = evaluation["subgroups"]["models"]["student_int8"]["sex"]["gaps"]["accuracy"]
    row = cells(told, "Sex")
    assert row[1] == "female (210), male (210)"
    assert row[2].startswith(f"{difference(gap)}: {gap['best']} over {gap['worst']}, p ")
    assert "- Skin tone: not available, it was not measured." in told


def test_robustness_gives_the_drops(make_facts: Any, evaluation: dict[str, Any]) -> None:
    told = section(model_card(make_facts(evaluation=evaluation)), "Robustness")
    assert cells(told, "Hair")[1:] == ["+.050 (+.010 to +.090)", "-.002 (+.010 to +.090)"]
    assert "on 77 test images" in told and "severities 1, 3" in told


def test_checklists_close_the_card_and_name_its_own_sections(make_facts: Any, evaluation: dict[str, Any]) -> None:
    card = model_card(make_facts(evaluation=evaluation, decisions=DECISIONS))
    headings = re.findall(r"^## (.*)$", card, flags=re.M)
    assert headings[-1] == "Checklists"
    named = {
        place.partition(" if ")[0].removeprefix("card: ")
        for checklist in checklists()
        for item in checklist["items"]
        for place in item["places"]
        if place.startswith("card: ")
    }
    assert named <= {*headings, "beginning"}


def test_evaluated_card_holds_no_absolute_path_and_is_deterministic(make_facts: Any, evaluation: Any) -> None:
    facts = make_facts(evaluation=evaluation, decisions=DECISIONS)
    assert model_card(facts) == model_card(facts)
    assert re.search(r"(?<![\w.<])/(?:home|srv|tmp|work|root)/", model_card(facts)) is None

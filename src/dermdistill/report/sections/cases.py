"""The cases themselves as contact sheets: where a model is surely wrong, misses a melanoma, or does not know."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from dermdistill.evaluate.cases import GROUPS, case_ids
from dermdistill.labels import MELANOMA, REST
from dermdistill.report.formats import CLASS_TITLES, MODEL_PHRASES, number

TITLE = "Cases to look at"
QUESTION = "What do its worst mistakes look like, and what does it not know?"
TITLES: Final = {
    "surest_mistakes": "Wrong and sure of it",
    "missed_melanomas": "Melanomas called something else",
    "least_certain": "The least certain answers",
    "benign_like_melanoma": "Benign lesions that look most like melanoma to it",
}
ORDERS: Final = {
    "surest_mistakes": "wrong answers, the surest first",
    "missed_melanomas": "melanomas called something else, the lowest melanoma probability first",
    "least_certain": "all answers, right and wrong, the least certain first",
    "benign_like_melanoma": "benign lesions, the highest melanoma probability first",
}
Json = dict[str, Any]


def section(evaluation: Mapping[str, Any], pictures: Mapping[str, str] | None = None) -> Json | None:
    """What the partial shows; None where the evaluation chose no cases.

    Args:
        evaluation: with ``cases`` of ``choose_cases`` and, beside them, the ``model`` that they are of.
        pictures: data URIs by image id; None, or none of them, shows ids alone.
    """
    cases = evaluation.get("cases")
    if cases is None:
        return None
    pictures = pictures or {}
    return {
        "sentences": _sentences(cases),
        "pictures": _without_pictures(cases, pictures),
        "groups": [
            {
                "title": TITLES[name],
                "caption": _caption(len(cases[name]), cases["lesions"][name], ORDERS[name]),
                "tiles": _tiles(cases[name], pictures),
            }
            for name in GROUPS
        ],
        "confusions": [
            {
                "title": f"{_title(item['true'])} called {_title(item['predicted'])}",
                "images": f"{item['images']:,} {'image' if item['images'] == 1 else 'images'}",
                "tiles": _tiles(item["cases"], pictures),
            }
            for item in cases["confusions"]
        ],
    }


def _title(code: str) -> str:
    return CLASS_TITLES.get(code, code)


def _sentences(cases: Mapping[str, Any]) -> list[str]:
    model = cases.get("model")
    name = f"The {MODEL_PHRASES.get(model, model)}" if model else "The model"
    wrong, missed = cases["surest_mistakes"], cases["missed_melanomas"]
    if not wrong:
        return [f"{name} made no mistake on these images."]
    first = wrong[0]
    surest = (
        f"{name} was surest of its mistake on {first['image_id']}: {_title(first['true'])}, which it called "
        f"{_title(first['predicted'])} with a probability of {number(first['confidence'])}."
    )
    if not missed:
        return [surest, "It called no melanoma something else."]
    low, lesions = missed[0]["melanoma_probability"], cases["lesions"]["missed_melanomas"]
    images = "1 lesion" if lesions == 1 else f"{lesions:,} lesions"
    return [
        surest,
        f"It called melanomas of {images} something else; the lowest melanoma probability among them is {number(low)}.",
    ]


def _without_pictures(cases: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """In words, how many pictures are missing; empty where none is."""
    ids = case_ids(cases)
    lacking = sum(not pictures.get(image) for image in ids)
    if lacking == len(ids) > 0:
        return "Pictures are not part of this page: it shows the ids of the images alone."
    return f"{lacking} of {len(ids)} pictures could not be read." if lacking else ""


def _caption(shown: int, lesions: int, order: str) -> str:
    if not shown:
        return f"There are no {order.partition(',')[0]}."
    return f"{shown} of {lesions:,} lesions, one image of each: {order}."


def _tiles(cases: Sequence[Mapping[str, Any]], pictures: Mapping[str, str]) -> list[Json]:
    return [
        {
            "image_id": case["image_id"],
            "picture": pictures.get(case["image_id"], ""),
            "true": _title(case["true"]),
            "predicted": _title(case["predicted"]),
            "wrong": _is_wrong(case["true"], case["predicted"]),
            "confidence": number(case["confidence"], 2),
            "melanoma": number(case["melanoma_probability"], 2),
        }
        for case in cases
    ]


def _is_wrong(true: str, predicted: str) -> bool:
    """``rest`` is right for each diagnosis but melanoma."""
    return true == MELANOMA if predicted == REST else true != predicted

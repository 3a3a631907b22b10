"""The part of the report on explanations: cases with every method's map, and what tests say of the methods.

It reads ``explanations/explanations.json``, whose form ``pipeline/explaining.py`` describes. A method that fails a test
is marked wherever its maps are shown.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dermdistill.report.downloads import data_uri
from dermdistill.report.formats import Cell, estimate, number
from dermdistill.report.markdown import plain, table
from dermdistill.report.tables import Row, markdown_rows

TITLES: Final = {"grad_cam": "Grad-CAM", "score_cam": "Score-CAM", "lime": "LIME"}
# Score, title, baselines beside it.
SCORES: Final = {
    "energy": ("Energy in the lesion", ("energy_prior",)),
    "pointing": ("Hottest point in the lesion", ("pointing_prior",)),
    "iou": ("IoU at equal area", ("iou_prior",)),
    "moved_energy": ("Energy, lesion off the centre", ("moved_energy_prior",)),
    "moved_pointing": ("Hottest point, lesion off the centre", ("moved_pointing_prior",)),
    "moved_iou": ("IoU, lesion off the centre", ("moved_iou_prior",)),
    "deletion": ("Deletion (lower is better)", ("deletion_random", "deletion_prior")),
    "insertion": ("Insertion (higher is better)", ("insertion_random", "insertion_prior")),
    "sensitivity": ("Change under noise (lower is better)", ()),
    "randomisation": ("Correlation after random weights (at most .5)", ()),
    "blank": ("Blank maps", ()),
}
BASELINES: Final = {"prior": "blob in the centre", "random": "random order"}
MEASURES: Final = {"pearson": "Pearson", "spearman": "Spearman", "iou": "IoU of the hottest fifth"}
UNDER_A_MAP: Final = {"energy": "energy", "iou": "IoU", "pointing": "point", "r2": "R²"}
Json = Mapping[str, Any]


def method_title(name: str) -> str:
    """How a method is called in print."""
    return TITLES.get(name, name.replace("_", " "))


def explained(folder: Path, content: Json | None) -> dict[str, Any] | None:
    """What the template shows; None without explanations.

    Args:
        folder: ``explanations`` of a run.
        content: of its ``explanations.json``.
    """
    if content is None:
        return None
    methods = content.get("methods") or {}
    tests = content.get("tests")
    return {
        "methods": [{"name": name, "title": method_title(name), **_marked(methods[name])} for name in methods],
        "items": [_item(folder, item, methods) for item in content.get("items", [])],
        "tests": None if tests is None else _tests(tests),
        "sentences": _sentences(methods, tests),
    }


def _marked(facts: Json) -> dict[str, Any]:
    failures = facts.get("failures") or []
    return {
        "failed": [str(one["test"]) for one in failures],
        "sentences": [str(one["sentence"]) for one in failures],
        "tested": facts.get("untested") is not None,
    }


def _item(folder: Path, item: Json, methods: Json) -> dict[str, Any]:
    # Runs of older versions have one method and no scores.
    maps = item.get("maps") or {"grad_cam": {"overlay": item["overlay"], "blank": item.get("blank")}}
    return {
        **{key: item[key] for key in ("image_id", "true", "predicted", "correct")},
        "prob_text": number(item["prob"]),
        "image": data_uri(folder / Path(str(item["image"])).name),
        "maps": [
            {
                "title": method_title(name),
                "picture": data_uri(folder / Path(str(one["overlay"])).name),
                "blank": bool(one.get("blank")),
                "failed": _marked(methods.get(name, {}))["failed"],
                "scores": _under(one.get("scores") or {}),
            }
            for name, one in maps.items()
        ],
        "prior": _under(next(iter(maps.values())).get("scores") or {}, "_prior"),
    }


def _under(scores: Json, suffix: str = "") -> str:
    """``energy .61, IoU .44, point in``, of what is defined."""
    found = []
    for name, title in UNDER_A_MAP.items():
        value = scores.get(name + suffix)
        if value is not None:
            shown = ("in" if value >= 1 else "out") if name == "pointing" and value in (0, 1) else number(value, 2)
            found.append(f"{title} {shown}")
    return ", ".join(found)


def _tests(tests: Json) -> dict[str, Any]:
    names = list(tests["scores"])
    return {
        "columns": [method_title(name) for name in names],
        "rows": _score_rows(tests["scores"]),
        "agreement": _agreement_rows(tests.get("agreement") or {}),
        "agreement_columns": list(MEASURES.values()),
    }


def _score_rows(scores: Mapping[str, Json]) -> list[Row]:
    """One row a score, then its baselines, each with its mean over the methods' own images."""
    rows = []
    for score, (title, baselines) in SCORES.items():
        measured = [own[score] for own in scores.values() if score in own]
        if not measured:
            continue
        most = max(cell["n"] for cell in measured)
        rows.append(Row(title, tuple(_cell(own, score) for own in scores.values()), f"{most} images"))
        for name in baselines:
            if any(name in own for own in scores.values()):
                label = BASELINES[name.rpartition("_")[2]]
                rows.append(Row("", tuple(_cell(own, name) for own in scores.values()), label))
    return rows


def _cell(own: Json, score: str) -> Cell:
    return estimate(own[score]) if score in own else Cell("not measured", word=True)


def _agreement_rows(agreement: Mapping[str, Json]) -> list[Row]:
    """One row a pair of models, and below it what maps of other images give."""
    rows = []
    for pair in agreement.values():
        remark = f"{method_title(pair['method'])}, {pair['n']} images"
        # Runs of older versions have the measures in the pair itself, and nothing by chance.
        rows.append(Row(str(pair["title"]), _measured(pair.get("measures") or pair), remark))
        if pair.get("by_chance"):
            rows.append(Row("", _measured(pair["by_chance"]), "maps of two different images"))
    return rows


def _measured(cells: Json) -> tuple[Cell, ...]:
    return tuple(estimate(cells[name]) for name in MEASURES)


def explanations_markdown(content: Json, explained: Json | None = None) -> str:
    """The tests of methods for the page of results; an empty text where they were off.

    Args:
        content: of ``kept_explanations``.
        explained: of the run's provenance, where ``dermdistill explain`` made them after the run.
    """
    tests = content.get("tests")
    if tests is None:
        return ""
    shown = _tests(tests)
    per_class = ", ".join(f"{code} {count}" for code, count in tests["per_class"].items())
    parts = [
        "#### Explanations\n",
        f"Made by `{explained['command']}`, commit {str(explained['code']['commit'])[:12]}.\n" if explained else "",
        "".join(f"- {plain(sentence)}\n" for sentence in _sentences(content["methods"], tests)),
        f"Means over {tests['images']} test images ({per_class}), one a lesion, with intervals over lesions:\n",
        table(["", *shown["columns"]], markdown_rows(shown["rows"])),
    ]
    if shown["agreement"]:
        parts += [
            "Do two models look at the same places?\n",
            table(["", *shown["agreement_columns"]], markdown_rows(shown["agreement"])),
        ]
    return "\n" + "\n".join(part for part in parts if part)


def kept_explanations(content: Json) -> dict[str, Any]:
    """What a repository keeps of ``explanations.json``: what tests say of the methods, nothing of single images."""
    return {key: content.get(key) for key in ("model", "target", "methods", "tests")}


def _sentences(methods: Json, tests: Json | None) -> list[str]:
    """What was found, computed from the figures."""
    if tests is None:
        return ["The methods were not tested in this run: nothing says how far their maps hold."]
    found = []
    passed = [method_title(name) for name, facts in methods.items() if not facts.get("failures")]
    failed = [name for name, facts in methods.items() if facts.get("failures")]
    images = tests["images"]
    if passed:
        found.append(f"{_listed(passed)} passed every test that was made, on {images} test images, one a lesion.")
    for name in failed:
        found += [f"{method_title(name)} fails: {one['sentence']}." for one in methods[name]["failures"]]
    lime = tests.get("lime")
    if lime and lime["overlap"]["value"] is not None:
        found.append(
            f"Two seeds of LIME share {number(lime['overlap']['value'], 2)} of their five strongest segments; its "
            f"linear models explain {number(lime['r2']['value'], 2)} of the variance ({lime['overlap']['n']} images)."
        )
    refused = tests.get("refused") or {}
    if refused:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in refused.items())
        found.append(f"{tests['moved']} lesions were moved off the centre; not moved: {reasons}.")
    return found


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]

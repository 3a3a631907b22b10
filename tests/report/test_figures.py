import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from dermdistill.report import curves, figures

EVALUATION_FIGURES: tuple[Callable[[Any], str], ...] = (
    curves.intervals,
    curves.confusions,
    curves.roc,
    curves.precision_recall,
    curves.reliability,
    curves.files,
)


@pytest.fixture(scope="module")
def evaluation(whole_run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((whole_run / "evaluation" / "evaluation.json").read_text())
    return content


@pytest.fixture(scope="module")
def drawn(evaluation: dict[str, Any]) -> dict[str, str]:
    return {figure.__name__: figure(evaluation) for figure in EVALUATION_FIGURES}


def parsed(svg: str) -> ElementTree.Element:
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    opening = svg[: svg.index(">")]
    if "xmlns" not in opening:
        svg = svg.replace("<svg", f"<svg {spaces}", 1)
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [item.text or "" for item in parsed(svg).iter() if item.tag.endswith("text")]


def luminance(colour: Any) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: Any, other: Any) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_figures_are_well_formed_and_self_contained(drawn: dict[str, str]) -> None:
    for svg in drawn.values():
        assert parsed(svg).get("role") == "img"
        assert "http" not in svg
        assert not re.search(r"<image|<style|<metadata|font-family", svg)


def test_figures_share_no_ids_in_one_page(drawn: dict[str, str]) -> None:
    found = [name for svg in drawn.values() for name in re.findall(r' id="([^"]+)"', svg)]
    assert len(found) == len(set(found)) > 0
    for svg in drawn.values():
        assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg)) == set(re.findall(r' id="([^"]+)"', svg))


def test_drawing_twice_gives_the_same_bytes(evaluation: dict[str, Any], drawn: dict[str, str]) -> None:
    assert curves.roc(evaluation) == drawn["roc"]
    assert curves.intervals(evaluation) == drawn["intervals"]


def test_drawing_leaves_global_settings_alone(evaluation: dict[str, Any]) -> None:
    before = dict(mpl.rcParams)
    curves.roc(evaluation)
    assert dict(mpl.rcParams) == before


def test_every_model_has_its_own_colour_in_every_figure(drawn: dict[str, str]) -> None:
    for name, svg in drawn.items():
        for colour in figures.MODEL_COLOURS.values():
            assert colour in svg, f"{name} lacks {colour}"


def test_model_colours_stand_out_on_white() -> None:
    for colour in (*figures.MODEL_COLOURS.values(), *figures.TERM_COLOURS):
        assert contrast(colour, "white") >= 2.9, colour


def test_unknown_models_get_a_colour_of_their_own() -> None:
    names = ["teacher", "student", "control", "other"]
    assert len({figures.model_colour(name, names) for name in names}) == 4


@pytest.mark.parametrize("colour", list(figures.MODEL_COLOURS.values()))
def test_counts_can_be_read_on_every_shade(colour: str) -> None:
    for share in np.linspace(0, 1, 41):
        alpha = 0.04 + 0.92 * share
        cell = tuple(1 - alpha * (1 - channel) for channel in to_rgb(colour))
        assert contrast(curves._ink_on(colour, float(share)), cell) >= 3.4


def test_confusion_shows_every_count_of_every_model(evaluation: dict[str, Any], drawn: dict[str, str]) -> None:
    counts = [str(n) for m in evaluation["models"].values() for row in m["confusion"] for n in row]
    shown = [text for text in texts(drawn["confusions"]) if text.isdigit()]
    assert sorted(shown) == sorted(counts)


def test_roc_is_drawn_through_the_given_points(evaluation: dict[str, Any]) -> None:
    model = evaluation["models"]["teacher"]
    points = {"fpr": [0.0, 0.0, 0.5, 1.0], "tpr": [0.0, 0.5, 1.0, 1.0]}
    svg = curves.roc({"models": {"teacher": {**model, "curves": {"roc": points}}}})
    colour = figures.MODEL_COLOURS["teacher"]
    line = next(path for path in re.findall(r"<path[^>]*>", svg) if colour in path and path.count("L ") == 3)
    x, y = np.array(re.findall(r"[ML] ([\d.]+) ([\d.]+)", line), dtype=float).T
    assert np.allclose((x - x[0]) / (x[-1] - x[0]), points["fpr"], atol=1e-4)
    assert np.allclose((y - y[0]) / (y[-1] - y[0]), points["tpr"], atol=1e-4)


def test_curves_that_were_not_computable_leave_an_empty_plot(evaluation: dict[str, Any]) -> None:
    empty = {"roc": {"fpr": [], "tpr": []}, "pr": {"recall": [], "precision": []}, "reliability": []}
    alone = {"models": {"teacher": {**evaluation["models"]["teacher"], "curves": empty}}}
    for figure in (curves.roc, curves.precision_recall, curves.reliability):
        parsed(figure(alone))


def test_missing_values_leave_gaps(evaluation: dict[str, Any]) -> None:
    null = {"value": None, "low": None, "high": None}
    models = {
        name: {"diagnosis": dict.fromkeys(model["diagnosis"], null), "melanoma": {}}
        for name, model in evaluation["models"].items()
    }
    assert "nan" not in curves.intervals({"models": models})
    files = {"teacher": {"bytes": 2_000_000, "latency_ms": None}}
    assert "not measured" in texts(curves.files({"files": files}))


def test_class_names_are_text_and_never_mathematics_or_tags() -> None:
    counts = {"train": {"<b>x": 3, "$y$": 4}}
    svg = figures.class_counts(counts, ["<b>x", "$y$"])
    assert {"<b>x", "$y$"} <= set(texts(svg))
    assert "<b>" not in svg


def test_class_counts_label_every_bar() -> None:
    counts = {"train": {"nv": 4698, "df": 0}, "test": {"nv": 1006, "df": 8}}
    shown = texts(figures.class_counts(counts, ["df", "nv"]))
    assert {"4,698", "1,006", "8", "0", "train: 4,698 images"} <= set(shown)


def test_training_curves_mark_the_best_epoch_and_name_every_term(whole_run: Path) -> None:
    log = [json.loads(line) for line in (whole_run / "student" / "log.jsonl").read_text().splitlines()]
    log[3]["val"]["macro_auc"] = None
    shown = texts(figures.training_curves("student", log, monitor="macro_auc", best=17))
    terms = {name.replace("_", " ") for name in log[0]["terms"]}
    assert terms | {"best epoch: 17", "Macro AUC (watched)"} <= set(shown)
    unmarked = texts(figures.training_curves("student", log[:1], monitor="macro_auc", best=17))
    assert not any(text.startswith("best epoch") for text in unmarked)


def test_age_figures_stand_missing_ages_and_classes() -> None:
    catalog = pd.DataFrame({"diagnosis": ["nv", "nv"], "age": [40.0, np.nan], "sex": ["male", "unknown"]})
    assert "male (1)" in texts(figures.age_sex(catalog))
    assert "df" in texts(figures.class_by_age(catalog, ["nv", "df"]))

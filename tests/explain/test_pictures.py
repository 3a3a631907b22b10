import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from dermdistill.errors import ConfigError
from dermdistill.explain.pictures import choose_items, enlarge, overlay, write_explanations
from dermdistill.labels import CODES
from dermdistill.preprocess import PreprocessSpec

SPEC = PreprocessSpec(32, mean=(0, 0, 0), std=(1, 1, 1))
CLASSES = ("red", "green", "nothing")


def _predictions(labels: list[int], predicted: list[int], probs: list[float]) -> pd.DataFrame:
    rest = (1 - np.array(probs)) / 6
    table = np.repeat(rest[:, None], 7, axis=1)
    table[np.arange(len(labels)), predicted] = probs
    return pd.DataFrame(
        {
            "model": "student",
            "split": "test",
            "image_id": [f"ISIC_{index:03d}" for index in range(len(labels))],
            "diagnosis": [CODES[label] for label in labels],
            "label": labels,
            **{f"prob_{code}": table[:, index].astype(np.float32) for index, code in enumerate(CODES)},
        }
    )


def _many(count: int = 140) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(7), count // 7)
    predicted = np.where(rng.random(count) < 0.6, labels, (labels + rng.integers(1, 7, count)) % 7)
    return _predictions(labels.tolist(), predicted.tolist(), rng.uniform(0.3, 0.99, count).tolist())


def test_chosen_correct_items_are_balanced_over_classes() -> None:
    items = choose_items(_many(), correct=16, wrong=0, seed=0)
    counts = pd.Series([item["true"] for item in items]).value_counts()
    assert all(item["correct"] and item["true"] == item["predicted"] for item in items)
    assert len(items) == 16 and len(counts) == 7
    assert set(counts) == {2, 3}


def test_class_with_few_correct_images_gives_its_place_to_others() -> None:
    items = choose_items(_predictions([0, 1, 1, 1, 1], [0, 1, 1, 1, 1], [0.9] * 5), correct=4, wrong=0, seed=0)
    assert sorted(item["true"] for item in items) == ["akiec", "bcc", "bcc", "bcc"]


def test_chosen_wrong_items_are_the_most_confident() -> None:
    table = _predictions([0, 1, 2, 3, 4], [1, 1, 3, 4, 5], [0.5, 0.99, 0.9, 0.7, 0.9])
    items = choose_items(table, correct=0, wrong=3, seed=0)
    assert [item["image_id"] for item in items] == ["ISIC_002", "ISIC_004", "ISIC_003"]
    assert items[0] == {
        "image_id": "ISIC_002",
        "true": "bkl",
        "predicted": "df",
        "prob": pytest.approx(0.9),
        "correct": False,
    }
    json.dumps(items)


def test_fewer_items_than_wanted_is_no_error() -> None:
    items = choose_items(_predictions([0, 1], [0, 2], [0.9, 0.8]), correct=5, wrong=5, seed=0)
    assert [item["correct"] for item in items] == [True, False]


@settings(deadline=None, max_examples=15)
@given(st.randoms(use_true_random=False))
def test_choice_does_not_depend_on_the_order_of_rows(random: Any) -> None:
    table = _many()
    order = list(range(len(table)))
    random.shuffle(order)
    wanted = choose_items(table, correct=9, wrong=5, seed=3)
    assert choose_items(table.iloc[order], correct=9, wrong=5, seed=3) == wanted


def test_another_seed_chooses_other_correct_images_and_the_same_wrong_ones() -> None:
    first, second = (choose_items(_many(), correct=9, wrong=5, seed=seed) for seed in (0, 1))
    assert first[:9] != second[:9]
    assert first[9:] == second[9:]


def test_repeated_image_is_chosen_once() -> None:
    table = pd.concat([_many(), _many()])
    items = choose_items(table, correct=200, wrong=200, seed=0)
    assert len({item["image_id"] for item in items}) == len(items) == 140


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (_many().drop(columns="label"), "missing"),
        (_many().assign(split=["val", "test"] * 70), r"mixed \['split'\]"),
        (_many().assign(model=["teacher", "student"] * 70), r"mixed \['model'\]"),
        (_many()[["image_id", "label"]], "prob_<class>"),
    ],
)
def test_predictions_of_another_form_are_refused(table: pd.DataFrame, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        choose_items(table, correct=1, wrong=1, seed=0)


def test_overlay_of_no_heat_is_the_picture_and_heat_colours_its_place() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    heat = np.zeros((32, 32), dtype=np.float32)
    assert np.array_equal(overlay(picture, heat), picture)
    heat[4:8, 20:24] = 1
    changed = (overlay(picture, heat) != picture).any(axis=2)
    assert changed[10:14, 42:46].all()
    assert not changed[20:].any() and not changed[:, :36].any()


def _detector() -> nn.Module:
    """Logit 0 is the mean of red, logit 1 of green, logit 2 is constant."""
    model = nn.Sequential(
        nn.Conv2d(3, 2, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)
    )
    with torch.no_grad():
        model[0].weight[:] = torch.eye(3)[:2, :, None, None]
        model[4].weight[:] = torch.tensor([[1.0, 0], [0, 1], [0, 0]])
    return model


def _pictures() -> np.ndarray[Any, np.dtype[np.uint8]]:
    pixels = np.zeros((3, 32, 32, 3), dtype=np.uint8)
    pixels[:, 4:8, 20:24, 0] = 255
    pixels[:, 24:28, 6:10, 1] = 255
    return pixels


def _items() -> list[dict[str, Any]]:
    return [
        {"image_id": name, "true": "red", "predicted": predicted, "prob": 0.5, "correct": predicted == "red"}
        for name, predicted in (("ISIC_1", "red"), ("../b/2", "green"), ("ISIC_3", "nothing"))
    ]


def test_written_explanations_are_whole_and_show_the_predicted_class(tmp_path: Path) -> None:
    folder, model = tmp_path / "explanations", _detector()
    folder.mkdir()
    (folder / "of_an_older_run.png").write_bytes(b"")
    content = write_explanations(model, model[1], _pictures(), SPEC, _items(), folder, classes=CLASSES)
    assert content == json.loads((folder / "explanations.json").read_text())
    assert (content["method"], content["target"]) == ("grad-cam", "predicted class")
    red, green, nothing = content["items"]
    assert red == {**_items()[0], "image": "00_ISIC_1.png", "overlay": "00_ISIC_1_cam.png"}
    assert green["image_id"] == "../b/2" and "blank" not in green
    assert nothing["blank"] is True
    named = {item[key] for item in content["items"] for key in ("image", "overlay")}
    assert {file.name for file in folder.iterdir()} == {*named, "explanations.json"}
    assert [item.name for item in tmp_path.iterdir()] == ["explanations"]

    def heat(item: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        picture, over = (np.asarray(Image.open(folder / item[key])) for key in ("image", "overlay"))
        assert picture.shape == over.shape == (256, 256, 3)
        changed: np.ndarray[Any, np.dtype[np.bool_]] = (picture != over).any(axis=2)
        return changed

    assert heat(red)[40:56, 168:184].all() and not heat(red)[128:].any()
    assert heat(green)[200:216, 56:72].all() and not heat(green)[:128].any()
    assert not heat(nothing).any()
    assert np.array_equal(np.asarray(Image.open(folder / red["image"])), enlarge(_pictures()[0]))


def test_no_items_still_give_an_empty_list(tmp_path: Path) -> None:
    model = _detector()
    content = write_explanations(
        model, [model[1]], np.zeros((0, 32, 32, 3), np.uint8), SPEC, [], tmp_path / "e", classes=CLASSES
    )
    assert content["items"] == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [({"predicted": "blue"}, "item 1: predicted 'blue'"), ({"prob": ...}, "item 1: lacks 'prob'")],
)
def test_items_that_cannot_be_drawn_write_nothing(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    items, model = _items(), _detector()
    items[1] = {key: value for key, value in {**items[1], **change}.items() if value is not ...}
    with pytest.raises(ConfigError, match=problem):
        write_explanations(model, model[1], _pictures(), SPEC, items, tmp_path / "e", classes=CLASSES)
    assert list(tmp_path.iterdir()) == []


def test_images_that_do_not_fit_the_items_are_refused(tmp_path: Path) -> None:
    model = _detector()
    with pytest.raises(ConfigError, match=r"uint8 \[3, 32, 32, 3\]"):
        write_explanations(model, model[1], _pictures()[:2], SPEC, _items(), tmp_path / "e", classes=CLASSES)

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dermdistill.errors import ConfigError
from dermdistill.explain.pictures import choose_items, outlined, overlay, write_gallery
from dermdistill.labels import CODES


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


def test_chosen_wrong_items_are_the_most_confident_of_each_class() -> None:
    table = _predictions([0, 0, 2, 2, 4], [1, 1, 3, 4, 5], [0.5, 0.99, 0.9, 0.7, 0.6])
    items = choose_items(table, correct=0, wrong=4, seed=0)
    assert [item["image_id"] for item in items] == ["ISIC_001", "ISIC_002", "ISIC_004", "ISIC_000"]
    assert items[1] == {
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


def test_outline_is_the_edge_of_the_mask_and_nothing_else() -> None:
    picture = np.full((64, 64, 3), 90, dtype=np.uint8)
    mask = np.zeros((32, 32), dtype=bool)
    assert np.array_equal(outlined(picture, mask), picture)
    mask[8:16, 8:16] = True
    changed = (outlined(picture, mask) != picture).any(axis=2)
    wanted = np.zeros((64, 64), dtype=bool)
    wanted[16:32, 16:32] = True
    wanted[17:31, 17:31] = False
    assert np.array_equal(changed, wanted)
    assert picture.max() == 90, "the picture that was given stays"


ITEMS: list[dict[str, Any]] = [
    {"image_id": name, "true": "mel", "predicted": answer, "prob": 0.5, "correct": answer == "mel"}
    for name, answer in (("ISIC_1", "mel"), ("../b/2", "nv"))
]


def _gallery(folder: Path, **change: Any) -> dict[str, Any]:
    images = np.full((2, 32, 32, 3), 100, dtype=np.uint8)
    heat = np.zeros((2, 32, 32), dtype=np.float32)
    heat[0, 4:8, 20:24] = 1
    masks = np.zeros((2, 32, 32), dtype=bool)
    masks[1, 10:20, 10:20] = True
    scores = {name: [{"energy": 0.5}, {"energy": None}] for name in ("grad_cam", "lime")}
    given = {"items": ITEMS, "images": images, "masks": masks, "maps": {"grad_cam": heat, "lime": 1 - heat}}
    given |= change
    return write_gallery(folder, *given.values(), scores=scores, facts={"methods": {"lime": {}}})


def test_gallery_is_whole_and_shows_every_method(tmp_path: Path) -> None:
    folder = tmp_path / "explanations"
    folder.mkdir()
    (folder / "of_an_older_run.png").write_bytes(b"")
    content = _gallery(folder)
    assert content == json.loads((folder / "explanations.json").read_text())
    assert content["target"] == "predicted class" and content["methods"] == {"lime": {}}
    first, second = content["items"]
    assert first["maps"]["grad_cam"] == {
        "overlay": "00_ISIC_1_grad_cam.png",
        "blank": False,
        "scores": {"energy": 0.5},
    }
    assert second["image_id"] == "../b/2" and second["maps"]["grad_cam"]["blank"] and second["blank"]
    assert not second["maps"]["lime"]["blank"]
    named = {item["image"] for item in content["items"]}
    named |= {one["overlay"] for item in content["items"] for one in item["maps"].values()}
    assert {file.name for file in folder.iterdir()} == {*named, "explanations.json"}
    plain, over = (np.asarray(Image.open(folder / first[key])) for key in ("image", "overlay"))
    changed = (plain != over).any(axis=2)
    assert changed[40:56, 168:184].all() and not changed[128:].any()
    outline = np.asarray(Image.open(folder / second["image"]))
    assert (outline == 255).all(axis=2).sum() == 4 * 80 - 4, "the edge of ten cells of eight pixels"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"items": [{**ITEMS[0], "image_id": "a"}, {"image_id": "b"}]}, "item 1: lacks 'true'"),
        ({"images": np.zeros((1, 32, 32, 3), np.uint8)}, r"images uint8 \[N, S, S, 3\]"),
        ({"masks": np.zeros((2, 16, 16), bool)}, r"masks \[2, 16, 16\]"),
        ({"maps": {}}, "no maps"),
    ],
)
def test_gallery_that_cannot_be_drawn_writes_nothing(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        _gallery(tmp_path / "e", **change)
    assert list(tmp_path.iterdir()) == []

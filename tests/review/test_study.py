"""Studies written and read again, every broken field, and the orders of raters against a check by hand."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dermdistill.errors import ConfigError, DataError, OutputError
from dermdistill.review.study import APART, Study, StudyItem, map_path, order_for, read_map, read_study, write_study

CLASSES = ("mel", "nv")


def make_item(name: str, repeat_of: str = "", *, sham: str = "") -> StudyItem:
    shown = repeat_of or name
    return StudyItem(
        item=name,
        image_id=f"image-{shown}",
        lesion_id=f"lesion-{shown}",
        true="mel",
        predicted="nv",
        probs={"mel": 0.25, "nv": 0.75},
        method="grad_cam",
        sham=sham,
        repeat_of=repeat_of,
    )


def make_study(originals: int, repeats: int, *, seed: int = 5) -> Study:
    items = [make_item(f"a{number}") for number in range(originals)]
    items += [make_item(f"r{number}", f"a{number}") for number in range(repeats)]
    return Study("Reading room", seed, "2026-01-31T12:00:00+00:00", CLASSES, tuple(items))


def make_arrays(study: Study) -> tuple[dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(0)
    pictures = {item.item: rng.integers(0, 256, (12, 16, 3), dtype=np.uint8) for item in study.items}
    maps = {item.item: rng.random((4, 4)).astype(np.float32) for item in study.items}
    for item in study.items:
        if item.repeat_of:
            pictures[item.item], maps[item.item] = pictures[item.repeat_of], maps[item.repeat_of]
    return pictures, maps


@pytest.fixture
def written(tmp_path: Path) -> Path:
    study = make_study(3, 1)
    write_study(tmp_path / "study", study, *make_arrays(study))
    return tmp_path / "study"


def test_study_comes_back_as_it_was_written(tmp_path: Path):
    study = make_study(4, 2)
    pictures, maps = make_arrays(study)
    write_study(tmp_path / "study", study, pictures, maps)
    assert read_study(tmp_path / "study") == study
    for name, picture in pictures.items():
        with Image.open(tmp_path / "study" / f"{name}.png") as stored:
            assert stored.mode == "RGB" and np.array_equal(np.asarray(stored), picture)
    files = {path.name for path in (tmp_path / "study").iterdir()}
    assert files == {"study.json", *(f"{name}.png" for name in pictures), *(f"{name}.map.png" for name in maps)}


def test_map_has_the_size_of_its_picture_and_keeps_its_values(tmp_path: Path):
    study = make_study(1, 0)
    heat = np.linspace(0, 1, 12 * 16, dtype=np.float32).reshape(12, 16)
    write_study(tmp_path / "study", study, make_arrays(study)[0], {"a0": heat})
    assert np.abs(read_map(tmp_path / "study", "a0") / 255 - heat).max() <= 0.5 / 255 + 1e-6
    pictures, maps = make_arrays(study)
    write_study(tmp_path / "other", study, pictures, maps)
    assert read_map(tmp_path / "other", "a0").shape == (12, 16)


def test_file_lists_items_by_their_names(tmp_path: Path):
    study = make_study(2, 0)
    turned = dataclasses.replace(study, items=study.items[::-1])
    write_study(tmp_path / "study", turned, *make_arrays(study))
    assert [item.item for item in read_study(tmp_path / "study").items] == ["a0", "a1"]


def test_folder_with_something_in_it_is_left_alone(written: Path):
    study = make_study(1, 0)
    before = {path.name: path.read_bytes() for path in written.iterdir()}
    with pytest.raises(OutputError, match="holds something already"):
        write_study(written, study, *make_arrays(study))
    assert {path.name: path.read_bytes() for path in written.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, m: p.pop("a0"), "item 'a0': no picture"),
        (lambda p, m: m.pop("r0"), "item 'r0': no map"),
        (lambda p, m: p.update(zz=p["a0"]), "'zz' is no item"),
        (lambda p, m: p.update(a1=p["a1"][..., 0]), "'a1': picture uint8 .* not uint8"),
        (lambda p, m: m.update(a1=m["a1"] + 1), r"'a1': map float32 \[4, 4\], not floats"),
        (lambda p, m: m.update(a1=np.full((4, 4), np.nan)), "'a1': map float64"),
        (lambda p, m: m.update(r0=m["r0"] * 0.5), "'r0': does not show what 'a0' shows"),
    ],
)
def test_arrays_that_do_not_fit_write_nothing(tmp_path: Path, change: Any, message: str):
    study = make_study(3, 1)
    pictures, maps = make_arrays(study)
    change(pictures, maps)
    with pytest.raises(DataError, match=message):
        write_study(tmp_path / "study", study, pictures, maps)
    assert not list(tmp_path.iterdir())


def test_unsound_study_is_not_written(tmp_path: Path):
    study = dataclasses.replace(make_study(1, 0), title="")
    with pytest.raises(DataError, match="title ''"):
        write_study(tmp_path / "study", study, *make_arrays(study))


BREAKS = {
    "format": (lambda c: c.update(format=2), "format 2"),
    "format_bool": (lambda c: c.update(format=True), "format True"),
    "key": (lambda c: c.pop("seed"), "the keys are"),
    "more": (lambda c: c.update(extra=1), "the keys are .*'extra'"),
    "title": (lambda c: c.update(title="two\nlines"), "title"),
    "seed": (lambda c: c.update(seed=-1), "seed -1"),
    "created": (lambda c: c.update(created="yesterday"), "created 'yesterday'"),
    "classes": (lambda c: c.update(classes=["mel", "mel"]), "classes"),
    "items": (lambda c: c.update(items=[]), "at least one item"),
    "item": (lambda c: c["items"].append(3), "item 5: the keys"),
    "item_key": (lambda c: c["items"][0].pop("sham"), "item 1: the keys"),
    "text": (lambda c: c["items"][0].update(method=None), "item 1: method: must be text"),
    "parent": (lambda c: c["items"][0].update(item="../a0"), r"item 1: name '\.\./a0'"),
    "absolute": (lambda c: c["items"][0].update(item="/etc/passwd"), "item 1: name"),
    "dot": (lambda c: c["items"][0].update(item="a0.map"), "item 1: name"),
    "newline": (lambda c: c["items"][0].update(item="a0\n"), "item 1: name"),
    "image": (lambda c: c["items"][0].update(image_id=" "), "item 1: image_id is empty"),
    "true": (lambda c: c["items"][1].update(true="bcc"), "item 2: true 'bcc'"),
    "predicted": (lambda c: c["items"][1].update(predicted=""), "item 2: predicted ''"),
    "method": (lambda c: c["items"][1].update(method="<b>"), "item 2: method"),
    "sham": (lambda c: c["items"][1].update(sham="blank"), "item 2: sham 'blank'"),
    "probs": (lambda c: c["items"][1].update(probs={"mel": 1.0}), "item 2: probs"),
    "sum": (lambda c: c["items"][1].update(probs={"mel": 0.5, "nv": 0.6}), "item 2: probs"),
    "nan": (lambda c: c["items"][1].update(probs={"mel": float("nan"), "nv": 0.6}), "item 2: probs"),
    "twice": (lambda c: c["items"].append(dict(c["items"][0])), "'a0' is there 2 times"),
    "repeat_of": (lambda c: c["items"][3].update(repeat_of="a9"), "'r0' repeats 'a9'"),
    "chain": (lambda c: c["items"][1].update(c["items"][3], item="a1", repeat_of="r0"), "repeats 'r0'"),
    "repeats": (lambda c: c["items"].append({**c["items"][3], "item": "r9"}), "'a0' is repeated 2 times"),
    "differs": (lambda c: c["items"][3].update(true="nv"), "differs from 'a0'.*: true"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_every_broken_field_is_named(written: Path, name: str):
    change, message = BREAKS[name]
    content = json.loads((written / "study.json").read_text())
    change(content)
    (written / "study.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_study(written)


def test_all_faults_come_at_once(written: Path):
    content = json.loads((written / "study.json").read_text())
    content["title"], content["items"][0]["true"], content["items"][2]["sham"] = "", "x", "y"
    (written / "study.json").write_text(json.dumps(content))
    with pytest.raises(DataError) as caught:
        read_study(written)
    assert len(caught.value.faults) == 3


def test_files_that_cannot_be_used_are_named(written: Path):
    (written / "a0.png").unlink()
    (written / "a1.png").write_bytes(b"no picture")
    (written / "a2.png").rename(written / "elsewhere.png")
    (written / "a2.png").symlink_to(written / "elsewhere.png")
    Image.new("L", (3, 3)).save(written / "r0.map.png")
    with pytest.raises(DataError) as caught:
        read_study(written)
    text = "\n".join(caught.value.faults)
    for expected in ("a0.png: missing", "a1.png: not a sound PNG", "a2.png: a link", "r0.map.png: 3 x 3"):
        assert expected in text


def test_picture_of_the_wrong_kind_is_named(written: Path):
    Image.open(written / "a0.png").convert("L").save(written / "a0.png")
    Image.open(written / "a1.map.png").convert("RGB").save(written / "a1.map.png")
    with pytest.raises(DataError, match=r"a0.png: mode L, not RGB(.|\n)*a1.map.png: mode RGB, not L"):
        read_study(written)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00"])
def test_file_that_is_no_json_is_named(written: Path, content: bytes):
    (written / "study.json").write_bytes(content)
    with pytest.raises(DataError, match="no JSON"):
        read_study(written)


def test_missing_study_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(DataError, match="review create"):
        read_study(tmp_path)


def test_map_path_stays_in_the_folder():
    assert map_path(Path("study"), "a0") == Path("study/a0.map.png")


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 30), st.data(), st.integers(0, 40))
def test_repeats_come_after_their_originals_as_far_as_there_is_room(originals: int, data: Any, rater: int):
    repeats = data.draw(st.integers(0, originals))
    study = make_study(originals, repeats)
    order = order_for(study, rater)
    assert sorted(order) == sorted(item.item for item in study.items)
    # The mean distance of R pairs among N places is at most N - R, so no order can do better.
    wanted = min(APART + 1, originals)
    assert all(order.index(f"r{number}") - order.index(f"a{number}") >= wanted for number in range(repeats))


def test_order_is_the_same_again_and_another_for_another_rater_or_seed():
    study = make_study(20, 3)
    first = order_for(study, 0)
    assert order_for(study, 0) == first
    others = [order_for(study, 1), order_for(make_study(20, 3, seed=6), 0)]
    assert all(other != first for other in others)
    shuffled = dataclasses.replace(study, items=study.items[::-1])
    assert order_for(shuffled, 0) == first


def test_orders_put_items_without_repeats_everywhere():
    study = make_study(12, 2)
    places = np.array(
        [[order_for(study, rater).index(f"a{number}") for number in range(2, 12)] for rater in range(600)]
    )
    # Ten exchangeable items: every one has the same mean place, within four standard errors.
    spread = 4 * places.std() / np.sqrt(len(places))
    assert np.abs(places.mean(axis=0) - places.mean()).max() < spread
    assert set(places.ravel().tolist()) == set(range(14))


def test_negative_rater_is_refused():
    with pytest.raises(ConfigError, match="rater -1"):
        order_for(make_study(2, 0), -1)

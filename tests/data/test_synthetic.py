import csv
import hashlib
import io
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dermdistill.config import SyntheticConfig
from dermdistill.data import synthetic
from dermdistill.data.readers import read_catalog
from dermdistill.data.synthetic import IMAGES, MARKER, MASKS, METADATA, plan_lesion, write_synthetic
from dermdistill.data.synthetic_photo import Photo, draw_photos
from dermdistill.errors import OutputError
from dermdistill.labels import CODES

CONFIG = SyntheticConfig(lesions=240, width=96, height=72)
SMALL = SyntheticConfig(lesions=24, width=48, height=36)
Values = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("synthetic") / "set", CONFIG)


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / METADATA).open(newline="") as handle:
        return list(csv.DictReader(handle))


def load(folder: Path, image_id: str) -> tuple[Values, npt.NDArray[np.bool_]]:
    with Image.open(folder / IMAGES / f"{image_id}.jpg") as picture:
        pixels = np.asarray(picture).astype(float)
    with Image.open(folder / MASKS / f"{image_id}_segmentation.png") as mask:
        assert mask.mode == "1"
        return pixels, np.asarray(mask)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def photos(diagnosis: str, number: int, artefacts: tuple[str, ...] = (), count: int = 1) -> list[Photo]:
    return list(draw_photos(diagnosis, (7, number), count, (64, 48), artefacts))  # type: ignore[arg-type]


def contrast(pixels: Values, mask: npt.NDArray[np.bool_]) -> Values:
    """How much darker the lesion is than the skin around it, in each channel."""
    return np.asarray(np.median(pixels[~mask], axis=0) - pixels[mask].mean(axis=0))


def test_same_config_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    first, second = write_synthetic(tmp_path / "a", SMALL), write_synthetic(tmp_path / "b", SMALL)
    assert digests(first) == digests(second)
    other = digests(write_synthetic(tmp_path / "c", SMALL.model_copy(update={"seed": 1})))
    pictures = {name for name in digests(first) if name.endswith(".jpg")}
    assert not {digests(first)[name] for name in pictures} & {other.get(name) for name in pictures}


def test_more_lesions_leave_the_earlier_ones_as_they_were(tmp_path: Path) -> None:
    few = write_synthetic(tmp_path / "few", SMALL)
    many = write_synthetic(tmp_path / "many", SMALL.model_copy(update={"lesions": 32}))
    assert (many / METADATA).read_text().startswith((few / METADATA).read_text())
    kept = {name: digest for name, digest in digests(few).items() if "/" in name}
    assert kept.items() <= digests(many).items()


def test_layout_is_that_of_ham10000(folder: Path, rows: list[dict[str, str]]) -> None:
    assert list(rows[0]) == ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    ids = [row["image_id"] for row in rows]
    assert len(set(ids)) == len(ids)
    assert {path.name for path in (folder / IMAGES).iterdir()} == {f"{name}.jpg" for name in ids}
    assert {path.name for path in (folder / MASKS).iterdir()} == {f"{name}_segmentation.png" for name in ids}
    assert {row["dx_type"] for row in rows} == {"synthetic"}
    assert all(row["image_id"].startswith("SYN") and row["lesion_id"].startswith("SYN") for row in rows)


def test_the_ordinary_reader_reads_it(folder: Path, rows: list[dict[str, str]]) -> None:
    catalog = read_catalog(folder)
    assert sorted(catalog["image_id"]) == sorted(row["image_id"] for row in rows)
    assert catalog["mask_path"].notna().all()


def test_masks_fit_and_the_lesion_stands_out_inside_them(folder: Path, rows: list[dict[str, str]]) -> None:
    by_class = defaultdict(list)
    for row in rows:
        pixels, mask = load(folder, row["image_id"])
        assert pixels.shape == (72, 96, 3)
        assert mask.shape == (72, 96)
        assert 0.01 < mask.mean() < 0.8
        by_class[row["dx"]].append(contrast(pixels, mask))
    for code, differences in by_class.items():
        assert np.abs(differences).max(axis=1).mean() > 15, code
        assert np.mean([difference[1] > 0 for difference in differences]) > 0.8, code
    # Real naevi and melanomas are among the darkest, actinic keratoses among the palest.
    green = {code: float(np.mean(differences, axis=0)[1]) for code, differences in by_class.items()}
    assert min(green["mel"], green["nv"]) > 1.5 * green["akiec"]


@settings(max_examples=25, deadline=None)
@given(
    diagnosis=st.sampled_from(CODES),
    number=st.integers(0, 10**6),
    width=st.integers(32, 120),
    height=st.integers(32, 120),
)
def test_any_size_has_a_mask_that_is_neither_empty_nor_full(
    diagnosis: str, number: int, width: int, height: int
) -> None:
    (photo,) = draw_photos(diagnosis, (number,), 1, (width, height), ("hair", "ruler", "ink", "corners"))
    assert photo.image.size == (width, height)
    assert photo.mask.shape == (height, width)
    assert photo.mask.any()
    assert not photo.mask.all()


def test_stored_mask_is_the_drawn_one(tmp_path: Path) -> None:
    (photo,) = photos("mel", 3)
    with Image.open(io.BytesIO(photo.mask_png())) as stored:
        assert np.array_equal(np.asarray(stored), photo.mask)


@pytest.mark.parametrize("artefact", ["hair", "ruler", "ink", "corners"])
def test_artefact_changes_some_pictures_and_no_mask(artefact: str) -> None:
    changed = 0
    for number in range(60):
        (plain,), (marked,) = photos("nv", number), photos("nv", number, (artefact,))
        assert np.array_equal(plain.mask, marked.mask)
        changed += plain.jpeg() != marked.jpeg()
    assert 1 <= changed <= 40


def test_artefacts_do_not_depend_on_the_diagnosis() -> None:
    def marked(code: str) -> list[bool]:
        pairs = ((photos(code, number)[0], photos(code, number, ("hair",))[0]) for number in range(20))
        return [plain.jpeg() != hairy.jpeg() for plain, hairy in pairs]

    assert marked("nv") == marked("mel") == marked("vasc")


def test_every_class_is_there_and_the_common_ones_are_common(rows: list[dict[str, str]]) -> None:
    lesions = Counter({row["lesion_id"]: row["dx"] for row in rows}.values())
    assert set(lesions) == set(CODES)
    assert min(lesions.values()) >= 8
    assert lesions.most_common(1)[0][0] == "nv"
    assert lesions["nv"] > 3 * lesions["df"]


def test_fewest_lesions_allowed_hold_three_of_every_class() -> None:
    plan = Counter(plan_lesion(5, number).diagnosis for number in range(21))
    assert plan == dict.fromkeys(CODES, 3)


def test_photos_per_lesion_are_one_to_four_with_the_mean_of_ham10000(rows: list[dict[str, str]]) -> None:
    counts = Counter(row["lesion_id"] for row in rows)
    assert set(counts.values()) == {1, 2, 3, 4}
    assert 1.25 < np.mean(list(counts.values())) < 1.55
    diagnoses = defaultdict(set)
    for row in rows:
        diagnoses[row["lesion_id"]].add(row["dx"])
    assert all(len(codes) == 1 for codes in diagnoses.values())


def test_photos_of_one_lesion_differ_but_show_the_same_lesion() -> None:
    ratios = []
    for number in range(12):
        shots = photos("nv", number, count=4)
        assert len({shot.jpeg() for shot in shots}) == 4
        for shot in shots:
            pixels = np.asarray(shot.image).astype(float)
            # Relative to the skin around, so that exposure does not matter.
            ratios.append(pixels[shot.mask].mean(axis=0) / np.median(pixels[~shot.mask], axis=0))
    values = np.log(ratios).reshape(12, 4, 3)
    within, between = values.var(axis=1).mean(), values.mean(axis=1).var(axis=0).mean()
    assert within < 0.2 * between


def _statistics(pixels: Values, mask: npt.NDArray[np.bool_]) -> Values:
    """Colour against the skin, spread of colour, fine texture, and shape: what a simple rule could use."""
    inside = pixels[mask] - np.median(pixels[~mask], axis=0)
    y, x = np.nonzero(mask)
    axes = np.linalg.eigvalsh(np.cov(np.stack([x, y])))
    edge = np.diff(mask, axis=0).sum() + np.diff(mask, axis=1).sum()
    grain = np.abs(np.diff(pixels.mean(axis=2), axis=1))[mask[:, 1:]].mean()
    quantiles = np.percentile(inside, [5, 50, 95], axis=0).ravel()
    return np.asarray(
        [*quantiles, *inside.std(axis=0), axes[0] / axes[1], edge / np.sqrt(mask.sum()), mask.mean(), grain]
    )


def test_classes_can_be_told_apart_but_not_perfectly(folder: Path, rows: list[dict[str, str]]) -> None:
    features = np.stack([_statistics(*load(folder, row["image_id"])) for row in rows])
    truth, lesions = [row["dx"] for row in rows], [row["lesion_id"] for row in rows]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=2000))
    found = cross_val_predict(model, features, truth, groups=lesions, cv=GroupKFold(4))
    score = balanced_accuracy_score(truth, found)
    # Chance is 1/7.
    assert 0.45 < score < 0.92


def test_existing_synthetic_set_is_replaced(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "set", SMALL)
    write_synthetic(tmp_path / "set", SMALL.model_copy(update={"lesions": 21}))
    assert len({row.split(",")[0] for row in (tmp_path / "set" / METADATA).read_text().splitlines()[1:]}) == 21


def test_folder_of_someone_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / METADATA).write_text("lesion_id,image_id\n")
    with pytest.raises(OutputError, match=MARKER):
        write_synthetic(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == [METADATA]


def test_failure_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def draw(*arguments: object) -> list[Photo]:
        drawn.append(arguments)
        if len(drawn) == 5:
            raise OSError(28, "No space left on device")
        return photos("nv", len(drawn))

    monkeypatch.setattr(synthetic, "draw_photos", draw)
    with pytest.raises(OutputError, match="No space left"):
        write_synthetic(tmp_path / "set", SMALL)
    assert list(tmp_path.iterdir()) == []

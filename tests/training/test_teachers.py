"""Stored teacher answers: what a live teacher says, shared, proven, and refused where they are stale or foreign."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dermdistill.config import AugmentConfig, BranchConfig, ModelConfig
from dermdistill.distill.signals import SignalPlan
from dermdistill.distill.targets import INDEX, TargetStore, flatten, open_targets, shapes_of, unflatten
from dermdistill.errors import TargetsError
from dermdistill.labels import class_names
from dermdistill.models.build import build_model
from dermdistill.preprocess import PreprocessSpec
from dermdistill.training.teachers import (
    LiveTeachers,
    StoredTeachers,
    Teacher,
    Viewing,
    answers,
    key_of,
    prove,
    store_targets,
)

SIZE, EPOCHS = 16, 2
CPU = torch.device("cpu")
PLAN = SignalPlan(exits=(1, 2), fused=True, attention=(2, 3))
AUGMENT = AugmentConfig(mixup=0.5)
# Rows in an order of their own, one of them twice: as a sampler or an oversampling protocol gives them.
TRAIN_ROWS = np.array([9, 4, 4, 0, 7, 2, 5, 11])


def teacher_of(seed: int, size: int = SIZE) -> Teacher:
    branch = BranchConfig(backbone="small_cnn", options={"widths": [4, 6, 8, 10]})
    model = build_model(
        ModelConfig(branches=(branch,), exits=(1, 2), fusion_width=8), classes=7, size=size, seed=seed
    ).eval()
    images = np.random.default_rng(5).integers(0, 256, (12, size, size, 3), dtype=np.uint8)
    return Teacher(
        model=model,
        sha256=f"teacher-{seed}",
        classes=class_names("diagnosis"),
        images=images,
        images_sha256=f"images-{size}",
        image_ids=tuple(f"image-{row:02}" for row in range(12)),
        spec=PreprocessSpec(size),
    )


TEACHER = teacher_of(0)
VIEWING = Viewing(AUGMENT, 3, TRAIN_ROWS)


def stored(cache: Path, teacher: Teacher = TEACHER, viewing: Viewing = VIEWING, epochs: int = EPOCHS) -> TargetStore:
    return store_targets(teacher, viewing, PLAN, epochs=epochs, cache=cache, device=CPU)


def row_ids(teacher: Teacher = TEACHER) -> list[str]:
    return [teacher.image_ids[row] for row in np.unique(TRAIN_ROWS)]


def test_stored_answers_are_the_live_ones_mixup_included(tmp_path: Path) -> None:
    source = StoredTeachers([stored(tmp_path)], TEACHER.image_ids)
    live = LiveTeachers([TEACHER], VIEWING, PLAN)
    for epoch in range(EPOCHS):
        rows = np.array([7, 4, 9, 4])
        views = VIEWING.make(TEACHER.images, rows, epoch, TEACHER.spec)
        source.start_epoch(epoch)
        live.start_epoch(epoch)
        (kept,), (now,) = source.signals(rows, views, TEACHER.spec), live.signals(rows, views, TEACHER.spec)
        assert torch.allclose(flatten(kept), flatten(now), rtol=2e-3, atol=2e-3)
        assert kept.exits.keys() == now.exits.keys() and kept.attention[2].shape == now.attention[2].shape
    assert AUGMENT.mixup > 0


def test_epochs_and_seeds_differ(tmp_path: Path) -> None:
    first = stored(tmp_path)
    other = stored(tmp_path, viewing=replace(VIEWING, seed=4))
    assert not np.array_equal(first.read(0), first.read(1))
    assert first.folder != other.folder and not np.array_equal(first.read(0), other.read(0))


def test_teacher_that_sees_more_pixels_sees_its_own_view_of_the_same_draw() -> None:
    large = teacher_of(0, size=32)
    rows = np.array([0, 4])
    live = LiveTeachers([large], VIEWING, PLAN)
    live.start_epoch(1)
    small_views = VIEWING.make(TEACHER.images, rows, 1, TEACHER.spec)
    (signals,) = live.signals(rows, small_views, TEACHER.spec)
    wanted = answers(large, VIEWING.make(large.images, rows, 1, large.spec), PLAN)
    assert torch.equal(signals.logits, wanted.logits)


def test_second_student_computes_nothing_and_a_longer_one_only_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path)
    written: list[int] = []
    original = TargetStore.write

    def write(self: TargetStore, epoch: int, rows: np.ndarray) -> None:  # type: ignore[type-arg]
        written.append(epoch)
        original(self, epoch, rows)

    monkeypatch.setattr(TargetStore, "write", write)
    stored(tmp_path)
    assert written == []
    stored(tmp_path, epochs=EPOCHS + 1)
    assert written == [EPOCHS]


def test_unflatten_gives_back_what_flatten_took() -> None:
    views = VIEWING.make(TEACHER.images, TRAIN_ROWS[:3], 0, TEACHER.spec)
    signals = answers(TEACHER, views, PLAN)
    again = unflatten(flatten(signals), [(name, shape) for name, shape in shapes_of(signals)])
    assert torch.equal(again.logits, signals.logits)
    assert again.fused is not None and signals.fused is not None and torch.equal(again.fused, signals.fused)
    assert all(torch.equal(again.exits[depth], signals.exits[depth]) for depth in (1, 2))
    assert all(torch.equal(again.attention[depth], signals.attention[depth]) for depth in (2, 3))


FOREIGN = {
    "teacher_sha256": replace(TEACHER, sha256="other"),
    "classes": replace(TEACHER, classes=tuple(reversed(TEACHER.classes))),
    "preprocessing": replace(TEACHER, spec=replace(TEACHER.spec, resize="crop")),
    "images_sha256": replace(TEACHER, images_sha256="other"),
}
VIEWINGS = {
    "augmentation.mixup": replace(VIEWING, augment=AUGMENT.model_copy(update={"mixup": 0.25})),
    "seed": replace(VIEWING, seed=4),
    "image_ids_sha256": replace(VIEWING, train_rows=TRAIN_ROWS[::-1].copy()),
}


@pytest.mark.parametrize("name", [*FOREIGN, *VIEWINGS])
def test_foreign_targets_are_refused_by_what_differs(tmp_path: Path, name: str) -> None:
    folder = stored(tmp_path, epochs=1).folder
    wanted = key_of(FOREIGN.get(name, TEACHER), VIEWINGS.get(name, VIEWING), PLAN)
    with pytest.raises(TargetsError, match=name) as error:
        open_targets(folder, wanted, row_ids())
    assert "stored" in str(error.value) and "wanted" in str(error.value) and "delete" in str(error.value)
    own = wanted.folder(tmp_path)
    assert own != folder and not own.exists()


def test_changed_teacher_byte_gets_targets_of_its_own(tmp_path: Path) -> None:
    other = teacher_of(1)
    assert stored(tmp_path).folder != stored(tmp_path, teacher=other).folder


def test_foreign_folder_under_the_right_name_is_refused(tmp_path: Path) -> None:
    wanted = key_of(TEACHER, VIEWING, PLAN).folder(tmp_path)
    stored(tmp_path, viewing=replace(VIEWING, seed=9), epochs=1).folder.rename(wanted)
    with pytest.raises(TargetsError, match="seed: stored 9, wanted 3"):
        stored(tmp_path)


def test_other_images_are_refused(tmp_path: Path) -> None:
    store = stored(tmp_path, epochs=1)
    with pytest.raises(TargetsError, match="images: 7 stored"):
        open_targets(store.folder, key_of(TEACHER, VIEWING, PLAN), row_ids()[::-1])


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path).folder / "epoch-00001.npy"
    path.write_bytes(path.read_bytes()[:-40])
    source = StoredTeachers([TargetStore(path.parent, row_ids(), stored_layout(path.parent))], TEACHER.image_ids)
    source.start_epoch(0)
    with pytest.raises(TargetsError, match=r"epoch-00001\.npy"):
        source.start_epoch(1)


def stored_layout(folder: Path) -> list[tuple[str, list[int]]]:
    return [(name, shape) for name, shape in json.loads((folder / INDEX).read_text())["layout"]]


def test_altered_byte_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path, epochs=1).folder / "epoch-00000.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(TargetsError, match="altered"):
        stored(tmp_path, epochs=1)


def test_damaged_index_is_refused(tmp_path: Path) -> None:
    index = stored(tmp_path, epochs=1).folder / INDEX
    index.write_text("{")
    with pytest.raises(TargetsError, match="cannot be read"):
        stored(tmp_path)


def test_proof_against_the_live_teacher_names_image_and_part(tmp_path: Path) -> None:
    store = stored(tmp_path)
    rows = np.unique(TRAIN_ROWS)
    prove([0, 1], store, TEACHER, VIEWING, PLAN, rows)
    impostor = replace(teacher_of(1), sha256=TEACHER.sha256)
    with pytest.raises(TargetsError, match=r"image-\d\d, epoch [12], .*the teacher says"):
        prove([0, 1], store, impostor, VIEWING, PLAN, rows)


def test_proof_is_made_whenever_answers_were_there_before(tmp_path: Path) -> None:
    stored(tmp_path)
    with pytest.raises(TargetsError, match="the teacher says"):
        stored(tmp_path, teacher=replace(teacher_of(1), sha256=TEACHER.sha256))


def test_number_that_float16_cannot_hold_is_refused(tmp_path: Path) -> None:
    store = stored(tmp_path, epochs=1)
    rows = np.zeros((len(row_ids()), store.width), dtype=np.float32)
    rows[0, 0] = 1e6
    with pytest.raises(TargetsError, match="float16"):
        store.write(5, rows)
    assert not store.has(5)


def test_epoch_that_was_not_stored_is_an_error(tmp_path: Path) -> None:
    source = StoredTeachers([stored(tmp_path)], TEACHER.image_ids)
    with pytest.raises(TargetsError, match="epoch-00007"):
        source.start_epoch(7)

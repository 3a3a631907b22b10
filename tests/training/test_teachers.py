"""Stored teacher answers: what a live teacher says, shared, proven, and refused where they are stale or foreign."""

import hashlib
import io
import json
import threading
import tracemalloc
from collections.abc import Iterable, Iterator
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
from dermdistill.run import locked
from dermdistill.training import teachers as module
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


def stored(
    cache: Path,
    teacher: Teacher = TEACHER,
    viewing: Viewing = VIEWING,
    epochs: int = EPOCHS,
    plan: SignalPlan = PLAN,
) -> TargetStore:
    return store_targets(teacher, viewing, plan, epochs=epochs, cache=cache, device=CPU)


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


def test_answers_of_several_batches_stand_in_the_order_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    rows = np.unique(TRAIN_ROWS)
    live = flatten(answers(TEACHER, VIEWING.make(TEACHER.images, rows, 1, TEACHER.spec), PLAN))
    assert np.allclose(stored(tmp_path).read(1), live.numpy(), rtol=2e-3, atol=2e-3)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Epochs that are computed from now on."""
    epochs: list[int] = []
    original = TargetStore.write

    def write(self: TargetStore, epoch: int, batches: Iterable[np.ndarray]) -> None:  # type: ignore[type-arg]
        epochs.append(epoch)
        original(self, epoch, batches)

    monkeypatch.setattr(TargetStore, "write", write)
    return epochs


def test_second_student_computes_nothing_and_a_longer_one_only_what_is_new(tmp_path: Path, written: list[int]) -> None:
    stored(tmp_path)
    assert written == [0, 1]
    stored(tmp_path)
    assert written == [0, 1]
    stored(tmp_path, epochs=EPOCHS + 1)
    assert written == [0, 1, EPOCHS]


NARROW = SignalPlan(exits=(2,), attention=(3,))


def signals_of_rows(store: TargetStore, epoch: int) -> list[torch.Tensor]:
    """All parts that a store gives of three images, without and then with names."""
    source = StoredTeachers([store], TEACHER.image_ids)
    source.start_epoch(epoch)
    (given,) = source.signals(np.array([7, 4, 9]), torch.empty(0), TEACHER.spec)
    assert given.fused is None and set(given.exits) == {2} and set(given.attention) == {3}
    return [given.logits, given.exits[2], given.attention[3]]


def test_student_that_needs_fewer_signals_takes_those_of_a_wider_folder(tmp_path: Path, written: list[int]) -> None:
    wide = stored(tmp_path / "wide", epochs=EPOCHS + 1)
    assert written == [0, 1, 2]
    taken = stored(tmp_path / "wide", plan=NARROW)
    assert taken.folder == wide.folder and written == [0, 1, 2]
    assert [one.name for one in (tmp_path / "wide").iterdir()] == [wide.folder.name]
    exact = stored(tmp_path / "exact", plan=NARROW)
    assert exact.folder != wide.folder and taken.layout == exact.layout
    for epoch in range(EPOCHS):
        pairs = zip(signals_of_rows(taken, epoch), signals_of_rows(exact, epoch), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_parts_of_a_wider_folder_are_proven_too(tmp_path: Path) -> None:
    stored(tmp_path)
    with pytest.raises(TargetsError, match="the teacher says"):
        stored(tmp_path, teacher=replace(teacher_of(1), sha256=TEACHER.sha256), plan=NARROW)


def test_exact_folder_is_taken_before_a_wider_one_and_the_narrowest_of_these(tmp_path: Path) -> None:
    # Each is written where no wider one is.
    middle, wide = stored(tmp_path, plan=SignalPlan(exits=(1, 2), attention=(2, 3))), stored(tmp_path)
    alone = stored(tmp_path / "apart", plan=NARROW)
    assert wide.width > middle.width > alone.width
    assert stored(tmp_path, plan=NARROW).folder == middle.folder
    alone.folder.rename(tmp_path / alone.folder.name)
    assert stored(tmp_path, plan=NARROW).folder == tmp_path / alone.folder.name


OTHERS = {
    "fewer signals": {"plan": SignalPlan(exits=(2,))},
    "other signals": {"plan": SignalPlan(exits=(1, 2), fused=True, attention=(2,))},
    "fewer epochs": {"epochs": EPOCHS - 1},
    "another seed": {"viewing": replace(VIEWING, seed=4)},
    "another teacher": {"teacher": teacher_of(1)},
}


@pytest.mark.parametrize("name", OTHERS)
def test_folder_that_lacks_something_is_not_taken_for_a_wider_one(
    tmp_path: Path, written: list[int], name: str
) -> None:
    other = stored(tmp_path, **OTHERS[name])  # type: ignore[arg-type]
    written.clear()
    assert stored(tmp_path, plan=NARROW).folder != other.folder and written == [0, 1]


def test_folder_whose_index_is_damaged_is_not_taken_for_a_wider_one(tmp_path: Path) -> None:
    wide = stored(tmp_path)
    (wide.folder / INDEX).write_text("{")
    assert stored(tmp_path, plan=NARROW).folder != wide.folder


def test_folder_is_held_while_it_is_written(tmp_path: Path, written: list[int]) -> None:
    folder = key_of(TEACHER, VIEWING, PLAN).folder(tmp_path)
    folder.mkdir()
    other = threading.Thread(target=stored, args=(tmp_path,))
    with locked(folder, wait=True):
        other.start()
        other.join(0.5)
        assert other.is_alive() and written == []
    other.join(20)
    assert not other.is_alive() and written == [0, 1]


def test_whole_folder_is_read_without_waiting_also_where_it_cannot_be_written(
    tmp_path: Path, written: list[int]
) -> None:
    folder = stored(tmp_path).folder
    other = threading.Thread(target=stored, args=(tmp_path,), daemon=True)
    with locked(folder, wait=True):
        other.start()
        other.join(20)
        assert not other.is_alive()
    (folder / ".lock").unlink()
    stored(tmp_path)
    assert written == [0, 1] and not (folder / ".lock").exists()


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


@pytest.mark.parametrize("plan", [PLAN, NARROW])
def test_truncated_altered_or_missing_file_of_any_epoch_is_refused_before_a_student_starts(
    tmp_path: Path, plan: SignalPlan
) -> None:
    epochs = 4
    folder = stored(tmp_path, epochs=epochs).folder
    for path in sorted(folder.glob("*.npy")):
        content = path.read_bytes()
        path.write_bytes(content[:-40])
        with pytest.raises(TargetsError, match=rf"{path.name}: cannot be read"):
            stored(tmp_path, epochs=epochs, plan=plan)
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(TargetsError, match=rf"{path.name}: was altered"):
            stored(tmp_path, epochs=epochs, plan=plan)
        path.unlink()
        with pytest.raises(TargetsError, match=rf"{path.name}: cannot be read"):
            stored(tmp_path, epochs=epochs, plan=plan)
        path.write_bytes(content)
    assert stored(tmp_path, epochs=epochs, plan=plan).folder == folder


def test_file_that_was_truncated_after_the_start_is_refused(tmp_path: Path) -> None:
    store = stored(tmp_path)
    source = StoredTeachers([store], TEACHER.image_ids)
    path = store.folder / "epoch-00001.npy"
    path.write_bytes(path.read_bytes()[:-40])
    source.start_epoch(0)
    with pytest.raises(TargetsError, match=r"epoch-00001\.npy"):
        source.start_epoch(1)


def test_answers_on_the_device_and_in_the_map_give_the_same_signals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stored(tmp_path)
    source, rows = StoredTeachers([store], TEACHER.image_ids), np.array([7, 4, 9, 4])
    given = []
    for kind in (np.memmap, torch.Tensor):
        source.start_epoch(1)
        assert isinstance(source.current[0], kind)
        given.append(flatten(*source.signals(rows, torch.empty(0), TEACHER.spec)))
        monkeypatch.setattr(module, "resident", lambda images, device: torch.tensor(images, device=device))
    wanted = np.array(store.read(1)).astype(np.float32)[np.searchsorted(np.unique(TRAIN_ROWS), rows)]
    assert torch.equal(given[0], given[1]) and np.array_equal(given[0].numpy(), wanted)


def test_memory_of_storing_and_reading_does_not_grow_with_the_images(tmp_path: Path) -> None:
    images, width, at_once = 16_384, 64, 256
    ids = [str(row) for row in range(images)]
    store = TargetStore(tmp_path, ids, [("logits", [width])])

    def batches() -> Iterator[np.ndarray]:  # type: ignore[type-arg]
        for start in range(0, images, at_once):
            yield np.full((at_once, width), start, dtype=np.float32)

    source = StoredTeachers([store], ids)
    tracemalloc.start()
    try:
        store.write(0, batches())
        source.start_epoch(0)
        for start in range(0, images, at_once):
            (given,) = source.signals(np.arange(start, start + at_once), torch.empty(0), TEACHER.spec)
            assert float(given.logits[-1, -1]) == start
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < images * width * 2 / 4


def test_batches_give_the_file_that_the_whole_gave(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).standard_normal((7, 3), dtype=np.float32)
    store = TargetStore(tmp_path, [str(row) for row in range(7)], [("logits", [3])])
    store.write(0, [whole[:4], whole[4:]])
    saved = io.BytesIO()
    np.save(saved, whole.astype(np.float16))
    assert (tmp_path / "epoch-00000.npy").read_bytes() == saved.getvalue()
    info = json.loads((tmp_path / "epoch-00000.json").read_text())
    digest = hashlib.sha256(whole.astype(np.float16).tobytes()).hexdigest()
    assert info == {"epoch": 0, "rows": 7, "sha256": digest}


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
    rows[-1, 0] = 1e6
    before = sorted(store.folder.iterdir())
    with pytest.raises(TargetsError, match="float16"):
        store.write(5, [rows[:3], rows[3:]])
    assert not store.has(5) and sorted(store.folder.iterdir()) == before


def test_epoch_that_was_not_stored_is_an_error(tmp_path: Path) -> None:
    source = StoredTeachers([stored(tmp_path)], TEACHER.image_ids)
    with pytest.raises(TargetsError, match="epoch-00007"):
        source.start_epoch(7)

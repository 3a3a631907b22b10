"""Where a student's targets come from: teachers in memory that see each view, or their stored answers."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dermdistill.atomic import make_folder
from dermdistill.config import AugmentConfig
from dermdistill.data.augment import Images, make_views
from dermdistill.distill.signals import SignalPlan, Signals, signals_of
from dermdistill.distill.targets import (
    INDEX,
    Half,
    TargetKey,
    TargetStore,
    compare_with_live,
    create_targets,
    find_targets,
    flatten,
    open_targets,
    shapes_of,
    target_key,
    unflatten,
)
from dermdistill.models.hybrid import HybridClassifier
from dermdistill.preprocess import PreprocessSpec
from dermdistill.progress import StepProgress
from dermdistill.run import locked
from dermdistill.training.residence import resident

Ints = npt.NDArray[np.int64]
# Views at once while answers are computed ahead, and views of the proof.
BATCH = 256
SAMPLE = 24


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained teacher and the images that it sees.

    Attributes:
        model: in evaluation mode.
        sha256: of its weight file.
        classes: in the order of its logits.
        images: uint8 [N, S, S, 3] at its own size; the rows are those of the student's images.
        images_sha256: of that array.
        image_ids: of the rows.
        spec: its preprocessing.
        share: of all teachers' weight.
    """

    model: HybridClassifier
    sha256: str
    classes: tuple[str, ...]
    images: Images
    images_sha256: str
    image_ids: tuple[str, ...]
    spec: PreprocessSpec
    share: float = 1.0


@dataclass(frozen=True, eq=False)
class Viewing:
    """How the views of a training come about.

    Attributes:
        augment: settings of the views.
        seed: of the views.
        train_rows: rows that are learnt from, with repeats; mixup draws partners from them.
    """

    augment: AugmentConfig
    seed: int
    train_rows: Ints

    def make(self, images: Images, rows: Ints, epoch: int, spec: PreprocessSpec) -> Tensor:
        """Views float32 [B, 3, S, S] of rows [B]."""
        return make_views(
            images, rows, epoch=epoch, seed=self.seed, config=self.augment, spec=spec, partner_rows=self.train_rows
        ).images


class SignalSource(Protocol):
    """Gives what each teacher says about a batch of views."""

    def to(self, device: torch.device) -> None:
        """Work on this device from now on."""

    def start_epoch(self, epoch: int) -> None:
        """The batches that follow are of this epoch."""

    def signals(self, rows: Ints, views: Tensor, spec: PreprocessSpec) -> tuple[Signals, ...]:
        """Signals of each teacher, without gradient.

        Args:
            rows: int64 [B].
            views: float32 [B, 3, S, S], what the student sees of them.
            spec: the student's preprocessing.
        """


@torch.no_grad()
def answers(teacher: Teacher, views: Tensor, plan: SignalPlan) -> Signals:
    """What a teacher says about views on its device, in full precision."""
    output = teacher.model(views.contiguous(memory_format=torch.channels_last))
    return signals_of(output, teacher.model.exit_depths, plan)


class LiveTeachers:
    """Teachers in memory. One whose input has another size is shown its own view of the same draw.

    Args:
        teachers: whose answers.
        viewing: how views are made.
        plan: what is wanted of each.
    """

    def __init__(self, teachers: Sequence[Teacher], viewing: Viewing, plan: SignalPlan) -> None:
        self.teachers = list(teachers)
        self.viewing = viewing
        self.plan = plan
        self.epoch = 0
        for teacher in self.teachers:
            teacher.model.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def to(self, device: torch.device) -> None:
        """Move the teachers, and the images of those that make their own views."""
        self.teachers = [_on(teacher, device) for teacher in self.teachers]

    def start_epoch(self, epoch: int) -> None:
        """The batches that follow are of this epoch."""
        self.epoch = epoch

    def signals(self, rows: Ints, views: Tensor, spec: PreprocessSpec) -> tuple[Signals, ...]:
        """See ``SignalSource``."""
        given = []
        for teacher in self.teachers:
            own = teacher.spec != spec
            seen = self.viewing.make(teacher.images, rows, self.epoch, teacher.spec) if own else views
            given.append(answers(teacher, seen.to(views.device), self.plan))
        return tuple(given)


class StoredTeachers:
    """Stored answers; no teacher is in memory.

    A GPU gets an epoch's answers as a whole where they fit, as it gets images; otherwise, and on a CPU, each batch is
    taken out of the memory map.

    Args:
        stores: one a teacher.
        image_ids: of the rows of the student's images.
    """

    def __init__(self, stores: Sequence[TargetStore], image_ids: Sequence[str]) -> None:
        self.stores = list(stores)
        row_of = {image_id: row for row, image_id in enumerate(image_ids)}
        self.places = []
        for store in self.stores:
            places = np.full(len(image_ids), -1, dtype=np.int64)
            places[[row_of[image_id] for image_id in store.image_ids]] = np.arange(len(store.image_ids))
            self.places.append(places)
        self.device = torch.device("cpu")
        self.current: list[Half | Tensor] = []

    def to(self, device: torch.device) -> None:
        """Give signals on this device."""
        self.device = device

    def start_epoch(self, epoch: int) -> None:
        """Open the epoch's answers.

        Raises:
            TargetsError: they are missing, cut off or altered.
        """
        self.current = []  # the last epoch's make room
        for store in self.stores:
            self.current.append(_near(store.read(epoch), self.device))

    def signals(self, rows: Ints, views: Tensor, spec: PreprocessSpec) -> tuple[Signals, ...]:
        """See ``SignalSource``; the views play no part."""
        return tuple(
            unflatten(store.pick(kept, places[rows]).to(self.device), store.layout)
            for store, places, kept in zip(self.stores, self.places, self.current, strict=True)
        )


def _near(answers: Half, device: torch.device) -> Half | Tensor:
    """Answers where images of as many bytes would be, see ``resident``."""
    moved = resident(answers.view(np.uint8), device)
    return moved.view(torch.float16) if isinstance(moved, Tensor) else answers


def _on(teacher: Teacher, device: torch.device) -> Teacher:
    return replace(teacher, model=teacher.model.to(device), images=resident(teacher.images, device))


def key_of(teacher: Teacher, viewing: Viewing, plan: SignalPlan) -> TargetKey:
    """Under which a teacher's answers to these views are kept."""
    return target_key(
        teacher_sha256=teacher.sha256,
        classes=teacher.classes,
        spec=teacher.spec,
        images_sha256=teacher.images_sha256,
        training_ids=[teacher.image_ids[row] for row in viewing.train_rows],
        augment=viewing.augment,
        seed=viewing.seed,
        plan=plan,
    )


def store_targets(
    teacher: Teacher, viewing: Viewing, plan: SignalPlan, *, epochs: int, cache: Path, device: torch.device
) -> TargetStore:
    """A teacher's answers to all views of the first ``epochs`` epochs; those that are missing are computed and kept.

    Where all are there, with these signals alone or with more, nothing is computed. Answers that were there before are
    compared with their SHA-256, every epoch of them, and on a random sample with the teacher. One process at a time
    writes a folder; others wait.

    Args:
        teacher: whose answers.
        viewing: which views.
        plan: what to keep.
        epochs: from the first.
        cache: folder of all stored targets.
        device: to compute on.

    Raises:
        TargetsError: what is there is foreign, stale, cut off or altered.
        OutputError: the cache cannot be written.
    """
    key, rows = key_of(teacher, viewing, plan), np.unique(viewing.train_rows)
    ids = [teacher.image_ids[row] for row in rows]
    live = _on(replace(teacher, model=teacher.model.eval().requires_grad_(False)), device)
    live.model.to(memory_format=torch.channels_last)
    found = find_targets(cache, key, ids, epochs)
    folder = found.folder if found else key.folder(cache)
    # What is complete is only read, also from a cache that cannot be written.
    with nullcontext() if found else locked(make_folder(folder), wait=True):
        if found:
            store = found
        elif (folder / INDEX).is_file():
            store = open_targets(folder, key, ids)
        else:
            first = answers(live, viewing.make(live.images, rows[:2], 0, live.spec).to(device), plan)
            store = create_targets(folder, key, ids, shapes_of(first))
        kept = [epoch for epoch in range(epochs) if store.has(epoch)]
        for epoch in kept:
            store.read(epoch)
        prove(kept, store, live, viewing, plan, rows)
        missing = [epoch for epoch in range(epochs) if epoch not in kept]
        with StepProgress("teacher's answers", steps=-(-len(rows) // BATCH) * len(missing)) as bar:
            for epoch in missing:
                store.write(epoch, _answers_of_epoch(live, viewing, plan, rows, epoch, bar))
    return store


def _answers_of_epoch(
    teacher: Teacher, viewing: Viewing, plan: SignalPlan, rows: Ints, epoch: int, bar: StepProgress
) -> Iterator[npt.NDArray[np.float32]]:
    """Batches [B, D] of what a teacher says about one epoch's views of rows."""
    device = next(teacher.model.parameters()).device
    for start in range(0, len(rows), BATCH):
        views = viewing.make(teacher.images, rows[start : start + BATCH], epoch, teacher.spec)
        yield flatten(answers(teacher, views.to(device), plan)).cpu().numpy()
        bar.step()


def prove(
    epochs: Sequence[int], store: TargetStore, teacher: Teacher, viewing: Viewing, plan: SignalPlan, rows: Ints
) -> None:
    """Compare stored answers with the live teacher, on a random sample of images in one random epoch.

    Raises:
        TargetsError: they differ.
    """
    if not epochs:
        return
    generator = np.random.default_rng()  # another sample each time: over many runs all of it is proven
    epoch = int(generator.choice(np.array(epochs)))
    places = np.sort(generator.choice(len(rows), size=min(SAMPLE, len(rows)), replace=False))
    device = next(teacher.model.parameters()).device
    views = viewing.make(teacher.images, rows[places], epoch, teacher.spec).to(device)
    compare_with_live(store, epoch, places, flatten(answers(teacher, views, plan)))

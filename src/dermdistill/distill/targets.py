"""What a teacher says about every training view, computed once, kept on disk and shared between students.

One folder a key: all that an answer depends on (teacher weights, its classes, preprocessing, images, augmentation,
seed, which images take part, what is stored). One file an epoch, float16 [N, D], memory-mapped, a row an image. An
epoch counts as written once its small JSON file with the SHA-256 stands. A folder whose key differs from what a student
wants is refused, and the error names what differs; it is never silently made anew. Only the signals may be more than
are wanted: then the parts that are wanted are taken out of each row.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dermdistill.atomic import atomic_path, write_json
from dermdistill.config import AugmentConfig
from dermdistill.distill.signals import SignalPlan, Signals
from dermdistill.errors import TargetsError
from dermdistill.preprocess import PreprocessSpec
from dermdistill.provenance import sha256_bytes, sha256_json

FORMAT_VERSION = 1
INDEX = "index.json"
PREFIX = "targets-"
# Of float16 (5e-4) and of convolutions whose sums are ordered otherwise in batches of another size.
RELATIVE_TOLERANCE = 1e-2
ABSOLUTE_TOLERANCE = 2e-2

Half = npt.NDArray[np.float16]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TargetKey:
    """All that stored answers depend on, beside the epoch and the image.

    Attributes:
        teacher_sha256: of the teacher's weight file.
        classes: in the order of its logits.
        preprocessing: of the teacher's input.
        images_sha256: of the decoded images at that size.
        image_ids_sha256: of the training images, in order and with repeats, as mixup draws partners from them.
        augmentation: every setting of the views.
        seed: of the views.
        signals: what is stored beside final logits.
    """

    teacher_sha256: str
    classes: tuple[str, ...]
    preprocessing: dict[str, Any]
    images_sha256: str
    image_ids_sha256: str
    augmentation: dict[str, Any]
    seed: int
    signals: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The key as JSON holds it."""
        content: dict[str, Any] = json.loads(json.dumps({"format": FORMAT_VERSION, **asdict(self)}))
        return content

    def folder(self, cache: Path) -> Path:
        """Where answers under this key are kept."""
        return cache / f"{PREFIX}{sha256_json(self.as_json())[:16]}"


def target_key(
    *,
    teacher_sha256: str,
    classes: Sequence[str],
    spec: PreprocessSpec,
    images_sha256: str,
    training_ids: Sequence[str],
    augment: AugmentConfig,
    seed: int,
    plan: SignalPlan,
) -> TargetKey:
    """The key of a teacher's answers to the views of one seed."""
    return TargetKey(
        teacher_sha256=teacher_sha256,
        classes=tuple(classes),
        preprocessing=asdict(spec),
        images_sha256=images_sha256,
        image_ids_sha256=sha256_bytes("\n".join(training_ids).encode()),
        augmentation=augment.model_dump(mode="json"),
        seed=seed,
        signals=asdict(plan),
    )


def flatten(signals: Signals) -> Tensor:
    """All parts of signals as one row an image: float32 [B, D]."""
    parts = [signals.logits, *signals.exits.values()]
    if signals.fused is not None:
        parts.append(signals.fused)
    parts += [one.flatten(1) for one in signals.attention.values()]
    return torch.cat([part.float() for part in parts], dim=1)


def shapes_of(signals: Signals) -> list[tuple[str, list[int]]]:
    """Name and shape (without the batch) of each part, in the order of ``flatten``."""
    parts = [("logits", signals.logits), *((f"exit_{depth}", part) for depth, part in signals.exits.items())]
    if signals.fused is not None:
        parts.append(("fused", signals.fused))
    parts += [(f"attention_{depth}", part) for depth, part in signals.attention.items()]
    return [(name, list(part.shape[1:])) for name, part in parts]


def _names(signals: Mapping[str, Any]) -> list[str]:
    """Names of the parts that a key's signals ask for, in the order of ``flatten``."""
    exits = [f"exit_{depth}" for depth in signals["exits"]]
    fused = ["fused"] if signals["fused"] else []
    return ["logits", *exits, *fused, *(f"attention_{depth}" for depth in signals["attention"])]


def unflatten(rows: Tensor, layout: Sequence[tuple[str, Sequence[int]]]) -> Signals:
    """The parts again, from rows [B, D]."""
    named: dict[str, Tensor] = {}
    start = 0
    for name, shape in layout:
        width = int(np.prod(shape))
        named[name] = rows[:, start : start + width].reshape(len(rows), *shape)
        start += width

    def by_depth(kind: str) -> dict[int, Tensor]:
        return {int(name.rpartition("_")[2]): part for name, part in named.items() if name.startswith(kind)}

    return Signals(named["logits"], by_depth("exit_"), named.get("fused"), by_depth("attention_"))


class TargetStore:
    """Stored answers; ``open_targets`` and ``find_targets`` make it.

    Args:
        folder: where they lie.
        image_ids: of the N rows of every epoch.
        layout: name and shape of each part of a stored row.
        names: of the parts that are wanted, in the order wanted; by default all.
    """

    def __init__(
        self,
        folder: Path,
        image_ids: Sequence[str],
        layout: Sequence[tuple[str, Sequence[int]]],
        names: Sequence[str] | None = None,
    ) -> None:
        self.folder = folder
        self.image_ids = tuple(image_ids)
        shapes = {name: list(shape) for name, shape in layout}
        widths = [int(np.prod(shape)) for shape in shapes.values()]
        columns = dict(zip(shapes, np.split(np.arange(sum(widths)), np.cumsum(widths)[:-1]), strict=True))
        self.layout = [(name, shapes[name]) for name in names or shapes]
        self.columns = torch.from_numpy(np.concatenate([columns[name] for name, _ in self.layout]))
        self.width = sum(widths)

    def _paths(self, epoch: int) -> tuple[Path, Path]:
        return self.folder / f"epoch-{epoch:05}.npy", self.folder / f"epoch-{epoch:05}.json"

    def has(self, epoch: int) -> bool:
        """Whether an epoch was written; ``read`` says whether it is still what was written."""
        return self._paths(epoch)[1].is_file()

    def has_first(self, epochs: int) -> bool:
        """Whether each of the first epochs was written."""
        return all(self.has(epoch) for epoch in range(epochs))

    def write(self, epoch: int, batches: Iterable[npt.NDArray[np.float32]]) -> None:
        """Keep an epoch's answers; no more than a batch of them is in memory.

        Ordinary writes, not a writable memory map: a full disk is then an error and not the death of the process.

        Args:
            epoch: from 0.
            batches: float32 [B, D] each, together the N rows in their order.

        Raises:
            TargetsError: a number that float16 cannot hold.
            OutputError: the folder cannot be written.
        """
        array, info = self._paths(epoch)
        header = {"descr": np.dtype(np.float16).str, "fortran_order": False, "shape": (len(self.image_ids), self.width)}
        digest, rows = hashlib.sha256(), 0
        with atomic_path(array) as temporary, temporary.open("wb") as handle:
            np.lib.format.write_array_header_1_0(handle, header)
            for answers in batches:
                half = self._half(answers, epoch)
                handle.write(half.data)
                digest.update(half.data)
                rows += len(half)
            assert rows == len(self.image_ids)
        write_json(info, {"epoch": epoch, "rows": rows, "sha256": digest.hexdigest()})

    def _half(self, answers: npt.NDArray[np.float32], epoch: int) -> Half:
        with np.errstate(over="ignore"):
            half = answers.astype(np.float16)
        if not np.isfinite(half).all():
            raise TargetsError(
                f"{self.folder}: the teacher's answers of epoch {epoch + 1} hold numbers up to {np.abs(answers).max()}",
                rule="float16 holds finite numbers up to 65,504",
                next_step="use distill.targets=live, or train the teacher with a lower learning rate",
            )
        return half

    def read(self, epoch: int) -> Half:
        """An epoch's answers, a read-only memory map [N, D], checked against their SHA-256.

        Raises:
            TargetsError: the file is missing, cut off or altered.
        """
        path, info_path = self._paths(epoch)
        next_step = f"delete the folder {self.folder.name} of stored targets; they are computed again"
        try:
            info = json.loads(info_path.read_text())
            answers = np.lib.format.open_memmap(path, mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise TargetsError(f"{path}: cannot be read ({error})", next_step=next_step) from error
        wanted = (len(self.image_ids), self.width)
        if answers.shape != wanted or answers.dtype != np.float16:
            raise TargetsError(
                f"{path}: holds {answers.dtype} {list(answers.shape)}",
                rule=f"float16 {list(wanted)}, as {INDEX} says",
                next_step=next_step,
            )
        if hashlib.sha256(answers.data).hexdigest() != info.get("sha256"):
            raise TargetsError(
                f"{path}: was altered since it was written",
                rule=f"its SHA-256 stands in {info_path.name}",
                next_step=next_step,
            )
        return answers

    def pick(self, answers: Half | Tensor, places: Ints) -> Tensor:
        """The wanted parts of some rows, float32 [B, D'], in the memory that holds the answers.

        Args:
            answers: of an epoch, float16 [N, D], as ``read`` gives them or on a device.
            places: rows of the store, int64 [B].
        """
        if isinstance(answers, Tensor):
            rows = answers[torch.from_numpy(places).to(answers.device)]
        else:
            rows = torch.from_numpy(answers[places])
        return rows[:, self.columns.to(rows.device)].float()


def create_targets(folder: Path, key: TargetKey, image_ids: Sequence[str], layout: Any) -> TargetStore:
    """Begin a folder of stored answers, or open it where another process was quicker.

    Args:
        folder: new.
        key: see ``TargetKey``.
        image_ids: of the rows, each once.
        layout: name and shape of each part of a row, see ``shapes_of``.
    """
    index = folder / INDEX
    if not index.is_file():
        write_json(index, {"key": key.as_json(), "layout": layout, "image_ids": list(image_ids)})
    return open_targets(folder, key, image_ids)


def open_targets(folder: Path, key: TargetKey, image_ids: Sequence[str]) -> TargetStore:
    """Open stored answers that were written under this very key.

    Raises:
        TargetsError: the folder was written under another key, and what differs; or it cannot be read.
    """
    kept, layout, ids = _read_index(folder)
    faults = _differences(kept, key.as_json())
    if not faults and list(ids) != list(image_ids):
        faults = [f"images: {len(ids)} stored, {len(image_ids)} wanted, or in another order"]
    if faults:
        raise TargetsError(
            f"{folder}: these stored targets are not what this student learns from:\n  - " + "\n  - ".join(faults),
            rule="same teacher weights, classes, preprocessing, images, augmentation and seed",
            next_step="name another folder, or delete this one; the targets are computed again",
        )
    return TargetStore(folder, ids, layout)


def _read_index(folder: Path) -> tuple[dict[str, Any], list[tuple[str, list[int]]], list[str]]:
    """Key, layout and image ids of a folder."""
    path = folder / INDEX
    try:
        found = json.loads(path.read_text())
        kept, layout, ids = dict(found["key"]), found["layout"], list(found["image_ids"])
        return kept, [(str(name), [int(side) for side in shape]) for name, shape in layout], ids
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TargetsError(
            f"{path}: cannot be read ({type(error).__name__}: {error})",
            rule="the index of stored teacher targets",
            next_step=f"delete the folder {folder.name}; the targets are computed again",
        ) from error


def find_targets(cache: Path, key: TargetKey, image_ids: Sequence[str], epochs: int) -> TargetStore | None:
    """Stored answers of the first epochs, all of them, that serve a student, or None.

    They are those under the very key or, where some of these are missing, the narrowest that were written under a key
    which differs in its signals alone and has all that are wanted. A folder that cannot be read is none of the latter.

    Args:
        cache: folder of all stored targets.
        key: of what the student wants.
        image_ids: of the rows.
        epochs: from the first.

    Raises:
        TargetsError: the folder named by the key is damaged or foreign.
    """
    exact, names = key.folder(cache), _names(key.signals)
    if (exact / INDEX).is_file():
        store = open_targets(exact, key, image_ids)
        if store.has_first(epochs):
            return store
    wider = []
    for index in sorted(cache.glob(f"{PREFIX}*/{INDEX}")):
        try:
            kept, layout, ids = _read_index(index.parent)
        except TargetsError:
            continue
        alike = {**kept, "signals": None} == {**key.as_json(), "signals": None} and ids == list(image_ids)
        if alike and {name for name, _ in layout} >= set(names):
            wider.append(TargetStore(index.parent, ids, layout, names))
    return min((store for store in wider if store.has_first(epochs)), key=lambda store: store.width, default=None)


def _differences(kept: Any, wanted: Any, name: str = "") -> list[str]:
    """One line for each leaf that differs: ``augmentation.mixup: stored 0.3, wanted 0.0``."""
    if isinstance(kept, dict) and isinstance(wanted, dict):
        names = list(dict.fromkeys([*wanted, *kept]))
        return [
            line
            for key in names
            for line in _differences(kept.get(key), wanted.get(key), f"{name}.{key}" if name else key)
        ]
    return [] if kept == wanted else [f"{name}: stored {kept!r}, wanted {wanted!r}"]


def compare_with_live(store: TargetStore, epoch: int, places: Ints, live: Tensor) -> None:
    """Prove stored answers on a sample.

    Args:
        store: the stored answers.
        epoch: of the sample.
        places: rows of the store, int64 [B].
        live: what the teacher says about the same views now, float32 [B, D].

    Raises:
        TargetsError: they differ by more than float16 explains; it names image, part and both numbers.
    """
    kept = store.pick(store.read(epoch), places)
    now = live.float().cpu()
    if now.shape != kept.shape:
        raise TargetsError(
            f"{store.folder}: {kept.shape[1]} numbers a view are stored, the teacher gives {now.shape[1]}",
            next_step=f"delete the folder {store.folder.name}; the targets are computed again",
        )
    excess = (kept - now).abs() - (ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * now.abs())
    if float(excess.max()) <= 0:
        return
    row, column = divmod(int(excess.argmax()), excess.shape[1])
    start, part = 0, ""
    for name, shape in store.layout:
        part, start = name, start + int(np.prod(shape))
        if column < start:
            break
    raise TargetsError(
        f"{store.folder}: image {store.image_ids[int(places[row])]}, epoch {epoch + 1}, {part}: "
        f"stored {float(kept[row, column]):.4g}, the teacher says {float(now[row, column]):.4g}",
        rule=f"stored and live answers agree within {ABSOLUTE_TOLERANCE} + {RELATIVE_TOLERANCE:.0%}",
        next_step=f"another teacher or other views: delete the folder {store.folder.name}; it is computed again",
    )

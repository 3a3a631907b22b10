"""What a teacher costs its students: stored answers, none at all, and a live teacher, in one run.

Twelve students of the `edge` recipe (EfficientNet-Lite0, multi-stage with layer fusion, mixup) are trained with one
set of stored answers of an EfficientNet-Lite2, twelve of the same deployed network, which has no exits then, with
labels alone, and some with the live teacher, in turn, with the training loop as users run it. The time of the stored
ones includes computing and writing the answers once, and each student's proof against the live teacher. Weights are
random and images are noise: only the time counts.

Prints one JSON object: seconds, and the ratios of twelve stored or live students to twelve without a teacher; `met`
says whether that of the stored ones is at most the target.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from dermdistill.config import Recipe
from dermdistill.distill.objective import TeacherShape
from dermdistill.distill.signals import signal_plan
from dermdistill.labels import class_names
from dermdistill.models.build import build_model
from dermdistill.provenance import origin
from dermdistill.recipes.load import load_recipe
from dermdistill.training.loop import TrainingData
from dermdistill.training.roles import train_role
from dermdistill.training.teachers import LiveTeachers, SignalSource, StoredTeachers, Teacher, Viewing, store_targets

SETTINGS = (
    "teacher.model.branches.0.weights=none",
    "student.model.branches.0.weights=none",
    "student.warmup_epochs=0",
)
# Greatest ratio of stored to none.
TARGET = 1.15


def make_data(images: int, recipe: Recipe) -> TrainingData:
    spec = recipe.data.preprocess()
    generator = np.random.default_rng(0)
    validation = max(14, images // 20)
    rows = np.arange(images + validation)
    pixels = generator.integers(0, 256, (len(rows), spec.size, spec.size, 3), dtype=np.uint8)
    return TrainingData(pixels, rows % 7, rows[:images], rows[images:], spec, recipe.task)


def make_teacher(data: TrainingData, recipe: Recipe) -> Teacher:
    model = build_model(recipe.teacher.model, classes=7, size=data.spec.size, seed=0).eval()
    ids = tuple(str(row) for row in range(len(data.images)))
    return Teacher(model, "benchmark", class_names(recipe.task), data.images, "noise", ids, data.spec)


class Bench:
    """One folder, one teacher, and students trained in it."""

    def __init__(self, images: int, epochs: int, folder: Path) -> None:
        settings = [*SETTINGS, f"student.epochs={epochs}", "data.size=64"]
        self.taught = load_recipe("edge", settings)
        self.alone = self.taught.model_copy(update={"student": self.taught.student.alone()})
        self.data = make_data(images, self.taught)
        self.teacher = make_teacher(self.data, self.taught)
        self.shapes = (TeacherShape(1.0, self.teacher.model.fused_width),)
        self.plan = signal_plan(self.taught.student.distill, self.taught.student.model.exits)
        self.viewing = Viewing(self.taught.augment, self.taught.seed, self.data.train_rows)
        self.folder, self.number = folder, 0
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def stored(self) -> SignalSource:
        store = store_targets(
            self.teacher,
            self.viewing,
            self.plan,
            epochs=self.taught.student.epochs,
            cache=self.folder,
            device=self.device,
        )
        return StoredTeachers([store], self.teacher.image_ids)

    def student(self, kind: str) -> float:
        """Seconds of one student."""
        started = time.perf_counter()
        source: SignalSource | None = None
        if kind == "stored":
            source = self.stored()
        elif kind == "live":
            source = LiveTeachers([self.teacher], self.viewing, self.plan)
        self.number += 1
        recipe = self.alone if source is None else self.taught
        train_role(
            "student",
            recipe,
            self.data,
            folder=self.folder / f"student-{self.number}",
            inputs="benchmark",
            teachers=source,
            shapes=self.shapes if source else (),
        )
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--students", type=int, default=12)
    parser.add_argument("--live", type=int, default=3, help="students with the live teacher; scaled to --students")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="0 is all cores")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.images, options.epochs, Path(folder))
        bench.student("none")  # warms the process up
        started = time.perf_counter()
        bench.stored()
        building = time.perf_counter() - started
        taken: dict[str, list[float]] = {"none": [], "stored": [], "live": []}
        for number in range(options.students):
            for kind, count in (("none", options.students), ("stored", options.students), ("live", options.live)):
                if number < count:
                    taken[kind].append(bench.student(kind))
    none, stored = sum(taken["none"]), building + sum(taken["stored"])
    live = statistics.mean(taken["live"]) * options.students
    ratio = round(stored / none, 3)
    print(
        json.dumps(
            {
                "benchmark": "stored_targets",
                "students": options.students,
                "images": options.images,
                "epochs": options.epochs,
                "threads": torch.get_num_threads(),
                "seconds": {
                    "storing": round(building, 2),
                    **{f"a student, {kind}": round(statistics.median(times), 2) for kind, times in taken.items()},
                },
                "stored / none": ratio,
                "target": TARGET,
                "met": ratio <= TARGET,
                "live / none": round(live / none, 3),
                "live / stored": round(live / stored, 3),
                **origin(),
            }
        )
    )


if __name__ == "__main__":
    main()

"""The teachers of a student, opened: the run's own, and those of other runs that have not seen its test lesions."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dermdistill.config import Recipe
from dermdistill.data.split import Split, load_split
from dermdistill.distill.objective import TeacherShape
from dermdistill.distill.signals import SignalPlan, signal_plan
from dermdistill.errors import ConfigError, DataError
from dermdistill.labels import class_names
from dermdistill.pipeline.context import Stores, cache_folder
from dermdistill.preprocess import PreprocessSpec
from dermdistill.provenance import sha256_file
from dermdistill.recipes.load import load_recipe
from dermdistill.training.loop import TrainingData
from dermdistill.training.residence import default_device
from dermdistill.training.roles import DESCRIPTION, WEIGHTS, load_description, load_trained
from dermdistill.training.teachers import (
    LiveTeachers,
    SignalSource,
    StoredTeachers,
    Teacher,
    Viewing,
    store_targets,
)

RECIPE = "recipe.yaml"
LISTED = 10


def other_teacher_hashes(recipe: Recipe) -> list[str]:
    """SHA-256 of the weights of each other teacher.

    Raises:
        ConfigError: a run holds no trained teacher.
    """
    hashes = []
    for other in recipe.student.distill.other_teachers:
        weights = Path(other.run) / "teacher" / WEIGHTS
        if not weights.is_file():
            raise ConfigError(
                f"student.distill.other_teachers: {other.run} holds no trained teacher",
                rule=f"the folder of a finished run, with teacher/{WEIGHTS}",
            )
        hashes.append(sha256_file(weights))
    return hashes


def open_teachers(recipe: Recipe, folder: Path, split: Split, stores: Stores) -> list[Teacher]:
    """The teachers that a recipe's student learns from; none where no term needs one.

    Args:
        recipe: the whole recipe.
        folder: of the own teacher.
        split: of the student; no other teacher may have learnt from its validation or test lesions.
        stores: decoded images.

    Raises:
        ConfigError: another run's teacher has other classes, lacks an exit, or cannot be found.
        DataError: it has seen validation or test lesions of this split.
        RunFolderError: a trained network is missing or damaged.
    """
    distill = recipe.student.distill
    if not distill.needs_teacher:
        return []
    own = open_teacher(folder, recipe, recipe.data.preprocess(recipe.teacher.size), stores)
    teachers, weights = [own], [distill.teacher_weight]
    for other in distill.other_teachers:
        run = Path(other.run)
        _refuse_seen(run, split, stores)
        theirs = load_recipe(str(run / RECIPE))
        teacher = open_teacher(run / "teacher", recipe, theirs.data.preprocess(theirs.teacher.size), stores)
        plan = signal_plan(distill, recipe.student.model.exits)
        missing = sorted(set(plan.exits) - set(teacher.model.exit_depths))
        if missing:
            raise ConfigError(
                f"{run}: its teacher has exits {list(teacher.model.exit_depths)}",
                rule=f"the student's exits {missing} need a counterpart in every teacher",
            )
        teachers.append(teacher)
        weights.append(other.weight)
    return [replace(one, share=weight / sum(weights)) for one, weight in zip(teachers, weights, strict=True)]


def open_teacher(folder: Path, recipe: Recipe, spec: PreprocessSpec, stores: Stores) -> Teacher:
    """A trained teacher with the images that it sees.

    Raises:
        ConfigError: its classes are not those of the task, or in another order.
        RunFolderError: the network is missing, damaged, or not the one that was written.
    """
    classes = _classes(folder, recipe)
    model, store = load_trained(folder), stores.at(spec)
    return Teacher(
        model=model,
        sha256=sha256_file(folder / WEIGHTS),
        classes=classes,
        images=store.images,
        images_sha256=store.sha256,
        image_ids=store.image_ids,
        spec=spec,
    )


def _classes(folder: Path, recipe: Recipe) -> tuple[str, ...]:
    """The classes of the task, which must be those that the teacher's description lists, in this order."""
    path, classes = folder / DESCRIPTION, class_names(recipe.task)
    listed = load_description(folder).get("classes")
    theirs = listed if isinstance(listed, list) else []
    differing = [
        f"logit {place} is {kept!r} where {wanted!r} belongs"
        for place, (kept, wanted) in enumerate(zip(theirs, classes, strict=False))
        if kept != wanted
    ]
    if len(theirs) != len(classes):
        differing = [f"tells {len(theirs)} classes"]
    if differing:
        raise ConfigError(
            f"{path}: {', '.join(differing)}",
            rule=f"a teacher of the task {recipe.task} tells, in this order: {', '.join(classes)}",
            next_step=f"take a run of the task {recipe.task} as it was trained, or train this teacher again",
        )
    return classes


def _refuse_seen(run: Path, split: Split, stores: Stores) -> None:
    """Another run's teacher must not have learnt from lesions that this student is chosen or tested on."""
    lesion_of = dict(zip(stores.catalog["image_id"], stores.catalog["lesion_id"], strict=True))
    seen = {lesion_of[image] for image in load_split(run).ids("train") if image in lesion_of}
    kept = {lesion_of[image] for part in ("val", "test") for image in split.ids(part)}
    leaks = sorted(seen & kept)
    if leaks:
        raise DataError(
            f"{run}: its teacher has learnt from {len(leaks)} lesions of this run's validation and test parts",
            faults=[f"lesion {lesion}" for lesion in leaks[:LISTED]],
            rule="no teacher sees what its student is measured on",
            next_step="use a run with the same data.seed and protocol",
        )


def teacher_shapes(teachers: Sequence[Teacher]) -> tuple[TeacherShape, ...]:
    """What the student's objective must know of them."""
    return tuple(TeacherShape(teacher.share, teacher.model.fused_width) for teacher in teachers)


def signal_source(
    recipe: Recipe, teachers: Sequence[Teacher], data: TrainingData, *, cache: Path, plan: SignalPlan | None = None
) -> SignalSource | None:
    """Live teachers or their stored answers, as the recipe says; None without teachers.

    Args:
        recipe: the whole recipe.
        teachers: see ``open_teachers``.
        data: of the student.
        cache: folder of stored targets.
        plan: what to ask for; by default what this student needs. Students that share stored targets ask alike.

    Raises:
        TargetsError: stored targets are foreign, stale, cut off or altered.
    """
    if not teachers:
        return None
    distill = recipe.student.distill
    asked = plan or signal_plan(distill, recipe.student.model.exits)
    viewing = Viewing(recipe.augment, recipe.seed, data.train_rows)
    if distill.targets == "live":
        return LiveTeachers(teachers, viewing, asked)
    stores = [
        store_targets(teacher, viewing, asked, epochs=recipe.student.epochs, cache=cache, device=default_device())
        for teacher in teachers
    ]
    return StoredTeachers(stores, teachers[0].image_ids)


def student_teaching(
    recipe: Recipe, folder: Path, split: Split, stores: Stores, data: TrainingData, *, plan: SignalPlan | None = None
) -> tuple[SignalSource | None, tuple[TeacherShape, ...]]:
    """Where a student's targets come from, and what its objective must know of the teachers.

    With stored targets no teacher stays in memory.

    Args:
        recipe: the whole recipe.
        folder: of the own teacher.
        split: of the student.
        stores: decoded images.
        data: of the student.
        plan: see ``signal_source``.
    """
    teachers = open_teachers(recipe, folder, split, stores)
    source = signal_source(recipe, teachers, data, cache=cache_folder(), plan=plan)
    return source, teacher_shapes(teachers)

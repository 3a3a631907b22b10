"""The teachers of a student, opened: the run's own, and those of other runs that have not seen its test lesions."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dermdistill.atomic import atomic_folder
from dermdistill.config import Recipe
from dermdistill.data.split import Split, load_split
from dermdistill.distill.objective import TeacherShape
from dermdistill.distill.signals import SignalPlan, signal_plan
from dermdistill.errors import ConfigError, DataError
from dermdistill.labels import class_names
from dermdistill.pipeline.context import Stores, cache_folder
from dermdistill.preprocess import PreprocessSpec
from dermdistill.provenance import sha256_file
from dermdistill.recipes.load import load_recipe, parse_recipe
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


def taken_teacher_hash(recipe: Recipe) -> str:
    """SHA-256 of the weights of the teacher that is taken from another run; empty where one is trained.

    Raises:
        ConfigError: that run holds no trained teacher.
    """
    return sha256_file(_weights_of(Path(recipe.teacher.run))) if recipe.teacher.run is not None else ""


def _weights_of(run: Path) -> Path:
    weights = run / "teacher" / WEIGHTS
    if not weights.is_file():
        raise ConfigError(
            f"--teacher: {run} holds no trained teacher", rule="the folder of a run whose stage `teacher` is done"
        )
    return weights


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


def with_teacher_of(recipe: Recipe, run: Path) -> Recipe:
    """The recipe with another run's teacher section, and the size of its input.

    Raises:
        ConfigError: the run has no readable recipe, its teacher does not fit the student, or it saw images that were
            prepared in another way.
    """
    theirs = load_recipe(str(run / RECIPE))
    values = recipe.model_dump(mode="json")
    values["teacher"] = {
        **theirs.teacher.model_dump(mode="json"),
        "size": theirs.teacher.size or theirs.data.size,
        "run": None,
    }
    merged = parse_recipe(values, source=f"{recipe.name} with the teacher of {run.name}")
    seen, shown = (one.data.preprocess(one.teacher.size) for one in (theirs, merged))
    if seen != shown:
        raise ConfigError(
            f"--teacher: {run} was trained on images prepared as {seen.to_dict()}, not {shown.to_dict()}",
            rule="a teacher answers to images prepared as it knows them",
            next_step=f"set data.resize={theirs.data.resize}, or take another teacher",
        )
    return merged


def taking_teacher(recipe: Recipe, run: Path) -> Recipe:
    """A recipe that takes the trained teacher of a run instead of training one.

    Raises:
        ConfigError: see ``with_teacher_of``; or that run holds no trained teacher.
    """
    merged = with_teacher_of(recipe, run)
    taken = merged.model_copy(update={"teacher": merged.teacher.model_copy(update={"run": str(run)})})
    taken_teacher_hash(taken)
    return taken


def adopt_teacher(run: Path, folder: Path, split: Split) -> None:
    """Copy the teacher of a run with the same images and the same split, as ``teacher`` in another folder.

    Raises:
        DataError: its data or split are others, or its split cannot be read.
        ConfigError: it holds no trained teacher.
    """
    target, weights = folder / "teacher", _weights_of(run)
    theirs, own = load_split(run).info, split.info
    differing = [key for key in ("catalog_sha256", "split_sha256") if theirs[key] != own[key]]
    if differing:
        raise DataError(
            f"--teacher: {run} was trained on another {' and '.join(key.removesuffix('_sha256') for key in differing)}",
            rule="the same images and the same split, or its teacher may have seen this run's test lesions",
            next_step="train it with the same --data, data.seed and data.protocol; or leave --teacher away",
        )
    if (target / WEIGHTS).is_file() and sha256_file(target / WEIGHTS) == sha256_file(weights):
        return
    with atomic_folder(target) as temporary:
        shutil.copytree(run / "teacher", temporary, dirs_exist_ok=True)

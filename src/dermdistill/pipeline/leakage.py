"""What leakage buys: one student under leaky and honest splits, and with and without sisters of its test lesions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dermdistill.atomic import write_json
from dermdistill.config import OptimConfig, Recipe
from dermdistill.data.audit import images_sharing_lesion
from dermdistill.data.injection import InjectedSplit, injected_split
from dermdistill.data.split import Split, make_split, write_split
from dermdistill.errors import ConfigError
from dermdistill.evaluate.comparison import compare_groups, compare_rows
from dermdistill.pipeline.context import Context
from dermdistill.pipeline.execute import PROVENANCE
from dermdistill.pipeline.study import StudyCall, held, prepared, shared_threads, study_provenance, train_all
from dermdistill.pipeline.trials import Trial, Workshop, by_row
from dermdistill.recipes.load import parse_recipe
from dermdistill.report.leakage import write_leakage
from dermdistill.training.order import batches

NAME = "leakage"
PART = "test"
LESION, PUBLISHED, OVERSAMPLED = PROTOCOLS = ("lesion", "published", "published-oversampled")
CLEAN, INJECTED = "clean", "injected"
TITLES = {
    LESION: "lesion (kept apart)",
    PUBLISHED: "published (images split)",
    OVERSAMPLED: "published-oversampled (copies split)",
    CLEAN: "clean training",
    INJECTED: "sisters in training",
}

Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class LeakagePlan:
    """What is trained.

    Attributes:
        splits: by the name of the trials that learn from them.
        injection: the injected arm; the clean one is the trial ``lesion``.
        trials: all students.
        training: {name: images an epoch, and epochs and steps at most}.
    """

    splits: Mapping[str, Split]
    injection: InjectedSplit
    trials: Sequence[Trial]
    training: Mapping[str, Json]


def run_leakage(recipe: Recipe, call: StudyCall, *, seeds: int) -> Path:
    """Train the recipe's student, without a teacher, under each protocol and with injected sisters; compare.

    Args:
        recipe: with the protocol ``lesion``; of its teacher nothing is used.
        call: where, and in how many processes.
        seeds: students of each kind.

    Returns:
        Path of ``leakage.md``; of the folder where this process is a worker.

    Raises:
        ConfigError: the recipe has another protocol.
        DataError: no test lesion has a second image; and see the parts.
    """
    _require_lesion_protocol(recipe)
    recipe = shared_threads(recipe, call)
    with prepared(recipe, call, stages=("catalog", "split", "audit")) as context:
        plan = _plan(context, seeds)
        workshop = Workshop(call.out, context.catalog, context.stores)
        if not call.worker:
            for name, split in plan.splits.items():
                write_split(split, call.out / "splits" / name)
    train_all(workshop, plan.trials, call)
    if call.worker:
        return call.out
    with held(call):
        result = _result(recipe, plan, workshop)
        provenance = study_provenance(context, workshop, plan.trials, call.command)
        splits = {name: split.info["split_sha256"] for name, split in plan.splits.items()}
        write_json(call.out / PROVENANCE, {**provenance, "splits": splits})
        write_leakage(result, call.out, name=NAME, titles=TITLES)
    return call.out / f"{NAME}.md"


def student_alone(recipe: Recipe, *, protocol: str = LESION, seed: int = 0, **schedule: Any) -> Recipe:
    """The recipe's student taught by labels alone: no teacher, and none of the exits that only a teacher would use.

    Args:
        recipe: the whole recipe.
        protocol: that its images are split by.
        seed: of the training.
        schedule: keys of ``student`` to change, such as ``epochs``.
    """
    values = recipe.model_copy(update={"student": recipe.student.alone()}).model_dump(mode="json")
    values["seed"] = seed
    values["data"]["protocol"] = protocol
    values["student"].update(schedule)
    return parse_recipe(values, source=f"{recipe.name}, student alone, {protocol}")


def steps_an_epoch(settings: OptimConfig, images: int) -> int:
    """Optimizer steps that an epoch of so many training images takes."""
    return len(batches(np.arange(images), settings.batch_size))


def as_much_training(settings: OptimConfig, *, images: int, reference: int) -> Json:
    """The schedule by which ``images`` an epoch get about as many steps as ``reference`` images get from the settings.

    At least one epoch. The warm-up stays the same share of the whole.

    Returns:
        keys of ``OptimConfig``: ``epochs`` and ``warmup_epochs``.
    """
    share = steps_an_epoch(settings, reference) / steps_an_epoch(settings, images)
    epochs = max(1, round(settings.epochs * share))
    return {"epochs": epochs, "warmup_epochs": settings.warmup_epochs * epochs / settings.epochs}


def only(frames: Mapping[int, pd.DataFrame], images: Sequence[str]) -> dict[int, pd.DataFrame]:
    """Of each seed's predictions those of some images."""
    return {seed: frame[frame["image_id"].isin(images)].reset_index(drop=True) for seed, frame in frames.items()}


def leak_shares(catalog: pd.DataFrame, split: Split) -> dict[str, float | None]:
    """Shares of test rows whose lesion, or the very image, is in training or validation too; None without rows."""
    placed = split.table.merge(catalog[["image_id", "lesion_id", "diagnosis"]], on="image_id", validate="many_to_one")
    lesions = images_sharing_lesion(placed)
    elsewhere = set(placed.loc[placed["split"] != PART, "image_id"])
    return {
        "same_lesion": lesions["share"],
        "same_lesion_melanoma": lesions["melanoma_share"],
        "same_image": float(placed.loc[placed["split"] == PART, "image_id"].isin(elsewhere).mean()),
    }


def _require_lesion_protocol(recipe: Recipe) -> None:
    if recipe.data.protocol != LESION:
        raise ConfigError(
            f"leakage: the recipe splits by the protocol {recipe.data.protocol!r}",
            rule=f"the study makes its leaky splits itself and compares them with {LESION!r}",
            next_step=f"--set data.protocol={LESION}",
        )


def _plan(context: Context, seeds: int) -> LeakagePlan:
    recipe, data = context.recipe, context.recipe.data
    splits = {LESION: context.split}
    for protocol in (PUBLISHED, OVERSAMPLED):
        splits[protocol] = make_split(context.catalog, data.model_copy(update={"protocol": protocol}))
    injection = injected_split(context.catalog, context.split, data.seed)
    splits[INJECTED] = injection.split
    images = {name: split.info["images"]["train"] for name, split in splits.items()}
    scaled = as_much_training(recipe.student, images=images[OVERSAMPLED], reference=images[LESION])
    trials, training = [], {}
    for name, split in splits.items():
        schedule = scaled if name == OVERSAMPLED else {}
        protocol = LESION if name == INJECTED else name
        for seed in range(recipe.seed, recipe.seed + seeds):
            trials.append(Trial(name, student_alone(recipe, protocol=protocol, seed=seed, **schedule), split, None))
        training[name] = _amount(trials[-1].recipe.student, images[name])
    return LeakagePlan(splits, injection, trials, training)


def _amount(settings: OptimConfig, images: int) -> Json:
    return {"images": images, "epochs": settings.epochs, "steps": settings.epochs * steps_an_epoch(settings, images)}


def _result(recipe: Recipe, plan: LeakagePlan, workshop: Workshop) -> Json:
    """The three comparisons, and beside them what each split leaks and how much each student was trained."""
    rows = by_row(workshop, plan.trials, PART)
    drawn: Json = {"samples": recipe.evaluate.bootstrap_samples, "seed": recipe.evaluate.bootstrap_seed}
    groups = {name: rows[name] for name in PROTOCOLS}
    protocols = compare_groups(groups, reference=LESION, task=recipe.task, **drawn)
    arms = {CLEAN: rows[LESION], INJECTED: rows[INJECTED]}
    kept, leakable = (
        compare_rows(
            {name: only(frames, images) for name, frames in arms.items()}, control=CLEAN, task=recipe.task, **drawn
        )
        for images in (plan.injection.kept, plan.injection.leakable)
    )
    shares = {name: leak_shares(workshop.catalog, plan.splits[name]) for name in PROTOCOLS}
    protocols["notes"] = [*_protocol_notes(recipe, plan, shares), *protocols["notes"]]
    kept["notes"] = [*_injection_notes(plan), *kept["notes"]]
    return {
        "protocols": protocols,
        "injection": kept,
        "injection_leakable": leakable,
        "shares": shares,
        "training": dict(plan.training),
    }


def _protocol_notes(recipe: Recipe, plan: LeakagePlan, shares: Mapping[str, Json]) -> list[str]:
    notes = []
    for name in PROTOCOLS:
        amount, lesion, image = plan.training[name], *(shares[name][key] for key in ("same_lesion", "same_image"))
        notes.append(
            f"{name}: {amount['images']:,} training images an epoch, at most {amount['steps']:,} optimizer steps "
            f"(epochs: {amount['epochs']}). {100 * lesion:.1f}% of its test part show a lesion that training or "
            f"validation shows too; {100 * image:.1f}% are an image that stands there itself."
        )
    scaled, usual = plan.training[OVERSAMPLED], plan.training[LESION]
    notes.append(
        f"{OVERSAMPLED}: epochs {scaled['epochs']} instead of {recipe.student.epochs}, the warm-up in proportion, so "
        f"that there are about as many optimizer steps as under {LESION} ({scaled['steps']:,} against "
        f"{usual['steps']:,}). One epoch is the least."
    )
    return notes


def _injection_notes(plan: LeakagePlan) -> list[str]:
    injection, images = plan.injection, plan.training[INJECTED]["images"]
    return [
        f"Tested on {len(injection.kept):,} images, one of each test lesion. In one arm "
        f"{len(injection.sisters):,} other photos of {len(injection.leakable):,} of these lesions were in training, in "
        f"place of as many random training images of the same classes; both arms learn from {images:,} images.",
        *injection.notes,
    ]

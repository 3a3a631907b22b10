"""Which layer should class activation maps of a model read? Every candidate, tried on validation images.

The rule for families of backbones (``explain/target_layers.py``) rests on such trials. The test part is not touched:
what a method scores there is measured once, with the layer that was chosen here.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

from dermdistill.errors import ConfigError, RunFolderError
from dermdistill.evaluate.robustness import robustness_sample
from dermdistill.explain.activations import grids
from dermdistill.explain.cases import Cases, make_cases
from dermdistill.explain.methods import maps_by
from dermdistill.explain.scorers import NetworkScorer
from dermdistill.explain.scores import ScoreSettings, curve_baselines, score_method
from dermdistill.explain.target_layers import TargetLayer, candidate_layers, target_layers
from dermdistill.labels import encode
from dermdistill.pipeline.context import Context
from dermdistill.pipeline.execute import kept_recipe
from dermdistill.pipeline.explained import masks_of, method_settings, pictures_of
from dermdistill.pipeline.explanation_tests import Weights, cell, drawn_weights
from dermdistill.preprocess import PreprocessSpec
from dermdistill.progress import StepProgress
from dermdistill.provenance import origin
from dermdistill.run import RunFolder
from dermdistill.training.roles import load_trained

Role = Literal["student", "teacher"]
CamMethod = Literal["grad_cam", "score_cam"]
PART = "val"


@dataclass(frozen=True)
class TrialPlan:
    """What is tried.

    Args:
        role: whose layers.
        method: whose maps.
        images: validation images, one a lesion, classes as equally frequent as they come.
        random_images: of these for the test by random weights.
        only: names of layers hold one of these words, such as ``blocks.4``; none: all are tried.

    Raises:
        ConfigError: no images, or more than that for the test by random weights.
    """

    role: Role = "student"
    method: CamMethod = "grad_cam"
    images: int = 200
    random_images: int = 20
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.images < 1 or not 0 <= self.random_images <= self.images:
            raise ConfigError(
                f"{self.images} images, {self.random_images} of them with random weights",
                rule="at least one image, and no more with random weights",
            )


def layer_trials(path: Path, plan: TrialPlan, *, threads: int = 0, console: Console | None = None) -> dict[str, Any]:
    """Score a method's maps by every candidate layer of a trained model, on validation images of its run.

    Args:
        path: a run whose model is trained.
        plan: what is tried.
        threads: CPU threads; 0 is as many as PyTorch takes.
        console: for progress; standard error by default.

    Returns:
        ``run``, ``plan``, ``images``, ``moved``; ``layers``: of each candidate ``name``, ``kind``, ``cells`` a side,
        ``chosen`` (by the rule) and ``scores``: of ``score_method`` as cells {``value``, ``low``, ``high``, ``n``}, and
        ``moved_gain``, the energy off the centre less that of the blob; ``code``, ``machine``, ``packages``.

    Raises:
        RunFolderError: no run, or its model is not trained.
        ConfigError: no layer has such a name, or a network without candidates.
    """
    recipe = kept_recipe(path)
    if recipe is None:
        raise RunFolderError(f"{path}: is no run", rule="it holds recipe.yaml", next_step="name a run folder")
    if threads:
        torch.set_num_threads(threads)
    context = Context(recipe, RunFolder(path), None)
    model = load_trained(path / plan.role)
    spec = context.spec if plan.role == "student" else context.teacher_spec
    layers = _tried(model, spec.size, plan)
    chosen = {layer.name for layer in target_layers(model, spec.size)}
    cases, weights = _cases(context, model, spec, plan.images)
    settings = method_settings(plan.method, recipe.explain, recipe.seed)
    how = ScoreSettings(seed=recipe.seed, sensitivity_images=0, randomisation_images=plan.random_images)
    found = []
    with StepProgress("candidate layers", steps=len(layers) + 1, console=console) as bar:
        baselines = curve_baselines(NetworkScorer(model), cases, how)
        bar.step()
        for layer in layers:
            (grid,), _ = grids(model, cases.plain.images[:1], [layer.module])
            scores = score_method(
                maps_by(plan.method, settings, layers=[layer.name]), model, cases, how, baselines=baselines
            )
            if "moved_energy" in scores:
                scores["moved_gain"] = scores["moved_energy"] - scores["moved_energy_prior"]
            found.append(
                {
                    "name": layer.name,
                    "kind": layer.kind,
                    "cells": grid.shape[2],
                    "chosen": layer.name in chosen,
                    "scores": {name: cell(values, weights) for name, values in scores.items()},
                }
            )
            bar.step()
    return {
        "run": path.resolve().name,
        "plan": asdict(plan),
        "part": PART,
        "images": len(cases.plain),
        "moved": len(cases.moved),
        "layers": found,
        **origin(),
    }


def _tried(model: torch.nn.Module, size: int, plan: TrialPlan) -> list[TargetLayer]:
    every = candidate_layers(model, size)
    wanted = [layer for layer in every if not plan.only or any(word in layer.name for word in plan.only)]
    if not wanted:
        raise ConfigError(
            f"no layer has {' or '.join(plan.only)} in its name",
            rule=f"candidates are {', '.join(layer.name for layer in every)}",
        )
    return wanted


def _cases(context: Context, model: torch.nn.Module, spec: PreprocessSpec, images: int) -> tuple[Cases, Weights]:
    seed = context.recipe.seed
    catalog = context.catalog.set_index("image_id", drop=False)
    table = catalog.loc[list(dict.fromkeys(context.split.ids(PART)))]
    labels = [encode(code, context.recipe.task) for code in table["diagnosis"]]
    rows = table.iloc[robustness_sample(labels, table["lesion_id"].to_numpy(), images, seed)]
    ids = rows["image_id"].tolist()
    cases = make_cases(pictures_of(catalog, ids), masks_of(catalog, ids), spec, NetworkScorer(model), seed=seed)
    return cases, drawn_weights(context, rows)

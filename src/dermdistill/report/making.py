"""How a student was made, and where it comes from, as facts of a model card."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dermdistill.config import BranchConfig, DistillConfig, ModelConfig, Recipe

WEIGHTS = {
    "none": "random",
    "hub": "pretrained, from the hub of timm",
    "offline": "pretrained on ImageNet, from the extra offline",
}
EXTRA_LOSSES = ("attention", "relational", "self_distillation")
NAMES = {"dirty": "with uncommitted changes", "cpu": "processor"}
_PATH_OR_URL = re.compile(r"(https?://\S+)|(?<![\w.])~?/(?:[^\s/]*/)*([^\s/]+)")
Facts = Iterator[tuple[str, str]]


def pathless(text: str) -> str:
    """A text in which of every absolute path the last part alone is left."""
    return _PATH_OR_URL.sub(lambda found: found[1] or found[2], text)


def making(recipe: Recipe) -> Facts:
    """Student, teacher, distillation, control and seeds, in the order of a reader's questions."""
    student, teacher, distill = recipe.student, recipe.teacher, recipe.student.distill
    yield "Recipe", f"{recipe.name}. {recipe.description}".strip()
    yield "Student", f"{_network(student.model)}; at most {student.epochs} epochs"
    if distill.needs_teacher:
        taken = "trained by another run" if teacher.run else f"at most {teacher.epochs} epochs"
        side = recipe.data.preprocess(teacher.size).size
        yield "Teacher", f"{_network(teacher.model)}; input of {side} x {side} pixels; {taken}"
        yield "Distillation", _distillation(distill)
    else:
        yield "Distillation", "none; the student learnt from labels alone"
    if recipe.has_control:
        yield "Control", "the same student without a teacher; the evaluation of the run compares the two"
    elif distill.needs_teacher:
        yield "Control", "none; nothing here shows that distillation helped"
    yield "Seeds", f"{recipe.seed} of weights, order and views; {recipe.data.seed} of the split"


def origin(provenance: Mapping[str, Any], prefix: str = "") -> Facts:
    """Every value of a provenance by its place, such as ``code commit``; a list as one line, an empty text as none."""
    for key, value in provenance.items():
        name = f"{prefix} {NAMES.get(key, key.replace('_', ' '))}".strip()
        if isinstance(value, Mapping):
            yield from origin(value, name)
        elif value != "":
            yield name, _in_words(value)


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_in_words(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(_in_words(inner) for inner in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _network(model: ModelConfig) -> str:
    branches = " + ".join(_branch(branch) for branch in model.branches)
    exits = f"exits at depths {', '.join(map(str, model.exits))}" if model.exits else "no exits"
    return f"{branches}; {exits}; {'layer fusion' if model.fusion else 'no layer fusion'}"


def _branch(branch: BranchConfig) -> str:
    weights = WEIGHTS.get(branch.weights) or f"from the file {Path(branch.weights).name}"
    cut = f", its first {branch.stages} stages" if branch.stages else ""
    return f"{branch.backbone}{cut} (weights at the start: {weights})"


def _distillation(distill: DistillConfig) -> str:
    terms = [
        f"alpha {distill.alpha:g} (exits and features)",
        f"beta {distill.beta:g} (logits, by the loss {distill.logits_loss})",
        f"gamma {distill.gamma:g} (labels)",
        f"temperature {distill.temperature:g}",
    ]
    terms += [f"{name.replace('_', ' ')} {getattr(distill, name):g}" for name in EXTRA_LOSSES if getattr(distill, name)]
    terms += [f"weights of its own for the exit at depth {stage.depth}" for stage in distill.stages]
    terms += [f"further teachers from other runs: {len(distill.other_teachers)}"] if distill.other_teachers else []
    return ", ".join(terms)

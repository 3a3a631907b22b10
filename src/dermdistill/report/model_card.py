"""``MODEL_CARD.md`` of a bundle: what the model is, what it is not for, what it was made of, and how well it does."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dermdistill.bundle.decisions import Decisions
from dermdistill.bundle.variants import VARIANTS
from dermdistill.config import Recipe
from dermdistill.labels import MELANOMA, class_names, encode
from dermdistill.report import card_evidence
from dermdistill.report.checklists import checklist_markdown
from dermdistill.report.data_terms import UNKNOWN, is_synthetic, terms_of
from dermdistill.report.facts import fact_lines
from dermdistill.report.formats import CLASS_TITLES, TOO_FEW, number
from dermdistill.report.making import making, origin, pathless
from dermdistill.report.markdown import plain, table

NOTICE_FILE = "LICENSE-DATA.md"
UNDEFINED = "not defined on this part"
SUBJECTS = {
    "diagnosis": "which of seven diagnoses a lesion has",
    "melanoma": "whether a lesion is a melanoma",
}
RESIZE = {
    "squash": "both sides are scaled to that",
    "crop": "the shorter side is scaled to that, and the centre is kept",
}
POINTS = {"at_95_sensitivity": "95% sensitivity", "youden": "Youden"}
COLUMNS = {
    "macro_auc": "macro AUC",
    "balanced_accuracy": "balanced accuracy",
    "melanoma_auc": "melanoma AUC",
    "accuracy": "accuracy",
}


@dataclass(frozen=True)
class CardFacts:
    """All that a model card says.

    Attributes:
        recipe: of the run.
        split: content of ``split.json``.
        source: name of the data, as in the catalog. With the word ``synthetic`` in it the lesions were drawn.
        images: in the catalog.
        lesions: in the catalog.
        student_parameters: of the student as it is deployed.
        variants: bytes of each model file of the bundle, by its name in ``VARIANTS``.
        thresholds: by the same name, as in the manifest; None where the validation part gave none.
        figures: one a variant, on the test part, in its own runtime: ``variant``, ``n`` (images), ``macro_auc``,
            ``balanced_accuracy`` and ``melanoma_auc`` (each None where the part does not define it), ``accuracy``, and
            ``same_label``, the share of images with the same label as from the PyTorch student in FP32.
        provenance: ``code``, ``machine`` and ``packages`` of ``provenance.origin()``, and any hashes beside them.
        calibration_images: training images that quantization took its ranges from.
        qat_epochs: epochs of quantization-aware training.
        evaluation: content of ``evaluation.json``; None where the run is not evaluated yet.
        decisions: what the validation part decided, by the same names as the variants; none where it decided nothing.
    """

    recipe: Recipe
    split: Mapping[str, Any]
    source: str
    images: int
    lesions: int
    student_parameters: int
    variants: Mapping[str, int]
    thresholds: Mapping[str, Mapping[str, float | None]]
    figures: Sequence[Mapping[str, Any]]
    provenance: Mapping[str, Any]
    calibration_images: int = 0
    qat_epochs: int = 0
    evaluation: Mapping[str, Any] | None = None
    decisions: Mapping[str, Decisions] = field(default_factory=dict)

    @property
    def leaky(self) -> bool:
        """Whether the protocol promises no disjointness of training and test lesions."""
        return bool(self.split["leaky"])


def data_notice(source: str) -> str | None:
    """The text of ``LICENSE-DATA.md`` for weights trained on a catalog's source; None where no notice is known."""
    notice = terms_of(source).notice
    return None if notice is None else notice.read_text(encoding="utf-8")


def model_card(facts: CardFacts) -> str:
    """The card as Markdown: the same facts give the same text, and no absolute path is in it."""
    sections = {
        "Intended use": _intended(facts),
        "What it is not for": _items(_not_for(facts)),
        "Input and output": _input(facts) + _output(facts) + _decision(facts),
        "When it should abstain": card_evidence.abstention(facts.evaluation, facts.decisions),
        "Files": _files(facts),
        "Training data": _data(facts),
        "How it was made": _facts([*making(facts.recipe), ("Quantization", _quantization(facts))]),
        "Figures": _figures(facts) + card_evidence.headline(facts.evaluation),
        "Calibration": card_evidence.calibration(facts.evaluation, facts.decisions),
        "Operating points": card_evidence.operating_points(facts.evaluation, facts.thresholds),
        "Subgroups": card_evidence.subgroups(facts.evaluation),
        "Robustness": card_evidence.robustness(facts.evaluation),
        "Known limits": _items(_limits(facts)),
        "Licence": f"The code of dermdistill is under the MIT licence. {terms_of(facts.source).licence}\n",
        "Provenance": _facts(origin(facts.provenance)) or "Not recorded.\n",
        "Checklists": checklist_markdown(facts),
    }
    return _head(facts) + "".join(f"\n## {title}\n\n{text}" for title, text in sections.items())


def _items(lines: Iterable[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    return fact_lines([(name, pathless(fact)) for name, fact in facts])


def _text(value: str) -> str:
    return plain(pathless(value))


def _share(value: float | None, digits: int = 3, absent: str = UNDEFINED) -> str:
    return absent if value is None else number(value, digits)


def _head(facts: CardFacts) -> str:
    recipe = facts.recipe
    marks = ["**Research software. Not a medical device. It makes no diagnosis.**"]
    marks += ["**Trained on drawn lesions.** Good for nothing but tests."] if is_synthetic(facts.source) else []
    marks += [_leak(facts)] if facts.leaky else []
    return (
        f"# Model card: {_text(recipe.name)}\n\n"
        f"A network of {facts.student_parameters:,} parameters that says of a dermatoscopic image "
        f"{SUBJECTS[recipe.task]}, with a probability for each class. dermdistill trained it from the recipe "
        f"{_text(recipe.name)}. It is for research: on distillation, quantization and evaluation.\n"
        + "".join(f"\n> {mark}\n" for mark in marks)
    )


def _leak(facts: CardFacts) -> str:
    return (
        f"**LEAKY SPLIT.** The protocol {facts.split['protocol']} lets a lesion be in the training and in the test "
        "part. The figures are too high, and say nothing about lesions that the model has not seen."
    )


def _intended(facts: CardFacts) -> str:
    return (
        "Aim: to find out how small and quick a classifier of dermatoscopic images can be made, and what that costs. "
        "No hypothesis was stated beforehand.\n\n"
        "Users: researchers who compare distillation, quantization or evaluation, and who know the limits below. "
        "It has no role in the care of patients.\n\n"
        f"Target conditions: {len(class_names(facts.recipe.task))} classes, listed below, of lesions that somebody "
        "thought worth a dermatoscopic image.\n"
    )


def _not_for(facts: CardFacts) -> Iterator[str]:
    yield "Clinical use of any kind. It is not a medical device, and was not tested as one."
    yield "A diagnosis, or a decision for or against seeing a doctor."
    yield "Examination of your own skin."
    yield "Images that are not dermatoscopic, such as photos of a phone without a dermatoscope."
    yield terms_of(facts.source).people


def _input(facts: CardFacts) -> str:
    spec = facts.recipe.data.preprocess()
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (spec.mean, spec.std))
    return (
        f"Input: an RGB image of {spec.size} x {spec.size} pixels; {RESIZE[spec.resize]}, bilinear, with antialiasing. "
        f"Its values are divided by 255, and normalised with the means {mean} and the deviations {std}. "
        f"As a tensor: `images`, float32 [batch, 3, {spec.size}, {spec.size}]. "
        "Age, sex and body site are no input.\n\n"
    )


def _output(facts: CardFacts) -> str:
    codes = class_names(facts.recipe.task)
    classes = "".join(f"{place}. `{code}`: {CLASS_TITLES[code]}\n" for place, code in enumerate(codes, start=1))
    return f"Output: a logit a class, of which softmax makes probabilities. The classes in their order:\n\n{classes}\n"


def _decision(facts: CardFacts) -> str:
    split, absent = facts.split, "not defined on the validation part"
    rows = [
        (VARIANTS[name].title, *(_share(facts.thresholds.get(name, {}).get(point), 4, absent) for point in POINTS))
        for name in facts.variants
    ]
    return (
        "Decision: `refer` where the probability of melanoma reaches the threshold for 95% sensitivity. "
        "Every file has its own thresholds. They were chosen on the validation part "
        f"({split['images']['val']:,} images, {split['counts']['val'].get(MELANOMA, 0):,} of them melanomas), "
        "not on the test part.\n\n" + table(("threshold", *POINTS.values()), rows)
    )


def _files(facts: CardFacts) -> str:
    models = [(VARIANTS[name], size) for name, size in facts.variants.items()]
    rows = [(f"`{model.file}`", model.runtime, model.precision, f"{size:,}") for model, size in models]
    listed = table(("file", "runtime", "precision", "bytes"), rows)
    return f"{listed}\n`manifest.json` holds the SHA-256 of every file; `dermdistill bundle verify` checks them.\n"


def _class_counts(facts: CardFacts, part: str) -> dict[str, int]:
    """Images of each class of the task in a part."""
    task = facts.recipe.task
    counts = dict.fromkeys(class_names(task), 0)
    for diagnosis, images in facts.split["counts"][part].items():
        counts[class_names(task)[encode(diagnosis, task)]] += images
    return counts


def _data(facts: CardFacts) -> str:
    split = facts.split
    counts = {part: _class_counts(facts, part) for part in split["images"]}
    rows = [(f"`{code}`", *(f"{own[code]:,}" for own in counts.values())) for code in class_names(facts.recipe.task)]
    rows += [(name, *(f"{split[name][part]:,}" for part in counts)) for name in ("images", "lesions")]
    proven = "By its id no lesion is in two parts, and no exact copy of an image; `audit.json` of the run shows it."
    if not is_synthetic(facts.source) and terms_of(facts.source) is not UNKNOWN:
        proven += " Patients are not recorded: one person may have lesions in two parts."
    repeated = " Images are repeated in it: every copy counts." if sum(split["images"].values()) > facts.images else ""
    return (
        f"Source: {_text(facts.source)}, {facts.images:,} images of {facts.lesions:,} lesions. "
        f"{terms_of(facts.source).labels} {_kind_of_study(facts)}\n\n"
        f"Split by the protocol {split['protocol']}, seed {split['seed']}. "
        f"{_leak(facts) if facts.leaky else proven}{repeated}\n\n" + table(("images of", *counts), rows)
    )


def _kind_of_study(facts: CardFacts) -> str:
    """What was taken before, and what was left out."""
    if is_synthetic(facts.source):
        return "They were drawn before the training."
    used = sum(facts.split["images"].values())
    if used > facts.images:
        left = "Nothing more is known here of what was left out."
    elif used < facts.images:
        left = f"{facts.images - used:,} images of the catalog are in no part."
    else:
        left = "Every image of the catalog is in a part; none was left out."
    if terms_of(facts.source) is UNKNOWN:
        return f"Whether the images were taken for this end is not recorded here. {left}"
    return f"The images were taken before, for other ends (retrospective). {left}"


def _quantization(facts: CardFacts) -> str:
    if all(VARIANTS[name].precision == "fp32" for name in facts.variants):
        return "none"
    method, images = facts.recipe.compress.method, f"{facts.calibration_images:,} training images"
    if facts.qat_epochs:
        return f"{facts.qat_epochs} epochs of quantization-aware training, from ranges on {images}"
    return f"after training, without quantization-aware training; ranges by {method} on {images}"


def _figures(facts: CardFacts) -> str:
    rows = [
        (
            VARIANTS[row["variant"]].title,
            f"{row['n']:,}",
            *(_share(row[name]) for name in COLUMNS),
            f"{round(row['same_label'] * row['n']):,} of {row['n']:,}",
        )
        for row in facts.figures
    ]
    if not rows:
        return "None were made.\n" if facts.evaluation is None else ""
    return (
        (f"{_leak(facts)}\n\n" if facts.leaky else "") + "On the test part, every file in its own runtime. "
        "These are point estimates; their intervals stand in `evaluation/evaluation.json` of the run"
        f"{'' if facts.evaluation is None else ', and below'}. "
        "Same label: images with the same most probable class as from the PyTorch student in FP32.\n\n"
        + table(("model", "images", *COLUMNS.values(), "same label"), rows)
    )


def _limits(facts: CardFacts) -> Iterator[str]:
    few = [f"`{code}` ({n})" for code, n in _class_counts(facts, "test").items() if n <= TOO_FEW]
    if few:
        yield f"Classes with {TOO_FEW} or fewer test images: {', '.join(few)}. What the figures say of them is chance."
    if facts.leaky:
        yield "The split is leaky, see above: no figure here can be compared with one of a lesion-disjoint split."
    yield "The figures are of one training with one seed. Another seed gives others."
    yield "A threshold that held 95% sensitivity on the validation images can miss more melanomas on others."
    shown = facts.evaluation or {}
    spoilt = "The section Robustness shows how much." if shown.get("robustness") else "No figure here shows how much."
    yield f"Ink, rulers, hair, dark corners, another camera or skin can mislead it. {spoilt}"
    yield "Whatever an image shows, healthy skin or no skin at all: it names one of its classes."
    yield "The figures are of one source of images. Other clinics, cameras and patients give others."

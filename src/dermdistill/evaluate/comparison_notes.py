"""What a reader of a comparison must know: chance findings, few cases, few seeds, what is null and why."""

from collections.abc import Iterator, Mapping
from typing import Any

from dermdistill.labels import MELANOMA

FEW_IMAGES = 30
FEW_SEEDS = 5

Json = Mapping[str, Any]


def comparison_notes(result: Json, counts: Mapping[str, Json], repeats: Mapping[str, int]) -> list[str]:
    """Plain sentences about a comparison.

    Args:
        result: of ``compare_rows`` or ``compare_groups``, without its notes.
        counts: {test part: images, lesions, per_class}; the name is empty where all rows share one.
        repeats: {test part: rows that show an image once more}.
    """
    notes = [*_by_chance(result), *_seeds(result)]
    if not result["paired"]:
        notes.append(
            "Each row has a test part of its own, so differences are not paired. Where two test parts share lesions, "
            "the intervals of their difference are somewhat too wide, not too narrow."
        )
    for name, count in counts.items():
        notes += _cases(f"{name}: " if name else "", count["per_class"])
        if repeats[name]:
            images = count["images"] - repeats[name]
            notes.append(f"{name or 'test part'}: {count['images']} rows show {images} different images.")
    return notes


def _by_chance(result: Json) -> Iterator[str]:
    cells = [
        cell
        for row in result["rows"].values()
        for block in row["differences"].values()
        for cell in block.values()
        if cell["verdict"] is not None
    ]
    if cells:
        level = result["bootstrap"]["level"]
        expected = (1 - level) * len(cells)
        yield (
            f"{len(cells)} differences were looked at. Were nothing different at all, about {expected:.2g} of them "
            f"would still have a {100 * level:g}% interval without zero by chance; the intervals are not widened "
            "for that."
        )


def _seeds(result: Json) -> Iterator[str]:
    rows: Mapping[str, Json] = result["rows"]
    one = [name for name, row in rows.items() if len(row["seeds"]) == 1]
    if one:
        yield (
            f"One seed only: {', '.join(one)}. Their intervals hold the choice of test lesions, but not what "
            "training again would change: such a verdict is about two trained models, not about a method."
        )
    single = [
        f"{name} and {other}"
        for name, row in rows.items()
        for other, seeds in row.get("paired_seeds", {}).items()
        if len(seeds) == 1 and name not in one and other not in one
    ]
    if single:
        yield f"One seed in common only: {', '.join(single)}. Their differences rest on that one training."
    few = [name for name, row in rows.items() if 1 < len(row["seeds"]) < FEW_SEEDS]
    if few:
        yield (
            f"Fewer than {FEW_SEEDS} seeds: {', '.join(few)}. How much training again would change is itself known "
            "only roughly, and the intervals can be too narrow where seeds differ more than test lesions do."
        )


def _cases(part: str, per_class: Mapping[str, int]) -> Iterator[str]:
    few = [f"{code} (n = {count})" for code, count in per_class.items() if 0 < count <= FEW_IMAGES]
    if few:
        yield (
            f"{part}{FEW_IMAGES} or fewer test images: {', '.join(few)}. A few images of these classes move "
            "macro AUC, balanced accuracy and macro F1 noticeably."
        )
    missing = [code for code, count in per_class.items() if not count]
    if missing:
        yield (
            f"{part}no test image of {', '.join(missing)}: means over all classes"
            f"{' and the AUC of melanoma' if MELANOMA in missing else ''} are null."
        )

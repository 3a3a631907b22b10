"""What a reader of a summary must know beside its figures, a sentence each."""

from collections.abc import Iterator, Mapping
from typing import Any

from dermdistill.evaluate.notes import FEW
from dermdistill.review.summary_ratings import ALL_MAPS, ALL_SHAMS, NO_BETTER, TOO_FEW, WORSE

SIMULATED = "TEST DATA: all raters are simulated; nobody judged these maps, and no figure here says anything about them"


def summary_notes(summary: Mapping[str, Any]) -> list[str]:
    """Notes on a summary without its ``notes``, the most important first."""
    return [
        *_origin(summary),
        *_verdicts(summary),
        *_numbers(summary),
        *_few_cells(summary),
    ]


def _origin(summary: Mapping[str, Any]) -> Iterator[str]:
    if summary["simulated"]:
        yield SIMULATED
    left_out = summary["left_out"]
    if left_out["answers"]:
        yield (
            f"{left_out['answers']} answers of simulated raters ({', '.join(left_out['simulated_raters'])}) "
            "are test data and in no figure"
        )


def _verdicts(summary: Mapping[str, Any]) -> Iterator[str]:
    if not any(summary["study"]["shams"].values()):
        yield "the study has no sham maps: whether raters judge maps or the look of maps cannot be known from it"
    for scale, block in summary["ratings"]["scales"].items():
        for row in block["differences"]:
            if row["sham"] == ALL_SHAMS and row["verdict"] in (NO_BETTER, WORSE):
                yield (
                    f"{scale}: maps of {row['method'] if row['method'] != ALL_MAPS else 'all methods'} were rated "
                    f"{row['verdict']} (difference {row['value']:+.2f}, 95% interval {row['low']:+.2f} to "
                    f"{row['high']:+.2f}), so these ratings are no evidence for the maps"
                )


def _numbers(summary: Mapping[str, Any]) -> Iterator[str]:
    counts, study = summary["counts"], summary["study"]
    if counts["raters"] == 1:
        yield "one rater: there is no agreement between raters, and intervals hold for this rater alone"
    elif counts["raters"] <= FEW:
        yield f"{counts['raters']} raters, ten or fewer: intervals over so few raters are rough, often too narrow"
    if counts["missing"]:
        yield (
            f"{counts['missing']} of {counts['expected']} answers are missing; figures rest on those that were given"
        )
    shams = sum(study["shams"].values())
    if 0 < shams <= FEW:
        yield f"{shams} sham maps, ten or fewer: comparisons with them say little"
    if not study["repeats"]:
        yield "the study repeats no item: agreement within raters is not known"
    if not summary["regions"]["drawn"]:
        yield "no rater drew a region: agreement of regions with maps is not known"
    yield (
        "McNemar's p takes all changes of diagnosis for independent, which those of one rater or to one image are not; "
        "the intervals of the gain take both into account"
    )


def _few_cells(summary: Mapping[str, Any]) -> Iterator[str]:
    """At most one note: cells with answers, but ten or fewer, which have no figure."""
    named = [f"{name} (n = {count})" for name, count in _cells(summary) if 0 < count <= FEW]
    if named:
        yield f"ten or fewer answers, so no figure: {', '.join(named)}"
    lacking = [
        f"{scale}, {row['method']} against {row['sham']}"
        for scale, block in summary["ratings"]["scales"].items()
        for row in block["differences"]
        if row["verdict"] == TOO_FEW
    ]
    if lacking:
        yield f"too few answers for a comparison: {'; '.join(lacking)}"


def _cells(summary: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for scale, block in summary["agreement"]["scales"].items():
        yield f"{scale}: items rated by two raters", block["alpha"]["items"]
        yield f"{scale}: repeats", block["within"]["pairs"]
        few = block["kappa"]["few"]
        if few:
            yield f"{scale}: common items of {few} pairs of raters", min(p["items"] for p in block["kappa"]["pairs"])
    for scale, block in summary["ratings"]["scales"].items():
        for name, cell in (*block["maps"].items(), *block["shams"].items()):
            yield f"{scale}: {name}", cell["n"]
    for name, cell in summary["diagnosis"]["groups"].items():
        yield f"diagnosis: {name}", cell["n"]
    for name, cell in (*summary["regions"]["maps"].items(), *summary["regions"]["shams"].items()):
        yield f"regions: {name}", cell["n"]

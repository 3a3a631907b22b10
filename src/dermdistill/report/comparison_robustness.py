"""Runs side by side on spoilt pictures: what training with drawn artefacts, or another student, buys there."""

from collections.abc import Mapping
from typing import Any

from dermdistill.report.comparison import Table
from dermdistill.report.formats import estimate, metric_title, model_title

FIGURES = ("macro_auc", "balanced_accuracy", "melanoma_auc")
GROUPS = {"artefact": "Mean over drawn artefacts", "corruption": "Mean over corruptions"}


def robustness_tables(result: Mapping[str, Any]) -> list[Table]:
    """One table a figure, a row for each model of each run: on clean pictures, and means over kinds and severities.

    Args:
        result: of ``pipeline.compare.compare_runs``; no table where its ``robustness`` is null.
    """
    block = result.get("robustness")
    if not block:
        return []
    level = f"{100 * block['level']:g}%"
    images = f"on {block['images']:,} test images, one a lesion"
    return [
        Table(
            f"{metric_title(figure)} on spoilt pictures, {images} ({level} interval)",
            ("", "Clean", *GROUPS.values()),
            tuple(
                (
                    f"{row['run']}: {model_title(row['model'])}",
                    *(str(estimate(cells.get(figure))) for cells in (row["clean"], *map(row["groups"].get, GROUPS))),
                )
                for row in block["rows"]
            ),
        )
        for figure in FIGURES
    ]

"""The block ``diagnosis``: what seeing the model's answer and map did to the raters' diagnoses."""

from math import comb
from typing import Final

import numpy as np

from dermdistill.evaluate.metrics import Bools, Floats
from dermdistill.evaluate.notes import FEW
from dermdistill.review.summary_answers import Answers
from dermdistill.review.summary_bootstrap import Draws, Json, figure, pooled_mean
from dermdistill.review.summary_ratings import ALL_MAPS, map_columns

MODEL_RIGHT: Final = "model_right"
MODEL_WRONG: Final = "model_wrong"
SHAM_MAPS: Final = "sham_maps"


def mcnemar_p(helped: int, harmed: int) -> float:
    """Two-sided exact test that help and harm are equally likely (McNemar, Psychometrika 12:153, 1947).

    The binomial probability of a split at least as uneven as the one seen; 1 where nothing changed. It takes every
    change for independent of the others, which answers of one rater, or to one image, are not.

    Args:
        helped: diagnoses that became right.
        harmed: diagnoses that became wrong.
    """
    changed = helped + harmed
    tail = sum(comb(changed, count) for count in range(min(helped, harmed) + 1))
    return float(min(1.0, 2 * tail / 2**changed))


def diagnosis_block(answers: Answers, draws: Draws) -> Json:
    """Change of diagnosis, with true maps: all, by method, where the model was right, where wrong; and with shams.

    Args:
        answers: of R raters to N items; those with both diagnoses count.
        draws: of the same.

    Returns:
        {``groups``: {name: cell}, ``by_rater``: [cell with ``rater``]}; see ``summary``.
    """
    true = np.array([not item.sham for item in answers.items])
    right = np.array([item.predicted == item.true for item in answers.items])
    groups = {
        **map_columns(answers),
        MODEL_RIGHT: true & right,
        MODEL_WRONG: true & ~right,
        SHAM_MAPS: ~true,
    }
    grids = _grids(answers)
    counted = {name: _counts(grids, columns) | _shares(grids, draws, columns) for name, columns in groups.items()}
    by_rater = [
        {"rater": rater, **_counts({key: grid[place : place + 1] for key, grid in grids.items()}, true)}
        for place, rater in enumerate(answers.raters)
    ]
    return {"groups": counted, "by_rater": by_rater, "headline": ALL_MAPS if true.any() else None}


def _grids(answers: Answers) -> dict[str, Floats]:
    """``before``, ``after``: right or not; ``changed``; ``to_model``: changed to the model's answer. 1, 0 or NaN."""
    frame, by_name = answers.frame, {item.item: item for item in answers.study.items}
    true = frame["item"].map(lambda name: by_name[name].true)
    predicted = frame["item"].map(lambda name: by_name[name].predicted)
    whole = (frame["before"] != "") & (frame["after"] != "")
    changed = frame["before"] != frame["after"]
    columns = {
        "before": frame["before"] == true,
        "after": frame["after"] == true,
        "changed": changed,
        "to_model": changed & (frame["after"] == predicted),
    }
    return {name: answers.grid(column.astype(float).where(whole)) for name, column in columns.items()}


def _counts(grids: dict[str, Floats], columns: Bools) -> Json:
    own = {name: grid[:, columns] for name, grid in grids.items()}
    helped = int(((own["before"] == 0) & (own["after"] == 1)).sum())
    harmed = int(((own["before"] == 1) & (own["after"] == 0)).sum())
    n = int((~np.isnan(own["before"])).sum())
    return {
        "n": n,
        "right_before": int(np.nansum(own["before"])),
        "right_after": int(np.nansum(own["after"])),
        "changed": int(np.nansum(own["changed"])),
        "changed_to_model": int(np.nansum(own["to_model"])),
        "helped": helped,
        "harmed": harmed,
        "harmed_by_model": int(((own["before"] == 1) & (own["after"] == 0) & (own["to_model"] == 1)).sum()),
        "mcnemar_p": mcnemar_p(helped, harmed) if n > FEW else None,
    }


def _shares(grids: dict[str, Floats], draws: Draws, columns: Bools) -> Json:
    n = int((~np.isnan(grids["before"][:, columns])).sum())
    gain = grids["after"] - grids["before"]
    return {
        "share_before": figure(pooled_mean(draws, grids["before"], columns), n),
        "share_after": figure(pooled_mean(draws, grids["after"], columns), n),
        "gain": figure(pooled_mean(draws, gain, columns), n),
    }

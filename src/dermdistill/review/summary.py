"""What the answers of a study say, as one JSON-able dict: the content of ``summary.json``.

Every number comes from answers that raters gave; without answers there is an error and no summary. Simulated raters
(test data) never mix with people: where people have answered the simulated ones are left out, where nobody has the
summary and each of its blocks carry ``simulated: true``, and that must be said wherever a figure of it is shown.

``FIG`` is ``{value, low, high}``, a figure with its 95% percentile interval, all null where it is not defined or rests
on ten answers or fewer. ``SHARE`` is ``{count, n, value}``, ``value`` null where ``n`` is ten or less. Repeats (items
shown twice) count in ``counts``, ``time`` and agreement within raters; all else rests on first showings. ::

    format        1
    title         of the study
    simulated     true where all answers are test data
    left_out      {simulated_raters: [name], answers}     test data that is not in any figure
    study         {seed, created, classes, items, originals, repeats, methods: {method: true maps},
                   shams: {kind: n}, model_right, model_wrong}                 (numbers of items)
    counts        {raters, answers, expected, missing, whole, comments, regions, blank: {field: answers without it},
                   unanswered_items: [item], raters_of_item: {least, most}, simulated,
                   by_rater: [{rater, answers, missing, simulated}]}
                  expected: raters with any answer x items; whole: raters who answered every item
    agreement     {simulated, scales: {SCALE: {
        alpha             {value, low, high, items, band, band_of_low}      Krippendorff, ordinal; interval over items
        alpha_true_maps   the same, items with sham maps left out
        kappa             {mean: FIG, few, pairs: [{first, second, items, value}]}     quadratic weights;
                          few: pairs with ten common items or fewer, not in the mean; interval over items
        within            {pairs, same: SHARE, within_one: SHARE, mean_distance, kappa: FIG,
                           by_rater: [{rater, pairs, same, within_one, mean_distance, kappa: number or null}]} }}}
                  band: "strong" from .80, "tentative" from .67, else "insufficient"; of_low: of the interval's low end
    ratings       {simulated, scales: {SCALE: {
        maps              {"all_maps" or METHOD: CELL}         shams  {"all" or KIND: CELL}
                          CELL = {n, items, raters, counts: [n of level 1 .. 5], mean: FIG}
        differences       [{method, sham, value, low, high, n_maps, n_shams, sham_items, raters, verdict}] }}}
                  mean over raters of each one's own difference; interval over raters and items; verdict one of
                  "better than the shams", "no better than the shams", "worse than the shams", "too few answers"
    diagnosis     {simulated, headline: "all_maps" or null, groups: {"all_maps", METHOD, "model_right", "model_wrong",
                   "sham_maps": CELL + {share_before: FIG, share_after: FIG, gain: FIG}}, by_rater: [CELL + rater]}
                  CELL = {n, right_before, right_after, changed, changed_to_model, helped, harmed, harmed_by_model,
                          mcnemar_p}; all groups but "sham_maps", and by_rater, rest on true maps
    regions       {simulated, drawn, area: FIG, centre_sigma, maps: {"all_maps" or METHOD: CELL}, shams: {...}}
                  CELL = {n, iou, prior_iou, iou_gain, energy, prior_energy, energy_gain: FIG}; gain: less the prior's
    time          {simulated, n, median, low_quartile, high_quartile (seconds an item),
                   by_rater: [{rater, n, median}]}
    bootstrap     {samples, seed, level, over: ["raters", "lesions"]}
    few           10
    notes         [sentence]                              what a reader must know; to be shown with the figures

SCALE is ``spatial``, ``trust`` or ``usefulness``; KIND ``centre_prior`` or ``other_image``.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import pandas as pd

from dermdistill.evaluate.bootstrap import LEVEL
from dermdistill.evaluate.notes import FEW
from dermdistill.review.study import Study
from dermdistill.review.study_faults import SHAMS
from dermdistill.review.summary_agreement import agreement_block
from dermdistill.review.summary_answers import SCALES, Answers, check_answers
from dermdistill.review.summary_bootstrap import Draws, Json, draw
from dermdistill.review.summary_diagnosis import diagnosis_block
from dermdistill.review.summary_notes import summary_notes
from dermdistill.review.summary_ratings import ratings_block
from dermdistill.review.summary_regions import Map, regions_block

FORMAT: Final = 1
SAMPLES: Final = 2000


def summarise(
    study: Study, answers: pd.DataFrame, maps: Callable[[str], Map], *, samples: int = SAMPLES, seed: int = 0
) -> Json:
    """What the answers to a study say; the module's docstring lists the fields.

    Args:
        study: that was answered.
        answers: table of ``summary_answers.COLUMNS``; it is checked here.
        maps: item -> heat map uint8 [H, W], as raters saw it; asked for items with a drawn region.
        samples: bootstrap replicates.
        seed: of the bootstrap.

    Raises:
        DataError: no answers, or faults in them.
        ConfigError: fewer than one sample.
    """
    checked = check_answers(answers, study)
    invented = checked["simulated"].to_numpy(dtype=bool)
    simulated = bool(invented.all())
    left_out = checked[invented] if not simulated else checked[:0]
    own = Answers.of(study, checked if simulated else checked[~invented])
    draws = _draws(own, samples, seed)
    mark = {"simulated": simulated}
    summary: Json = {
        "format": FORMAT,
        "title": study.title,
        **mark,
        "left_out": {"simulated_raters": sorted(set(left_out["rater"].tolist())), "answers": len(left_out)},
        "study": _study_block(study),
        "counts": {**mark, **_counts(own)},
        "agreement": {**mark, "scales": agreement_block(own, draws, samples=samples, seed=seed)},
        "ratings": {**mark, "scales": ratings_block(own, draws)},
        "diagnosis": {**mark, **diagnosis_block(own, draws)},
        "regions": {**mark, **regions_block(own, draws, maps)},
        "time": {**mark, **_time_block(own)},
        "bootstrap": {"samples": samples, "seed": seed, "level": LEVEL, "over": ["raters", "lesions"]},
        "few": FEW,
    }
    return {**summary, "notes": summary_notes(summary)}


def _draws(answers: Answers, samples: int, seed: int) -> Draws:
    """Lesions are drawn within their method and kind of sham."""
    groups = [f"{item.method} {item.sham}" for item in answers.items]
    lesions = [item.lesion_id for item in answers.items]
    return draw(len(answers.raters), lesions, groups, samples=samples, seed=seed)


def _study_block(study: Study) -> Json:
    originals = [item for item in study.items if not item.repeat_of]
    methods = sorted({item.method for item in originals if not item.sham})
    right = sum(item.predicted == item.true for item in originals)
    return {
        "seed": study.seed,
        "created": study.created,
        "classes": list(study.classes),
        "items": len(study.items),
        "originals": len(originals),
        "repeats": len(study.items) - len(originals),
        "methods": {name: sum(item.method == name and not item.sham for item in originals) for name in methods},
        "shams": {kind: sum(item.sham == kind for item in originals) for kind in SHAMS},
        "model_right": right,
        "model_wrong": len(originals) - right,
    }


def _counts(answers: Answers) -> Json:
    frame, names = answers.frame, [item.item for item in answers.study.items]
    expected = len(answers.raters) * len(names)
    by_rater = frame.groupby("rater").agg(answers=("item", "size"), simulated=("simulated", "first"))
    by_item = frame["item"].value_counts().reindex(names, fill_value=0)
    blank = {name: int((frame[name] == "").sum()) for name in ("before", "after")}
    return {
        "raters": len(answers.raters),
        "answers": len(frame),
        "expected": expected,
        "missing": expected - len(frame),
        "whole": int((by_rater["answers"] == len(names)).sum()),
        "comments": int((frame["comment"].str.strip() != "").sum()),
        "regions": int(frame["region"].isin(["", "[]"]).eq(False).sum()),
        "blank": {**blank, **{name: int(frame[name].isna().sum()) for name in (*SCALES, "seconds")}},
        "unanswered_items": sorted(str(name) for name in by_item.index[by_item == 0]),
        "raters_of_item": {"least": int(by_item.min()), "most": int(by_item.max())},
        "by_rater": [
            {
                "rater": str(rater),
                "answers": int(row["answers"]),
                "missing": len(names) - int(row["answers"]),
                "simulated": bool(row["simulated"]),
            }
            for rater, row in by_rater.iterrows()
        ],
    }


def _time_block(answers: Answers) -> Json:
    frame = answers.frame
    seconds = frame["seconds"].to_numpy(dtype=np.float64)
    known = seconds[~np.isnan(seconds)]
    quartiles = np.quantile(known, [0.25, 0.5, 0.75]).tolist() if len(known) else [None] * 3
    by_rater = []
    for rater in answers.raters:
        own = seconds[(frame["rater"] == rater).to_numpy() & ~np.isnan(seconds)]
        by_rater.append({"rater": rater, "n": len(own), "median": float(np.median(own)) if len(own) else None})
    return {
        "n": len(known),
        "low_quartile": quartiles[0],
        "median": quartiles[1],
        "high_quartile": quartiles[2],
        "by_rater": by_rater,
    }

"""Summaries of a whole study against the same counted in plain Python, krippendorff, scikit-learn and scipy."""

import dataclasses
import json
from collections.abc import Callable
from itertools import combinations
from typing import Any

import krippendorff
import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from dermdistill.errors import ConfigError, DataError
from dermdistill.review.study import Study, StudyItem
from dermdistill.review.summary import summarise
from dermdistill.review.summary_answers import SCALES
from dermdistill.review.summary_diagnosis import mcnemar_p
from dermdistill.review.summary_notes import SIMULATED
from dermdistill.review.summary_ratings import BETTER, NO_BETTER, TOO_FEW, WORSE
from dermdistill.review.summary_regions import centre_prior, energy_inside, equal_area_iou, rasterise

CLASSES = ("bcc", "mel", "nv")
RATERS = ("ada", "ben", "cem", "dia")
SAMPLES = 300
SQUARE = "[[[0.1,0.1],[0.5,0.1],[0.5,0.6],[0.1,0.6]]]"
SIZE = (24, 32)


def make_study(originals: int = 36, repeats: int = 4) -> Study:
    """A third of the items shams; methods take turns; the model is wrong in every fourth."""
    items = []
    for number in range(originals):
        true = CLASSES[number % 3]
        predicted = CLASSES[(number + 1) % 3] if number % 4 == 0 else true
        sham = ("", "", "centre_prior" if number % 2 else "other_image")[number % 3]
        method = ("grad_cam", "lime")[number // 3 % 2]
        probs = {code: 0.8 if code == predicted else 0.1 for code in CLASSES}
        items.append(
            StudyItem(f"i{number:02}", f"image{number}", f"lesion{number}", true, predicted, probs, method, sham)
        )
    again = [dataclasses.replace(item, item=f"r{item.item}", repeat_of=item.item) for item in items[:repeats]]
    return Study("Reading room", 4, "2026-01-31T10:00:00+00:00", CLASSES, (*items, *again))


def make_answers(study: Study, raters: tuple[str, ...] = RATERS, *, seed: int = 0, **fixed: Any) -> pd.DataFrame:
    """Answers about the items' own levels and classes; some are missing, some have gaps or a drawing."""
    rng = np.random.default_rng(seed)
    rows = []
    for rater in raters:
        for item in study.items:
            level = 1 + int(item.lesion_id.removeprefix("lesion")) * 7 % 5
            row: dict[str, Any] = {"rater": rater, "item": item.item, "comment": "", "region": ""}
            row["before"] = item.true if rng.random() < 0.6 else str(rng.choice(CLASSES))
            row["after"] = item.predicted if rng.random() < 0.4 else row["before"]
            row |= {scale: int(np.clip(level + rng.integers(-1, 2), 1, 5)) for scale in SCALES}
            row |= {"seconds": float(rng.integers(5, 60)), "answered_at": "2026-02-01", "simulated": False}
            row["region"] = SQUARE if rng.random() < 0.7 else ""
            rows.append({**row, **fixed})
    frame = pd.DataFrame(rows).astype(object)
    frame.loc[rng.choice(len(frame), 6, replace=False), "trust"] = None
    kept = rng.permutation(len(frame))[: len(frame) - 8]
    return frame.iloc[np.sort(kept)].reset_index(drop=True)


def map_of(item: str) -> np.ndarray:
    seed = int("".join(filter(str.isdigit, item)))
    return np.random.default_rng(seed).integers(0, 256, SIZE).astype(np.uint8)


def no_map(item: str) -> np.ndarray:
    raise AssertionError(f"the map of {item} was asked for, though nobody drew on it")


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study()


@pytest.fixture(scope="module")
def answers(study: Study) -> pd.DataFrame:
    return make_answers(study)


@pytest.fixture(scope="module")
def summary(study: Study, answers: pd.DataFrame) -> dict[str, Any]:
    return summarise(study, answers, map_of, samples=SAMPLES, seed=1)


@pytest.fixture(scope="module")
def rows(study: Study, answers: pd.DataFrame) -> list[dict[str, Any]]:
    """Answers to originals, each with what its item is."""
    by_name = {item.item: dataclasses.asdict(item) for item in study.items}
    joined = [{**by_name[row["item"]], **row} for row in answers.to_dict("records")]
    return [row for row in joined if not row["repeat_of"]]


def levels(rows: list[dict[str, Any]], scale: str, keep: Callable[[dict[str, Any]], bool]) -> list[float]:
    return [float(row[scale]) for row in rows if keep(row) and row[scale] is not None]


def table(rows: list[dict[str, Any]], scale: str) -> np.ndarray:
    names = sorted({row["item"] for row in rows})
    found = np.full((len(RATERS), len(names)), np.nan)
    for row in rows:
        if row[scale] is not None:
            found[RATERS.index(row["rater"]), names.index(row["item"])] = row[scale]
    return found


@pytest.mark.parametrize("scale", SCALES)
def test_agreement_is_that_of_the_packages(summary: dict[str, Any], rows: list[dict[str, Any]], scale: str):
    found = summary["agreement"]["scales"][scale]
    for name, own in (("alpha", rows), ("alpha_true_maps", [row for row in rows if not row["sham"]])):
        expected = krippendorff.alpha(table(own, scale), level_of_measurement="ordinal", value_domain=[1, 2, 3, 4, 5])
        assert found[name]["value"] == pytest.approx(expected, abs=1e-9)
        assert found[name]["low"] < expected < found[name]["high"]
    ratings, kappas = table(rows, scale), []
    for pair, (first, second) in zip(found["kappa"]["pairs"], combinations(range(4), 2), strict=True):
        common = ~np.isnan(ratings[first] + ratings[second])
        kappas.append(cohen_kappa_score(ratings[first][common], ratings[second][common], weights="quadratic"))
        assert (pair["first"], pair["second"], pair["items"]) == (RATERS[first], RATERS[second], common.sum())
        assert pair["value"] == pytest.approx(kappas[-1], abs=1e-9)
    assert found["kappa"]["mean"]["value"] == pytest.approx(np.mean(kappas), abs=1e-9)
    assert found["kappa"]["mean"]["low"] < np.mean(kappas) < found["kappa"]["mean"]["high"]


def test_agreement_within_raters_compares_repeats_with_their_originals(
    study: Study, answers: pd.DataFrame, summary: dict[str, Any]
):
    given = {(row["rater"], row["item"]): row["trust"] for row in answers.to_dict("records")}
    pairs = [
        (rater, given[rater, item.repeat_of], given[rater, item.item])
        for rater in RATERS
        for item in study.items
        if item.repeat_of and given.get((rater, item.repeat_of)) and given.get((rater, item.item))
    ]
    found = summary["agreement"]["scales"]["trust"]["within"]
    assert found["pairs"] == len(pairs) > 10
    assert found["same"]["count"] == sum(x == y for _, x, y in pairs)
    assert found["within_one"]["value"] == sum(abs(x - y) <= 1 for _, x, y in pairs) / len(pairs)
    assert found["mean_distance"] == pytest.approx(np.mean([abs(x - y) for _, x, y in pairs]))
    expected = cohen_kappa_score(*zip(*[(x, y) for _, x, y in pairs], strict=True), weights="quadratic")
    assert found["kappa"]["value"] == pytest.approx(expected, abs=1e-9)
    for own in found["by_rater"]:
        mine = [(x, y) for rater, x, y in pairs if rater == own["rater"]]
        assert (own["pairs"], own["same"]["count"]) == (len(mine), sum(x == y for x, y in mine))
        assert own["same"]["value"] is None and own["kappa"] is None and own["mean_distance"] is None


@pytest.mark.parametrize("scale", SCALES)
def test_ratings_are_counted_by_method_and_by_sham(summary: dict[str, Any], rows: list[dict[str, Any]], scale: str):
    block = summary["ratings"]["scales"][scale]
    groups: dict[tuple[str, str], Callable[[dict[str, Any]], bool]] = {
        ("maps", "all_maps"): lambda row: not row["sham"],
        ("maps", "grad_cam"): lambda row: not row["sham"] and row["method"] == "grad_cam",
        ("maps", "lime"): lambda row: not row["sham"] and row["method"] == "lime",
        ("shams", "all"): lambda row: bool(row["sham"]),
        ("shams", "centre_prior"): lambda row: row["sham"] == "centre_prior",
        ("shams", "other_image"): lambda row: row["sham"] == "other_image",
    }
    assert {(kind, name) for kind in ("maps", "shams") for name in block[kind]} == set(groups)
    for (kind, name), keep in groups.items():
        own, cell = levels(rows, scale, keep), block[kind][name]
        assert (cell["n"], cell["counts"]) == (len(own), [own.count(level) for level in range(1, 6)])
        assert cell["mean"]["value"] == pytest.approx(np.mean(own))
        assert cell["mean"]["low"] <= np.mean(own) <= cell["mean"]["high"]
    for row in block["differences"]:
        maps, shams = groups["maps", row["method"]], groups["shams", row["sham"]]
        gaps = [
            np.mean(levels(mine, scale, maps)) - np.mean(levels(mine, scale, shams))
            for mine in ([one for one in rows if one["rater"] == rater] for rater in RATERS)
        ]
        assert row["value"] == pytest.approx(np.mean(gaps)) and row["raters"] == 4
        assert row["n_maps"] == len(levels(rows, scale, maps)) and row["n_shams"] == len(levels(rows, scale, shams))
    assert len(block["differences"]) == 9


def test_change_of_diagnosis_is_counted(summary: dict[str, Any], rows: list[dict[str, Any]]):
    groups: dict[str, Callable[[dict[str, Any]], bool]] = {
        "all_maps": lambda row: not row["sham"],
        "grad_cam": lambda row: not row["sham"] and row["method"] == "grad_cam",
        "lime": lambda row: not row["sham"] and row["method"] == "lime",
        "model_right": lambda row: not row["sham"] and row["predicted"] == row["true"],
        "model_wrong": lambda row: not row["sham"] and row["predicted"] != row["true"],
        "sham_maps": lambda row: bool(row["sham"]),
    }
    assert set(summary["diagnosis"]["groups"]) == set(groups)
    for name, keep in groups.items():
        cell, own = summary["diagnosis"]["groups"][name], [row for row in rows if keep(row)]
        check_changes(cell, own)
        before, after = (sum(row[when] == row["true"] for row in own) / len(own) for when in ("before", "after"))
        assert cell["share_before"]["value"] == pytest.approx(before)
        assert cell["share_after"]["value"] == pytest.approx(after)
        assert cell["gain"]["value"] == pytest.approx(after - before)
        assert cell["gain"]["low"] <= after - before <= cell["gain"]["high"]
    wrong = summary["diagnosis"]["groups"]["model_wrong"]
    assert wrong["harmed_by_model"] > 0 and summary["diagnosis"]["headline"] == "all_maps"
    for own in summary["diagnosis"]["by_rater"]:
        check_changes(own, [row for row in rows if row["rater"] == own["rater"] and not row["sham"]])


def check_changes(cell: dict[str, Any], own: list[dict[str, Any]]) -> None:
    right = [(row["before"] == row["true"], row["after"] == row["true"]) for row in own]
    helped, harmed = right.count((False, True)), right.count((True, False))
    changed = [row for row in own if row["before"] != row["after"]]
    assert cell["n"] == len(own) and (cell["helped"], cell["harmed"]) == (helped, harmed)
    assert cell["right_before"] == sum(before for before, _ in right)
    assert cell["right_after"] == sum(after for _, after in right)
    assert cell["changed"] == len(changed)
    assert cell["changed_to_model"] == sum(row["after"] == row["predicted"] for row in changed)
    harm = [row for row in changed if row["before"] == row["true"] != row["after"]]
    assert cell["harmed_by_model"] == sum(row["after"] == row["predicted"] for row in harm)
    assert cell["mcnemar_p"] == pytest.approx(binomtest(helped, helped + harmed).pvalue if helped + harmed else 1.0)


def test_mcnemar_is_the_exact_binomial_test():
    for helped in range(12):
        for harmed in range(12):
            expected = binomtest(helped, helped + harmed).pvalue if helped + harmed else 1.0
            assert mcnemar_p(helped, harmed) == pytest.approx(expected, abs=1e-12)
    assert mcnemar_p(2000, 1900) == pytest.approx(binomtest(2000, 3900).pvalue, abs=1e-9)


def test_regions_are_compared_with_maps_and_with_the_centre(summary: dict[str, Any], rows: list[dict[str, Any]]):
    drawn = [row for row in rows if row["region"]]
    mask, prior = rasterise([[(0.1, 0.1), (0.5, 0.1), (0.5, 0.6), (0.1, 0.6)]], *SIZE), centre_prior(*SIZE)
    block = summary["regions"]
    assert block["drawn"] == len(drawn) and block["area"]["value"] == pytest.approx(mask.mean())
    cells = {
        ("maps", "lime"): [row for row in drawn if row["method"] == "lime" and not row["sham"]],
        ("shams", "centre_prior"): [row for row in drawn if row["sham"] == "centre_prior"],
    }
    for (kind, name), own in cells.items():
        cell = block[kind][name]
        assert cell["n"] == len(own) > 10
        for figure, measure in (("iou", equal_area_iou), ("energy", energy_inside)):
            values = [measure(map_of(row["item"]), mask) for row in own]
            assert cell[figure]["value"] == pytest.approx(np.mean(values))
            assert cell[f"prior_{figure}"]["value"] == pytest.approx(measure(prior, mask))
            assert cell[f"{figure}_gain"]["value"] == pytest.approx(np.mean(values) - measure(prior, mask))


def test_map_without_heat_has_overlap_but_no_energy(study: Study, answers: pd.DataFrame):
    block = summarise(study, answers, lambda item: np.zeros(SIZE, np.uint8), samples=20)["regions"]
    cell = block["maps"]["all_maps"]
    assert cell["energy"]["value"] is cell["prior_energy"]["value"] is cell["energy_gain"]["value"] is None
    assert cell["iou"]["value"] > 0 and cell["prior_iou"]["value"] > 0


def test_counts_and_times(summary: dict[str, Any], study: Study, answers: pd.DataFrame):
    counts = summary["counts"]
    assert (counts["raters"], counts["expected"], counts["answers"], counts["missing"]) == (4, 160, 152, 8)
    assert counts["regions"] == (answers["region"] != "").sum() and counts["comments"] == 0
    assert counts["blank"]["trust"] == answers["trust"].isna().sum() and counts["blank"]["spatial"] == 0
    sizes = answers.groupby("rater").size()
    assert {own["rater"]: own["answers"] for own in counts["by_rater"]} == sizes.to_dict()
    assert counts["whole"] == (sizes == 40).sum()
    assert summary["time"]["median"] == answers["seconds"].astype(float).median()
    medians = answers.astype({"seconds": float}).groupby("rater")["seconds"].median()
    assert {own["rater"]: own["median"] for own in summary["time"]["by_rater"]} == medians.to_dict()
    found = summary["study"]
    assert (found["originals"], found["repeats"], found["model_wrong"]) == (36, 4, 9)
    assert found["methods"] == {"grad_cam": 12, "lime": 12} and sum(found["shams"].values()) == 12


def test_item_that_nobody_answered_is_named(study: Study, answers: pd.DataFrame):
    counts = summarise(study, answers[answers["item"] != "i05"], map_of, samples=20)["counts"]
    assert counts["unanswered_items"] == ["i05"] and counts["raters_of_item"]["least"] == 0


def test_summary_is_json_and_the_same_again(summary: dict[str, Any], study: Study, answers: pd.DataFrame):
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    shuffled = answers.sample(frac=1, random_state=2)
    assert summarise(study, shuffled, map_of, samples=SAMPLES, seed=1) == summary


def rated(study: Study, spatial: Callable[[StudyItem, np.random.Generator], int]) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    by_name = {item.item: item for item in study.items}
    answers = make_answers(study, region="")
    return answers.assign(spatial=[spatial(by_name[name], rng) for name in answers["item"]])


@pytest.mark.parametrize(
    ("spatial", "verdict"),
    [
        (lambda item, rng: rng.integers(1, 3) if item.sham else rng.integers(4, 6), BETTER),
        (lambda item, rng: rng.integers(1, 6), NO_BETTER),
        (lambda item, rng: rng.integers(4, 6) if item.sham else rng.integers(1, 3), WORSE),
    ],
)
def test_maps_must_be_rated_above_the_shams(study: Study, spatial: Any, verdict: str):
    found = summarise(study, rated(study, spatial), no_map, samples=SAMPLES)
    rows = found["ratings"]["scales"]["spatial"]["differences"]
    assert [row["verdict"] for row in rows if row["sham"] == "all"] == [verdict] * 3
    named = [note for note in found["notes"] if note.startswith("spatial: maps of all methods")]
    assert len(named) == (verdict != BETTER)
    assert all(verdict in note and "no evidence for the maps" in note for note in named)


def test_study_without_shams_says_that_it_lacks_them(answers: pd.DataFrame):
    study = make_study()
    bare = dataclasses.replace(study, items=tuple(dataclasses.replace(item, sham="") for item in study.items))
    found = summarise(bare, answers, map_of, samples=20)
    assert found["ratings"]["scales"]["trust"]["shams"] == {}
    assert found["ratings"]["scales"]["trust"]["differences"] == []
    assert any("no sham maps" in note for note in found["notes"])


def test_few_answers_are_named_and_have_no_figure(study: Study, answers: pd.DataFrame):
    found = summarise(study, answers[answers["rater"] == "ada"].head(9), map_of, samples=20)
    assert found["agreement"]["scales"]["trust"]["alpha"]["value"] is None
    assert found["agreement"]["scales"]["trust"]["alpha"]["band"] is None
    ratings = found["ratings"]["scales"]["spatial"]
    assert ratings["maps"]["all_maps"]["mean"] == {"value": None, "low": None, "high": None}
    assert sum(ratings["maps"]["all_maps"]["counts"]) == ratings["maps"]["all_maps"]["n"] > 0
    assert {row["verdict"] for row in ratings["differences"]} == {TOO_FEW}
    group = found["diagnosis"]["groups"]["all_maps"]
    assert group["share_before"]["value"] is group["gain"]["value"] is group["mcnemar_p"] is None
    assert found["regions"]["maps"]["all_maps"]["iou"]["value"] is None
    text = "\n".join(found["notes"])
    assert "one rater: there is no agreement" in text and "ten or fewer answers, so no figure: " in text
    assert f"diagnosis: all_maps (n = {group['n']})" in text


def test_simulated_raters_are_marked_everywhere(study: Study):
    found = summarise(study, make_answers(study, simulated=True), map_of, samples=20)
    blocks = ("counts", "agreement", "ratings", "diagnosis", "regions", "time")
    assert found["simulated"] is True and all(found[name]["simulated"] is True for name in blocks)
    assert all(own["simulated"] for own in found["counts"]["by_rater"])
    assert found["notes"][0] == SIMULATED


def test_simulated_raters_never_mix_with_people(study: Study, answers: pd.DataFrame, summary: dict[str, Any]):
    invented = make_answers(study, ("robot", "puppet"), seed=9, simulated=True)
    found = summarise(study, pd.concat([answers, invented]), map_of, samples=SAMPLES, seed=1)
    assert found["left_out"] == {"simulated_raters": ["puppet", "robot"], "answers": len(invented)}
    assert found["simulated"] is False
    skipped = ("left_out", "notes")
    assert {k: v for k, v in found.items() if k not in skipped} == {
        k: v for k, v in summary.items() if k not in skipped
    }
    assert "(puppet, robot) are test data and in no figure" in found["notes"][0]


def test_no_answers_give_no_summary(study: Study, answers: pd.DataFrame):
    with pytest.raises(DataError, match="no rater has answered yet"):
        summarise(study, answers.head(0), map_of)


def test_no_samples_are_refused(study: Study, answers: pd.DataFrame):
    with pytest.raises(ConfigError, match="0 bootstrap samples"):
        summarise(study, answers, map_of, samples=0)

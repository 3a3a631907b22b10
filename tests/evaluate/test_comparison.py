"""Comparisons against scikit-learn on explicit resamples, verdicts by construction, and every refusal."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from dermdistill.errors import ConfigError, DataError
from dermdistill.evaluate import bootstrap
from dermdistill.evaluate.comparison import compare_groups, compare_rows, verdict
from dermdistill.evaluate.predictions import predictions_frame, prob_columns
from dermdistill.evaluate.retrained import Retrained, seed_shares
from dermdistill.labels import CODES

COUNTS = dict(zip(CODES, (9, 8, 12, 8, 14, 45, 9), strict=True))
SAMPLES = 60
METRICS = ["macro_auc", "balanced_accuracy", "melanoma_auc", "accuracy", "macro_f1"]


def catalog(prefix: str = "i", copies: int = 1) -> pd.DataFrame:
    diagnoses = np.repeat(list(COUNTS), [count * copies for count in COUNTS.values()])
    names = [f"{prefix}{index}" for index in range(len(diagnoses))]
    # Every third lesion has two photographs of one diagnosis.
    lesions = [f"{prefix}{code}-{index // 3 * 3 + min(index % 3, 1)}" for index, code in enumerate(diagnoses)]
    return pd.DataFrame({"image_id": names, "lesion_id": lesions, "diagnosis": diagnoses})


def trained(skill: float, seed: int, rows: pd.DataFrame | None = None, name: str = "arm") -> pd.DataFrame:
    rows = catalog() if rows is None else rows
    logits = np.random.default_rng(seed).normal(size=(len(rows), len(CODES)))
    logits[np.arange(len(rows)), [CODES.index(code) for code in rows["diagnosis"]]] += skill
    return predictions_frame(name, "test", rows, logits, "diagnosis", models=None)


def seeds(skill: float, first: int, count: int = 3) -> dict[int, pd.DataFrame]:
    return {seed: trained(skill, first + seed) for seed in range(count)}


def compared(rows, *, samples=SAMPLES, **options):
    return compare_rows(rows, control="control", task="diagnosis", samples=samples, seed=4, **options)


def sklearn_figures(labels: np.ndarray, probs: np.ndarray) -> dict[str, float]:
    predicted = probs.argmax(axis=1)
    aucs = [oracle.roc_auc_score(labels == k, probs[:, k]) for k in range(len(CODES)) if (labels == k).any()]
    return {
        "macro_auc": float(np.mean(aucs)),
        "balanced_accuracy": oracle.recall_score(
            labels, predicted, labels=np.unique(labels), average="macro", zero_division=0
        ),
        "melanoma_auc": oracle.roc_auc_score(labels == 4, probs[:, 4]),
        "accuracy": oracle.accuracy_score(labels, predicted),
        "macro_f1": oracle.f1_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0),
    }


def resampled(frames: dict[int, pd.DataFrame], samples: int) -> dict[str, np.ndarray]:
    """{metric: [R, S]}, each from rows that are really repeated, measured by scikit-learn."""
    figures = []
    for frame in frames.values():
        ordered = frame.sort_values("image_id", kind="stable")
        labels, probs = ordered["label"].to_numpy(), ordered[prob_columns("diagnosis")].to_numpy(dtype=np.float64)
        weights = bootstrap.lesion_weights(ordered["lesion_id"], samples=samples, seed=4)
        drawn = [np.repeat(np.arange(len(labels)), times) for times in weights]
        figures.append([sklearn_figures(labels[rows], probs[rows]) for rows in drawn])
    return {name: np.array([[one[name] for one in row] for row in figures]) for name in METRICS}


def test_figures_and_differences_equal_scikit_learn_on_explicit_resamples():
    rows = {"control": seeds(1.2, 0, 2), "arm": seeds(1.5, 50, 2)}
    result = compared(rows, samples=12)
    shares = seed_shares(2, samples=12, seed=4)
    samples = {name: resampled(frames, 12) for name, frames in rows.items()}
    points = {
        name: [
            sklearn_figures(frame["label"].to_numpy(), frame[prob_columns("diagnosis")].to_numpy(dtype=np.float64))
            for frame in frames.values()
        ]
        for name, frames in rows.items()
    }
    assert result["metrics"] == METRICS
    for metric in METRICS:
        values = {name: np.array([point[metric] for point in points[name]]) for name in rows}
        for name in rows:
            cell = result["rows"][name]["metrics"][metric]
            np.testing.assert_allclose(cell["per_seed"], values[name], atol=1e-12)
            assert cell["value"] == pytest.approx(values[name].mean())
            assert cell["spread"] == pytest.approx(np.std(values[name], ddof=1))
            means = (samples[name][metric] * shares.T).sum(axis=0)
            assert [cell["low"], cell["high"]] == pytest.approx(np.quantile(means, [0.025, 0.975]))
        cell = result["rows"]["arm"]["differences"]["control"][metric]
        drawn = ((samples["arm"][metric] - samples["control"][metric]) * shares.T).sum(axis=0)
        assert cell["value"] == pytest.approx(values["arm"].mean() - values["control"].mean())
        np.testing.assert_allclose(cell["per_seed"], values["arm"] - values["control"], atol=1e-12)
        assert [cell["low"], cell["high"]] == pytest.approx(np.quantile(drawn, [0.025, 0.975]))


def test_a_row_compared_with_itself_differs_by_exactly_nothing():
    result = compared({"control": seeds(1.0, 0), "same": seeds(1.0, 0)})
    for cell in result["rows"]["same"]["differences"]["control"].values():
        assert (cell["value"], cell["low"], cell["high"]) == (0, 0, 0)
        assert cell["verdict"] == "no evidence"
    assert result["rows"]["control"]["differences"] == {}


def test_better_by_construction_helped_and_the_other_way_round_hurt():
    rows = {"control": seeds(0.5, 0), "better": seeds(3.0, 0), "worse": seeds(-0.5, 0)}
    result = compared(rows)
    said = {
        name: {cell["verdict"] for cell in result["rows"][name]["differences"]["control"].values()}
        for name in ("better", "worse")
    }
    assert said == {"better": {"helped"}, "worse": {"hurt"}}


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.001, 0.2, "helped"), (-0.2, -0.001, "hurt"), (-0.1, 0.1, "no evidence"), (0.0, 0.1, "no evidence"),
     (-0.1, 0.0, "no evidence"), (None, None, None)],
)  # fmt: skip
def test_verdict_goes_by_the_interval(low, high, said):
    assert verdict(low, high) == said


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_images_and_of_seeds_does_not_matter(seed: int):
    def shuffled(frames: dict[int, pd.DataFrame]) -> dict[int, pd.DataFrame]:
        return {
            key: frames[key].sample(frac=1, random_state=int(rng.integers(99)))
            for key in rng.permutation(list(frames)).tolist()
        }

    rng = np.random.default_rng(seed)
    rows = {"control": seeds(1.0, 0, 2), "arm": seeds(1.4, 9, 2)}
    mixed = {name: shuffled(frames) for name, frames in rows.items()}
    assert compared(mixed, samples=10) == compared(rows, samples=10)


def test_result_is_json_and_has_the_form_of_the_contract():
    result = compared({"control": seeds(1.0, 0), "arm": seeds(1.4, 9)})
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["n"] == {"images": 105, "lesions": catalog()["lesion_id"].nunique(), "per_class": COUNTS}
    assert result["bootstrap"] == {"samples": SAMPLES, "seed": 4, "unit": "lesion and seed", "level": 0.95}
    assert (result["task"], result["control"], result["paired"]) == ("diagnosis", "control", True)
    assert list(result["rows"]) == ["control", "arm"] and result["rows"]["arm"]["seeds"] == [0, 1, 2]


def test_training_seeds_that_disagree_are_no_evidence():
    # Much better at one seed, much worse at another: over lesions alone either would be far from zero.
    control = seeds(1.0, 0, 2)
    torn = {0: trained(4.0, 0), 1: trained(-1.0, 1)}
    one = compared({"control": control, "arm": {0: torn[0]}})["rows"]["arm"]["differences"]["control"]["accuracy"]
    both = compared({"control": control, "arm": torn})["rows"]["arm"]["differences"]["control"]["accuracy"]
    assert one["verdict"] == "helped"
    assert both["verdict"] == "no evidence"
    assert both["low"] < min(both["per_seed"]) / 2 and both["high"] > max(both["per_seed"]) / 2


def test_intervals_over_seeds_miss_far_less_often_than_over_lesions_alone():
    # No true effect: variance 2 of a seed, 1 of all lesions, 1 of both together.
    draws = np.random.default_rng(0)
    trials, lesions = 240, 60
    missed = {"lesions": 0, "lesions and seeds": 0}
    for _ in range(trials):
        table = (
            draws.normal(size=(3, 1)) * 2**0.5
            + (draws.normal(size=lesions) + draws.normal(size=(3, lesions))) * 60**0.5
        )
        counts = draws.multinomial(lesions, np.full(lesions, 1 / lesions), size=200)
        values = table @ counts.T / lesions
        one = Retrained((0, 1, 2), {"m": table.mean(axis=1)}, {"m": values})
        for name, means in (
            ("lesions", values.mean(axis=0)),
            ("lesions and seeds", one.mean_samples(seed=1)["m"]),
        ):
            low, high = np.quantile(means, [0.025, 0.975])
            missed[name] += not low <= 0 <= high
    assert missed["lesions and seeds"] <= 0.06 * trials < 0.08 * trials <= missed["lesions"]


def test_seed_shares_draw_with_replacement_and_one_seed_always():
    shares = seed_shares(3, samples=4000, seed=0)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert set(np.round(shares.ravel() * 3).astype(int)) == {0, 1, 2, 3}
    # Var of a share of a multinomial: p (1 - p) / R.
    np.testing.assert_allclose(shares.var(axis=0), 2 / 27, rtol=0.1)
    assert (seed_shares(1, samples=5, seed=0) == 1).all()
    np.testing.assert_array_equal(shares[:50], seed_shares(3, samples=50, seed=0))


def test_a_second_control_gets_a_block_of_its_own():
    rows = {"control": seeds(1.0, 0), "plain": seeds(1.2, 20), "fused": seeds(2.5, 40)}
    result = compared(rows, controls={"fused": "plain"})
    assert list(result["rows"]["fused"]["differences"]) == ["control", "plain"]
    assert list(result["rows"]["plain"]["differences"]) == ["control"]
    by_metric = result["rows"]["fused"]["differences"]["plain"]["accuracy"]
    figures = {name: result["rows"][name]["metrics"]["accuracy"]["value"] for name in rows}
    assert by_metric["value"] == pytest.approx(figures["fused"] - figures["plain"])
    assert list(compared(rows, controls={"fused": "control"})["rows"]["fused"]["differences"]) == ["control"]


def test_rows_with_fewer_seeds_are_paired_at_the_common_ones():
    rows = {"control": seeds(1.0, 0), "arm": {1: trained(1.5, 31)}}
    result = compared(rows)
    arm = result["rows"]["arm"]
    assert arm["paired_seeds"] == {"control": [1]}
    assert arm["metrics"]["accuracy"]["spread"] is None
    control = result["rows"]["control"]["metrics"]["accuracy"]["per_seed"][1]
    difference = arm["differences"]["control"]["accuracy"]["value"]
    assert difference == pytest.approx(arm["metrics"]["accuracy"]["value"] - control)
    assert any(note.startswith("One seed only: arm.") for note in result["notes"])
    with pytest.raises(DataError, match=r"'arm' has the seeds \[7\], its control 'control' has \[0, 1, 2\]"):
        compared({"control": seeds(1.0, 0), "arm": {7: trained(1.5, 31)}})


def test_notes_count_comparisons_and_name_small_classes():
    notes = " ".join(compared({"control": seeds(1.0, 0), "a": seeds(1.2, 9), "b": seeds(1.2, 19)})["notes"])
    assert "10 differences were looked at" in notes and "about 0.5 of them" in notes
    assert "df (n = 8)" in notes and "nv" not in notes
    assert "Fewer than 5 seeds: control, a, b." in notes and "One seed only" not in notes


def test_no_teacher_of_one_seed_has_the_unit_lesion():
    result = compared({"control": seeds(1.0, 0, 1), "arm": seeds(1.3, 9, 1)})
    assert result["bootstrap"]["unit"] == "lesion"


def test_class_without_test_image_makes_means_over_all_classes_null():
    rows = catalog()
    rows = rows[rows["diagnosis"] != "df"]
    frames = {name: {0: trained(skill, 3, rows)} for name, skill in (("control", 1.0), ("arm", 3.0))}
    result = compared(frames)
    block = result["rows"]["arm"]["differences"]["control"]
    assert block["macro_auc"] == {"value": None, "low": None, "high": None, "verdict": None, "per_seed": [None]}
    assert block["accuracy"]["verdict"] == "helped" and block["melanoma_auc"]["value"] is not None
    assert result["rows"]["arm"]["metrics"]["balanced_accuracy"]["value"] is None
    assert any("no test image of df" in note for note in result["notes"])
    assert any(note.startswith("2 differences") for note in result["notes"])


def test_two_classes_are_compared_too():
    rows = catalog()
    logits = np.random.default_rng(0).normal(size=(len(rows), 2))
    frame = predictions_frame("arm", "test", rows, logits, "melanoma", models=None)
    result = compare_rows({"a": {0: frame}, "b": {0: frame}}, control="a", task="melanoma", samples=20, seed=0)
    expected = oracle.roc_auc_score(frame["label"], frame["prob_mel"])
    assert result["rows"]["a"]["metrics"]["melanoma_auc"]["value"] == pytest.approx(expected)
    assert result["n"]["per_class"] == {"rest": 91, "mel": 14}


def test_other_images_are_refused_with_row_and_seed():
    other = trained(1.0, 5).iloc[1:]
    foreign = trained(1.0, 5, catalog("x"))
    with pytest.raises(DataError) as caught:
        compared({"control": seeds(1.0, 0), "arm": {0: trained(1.0, 4), 2: other}, "third": {0: foreign}})
    assert len(caught.value.faults) == 2
    assert "'arm', seed 2: 104 images, 1 missing and 0 others" in caught.value.faults[0]
    assert "'third', seed 0: 105 images, 105 missing and 105 others" in caught.value.faults[1]


def test_broken_tables_are_refused_together():
    broken = trained(1.0, 5)
    broken.loc[3, "prob_mel"] = np.nan
    with pytest.raises(DataError) as caught:
        compared(
            {
                "control": seeds(1.0, 0),
                "nan": {1: broken},
                "validation": {0: trained(1.0, 5).assign(split="val")},
                "none": {},
                "column": {0: trained(1.0, 5).drop(columns="prob_df")},
                "empty": {0: trained(1.0, 5).iloc[:0]},
                "two": {0: pd.concat([trained(1.0, 5, name=name) for name in "ab"])},
            }
        )
    text = "\n".join(caught.value.faults)
    for words in (
        "'nan', seed 1: 1 rows: a probability is NaN",
        "'validation', seed 0: split 'val'",
        "'none' has no seed",
        "'column', seed 0: column 'prob_df' is missing",
        "'empty', seed 0: there are no rows",
        "'two', seed 0: rows of 2 models, a, b",
    ):
        assert words in text


def test_validation_is_compared_only_where_it_is_asked_for():
    rows = {name: {0: trained(skill, 3).assign(split="val")} for name, skill in (("control", 1.0), ("arm", 2.0))}
    assert compared(rows, part="val")["n"]["images"] == 105
    with pytest.raises(DataError, match="split 'val' is not one of test"):
        compared(rows)


def test_unknown_controls_are_refused():
    rows = {"control": seeds(1.0, 0, 1), "arm": seeds(1.0, 9, 1)}
    with pytest.raises(ConfigError, match="no row 'nobody'"):
        compare_rows(rows, control="nobody", task="diagnosis", samples=5, seed=0)
    with pytest.raises(ConfigError, match="no row 'nobody'"):
        compared(rows, controls={"arm": "nobody"})
    with pytest.raises(ConfigError, match="arm: its own control"):
        compared(rows, controls={"arm": "arm"})


def groups(skill: float = 3.0) -> dict[str, dict[int, pd.DataFrame]]:
    return {
        "lesion": {seed: trained(0.7, seed, catalog("a")) for seed in range(2)},
        "published": {seed: trained(skill, 10 + seed, catalog("b", copies=2)) for seed in range(3)},
    }


def grouped(frames):
    return compare_groups(frames, reference="lesion", task="diagnosis", samples=SAMPLES, seed=4)


def test_groups_with_other_test_parts_have_differences_of_means():
    result = grouped(groups())
    lesion, published = (result["rows"][name] for name in ("lesion", "published"))
    assert not result["paired"] and "n" not in result
    assert published["n"]["images"] == 2 * lesion["n"]["images"] == 210
    for metric in METRICS:
        cell = published["differences"]["lesion"][metric]
        assert cell["value"] == pytest.approx(
            published["metrics"][metric]["value"] - lesion["metrics"][metric]["value"]
        )
        # Independent draws: the variance of the difference is the sum of both.
        widths = [one["high"] - one["low"] for one in (published["metrics"][metric], lesion["metrics"][metric])]
        assert cell["high"] - cell["low"] == pytest.approx(np.hypot(*widths), rel=0.3)
        assert cell["verdict"] == "higher"
    assert lesion["differences"] == {}
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_identical_groups_are_not_paired():
    frames = groups()["lesion"]
    cell = grouped({"lesion": frames, "again": frames})["rows"]["again"]["differences"]["lesion"]["accuracy"]
    assert cell["value"] == 0 and cell["low"] < 0 < cell["high"] and cell["verdict"] == "no evidence"


def test_another_group_changes_nothing_for_the_first():
    frames = groups()
    assert grouped({"new": frames["published"], **frames})["rows"]["published"] == grouped(frames)["rows"]["published"]


def test_images_must_agree_within_a_group():
    frames = groups()
    frames["published"][1] = trained(1.0, 0, catalog("c"))
    with pytest.raises(DataError, match="'published', seed 1"):
        grouped(frames)


def test_repeated_images_of_a_group_are_counted_in_a_note():
    frames = groups()
    frames["published"] = {seed: pd.concat([frame, frame.iloc[:5]]) for seed, frame in frames["published"].items()}
    assert "published: 215 rows show 210 different images." in grouped(frames)["notes"]

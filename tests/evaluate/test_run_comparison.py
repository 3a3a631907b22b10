"""Models of several runs: figures against an evaluation of each alone, differences against a naive bootstrap."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from dermdistill.bundle.decisions import Calibration, Decisions
from dermdistill.config import EvaluateConfig
from dermdistill.evaluate import bootstrap
from dermdistill.evaluate.delong import delong_difference
from dermdistill.evaluate.evaluation import evaluate_test, scored_rows
from dermdistill.evaluate.predictions import predictions_frame
from dermdistill.evaluate.run_comparison import METRICS, compare_scored, paired_seeds
from dermdistill.labels import CODES

SAMPLES, SEED = 60, 3
DECISIONS = Decisions(Calibration("vector", (1.2,) * 7, (0.3, 0, 0, 0, -0.2, 1, 0)), {"at_95_sensitivity": 0.1})


def test_part(images: int = 140, *, without: str = ""):
    codes = np.array([code for code in CODES if code != without])
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "image_id": [f"I{place:03}" for place in range(images)],
            "lesion_id": [f"L{place // 2:03}" for place in range(images)],
            "diagnosis": np.repeat(rng.permutation(np.resize(codes, images // 2)), 2),
        }
    )


test_part.__test__ = False


def table(part: pd.DataFrame, seed: int, skill: float = 1.5) -> pd.DataFrame:
    logits = np.random.default_rng(seed).normal(size=(len(part), 7))
    logits[np.arange(len(part)), [CODES.index(code) for code in part["diagnosis"]]] += skill
    return predictions_frame("student", "test", part, logits, "diagnosis")


def scored(frame: pd.DataFrame):
    return scored_rows(frame, "diagnosis", 15, DECISIONS)


def compared(rows, pairs, part=None):
    part = test_part() if part is None else part
    frames = {name: {seed: table(part, *how) for seed, how in models.items()} for name, models in rows.items()}
    models = {name: {seed: scored(frame) for seed, frame in own.items()} for name, own in frames.items()}
    first = next(iter(next(iter(frames.values())).values()))
    return compare_scored(models, first, pairs, task="diagnosis", samples=SAMPLES, seed=SEED), frames


def test_figures_are_those_of_an_evaluation_of_each_model_alone():
    result, frames = compared({"a": {0: (1,)}, "b": {0: (2, 1.0)}}, [("b", "a")])
    config = EvaluateConfig(bootstrap_samples=SAMPLES, bootstrap_seed=SEED)
    for name, own in frames.items():
        alone = evaluate_test(own[0], task="diagnosis", config=config, decisions={"student": DECISIONS})
        for metric, key in METRICS.items():
            view, figure = key.split(".")
            wanted = alone["models"]["student"][view][figure]
            found = result["rows"][name]["metrics"][metric]
            assert {key: found[key] for key in wanted} == pytest.approx(wanted), metric
            assert found["spread"] is None and found["per_seed"] == [pytest.approx(wanted["value"])]


def test_differences_equal_a_naive_paired_bootstrap():
    result, frames = compared({"a": {0: (1,)}, "b": {0: (2, 1.0)}}, [("b", "a")])
    part, a, b = test_part(), frames["a"][0], frames["b"][0]
    columns = [f"prob_{code}" for code in CODES]
    labels = a["label"].to_numpy()
    raw = {name: frame[columns].to_numpy(float) for name, frame in (("a", a), ("b", b))}
    melanoma = {name: DECISIONS.calibration.apply(probs)[:, CODES.index("mel")] for name, probs in raw.items()}
    naive = {"balanced_accuracy": [], "melanoma_auc": []}
    for row in bootstrap.lesion_weights(part["lesion_id"], samples=SAMPLES, seed=SEED):
        images = np.repeat(np.arange(len(part)), row)
        truth = labels[images]
        accuracy, auc = (
            {name: measure(name) for name in ("a", "b")}
            for measure in (
                lambda n, i=images, t=truth: balanced_accuracy_score(t, raw[n][i].argmax(1)),
                lambda n, i=images, t=truth: roc_auc_score(t == CODES.index("mel"), melanoma[n][i]),
            )
        )
        naive["balanced_accuracy"].append(accuracy["b"] - accuracy["a"])
        naive["melanoma_auc"].append(auc["b"] - auc["a"])
    for metric, values in naive.items():
        cell = result["rows"]["b"]["differences"]["a"][metric]
        assert (cell["low"], cell["high"]) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
    [found] = result["rows"]["b"]["delong"]["a"]
    wanted = delong_difference(labels == CODES.index("mel"), melanoma["b"], melanoma["a"], part["lesion_id"])
    assert found == {"seeds": [0, 0], **wanted}


def test_verdicts_follow_the_interval_and_a_copy_of_a_model_differs_in_nothing():
    rows = {"good": {0: (1, 3.0)}, "copy": {0: (1, 3.0)}, "bad": {0: (2, 0.3)}}
    result, _ = compared(rows, [("copy", "good"), ("bad", "good"), ("good", "bad")])
    assert result["control"] == "good" and result["rows"]["good"]["differences"].keys() == {"bad"}
    bad = result["rows"]["bad"]["differences"]["good"]["macro_auc"]
    assert bad["verdict"] == "lower" and bad["high"] < 0
    good = result["rows"]["good"]["differences"]["bad"]["macro_auc"]
    assert good["verdict"] == "higher" and good["value"] == pytest.approx(-bad["value"])
    for cell in result["rows"]["copy"]["differences"]["good"].values():
        assert (cell["value"], cell["low"], cell["high"], cell["verdict"]) == (0, 0, 0, "no evidence")
    assert result["rows"]["copy"]["delong"]["good"][0]["p"] is None


def test_seeds_of_one_recipe_are_one_row_with_a_spread_and_pair_where_both_have_them():
    rows = {"a": {0: (1,), 1: (2,), 2: (3,)}, "b": {1: (4, 0.7), 2: (5, 0.7)}}
    result, _ = compared(rows, [("b", "a")])
    single, _ = compared({"a": {0: (1,)}, "b": {0: (4, 0.7)}}, [("b", "a")])
    own = result["rows"]["a"]
    cell = own["metrics"]["accuracy"]
    assert own["seeds"] == [0, 1, 2] and result["bootstrap"]["unit"] == "lesion and seed"
    assert cell["value"] == pytest.approx(np.mean(cell["per_seed"]))
    assert cell["spread"] == pytest.approx(np.std(cell["per_seed"], ddof=1))
    assert result["rows"]["b"]["paired_seeds"]["a"] == [1, 2]
    per_seed = result["rows"]["b"]["differences"]["a"]["accuracy"]["per_seed"]
    others = result["rows"]["b"]["metrics"]["accuracy"]["per_seed"]
    assert per_seed == pytest.approx([others[0] - cell["per_seed"][1], others[1] - cell["per_seed"][2]])
    assert [entry["seeds"] for entry in result["rows"]["b"]["delong"]["a"]] == [[1, 1], [2, 2]]
    assert single["bootstrap"]["unit"] == "lesion"


def test_rows_without_a_common_seed_are_paired_in_order_and_a_note_says_so():
    assert paired_seeds((0, 1), (5, 3, 4)) == [(0, 3), (1, 4)] and paired_seeds((2, 1), (1, 7)) == [(1, 1)]
    result, _ = compared({"a": {7: (1,)}, "b": {0: (2,)}}, [("b", "a")])
    row = result["rows"]["b"]
    wanted = row["metrics"]["accuracy"]["value"] - result["rows"]["a"]["metrics"]["accuracy"]["value"]
    assert row["differences"]["a"]["accuracy"]["value"] == pytest.approx(wanted)
    assert row["delong"]["a"][0]["seeds"] == [0, 7]
    assert any("No training seed in common: b and a." in note for note in result["notes"])


def test_class_without_an_image_makes_means_over_classes_null_and_nothing_else():
    result, _ = compared({"a": {0: (1,)}, "b": {0: (2,)}}, [("b", "a")], test_part(without="df"))
    for cells in (result["rows"]["a"]["metrics"], result["rows"]["b"]["differences"]["a"]):
        null = {metric for metric, cell in cells.items() if cell["value"] is None}
        assert null == {"macro_auc", "balanced_accuracy", "macro_f1"}
    json.dumps(result, allow_nan=False)
    assert result["n"]["per_class"]["df"] == 0

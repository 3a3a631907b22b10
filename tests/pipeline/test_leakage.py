"""The study of leakage: its plan by plain arithmetic, and a whole small study as a user starts it."""

import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
import pytest
import torch

from dermdistill.cli.main import main
from dermdistill.config import OptimConfig
from dermdistill.data import protocols
from dermdistill.data.split import load_split
from dermdistill.evaluate.predictions import prob_columns
from dermdistill.pipeline import leakage
from dermdistill.recipes.load import load_recipe

SETTINGS = (
    "threads=1",
    "synthetic.lesions=84",
    "synthetic.width=64",
    "synthetic.height=48",
    "data.size=32",
    "data.test_fraction=0.3",
    "teacher.model.branches=[{backbone: small_cnn, options: {widths: [4, 8, 12, 16]}}]",
    "student.model.branches=[{backbone: small_cnn, options: {widths: [4, 6, 8, 10]}}]",
    "student.epochs=8",
    "student.learning_rate=0.01",
    "student.batch_size=16",
    "evaluate.bootstrap_samples=60",
)
COPIES = 40  # a class, in place of 10,000
SEEDS = 2


def call(*words: object) -> tuple[Any, str]:
    """The command line in this process: its status and what it says."""
    err = StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(err):
        patch.setattr(sys, "argv", ["dermdistill", "leakage", *map(str, words)])
        try:
            main()
        except SystemExit as end:
            return end.code or 0, err.getvalue()
    return 0, err.getvalue()


def settings(*more: str) -> list[str]:
    return [word for setting in (*SETTINGS, *more) for word in ("--set", setting)]


@dataclass(frozen=True)
class Study:
    """A finished study and the command that made it."""

    folder: Path
    words: tuple[str, ...]

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def predictions(self, trial: str, seed: int = 0) -> pd.DataFrame:
        frame = pd.read_parquet(self.folder / "trials" / trial / f"seed-{seed}" / "predictions.parquet")
        return frame[frame["split"] == "test"].reset_index(drop=True)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    folder = tmp_path_factory.mktemp("leakage")
    words = ("quick", "--out", str(folder / "study"), "--seeds", str(SEEDS), *settings())
    deterministic, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("DERMDISTILL_CACHE", str(folder / "cache"))
        patch.setattr(protocols, "OVERSAMPLED_IMAGES", COPIES)
        warnings.simplefilter("default")
        status, err = call(*words)
        assert status == 0, err
        yield Study(folder / "study", words)
    torch.use_deterministic_algorithms(deterministic)
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("epochs", "images", "reference", "expected"),
    [(26, 6400, 640, 3), (20, 640, 640, 20), (2, 6400, 640, 1), (7, 130, 650, 35)],
)
def test_schedule_gives_about_as_many_steps(epochs: int, images: int, reference: int, expected: int) -> None:
    config = OptimConfig(epochs=epochs, batch_size=64, warmup_epochs=epochs / 10)
    schedule = leakage.as_much_training(config, images=images, reference=reference)
    assert schedule == {"epochs": expected, "warmup_epochs": pytest.approx(expected / 10)}
    if expected > 1:
        steps = expected * (images // 64), epochs * (reference // 64)
        assert abs(steps[0] - steps[1]) <= images // 64 / 2


def test_student_alone_has_no_teacher_whatever_the_recipe_distils() -> None:
    distilling = (
        "student.distill.attention=10",
        "student.distill.self_distillation=0.5",
        "student.distill.stages=[{depth: 1, beta: 0.5}]",
        "student.distill.other_teachers=[{run: elsewhere}]",
    )
    recipe = load_recipe("quick", list(distilling))
    alone = leakage.student_alone(recipe, protocol="published", seed=7, epochs=2)
    assert not alone.student.distill.needs_teacher and alone.student.distill.self_distillation == 0
    assert (alone.student.distill.gamma, alone.student.distill.stages) == (1, ())
    assert (alone.seed, alone.data.protocol, alone.student.epochs) == (7, "published", 2)
    untouched = {"model": {"exits"}, "distill": True, "epochs": True}
    assert alone.student.model_dump(exclude=untouched) == recipe.student.model_dump(exclude=untouched)  # type: ignore[arg-type]


def test_shares_count_rows_of_the_test_part_by_hand() -> None:
    rows = [
        *(("a", "L1", "nv", "test"), ("a", "L1", "nv", "test"), ("a", "L1", "nv", "train")),
        *(("b", "L2", "mel", "test"), ("c", "L2", "mel", "val")),
        *(("d", "L3", "mel", "test"), ("e", "L4", "df", "test"), ("f", "L5", "df", "train")),
    ]
    frame = pd.DataFrame(rows, columns=["image_id", "lesion_id", "diagnosis", "split"])
    split = leakage.Split(frame[["image_id", "split"]], {})
    shares = leakage.leak_shares(frame.drop_duplicates("image_id"), split)
    assert shares == {"same_lesion": 3 / 5, "same_lesion_melanoma": 1 / 2, "same_image": 2 / 5}


@pytest.mark.parametrize("protocol", ["published", "published-oversampled"])
def test_recipe_with_a_leaky_protocol_is_refused_before_anything_is_written(tmp_path: Path, protocol: str) -> None:
    out = tmp_path / "study"
    status, err = call("quick", "--out", out, *settings(f"data.protocol={protocol}"))
    assert status == 2 and repr(protocol) in err and "Next: --set data.protocol=lesion" in err
    assert not out.exists()


@pytest.mark.slow
def test_study_leaves_every_file(study: Study) -> None:
    wanted = "recipe.yaml provenance.json catalog.parquet split.csv audit.json leakage.json leakage.md leakage.tex"
    wanted += " leakage.svg leakage_protocols.csv leakage_injection.csv leakage_injection_leakable.csv"
    wanted += " splits/lesion/split.csv splits/published/split.csv splits/published-oversampled/split.csv"
    assert [name for name in wanted.split() if not (study.folder / name).is_file()] == []
    trials = {str(path.parent.relative_to(study.folder / "trials")) for path in study.folder.rglob("trial.json")}
    names = ("lesion", "published", "published-oversampled", "injected")
    assert trials == {f"{name}/seed-{seed}" for name in names for seed in range(SEEDS)}
    assert not list(study.folder.rglob("*.part*")) and not (study.folder / "teacher").exists()


@pytest.mark.slow
def test_each_student_was_tested_on_its_own_split(study: Study) -> None:
    for name in ("lesion", "published", "published-oversampled", "injected"):
        split = load_split(study.folder / "splits" / name)
        for seed in range(SEEDS):
            assert sorted(study.predictions(name, seed)["image_id"]) == split.ids("test"), name
    protocols = study.json("leakage.json")["protocols"]["rows"]
    for name, row in protocols.items():
        counts = load_split(study.folder / "splits" / name).info
        assert (row["n"]["images"], row["n"]["lesions"]) == (counts["images"]["test"], counts["lesions"]["test"])
        assert row["seeds"] == list(range(SEEDS))
    oversampled = protocols["published-oversampled"]["n"]
    assert oversampled["images"] > oversampled["lesions"], "copies must count as one lesion"


@pytest.mark.slow
def test_accuracy_of_the_table_is_that_of_the_predictions(study: Study) -> None:
    content = study.json("leakage.json")
    columns = prob_columns("diagnosis")

    def accuracies(trial: str, images: list[str] | None = None) -> list[float]:
        hits = []
        for seed in range(SEEDS):
            frame = study.predictions(trial, seed)
            frame = frame if images is None else frame[frame["image_id"].isin(images)]
            hits.append(float((frame[columns].to_numpy().argmax(axis=1) == frame["label"]).mean()))
        return hits

    for name, row in content["protocols"]["rows"].items():
        assert row["metrics"]["accuracy"]["per_seed"] == pytest.approx(accuracies(name))
        assert row["metrics"]["accuracy"]["value"] == pytest.approx(fmean(accuracies(name)))
    injected, seen = load_split(study.folder / "splits" / "injected"), []
    for part, images in (("injection", injected.ids("test")), ("injection_leakable", injected.info["leakable"])):
        assert content[part]["n"]["images"] == len(images)
        cell = content[part]["rows"]["injected"]["differences"]["clean"]["accuracy"]
        pairs = zip(accuracies("injected", images), accuracies("lesion", images), strict=True)
        expected = [sister - clean for sister, clean in pairs]
        assert cell["per_seed"] == pytest.approx(expected) and cell["value"] == pytest.approx(fmean(expected))
        seen += expected
    assert any(seen), "the arms cannot be told apart: the test would prove nothing"
    assert "Accuracy" in (study.folder / "leakage.md").read_text()


@pytest.mark.slow
def test_report_tells_how_much_was_trained_and_leaked(study: Study) -> None:
    content = study.json("leakage.json")
    training = content["training"]
    assert training["lesion"]["images"] == training["injected"]["images"]
    assert training["lesion"]["epochs"] == training["published"]["epochs"] == 8
    ratio = training["published-oversampled"]["steps"] / training["lesion"]["steps"]
    assert training["published-oversampled"]["epochs"] == 2 and 1 / 2 < ratio < 2
    shares = content["shares"]
    assert shares["lesion"] == {"same_lesion": 0, "same_lesion_melanoma": 0, "same_image": 0}
    assert 0 < shares["published"]["same_lesion"] < shares["published-oversampled"]["same_lesion"] <= 1
    assert shares["published"]["same_image"] == 0 < shares["published-oversampled"]["same_image"]
    text = (study.folder / "leakage.md").read_text()
    assert "epochs 2 instead of 8, the warm-up in proportion" in text
    assert f"{100 * shares['published-oversampled']['same_image']:.1f}% are an image that stands there itself" in text


@pytest.mark.slow
def test_provenance_names_the_splits_and_no_folder_of_this_machine(study: Study) -> None:
    text, provenance = (study.folder / "provenance.json").read_text(), study.json("provenance.json")
    for name, digest in provenance["splits"].items():
        assert digest == load_split(study.folder / "splits" / name).info["split_sha256"]
    assert set(provenance["splits"]) == {"lesion", "published", "published-oversampled", "injected"}
    assert provenance["seeds"] == list(range(SEEDS)) and len(provenance["students"]) == 4 * SEEDS
    assert provenance["command"].startswith("dermdistill leakage quick --out study --seeds 2")
    assert os.sep + "tmp" not in text and str(study.folder.parent) not in text and str(Path.home()) not in text


@pytest.mark.slow
def test_worker_trains_what_is_missing_and_a_resumed_study_no_more(study: Study) -> None:
    kept = {path: path.stat().st_mtime_ns for path in (study.folder / "trials").rglob("model.safetensors")}
    lost = study.folder / "trials" / "injected" / "seed-1"
    before = study.predictions("injected", 1)
    figures = study.json("leakage.json")
    (lost / "predictions.parquet").unlink()
    (study.folder / "leakage.json").unlink()
    status, err = call(*study.words, "--resume", "--worker")
    assert status == 0, err
    assert study.predictions("injected", 1).equals(before)
    assert not (study.folder / "leakage.json").exists(), "the comparison is left to the process that started it"
    status, err = call(*study.words, "--resume")
    assert status == 0, err
    assert study.json("leakage.json") == figures
    after = {path: path.stat().st_mtime_ns for path in kept}
    assert {path.parent for path in kept if after[path] != kept[path]} == {lost}

"""What each command prints and writes, against results worked out here from the same files."""

import csv
import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import yaml
from PIL import Image

import dermdistill
from dermdistill.bundle.manifest import read_manifest, write_manifest
from dermdistill.config import DataConfig, SyntheticConfig
from dermdistill.labels import CODES
from dermdistill.models.build import BackboneSummary
from dermdistill.preprocess import IMAGENET_MEAN, IMAGENET_STD
from dermdistill.recipes.load import load_recipe, recipe_names

METADATA = "HAM10000_metadata.csv"
PICTURES = "HAM10000_images_part_1"
HEAVY = ("torch", "pandas", "pydantic", "numpy")
PROBE = f"""
import sys
from dermdistill.cli import main
try:
    main()
finally:
    print("loaded:", *(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)
"""


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as handle:
        return list(csv.DictReader(handle))


def loaded_by(*words: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", PROBE, *words], capture_output=True, text=True, check=True)
    return done.stderr.splitlines()[-1].removeprefix("loaded:").split()


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(word: str) -> None:
    assert loaded_by(word) == []


def test_help_of_a_command_imports_none_of_what_the_command_needs() -> None:
    assert set(loaded_by("run", "--help")) <= {"pydantic"}, "typer itself loads pydantic to read a command's options"


def test_the_probe_for_heavy_imports_sees_them() -> None:
    assert {"pydantic", "numpy"} <= set(loaded_by("recipes", "list"))


def test_version_is_the_packages(call: Any) -> None:
    outcome = call("--version")
    assert (outcome.status, outcome.out) == (0, dermdistill.__version__ + "\n")


@pytest.mark.parametrize("group", [(), ("data",), ("recipes",), ("results",)])
def test_help_names_every_command(group: tuple[str, ...], call: Any) -> None:
    commands = {
        (): ("run", "report", "models", "predict", "score", "bundle", "data", "recipes", "results"),
        ("data",): ("index", "split", "audit", "explore", "synth"),
        ("recipes",): ("list", "show"),
        ("results",): ("add", "page", "check"),
    }
    outcome = call(*group, "--help")
    assert outcome.status == 0
    assert [name for name in commands[group] if name not in outcome.out] == []


def test_data_index_counts_and_writes_the_catalog(call: Any, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "catalog.parquet"
    outcome = call("data", "index", data, "--out", file)
    assert outcome.status == 0, outcome.err
    assert "42 images of 21 lesions" in outcome.out
    counts = {line.split()[0]: line.split()[1] for line in outcome.out.splitlines()[1:8]}
    assert counts == dict.fromkeys(CODES, "6")
    catalog = pd.read_parquet(file)
    wanted = {row["image_id"]: row["dx"] for row in rows_of(data / METADATA)}
    assert dict(zip(catalog["image_id"], catalog["diagnosis"], strict=True)) == wanted
    assert all(Path(path).is_file() for path in catalog["path"])


def test_data_split_keeps_lesions_together_and_repeats_itself(call: Any, data: Path, tmp_path: Path) -> None:
    outcomes = [call("data", "split", data, "--out", tmp_path / name) for name in ("one", "two")]
    assert [outcome.status for outcome in outcomes] == [0, 0], outcomes
    files = [tmp_path / name / "split.csv" for name in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()
    part_of = {row["image_id"]: row["split"] for row in rows_of(files[0])}
    lesions: dict[str, set[str]] = {}
    for row in rows_of(data / METADATA):
        lesions.setdefault(row["lesion_id"], set()).add(part_of.pop(row["image_id"]))
    assert part_of == {} and all(len(parts) == 1 for parts in lesions.values())
    assert Counter(part for (part,) in lesions.values()) == {"train": 7, "val": 7, "test": 7}
    assert "warning" not in outcomes[0].out


def test_data_split_defaults_are_those_of_the_config(call: Any, data: Path, tmp_path: Path) -> None:
    assert call("data", "split", data, "--out", tmp_path / "split").status == 0
    info = json.loads((tmp_path / "split" / "split.json").read_text())
    assert (info["seed"], info["protocol"]) == (DataConfig().seed, DataConfig().protocol)


def test_data_split_that_leaks_on_purpose_says_so(call: Any, data: Path, tmp_path: Path) -> None:
    outcome = call("data", "split", data, "--out", tmp_path / "split", "--protocol", "published")
    assert outcome.status == 0 and "warning: protocol 'published'" in outcome.out
    assert call("data", "audit", data, "--split", tmp_path / "split").status == 0


def test_data_audit_passes_a_clean_split(call: Any, data: Path, tmp_path: Path) -> None:
    call("data", "split", data, "--out", tmp_path / "split")
    outcome = call("data", "audit", data, "--split", tmp_path / "split", "--out", tmp_path / "found.json")
    assert outcome.status == 0 and outcome.out.endswith("passed\n")
    assert json.loads((tmp_path / "found.json").read_text())["passed"] is True


@pytest.mark.parametrize("leak", ["lesion", "exact copy"])
def test_data_audit_of_a_leaking_given_split_ends_with_status_1(
    leak: str, call: Any, data: Path, tmp_path: Path
) -> None:
    call("data", "split", data, "--out", tmp_path / "clean")
    part_of = {row["image_id"]: row["split"] for row in rows_of(tmp_path / "clean" / "split.csv")}
    if leak == "lesion":
        part_of["I_nv_0_0"] = "test" if part_of["I_nv_0_1"] != "test" else "train"
    else:
        test = next(name for name, part in part_of.items() if part == "test")
        train = next(name for name, part in part_of.items() if part == "train")
        (data / PICTURES / f"{test}.jpg").write_bytes((data / PICTURES / f"{train}.jpg").read_bytes())
    given = tmp_path / "given.csv"
    given.write_text("image_id,split\n" + "".join(f"{name},{part}\n" for name, part in part_of.items()))
    split = ("--protocol", "given", "--split-file", given)
    assert call("data", "split", data, "--out", tmp_path / "split", *split).status == 0
    outcome = call("data", "audit", data, "--split", tmp_path / "split", "--out", tmp_path / "found.json")
    assert outcome.status == 1
    assert outcome.out.splitlines()[-1].startswith("FAILED")
    lesions, copies = (1, 0) if leak == "lesion" else (0, 1)
    assert f"lesions in several parts: {lesions}" in outcome.out
    assert f"exact copies in several parts: {copies}" in outcome.out
    assert json.loads((tmp_path / "found.json").read_text())["passed"] is False


def test_data_explore_writes_plots_twice_over(call: Any, data: Path, tmp_path: Path) -> None:
    for _ in range(2):
        outcome = call("data", "explore", data, "--out", tmp_path / "plots")
        assert outcome.status == 0, outcome.err
    summary = json.loads((tmp_path / "plots" / "summary.json").read_text())
    assert (summary["images"], summary["lesions"]) == (42, 21)
    for picture in ("diagnosis.png", "age.png", "contact_sheet.png"):
        with Image.open(tmp_path / "plots" / picture) as opened:
            opened.load()


def test_data_synth_draws_what_the_reader_reads(call: Any, tmp_path: Path) -> None:
    words = ("--lesions", 21, "--seed", 3, "--artefacts", "none")
    assert call("data", "synth", tmp_path / "syn", *words).status == 0
    outcome = call("data", "index", tmp_path / "syn")
    assert outcome.status == 0 and "of 21 lesions" in outcome.out
    written = json.loads((tmp_path / "syn" / "synthetic.json").read_text())
    assert (written["lesions"], written["seed"], written["artefacts"]) == (21, 3, [])


def test_data_synth_defaults_are_those_of_the_config(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("dermdistill.data.synthetic.write_synthetic", lambda folder, config: asked.append(config))
    assert call("data", "synth", tmp_path / "syn").status == 0
    assert asked == [SyntheticConfig()]


def test_recipes_list_names_every_recipe(call: Any) -> None:
    outcome = call("recipes", "list")
    assert outcome.status == 0
    assert [line.split()[0] for line in outcome.out.splitlines()] == recipe_names()
    assert all(len(line.split()) > 5 for line in outcome.out.splitlines())


def test_recipes_show_prints_a_recipe_that_run_takes(call: Any, tmp_path: Path) -> None:
    outcome = call("recipes", "show", "quick", "--set", "student.epochs=7")
    assert outcome.status == 0
    shown = yaml.safe_load(outcome.out)
    assert shown["student"]["epochs"] == 7 and shown["evaluate"]["calibration_bins"] == 15
    (tmp_path / "mine.yaml").write_text(outcome.out)
    assert load_recipe(str(tmp_path / "mine.yaml")) == load_recipe("quick", ["student.epochs=7"])


def test_models_prints_a_line_a_backbone(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        BackboneSummary("tiny_net", 1_234_567, 4.938268, ("8/2", "16/4"), ("none",)),
        BackboneSummary("big_net", 98_765_432, 395.06, ("64/4", "128/8"), ("none", "hub")),
    ]
    monkeypatch.setattr("dermdistill.models.build.list_backbones", lambda: found)
    outcome = call("models")
    lines = outcome.out.splitlines()
    assert outcome.status == 0
    for words in (("tiny_net", "1,234,567", "4.9", "8/2"), ("big_net", "98,765,432", "395.1", "none, hub")):
        assert any(all(word in line for word in words) for line in lines), outcome.out


def test_run_writes_everything_that_a_run_folder_holds(finished: Path) -> None:
    wanted = (
        "recipe.yaml", "provenance.json", "catalog.parquet", "split.csv", "split.json", "audit.json", "run.json",
        "teacher/model.safetensors", "student/model.safetensors", "student/log.jsonl", "bundle/manifest.json",
        "bundle/model.onnx", "bundle/model.int8.onnx", "evaluation/evaluation.json",
        "evaluation/predictions.parquet", "explanations/explanations.json", "report.html",
    )  # fmt: skip
    assert [name for name in wanted if not (finished / name).is_file()] == []
    assert not list(finished.rglob("*.part*")) and not (finished / "teacher/checkpoint.safetensors").exists()
    provenance = (finished / "provenance.json").read_text()
    assert "/" not in json.loads(provenance)["data"]["source"] and str(finished.parent) not in provenance


def test_report_again_is_the_same_page(call: Any, finished: Path) -> None:
    before = (finished / "report.html").read_bytes()
    (finished / "report.html").unlink()
    outcome = call("report", finished)
    assert (outcome.status, outcome.out) == (0, f"report: {finished / 'report.html'}\n")
    assert (finished / "report.html").read_bytes() == before


def expected_probs(model: Path, image: Path, size: int) -> Any:
    """Softmax of the logits, worked out with Pillow, numpy and ONNX Runtime alone."""
    with Image.open(image) as opened:
        picture = opened.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    values = (np.asarray(picture, dtype=np.float64) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    inputs = values.transpose(2, 0, 1)[None].astype(np.float32)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    logits = session.run(None, {session.get_inputs()[0].name: inputs})[0][0].astype(np.float64)
    return np.exp(logits) / np.exp(logits).sum()


@pytest.mark.parametrize(("option", "model"), [((), "model.int8.onnx"), (("--fp32",), "model.onnx")])
def test_predict_prints_what_the_model_says(
    option: tuple[str, ...], model: str, call: Any, finished: Path, data: Path
) -> None:
    images = [data / PICTURES / f"{name}.jpg" for name in ("I_mel_0_0", "I_nv_2_1")]
    outcome = call("predict", finished / "bundle", *images, "--json", *option)
    assert outcome.status == 0, outcome.err
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert [line["image"] for line in lines] == [str(image) for image in images]
    for image, line in zip(images, lines, strict=True):
        wanted = expected_probs(finished / "bundle" / model, image, 32)
        assert tuple(line["probs"]) == CODES
        # One step of an int8 activation is what float32 rounding of the input can cause.
        np.testing.assert_allclose(list(line["probs"].values()), wanted, atol=1e-5 if option else 0.02)
        assert line["label"] == max(line["probs"], key=line["probs"].get)
        assert line["melanoma_probability"] == line["probs"]["mel"]
        assert line["decision"] in ("refer", "no_referral", "no_threshold")


def test_predict_prints_a_table_for_people(call: Any, finished: Path, data: Path) -> None:
    image = data / PICTURES / "I_mel_0_0.jpg"
    (line,) = map(json.loads, call("predict", finished / "bundle", image, "--json").out.splitlines())
    outcome = call("predict", finished / "bundle", image)
    head, row = outcome.out.splitlines()
    assert head.split()[0] == "image"
    label = line["label"]
    assert row.split()[:4] == [str(image), label, f"{line['probs'][label]:.3f}", f"{line['melanoma_probability']:.3f}"]
    assert "not a medical device" in outcome.err


def test_score_gives_every_image_the_prediction_of_predict(
    call: Any, finished: Path, data: Path, tmp_path: Path
) -> None:
    (data / PICTURES / "broken.png").write_bytes(b"broken")
    outcome = call("score", finished / "bundle", data, "--out", tmp_path / "scores.parquet")
    assert (outcome.status, outcome.out) == (
        0,
        f"{tmp_path / 'scores.parquet'}: 43 images, 1 could not be used\n",
    ), outcome.err
    scores = pd.read_parquet(tmp_path / "scores.parquet").set_index("image")
    assert scores.loc[f"{PICTURES}/broken.png", "reason"] == "not_an_image"
    images = [data / name for name in scores.index if "broken" not in name]
    for line in map(json.loads, call("predict", finished / "bundle", *images, "--json").out.splitlines()):
        row = scores.loc[str(Path(line["image"]).relative_to(data))]
        assert (row["label"], row["decision"]) == (line["label"], line["decision"]) and pd.isna(row["problem"])
        for code, value in line["probs"].items():
            assert row[f"prob_{code}"] == pytest.approx(value, abs=1e-6)


def test_bundle_verify_and_diff(call: Any, finished: Path, tmp_path: Path) -> None:
    bundle = finished / "bundle"
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    whole = call("bundle", "verify", bundle)
    assert whole.status == 0 and f"{bundle}: whole, 5 files" in whole.out
    same = call("bundle", "diff", bundle, other)
    assert (same.status, same.out) == (0, "the two bundles are the same\n")
    (other / "model.int8.onnx").unlink()
    shutil.copy(other / "model.onnx", other / "model.int8.onnx")
    changed = call("bundle", "verify", other)
    assert changed.status == 2 and "model.int8.onnx: has" in changed.err
    before = read_manifest(bundle)
    own = before.decisions["student"]
    changed_own = replace(own, thresholds={**own.thresholds, "at_95_sensitivity": 0.987})
    write_manifest(
        other,
        task=before.task,
        spec=before.spec,
        decisions={**before.decisions, "student": changed_own},
        gate=before.gate,
        provenance=before.provenance,
    )
    differing = call("bundle", "diff", bundle, other)
    assert differing.status == 1
    assert [line.split(": ")[0] for line in differing.out.splitlines()] == [
        "decisions.student.thresholds.at_95_sensitivity",
        "files.model.int8.onnx.sha256",
        "files.model.int8.onnx.bytes",
    ]
    assert differing.out.splitlines()[0].endswith(" -> 0.987")


def test_results_page_follows_the_results(call: Any, finished: Path, tmp_path: Path) -> None:
    folder, page = tmp_path / "results", tmp_path / "docs" / "results.md"
    both = ("--results", folder, "--page", page)
    assert call("results", "add", finished, "tiny-32", "--results", folder).status == 0
    assert call("results", "check", *both).status == 1
    assert call("results", "page", *both).status == 0
    assert call("results", "check", *both).status == 0
    assert "## tiny-32" in page.read_text()
    kept = "".join(file.read_text() for file in folder.rglob("*") if file.is_file())
    assert str(tmp_path) not in kept and "SYN_0000001" not in kept
    page.write_text(page.read_text() + "a better number\n")
    stale = call("results", "check", *both)
    assert stale.status == 1 and "is stale" in stale.err


def test_resume_of_a_finished_run_does_nothing_again(call: Any, finished: Path, tiny: list[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "student").iterdir()}
    outcome = call("run", "quick", "--out", finished, "--resume", *tiny)
    assert outcome.status == 0, outcome.err
    assert outcome.err.count("done before") == 9
    assert {path: path.stat().st_mtime_ns for path in (finished / "student").iterdir()} == before

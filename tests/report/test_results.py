import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermdistill.errors import RunFolderError
from dermdistill.report.results import (
    WITHOUT_CONTROL,
    collect_results,
    results_page,
    results_page_is_current,
    without_paths,
    write_results_page,
)

COLLECTED = {"evaluation.json", "provenance.json", "split.json", "training.json", "recipe.yaml", "explanations.json"}
Json = dict[str, Any]


def load(path: Path) -> Json:
    content: Json = json.loads(path.read_text())
    return content


def shown(value: Json) -> str:
    three = [f"{value[key]:.3f}" for key in ("value", "low", "high")]
    v, low, high = (text.replace("0.", ".") if text.startswith("0.") else text for text in three)
    return f"{v} ({low}-{high})"


@pytest.fixture
def results(whole_run: Path, tmp_path: Path) -> Path:
    collect_results(whole_run, tmp_path / "results" / "edge-64")
    return tmp_path / "results"


def alter(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**load(path), **changes}))


def test_collect_writes_these_files_only(results: Path) -> None:
    assert {path.name for path in (results / "edge-64").iterdir()} == COLLECTED


def test_collected_metrics_equal_those_of_the_run(results: Path, whole_run: Path) -> None:
    before = load(whole_run / "evaluation" / "evaluation.json")
    after = load(results / "edge-64" / "evaluation.json")
    for content in (before, after):
        for model in content["models"].values():
            del model["curves"]
    assert after == before


def test_long_curves_are_thinned_and_keep_their_ends(make_run: Callable[..., Path], tmp_path: Path) -> None:
    steps = [place / 4999 for place in range(5000)]

    def lengthen(content: Json) -> None:
        for model in content["models"].values():
            model["curves"]["roc"] = {"fpr": steps, "tpr": [step**0.5 for step in steps]}

    out = collect_results(make_run({"evaluation/evaluation.json": lengthen}), tmp_path / "out")
    roc = load(out / "evaluation.json")["models"]["teacher"]["curves"]["roc"]
    assert len(roc["fpr"]) == len(roc["tpr"]) == 200
    assert (roc["fpr"][0], roc["fpr"][-1]) == (0, 1)
    assert all(abs(y - x**0.5) < 1e-3 for x, y in zip(roc["fpr"][1:], roc["tpr"][1:], strict=True))
    assert (out / "evaluation.json").stat().st_size < 300_000


def test_training_holds_both_logs(results: Path, whole_run: Path) -> None:
    training = load(results / "edge-64" / "training.json")
    assert [len(training[role]) for role in ("teacher", "student")] == [16, 24]
    first = json.loads((whole_run / "student" / "log.jsonl").read_text().splitlines()[0])
    assert training["student"][0] == first


def test_split_keeps_counts_and_nothing_of_single_images(make_run: Callable[..., Path], tmp_path: Path) -> None:
    def per_image(content: Json) -> None:
        content["table"] = {"ISIC_0030000": "train"}

    split = load(collect_results(make_run({"split.json": per_image}), tmp_path / "out") / "split.json")
    assert "ISIC_" not in json.dumps(split)
    assert split["counts"]["test"]["nv"] == 1006
    assert split["audit"] == {"passed": True, "lesions_across": 0, "exact_copies_across": 0, "near_copies": 1}


def test_no_absolute_path_is_kept(make_run: Callable[..., Path], tmp_path: Path) -> None:
    def name_paths(content: Json) -> None:
        content["command"] = "dermdistill run edge --data /srv/a/ham --out=/tmp/x --set data.size=64"
        content["data"]["source"] = "/srv/a/ham10000"

    run = make_run({"provenance.json": name_paths})
    (run / "recipe.yaml").write_text("name: edge\ndata: {protocol: given, split_file: /srv/b/split.csv}\n")
    out = collect_results(run, tmp_path / "out")
    provenance = load(out / "provenance.json")
    assert provenance["command"] == "dermdistill run edge --data ham --out=x --set data.size=64"
    assert provenance["data"]["source"] == "ham10000"
    assert all("/srv" not in path.read_text() and "/tmp" not in path.read_text() for path in out.iterdir())


def test_recipe_without_paths_is_copied_byte_by_byte(results: Path, whole_run: Path) -> None:
    assert (results / "edge-64" / "recipe.yaml").read_bytes() == (whole_run / "recipe.yaml").read_bytes()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("~/data/ham10000", "ham10000"),
        ("C:\\data\\ham10000", "ham10000"),
        ("../shared/ham10000", "../shared/ham10000"),
        ("bundle/model.onnx", "bundle/model.onnx"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("Actinic keratosis / Bowen's disease", "Actinic keratosis / Bowen's disease"),
        ("student_int8 / teacher", "student_int8 / teacher"),
        ("x --out='/a/b c'", "x --out='b c'"),
    ],
)
def test_without_paths_cuts_absolute_paths_alone(before: str, after: str) -> None:
    assert without_paths({"k": [before]}) == {"k": [after]}


@given(
    st.lists(
        st.from_regex(r"[a-z0-9_.]{1,8}", fullmatch=True).filter(lambda t: t.strip(".")),
        min_size=1,
        max_size=4,
    )
)
def test_without_paths_leaves_the_last_part(parts: list[str]) -> None:
    assert without_paths("--out /" + "/".join(parts)) == f"--out {parts[-1]}"


def test_collect_needs_a_finished_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=re.escape("evaluation/evaluation.json")):
        collect_results(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_page_numbers_equal_the_json(results: Path) -> None:
    text = results_page(results)
    evaluation = load(results / "edge-64" / "evaluation.json")
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
        for cells in (line.split("|") for line in text.splitlines() if line.startswith("|"))
    }
    wanted = {
        "Accuracy": ("diagnosis", "accuracy"),
        "Balanced accuracy": ("diagnosis", "balanced_accuracy"),
        "Macro AUC": ("diagnosis", "macro_auc"),
        "ECE (lower is better)": ("diagnosis", "ece"),
        "Melanoma: ROC AUC": ("melanoma", "roc_auc"),
        "Melanoma: Sensitivity": ("melanoma", "sensitivity"),
        "Melanoma: Specificity": ("melanoma", "specificity"),
        "Melanoma: Specificity at 95% sensitivity": ("melanoma", "specificity_at_95_sensitivity"),
    }
    for title, (group, metric) in wanted.items():
        assert rows[title] == [shown(model[group][metric]) for model in evaluation["models"].values()]
    assert rows["File"] == ["34.5 MB", "13.9 MB", "3.67 MB"]
    assert rows["Latency of one image, median (p5-p95)"][0] == "9.13 ms (8.70-11.20)"
    value = evaluation["differences"]["student_int8 - student"]["macro_auc"]["value"]
    line = next(line for line in text.splitlines() if line.startswith("- INT8 minus FP32, paired, Macro AUC"))
    assert float(line.split(": ")[1].split()[0]) == pytest.approx(value, abs=6e-4)


def test_page_gives_the_facts_of_the_run(results: Path) -> None:
    text = results_page(results)
    assert "dermdistill run edge --data ../shared/ham10000 --out runs/edge-64 --set data.size=64" in text
    for words in ("teacher 16 (best", "student 24 (best", "4f0c2a9be1", "Seed: 7", "c" * 64, "73.6% smaller"):
        assert words in text
    assert "generated" in text
    assert "dermdistill results page" in text


def test_page_warns_of_leaky_protocols_only(results: Path) -> None:
    assert "Leaky" not in results_page(results)
    alter(results / "edge-64" / "evaluation.json", leaky=True, protocol="published")
    assert "**Leaky protocol `published`:**" in results_page(results)


def test_page_orders_runs_by_name_and_ignores_other_folders(
    results: Path, whole_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect_results(whole_run, results / "aaa")
    (results / "benchmarks").mkdir()
    listed = sorted(results.glob("*/evaluation.json"), reverse=True)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(listed))  # a file system has no order
    assert re.findall(r"^## (.*)$", results_page(results), re.M) == ["aaa", "edge-64"]


def test_page_is_current_until_a_number_changes(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "results.md"
    assert not results_page_is_current(results, page)
    write_results_page(results, page)
    assert results_page_is_current(results, page)
    alter(results / "edge-64" / "provenance.json", seed=8)
    assert not results_page_is_current(results, page)


def test_page_takes_names_literally(results: Path) -> None:
    provenance = load(results / "edge-64" / "provenance.json")
    alter(results / "edge-64" / "provenance.json", data={**provenance["data"], "source": "<b>a|b*"})
    assert "&lt;b&gt;a\\|b\\*" in results_page(results)


def test_page_says_what_could_not_be_computed(results: Path) -> None:
    path = results / "edge-64" / "evaluation.json"
    models = load(path)["models"]
    for model in models.values():
        model["melanoma"]["roc_auc"] = {"value": None, "low": None, "high": None}
    alter(path, models=models)
    assert "| Melanoma: ROC AUC | not computable | not computable | not computable |" in results_page(results)


def test_page_of_no_results_says_so(tmp_path: Path) -> None:
    assert "No results are committed yet" in results_page(tmp_path)


def test_incomplete_results_folder_is_named(results: Path) -> None:
    (results / "edge-64" / "split.json").unlink()
    with pytest.raises(RunFolderError, match=re.escape("split.json")):
        results_page(results)


def add_compression(run: Path, record: Json) -> None:
    (run / "compression").mkdir()
    (run / "compression" / "compression.json").write_text(json.dumps(record))


def test_compression_is_collected_without_paths_and_shown(
    make_run: Callable[..., Path], results: Path, record: Json
) -> None:
    run = make_run()
    record["files"]["student_int8"]["how"] = "static, by /srv/a/tool"
    add_compression(run, record)
    collect_results(run, results / "small")
    kept = load(results / "small" / "compression.json")
    assert kept["files"]["student_int8"]["how"] == "static, by tool"
    assert [item["layer"] for item in kept["files"]["aware"]["layers"]] == ["stem", "body", "head"]
    first, second = results_page(results).split("## small\n")
    assert "Compression" not in first
    assert "\n\nCompression, every file of the student on the test part:\n\n|" in second
    assert "| ONNX Runtime INT8 (model.int8.onnx: static, by tool) | 3.21 MB |" in second


def test_compression_of_an_earlier_run_does_not_stay(
    make_run: Callable[..., Path], tmp_path: Path, record: Json
) -> None:
    run = make_run()
    add_compression(run, record)
    out = collect_results(run, tmp_path / "out")
    assert {path.name for path in out.iterdir()} == COLLECTED | {"compression.json"}
    (run / "compression" / "compression.json").unlink()
    collect_results(run, out)
    assert {path.name for path in out.iterdir()} == COLLECTED


def test_damaged_compression_of_a_result_is_named(results: Path) -> None:
    (results / "edge-64" / "compression.json").write_text("{}")
    with pytest.raises(RunFolderError, match=re.escape("edge-64/compression.json: lacks reference")):
        results_page(results)


CELL = {"value": 0.91, "low": 0.9, "high": 0.92, "spread": 0.003, "per_seed": [0.91, 0.91]}
GAIN = {"value": 0.012, "low": 0.003, "high": 0.021, "verdict": "helped", "per_seed": [0.012, 0.012]}
ABLATION: Json = {
    "task": "diagnosis",
    "paired": True,
    "verdicts": ["helped", "hurt"],
    "n": {"images": 1502, "lesions": 1119, "per_class": {}},
    "bootstrap": {"samples": 2000, "seed": 0, "unit": "lesion and seed", "level": 0.9},
    "metrics": ["macro_auc"],
    "control": "control",
    "rows": {
        "control": {"seeds": [0, 1], "metrics": {"macro_auc": CELL}, "differences": {}},
        "fused": {
            "seeds": [0, 1],
            "metrics": {"macro_auc": CELL},
            "differences": {"control": {"macro_auc": GAIN}},
            "paired_seeds": {"control": [0, 1]},
        },
    },
    "notes": ["One <note>."],
    "titles": {"fused": "Layer | fusion"},
}
ORIGIN: Json = {
    "command": "dermdistill ablate fusion --data ../shared/ham10000 --out runs/ablation-64",
    "code": {"version": "0.1.0", "commit": "abc123", "dirty": True},
    "machine": {"cpu": "X", "cores": 2},
    "packages": {},
    "seeds": [0, 1],
    "data": {"source": "HAM10000", "catalog_sha256": "d" * 64},
    "finished": "2026-01-02T03:04:05+00:00",
}


def add_folder(results: Path, name: str, **contents: Json) -> Path:
    folder = results / name
    folder.mkdir(parents=True)
    for file, content in contents.items():
        (folder / f"{file}.json").write_text(json.dumps(content))
    return folder


def test_page_shows_an_ablation_with_its_origin(tmp_path: Path) -> None:
    results, page = tmp_path / "results", tmp_path / "docs" / "results.md"
    folder = add_folder(results, "ablation-64", ablation=ABLATION, provenance=ORIGIN)
    (folder / "ablation.svg").write_text("<svg/>")
    text = write_results_page(results, page).read_text()
    for words in (
        "## ablation-64\n", "```\ndermdistill ablate fusion", "- Commit: abc123 (with uncommitted changes)",
        "- Seeds: 0, 1\n", "- Finished: 2026-01-02", "- Data: HAM10000, catalog sha256 dddd", "90% intervals",
        "![Differences from the control with their intervals](../results/ablation-64/ablation.svg)",
        "| control | 2 | .910 ± .003 (.900-.920) |", r"| Layer \| fusion | 2 | +.012 (+.003 to +.021) **helped** |",
        "Macro AUC, helped: Layer \\| fusion +.012 (+.003 to +.021); hurt: none.", "- One &lt;note&gt;.",
        "- Test part: 1,502 images of 1,119 lesions", "- Bootstrap: 2,000 replicates, drawn by lesion and seed",
    ):  # fmt: skip
        assert words in text, words
    assert results_page_is_current(results, page)
    assert "](" not in results_page(results)  # no place to link from is known


def test_page_says_that_a_distilled_student_has_no_control(results: Path) -> None:
    folder = results / "edge-64"
    assert WITHOUT_CONTROL in results_page(results)
    evaluation = json.loads((folder / "evaluation.json").read_text())
    evaluation["models"]["no_teacher"] = evaluation["models"]["student"]
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    assert WITHOUT_CONTROL not in results_page(results)


def test_page_shows_leakage_with_neutral_words(tmp_path: Path) -> None:
    groups = {key: value for key, value in ABLATION.items() if key not in {"n", "titles"}}
    groups |= {"paired": False, "verdicts": ["higher", "lower"]}
    parts = {"protocols": groups, "injection": ABLATION, "injection_leakable": ABLATION}
    add_folder(tmp_path, "leakage-64", leakage={**parts, "titles": {"fused": "With sisters"}}, provenance=ORIGIN)
    text = results_page(tmp_path)
    assert text.count("| With sisters | 2 | +.012 (+.003 to +.021) **higher** |") == 3
    assert "**helped**" not in text and "**Paired injection, on the leakable" in text


def test_runs_and_comparisons_stand_in_the_order_of_their_names(results: Path) -> None:
    add_folder(results, "zzz", ablation=ABLATION, provenance=ORIGIN)
    add_folder(results, "aaa", ablation=ABLATION, provenance=ORIGIN)
    text = results_page(results)
    assert re.findall(r"^## (.*)$", text, re.M) == ["aaa", "edge-64", "zzz"]
    assert "90 or 95% intervals" in text


def test_broken_comparison_folders_are_named(tmp_path: Path) -> None:
    folder = add_folder(tmp_path, "ablation-64", ablation={"task": "diagnosis"})
    with pytest.raises(RunFolderError, match=re.escape("provenance.json")) as caught:
        results_page(tmp_path)
    assert "ablation.json, provenance.json" in str(caught.value) and "results add" not in str(caught.value)
    (folder / "provenance.json").write_text(json.dumps(ORIGIN))
    with pytest.raises(RunFolderError, match=re.escape("ablation-64/ablation.json: lacks paired, verdicts")):
        results_page(tmp_path)
    (folder / "ablation.json").rename(folder / "leakage.json")
    with pytest.raises(RunFolderError, match="lacks protocols, injection, injection_leakable"):
        results_page(tmp_path)

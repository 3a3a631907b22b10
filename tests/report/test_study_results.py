"""What is kept of a study: tables and provenance, nothing of single images and no path."""

import json
from pathlib import Path

import pytest

from dermdistill.errors import RunFolderError
from dermdistill.report.study_results import collect_study, study_of


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    trial = folder / "trials" / "no_teacher" / "seed-0"
    trial.mkdir(parents=True)
    line = {"epoch": 0, "seconds": 1.0, "loss": 0.5, "val": {"macro_auc": 0.9}, "best": True, "terms": {"x": 1}}
    (trial / "log.jsonl").write_text(json.dumps(line) + "\n")
    (trial / "predictions.parquet").write_bytes(b"ISIC_0000001")
    (folder / "ablation.json").write_text(json.dumps({"rows": {}}))
    for suffix in ("md", "csv", "tex", "svg"):
        (folder / f"ablation.{suffix}").write_text(f"as {suffix}")
    (folder / "provenance.json").write_text(json.dumps({"command": "dermdistill ablate --out /home/someone/out"}))
    (folder / "split.json").write_text(json.dumps({"protocol": "lesion", "leakable": ["ISIC_0000001"]}))
    (folder / "recipe.yaml").write_text("name: edge\nweights: /home/someone/weights.pth\n")
    return folder


def test_study_is_kept_without_images_and_paths(study: Path, tmp_path: Path) -> None:
    assert study_of(study) == "ablation"
    kept = collect_study(study, tmp_path / "results")
    names = {path.name for path in kept.iterdir()}
    tables = {f"ablation.{suffix}" for suffix in ("json", "md", "csv", "tex", "svg")}
    assert names == {*tables, "provenance.json", "split.json", "training.json", "recipe.yaml"}
    everything = "".join(path.read_text() for path in kept.iterdir())
    assert "ISIC_" not in everything and "someone" not in everything and "weights.pth" in everything
    curves = json.loads((kept / "training.json").read_text())
    assert curves == {
        "no_teacher/seed-0": [{"epoch": 0, "seconds": 1.0, "loss": 0.5, "val": {"macro_auc": 0.9}, "best": True}]
    }


def test_unfinished_study_is_refused(study: Path, tmp_path: Path) -> None:
    (study / "ablation.json").unlink()
    assert study_of(study) is None
    with pytest.raises(RunFolderError, match="no finished study"):
        collect_study(study, tmp_path / "results")


def test_damaged_file_is_named(study: Path, tmp_path: Path) -> None:
    (study / "provenance.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"provenance\.json"):
        collect_study(study, tmp_path / "results")
    assert not (tmp_path / "results").exists()

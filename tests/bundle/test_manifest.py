import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermdistill.bundle.decisions import POINTS, Calibration, Decisions
from dermdistill.bundle.image_gate import fit_gate
from dermdistill.bundle.manifest import (
    MANIFEST_FILE,
    FileEntry,
    Manifest,
    parse_manifest,
    read_manifest,
    render_manifest,
    write_manifest,
)
from dermdistill.bundle.variants import FP32_FILE, INT8_FILE
from dermdistill.errors import BundleError
from dermdistill.labels import CODES
from dermdistill.preprocess import PreprocessSpec
from dermdistill.provenance import sha256_json

SPEC = PreprocessSpec(64, "crop")
DECISIONS = {
    "student": Decisions.plain({"youden": 0.25, "at_95_sensitivity": 0.125}, 7),
    "student_int8": Decisions(
        Calibration("vector", (0.5, 1.0, 1.5, 1.0, 1.0, 0.9, 1.1), (0.0, 0.1, -0.1, 0.0, 0.3, -0.2, 0.0)),
        {"youden": 0.2, "at_95_sensitivity": None},
        quantiles=(0.9, 0.8, None, 0.7, 0.6, 0.5, 0.95),
        coverage=0.9,
        confidence=0.4,
    ),
}
GATE = fit_gate(*np.random.default_rng(0).integers(0, 256, (2, 80, 32, 32, 3), dtype=np.uint8))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / FP32_FILE).write_bytes(b"fp32" * 500)
    (tmp_path / INT8_FILE).write_bytes(b"int8" * 100)
    write_manifest(
        tmp_path,
        task="diagnosis",
        spec=SPEC,
        decisions=DECISIONS,
        gate=GATE,
        provenance={"code": {"commit": "c0ffee"}},
    )
    return tmp_path


def test_manifest_reads_back_what_was_written(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert manifest.classes == CODES
    assert manifest.spec == SPEC
    assert manifest.decisions == DECISIONS
    assert manifest.decisions_of("student_web") == Decisions.plain({}, 7)
    assert manifest.gate == GATE
    assert {name: entry.bytes for name, entry in manifest.files.items()} == {FP32_FILE: 2000, INT8_FILE: 400}
    assert manifest.provenance == {"code": {"commit": "c0ffee"}}


def test_bundle_without_an_int8_file_is_whole(tmp_path: Path) -> None:
    (tmp_path / FP32_FILE).write_bytes(b"fp32")
    write_manifest(tmp_path, task="melanoma", spec=SPEC, decisions={}, provenance={})
    assert list(read_manifest(tmp_path).files) == [FP32_FILE]


@pytest.mark.parametrize("position", [0, 777, -1])
@pytest.mark.parametrize("name", [FP32_FILE, INT8_FILE])
def test_changed_byte_of_a_model_is_refused_by_name(bundle: Path, name: str, position: int) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[position % len(content)] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}: its content was changed"):
        read_manifest(bundle)


def test_any_changed_byte_of_the_manifest_is_refused(bundle: Path) -> None:
    text = (bundle / MANIFEST_FILE).read_text()
    assert parse_manifest(text) == read_manifest(bundle)
    for position, character in enumerate(text):
        changed = text[:position] + ("1" if character != "1" else "2") + text[position + 1 :]
        with pytest.raises(BundleError):
            parse_manifest(changed)


def test_all_faulty_files_are_named_at_once(bundle: Path) -> None:
    (bundle / FP32_FILE).unlink()
    (bundle / INT8_FILE).write_bytes(b"short")
    with pytest.raises(BundleError) as caught:
        read_manifest(bundle)
    assert f"{FP32_FILE}: cannot be read" in caught.value.problem
    assert f"{INT8_FILE}: has 5 bytes, not 400" in caught.value.problem


@pytest.mark.parametrize("name", ["model.pkl", ".hidden", "notes"])
def test_file_that_the_manifest_does_not_name_is_refused_by_name(bundle: Path, name: str) -> None:
    (bundle / name).mkdir() if name == "notes" else (bundle / name).touch()
    with pytest.raises(BundleError) as caught:
        read_manifest(bundle)
    assert caught.value.problem == f"{bundle / name}: is not in the manifest"


def _resealed(bundle: Path, **changes: Any) -> str:
    """The manifest's text with other values and a hash that fits them."""
    values = {**json.loads((bundle / MANIFEST_FILE).read_text()), **changes}
    values.pop("content_sha256")
    return json.dumps({**values, "content_sha256": sha256_json(values)}, indent=2) + "\n"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"format": 1}, "format is 1"),
        ({"surprise": 1}, "surprise"),
        ({"classes": list(reversed(CODES))}, "are not those of the task"),
        ({"task": "prognosis"}, "task"),
        ({"decisions": {"student": Decisions.plain({"youden": 1.5}, 7).to_dict()}}, r"'student': decisions hold 1\.5"),
        ({"decisions": {"student": Decisions.plain({}, 2).to_dict()}}, "one for each of 7 classes"),
        ({"decisions": {"student": {}}}, "confidence"),
        ({"gate": {"surprise": 1}}, "cannot be used"),
        ({"files": {}}, "files"),
        ({"files": {"../model.onnx": {"sha256": "0" * 64, "bytes": 1}}}, "plain file name"),
        ({"files": {"model.onnx": {"sha256": "abc", "bytes": 1}}}, "sha256"),
        ({"preprocess": {"size": 64}}, "preprocess"),
        ({"preprocess": {**SPEC.to_dict(), "resize": "stretch"}}, "preprocess"),
        ({"preprocess": {**SPEC.to_dict(), "std": [0, 1, 1]}}, "preprocess"),
    ],
)
def test_manifest_with_a_value_that_cannot_be_is_refused(bundle: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(BundleError, match=problem):
        parse_manifest(_resealed(bundle, **changes))


def test_resealed_manifest_without_changes_is_read(bundle: Path) -> None:
    assert parse_manifest(_resealed(bundle)) == read_manifest(bundle)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"null"])
def test_file_that_is_no_manifest_is_refused(bundle: Path, content: bytes) -> None:
    (bundle / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json: cannot be used"):
        read_manifest(bundle)


def test_folder_without_a_manifest_says_what_a_bundle_is(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="a bundle is a folder with"):
        read_manifest(tmp_path / "nowhere")


def test_write_manifest_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"holds no model"):
        write_manifest(tmp_path, task="diagnosis", spec=SPEC, decisions={}, provenance={})
    assert list(tmp_path.iterdir()) == []


def test_write_manifest_with_an_impossible_threshold_is_refused(tmp_path: Path) -> None:
    (tmp_path / FP32_FILE).write_bytes(b"fp32")
    with pytest.raises(BundleError, match="cannot be written"):
        write_manifest(
            tmp_path,
            task="diagnosis",
            spec=SPEC,
            decisions={"student": Decisions.plain({"youden": float("inf")}, 7)},
            provenance={},
        )
    assert not (tmp_path / MANIFEST_FILE).exists()


@settings(deadline=None, max_examples=50)
@given(
    decisions=st.dictionaries(
        st.text(),
        st.builds(
            lambda points, confidence: replace(Decisions.plain(points, 2), confidence=confidence),
            st.dictionaries(st.sampled_from(POINTS), st.none() | st.floats(0, 1, allow_subnormal=True)),
            st.none() | st.floats(0, 1),
        ),
    ),
    provenance=st.dictionaries(st.text(), st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)),
)
def test_rendered_manifest_always_parses_to_itself(decisions: dict[str, Decisions], provenance: dict[str, Any]) -> None:
    manifest = Manifest(
        task="melanoma",
        spec=SPEC,
        decisions=decisions,
        gate=None,
        files={FP32_FILE: FileEntry("0" * 64, 1)},
        provenance=provenance,
    )
    assert parse_manifest(render_manifest(manifest)) == manifest

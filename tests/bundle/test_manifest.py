import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermdistill.bundle.manifest import (
    MANIFEST_FILE,
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
THRESHOLDS: dict[str, dict[str, float | None]] = {
    "student": {"youden": 0.25, "at_95_sensitivity": 0.125},
    "student_int8": {"youden": 0.2, "at_95_sensitivity": None},
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / FP32_FILE).write_bytes(b"fp32" * 500)
    (tmp_path / INT8_FILE).write_bytes(b"int8" * 100)
    write_manifest(
        tmp_path,
        task="diagnosis",
        spec=SPEC,
        thresholds=THRESHOLDS,
        provenance={"code": {"commit": "c0ffee"}},
    )
    return tmp_path


def test_manifest_reads_back_what_was_written(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert manifest.classes == CODES
    assert manifest.spec == SPEC
    assert manifest.thresholds == THRESHOLDS
    assert {name: entry.bytes for name, entry in manifest.files.items()} == {FP32_FILE: 2000, INT8_FILE: 400}
    assert manifest.provenance == {"code": {"commit": "c0ffee"}}


def test_bundle_without_an_int8_file_is_whole(tmp_path: Path) -> None:
    (tmp_path / FP32_FILE).write_bytes(b"fp32")
    write_manifest(tmp_path, task="melanoma", spec=SPEC, thresholds={}, provenance={})
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
        ({"format": 2}, "format is 2"),
        ({"surprise": 1}, "surprise"),
        ({"classes": list(reversed(CODES))}, "are not those of the task"),
        ({"task": "prognosis"}, "task"),
        ({"thresholds": {"student": {"youden": 1.5}}}, "thresholds.student.youden"),
        ({"files": {}}, "files"),
        ({"files": {"../model.onnx": {"sha256": "0" * 64, "bytes": 1}}}, "files"),
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
        write_manifest(tmp_path, task="diagnosis", spec=SPEC, thresholds={}, provenance={})
    assert list(tmp_path.iterdir()) == []


def test_write_manifest_with_an_impossible_threshold_is_refused(tmp_path: Path) -> None:
    (tmp_path / FP32_FILE).write_bytes(b"fp32")
    with pytest.raises(BundleError, match=r"thresholds\.student\.youden"):
        write_manifest(
            tmp_path,
            task="diagnosis",
            spec=SPEC,
            thresholds={"student": {"youden": float("inf")}},
            provenance={},
        )
    assert not (tmp_path / MANIFEST_FILE).exists()


@settings(deadline=None, max_examples=50)
@given(
    thresholds=st.dictionaries(
        st.text(), st.dictionaries(st.text(), st.none() | st.floats(0, 1, allow_subnormal=True))
    ),
    provenance=st.dictionaries(st.text(), st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)),
)
def test_rendered_manifest_always_parses_to_itself(
    thresholds: dict[str, dict[str, float | None]], provenance: dict[str, Any]
) -> None:
    manifest = Manifest(
        task="melanoma",
        classes=("rest", "mel"),
        preprocess=SPEC.to_dict(),
        thresholds=thresholds,
        files={FP32_FILE: {"sha256": "0" * 64, "bytes": 1}},  # type: ignore[dict-item]
        provenance=provenance,
    )
    assert parse_manifest(render_manifest(manifest)) == manifest

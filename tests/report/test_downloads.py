import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from dermdistill.report.downloads import (
    MOST_BYTES,
    content_policy,
    data_uri,
    folder_pictures,
    json_download,
    page_script,
)


def test_policy_names_the_script_by_its_hash_and_allows_nothing_else() -> None:
    rules = dict(rule.split(" ", 1) for rule in content_policy("let ä = 1;").split("; "))
    digest = hashlib.sha256("let ä = 1;".encode()).digest()
    assert rules["script-src"] == f"'sha256-{base64.b64encode(digest).decode()}'"
    assert rules["default-src"] == "'none'"
    assert not any("http" in rule or "*" in rule for rule in rules.values())


def test_script_can_stand_between_script_tags() -> None:
    assert "</" not in page_script() and "<!--" not in page_script()
    assert "\r" not in page_script(), "a browser would hash another text"


def test_script_needs_nothing_that_its_policy_forbids() -> None:
    assert not re.search(r"\beval\b|new Function|setTimeout\(\s*[\"']|fetch\(|XMLHttpRequest|innerHTML", page_script())


def test_json_travels_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps({"é": [1, None]}))
    found = json_download(path, "evaluation.json")
    assert found is not None and found.name == "evaluation.json"
    start, _, content = found.address.partition(",")
    assert start == "data:application/json;base64"
    assert base64.b64decode(content) == path.read_bytes()


@pytest.mark.parametrize(("size", "there"), [(MOST_BYTES, True), (MOST_BYTES + 1, False)])
def test_large_json_stays_out_of_the_page(tmp_path: Path, size: int, there: bool) -> None:
    path = tmp_path / "evaluation.json"
    path.write_bytes(b" " * size)
    assert (json_download(path, "x") is not None) is there


def test_missing_json_is_no_download(tmp_path: Path) -> None:
    assert json_download(tmp_path / "gone.json", "x") is None


def test_pictures_of_a_folder_go_by_their_ids(tmp_path: Path) -> None:
    for name in ("ISIC_1.png", "ISIC_2.jpg"):
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    (tmp_path / "secret.json").write_text("{}")
    found = folder_pictures(tmp_path)
    assert {name: uri.partition(";")[0] for name, uri in found.items()} == {
        "ISIC_1": "data:image/png",
        "ISIC_2": "data:image/jpeg",
    }
    assert base64.b64decode(found["ISIC_2"].partition(",")[2]) == (tmp_path / "ISIC_2.jpg").read_bytes()
    assert folder_pictures(tmp_path / "gone") == {}
    assert data_uri(tmp_path / "secret.json") == ""

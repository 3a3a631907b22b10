"""Hashes against known answers, and a code version that tells the truth about its repository."""

import hashlib
import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermdistill import __version__, provenance
from dermdistill.provenance import (
    code_version,
    machine,
    package_versions,
    sha256_bytes,
    sha256_file,
    sha256_json,
)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
tables = st.dictionaries(st.text(), scalars | st.lists(scalars), max_size=6)


def test_sha256_of_abc_is_the_standards_answer() -> None:
    """FIPS 180-2, appendix B.1."""
    assert sha256_bytes(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("size", [0, 1, 1_000_003])
def test_sha256_file_hashes_the_content(size: int, tmp_path: Path) -> None:
    content = bytes(number % 251 for number in range(size))
    (tmp_path / "x").write_bytes(content)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(content).hexdigest() == sha256_bytes(content)


@settings(deadline=None, max_examples=50)
@given(tables, tables)
def test_sha256_json_is_the_same_for_the_same_values_only(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert sha256_json(one) == sha256_json(dict(reversed(one.items())))
    assert (sha256_json(one) == sha256_json(two)) == (
        json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)
    )


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with one commit that the package seems to lie in."""
    for variable in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(variable, raising=False)
    file = tmp_path / "module.py"
    file.write_text("x = 1\n")
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    for words in (("init", "-q"), ("add", "module.py"), (*author, "commit", "-q", "-m", "one")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.setattr(provenance, "__file__", str(file))
    return tmp_path


def test_code_version_names_the_commit_and_sees_changes(repository: Path) -> None:
    head = (repository / ".git" / "HEAD").read_text().split()[1]
    commit = (repository / ".git" / head).read_text().strip()
    assert code_version() == {"version": __version__, "commit": commit, "dirty": False}
    (repository / "notes.txt").write_text("untracked files change no result")
    assert code_version()["dirty"] is False
    (repository / "module.py").write_text("x = 2\n")
    assert code_version() == {"version": __version__, "commit": commit, "dirty": True}


def test_code_version_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "module.py"))
    assert code_version() == {"version": __version__, "commit": "unknown", "dirty": False}


def test_code_version_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: Any, **kwargs: Any) -> Any:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    assert code_version() == {"version": __version__, "commit": "unknown", "dirty": False}


def test_machine_names_no_person_and_no_path() -> None:
    text = json.dumps(machine())
    assert platform.node() not in text and str(Path.home()) not in text
    assert machine()["python"] == platform.python_version() and machine()["cores"] >= 1 and machine()["cpu"]


def test_package_versions_are_those_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = package_versions()
    assert {"numpy", "torch", "onnxruntime"} <= found.keys()
    assert all(metadata.version(name) == version for name, version in found.items())
    monkeypatch.setattr(provenance, "PACKAGES", ("numpy", "no-such-package-anywhere"))
    assert package_versions() == {"numpy": found["numpy"]}

"""Which bundle is taken where none is named; installing, removing and packing one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dermdistill.bundle import pack, shipped
from dermdistill.bundle.decisions import Decisions
from dermdistill.bundle.manifest import CARD_FILE, MANIFEST_FILE, read_manifest, write_manifest
from dermdistill.bundle.pack import bundle_of, pack_bundle
from dermdistill.bundle.shipped import default_bundle, find_bundle, install_bundle, uninstall_bundle
from dermdistill.bundle.variants import EXECUTORCH_INT8_FILE, FP32_FILE, INT8_FILE
from dermdistill.errors import BundleError, ConfigError, OutputError
from dermdistill.preprocess import PreprocessSpec
from dermdistill.provenance import sha256_file

DECISIONS = {
    name: Decisions.plain(thresholds, 7)
    for name, thresholds in (
        ("student", {"youden": 0.25, "at_95_sensitivity": 0.125}),
        ("student_int8", {"youden": 0.2, "at_95_sensitivity": None}),
        ("student_int8_executorch", {"youden": 0.3, "at_95_sensitivity": 0.1}),
    )
}


def write_bundle(folder: Path, content: str = "one") -> Path:
    """Three files in place of models, a card and a notice."""
    folder.mkdir(parents=True)
    for name in (FP32_FILE, INT8_FILE, EXECUTORCH_INT8_FILE):
        (folder / name).write_text(f"{content} {name}")
    (folder / CARD_FILE).write_text("# Model card\n\nFigures: 0.9 – ok\n", encoding="utf-8")
    (folder / "LICENSE-DATA.md").write_text("# Data notice\n")
    spec = PreprocessSpec(64, "crop")
    provenance = {"recipe": content, "code": {"commit": "c0ffee"}}
    write_manifest(folder, task="diagnosis", spec=spec, decisions=DECISIONS, provenance=provenance)
    return folder


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's place, empty; a package without a shipped bundle."""
    monkeypatch.delenv(shipped.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home" / "share"))
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path / "site-packages" / "dermdistill")
    return tmp_path / "home" / "share" / "dermdistill" / "bundle"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "run" / "bundle")
    return tmp_path / "run"


def test_without_any_bundle_the_error_says_how_to_get_one() -> None:
    with pytest.raises(BundleError) as caught:
        default_bundle()
    assert "dermdistill bundle install RUN" in caught.value.next_step
    assert "DERMDISTILL_BUNDLE" in caught.value.rule


def test_places_are_taken_in_their_order(tmp_path: Path, run: Path, user: Path, monkeypatch: Any) -> None:
    ours = write_bundle(tmp_path / "site-packages" / "dermdistill" / "shipped" / "ham10000-edge", "ours")
    assert (find_bundle().folder, find_bundle().place) == (ours, "shipped with the package")
    install_bundle(run)
    assert (find_bundle().folder, find_bundle().place) == (user, "installed")
    named = write_bundle(tmp_path / "named")
    monkeypatch.setenv("DERMDISTILL_BUNDLE", str(named))
    assert (find_bundle().folder, find_bundle().place) == (named, "named by DERMDISTILL_BUNDLE")
    monkeypatch.setenv("DERMDISTILL_BUNDLE", "")
    assert default_bundle() == user
    uninstall_bundle()
    assert default_bundle() == ours


def test_checkout_gives_the_bundle_beside_its_sources(tmp_path: Path, monkeypatch: Any) -> None:
    ours = write_bundle(tmp_path / "checkout" / "models" / "ham10000-edge")
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path / "checkout" / "src" / "dermdistill")
    with pytest.raises(BundleError):
        default_bundle()
    (tmp_path / "checkout" / "pyproject.toml").touch()
    assert default_bundle() == ours


def test_installed_package_takes_nothing_from_folders_around_it(tmp_path: Path, monkeypatch: Any) -> None:
    write_bundle(tmp_path / "lib" / "models" / "ham10000-edge")
    (tmp_path / "lib" / "pyproject.toml").touch()
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path / "lib" / "site-packages" / "dermdistill")
    with pytest.raises(BundleError):
        default_bundle()


def test_package_is_the_folder_of_dermdistill() -> None:
    code = "from dermdistill.bundle import shipped as s; import dermdistill; print(s.PACKAGE, dermdistill.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    package, init = map(Path, done.stdout.split())
    assert package == init.resolve().parent


@pytest.mark.parametrize("place", ["variable", "user"])
def test_first_place_without_a_bundle_is_an_error_and_not_passed_over(
    place: str, tmp_path: Path, user: Path, monkeypatch: Any
) -> None:
    write_bundle(tmp_path / "site-packages" / "dermdistill" / "shipped" / "ham10000-edge")
    if place == "variable":
        monkeypatch.setenv("DERMDISTILL_BUNDLE", str(tmp_path / "none"))
    else:
        user.mkdir(parents=True)
    with pytest.raises(BundleError, match=r"holds no manifest\.json") as caught:
        default_bundle()
    assert str(tmp_path / "none" if place == "variable" else user) in caught.value.problem
    assert ("DERMDISTILL_BUNDLE" if place == "variable" else "bundle uninstall") in caught.value.next_step


@pytest.mark.parametrize("data", [None, "", "relative/share"])
def test_users_place_is_below_the_home_folder_by_default(data: str | None, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    if data is None:
        monkeypatch.delenv("XDG_DATA_HOME")
    else:
        monkeypatch.setenv("XDG_DATA_HOME", data)
    source = write_bundle(tmp_path / "source")
    assert install_bundle(source) == tmp_path / "me" / ".local" / "share" / "dermdistill" / "bundle"
    assert content_of(default_bundle()) == content_of(source)


def test_user_without_a_home_folder_still_has_the_shipped_bundle(tmp_path: Path, run: Path, monkeypatch: Any) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    ours = write_bundle(tmp_path / "site-packages" / "dermdistill" / "shipped" / "ham10000-edge")
    assert default_bundle() == ours
    with pytest.raises(BundleError, match="no home folder") as caught:
        install_bundle(run)
    assert "XDG_DATA_HOME" in caught.value.rule


@pytest.mark.parametrize("named", ["run", "run/bundle"])
def test_install_copies_the_bundle_of_a_run_or_folder_whole(named: str, tmp_path: Path, run: Path, user: Path) -> None:
    assert install_bundle(tmp_path / named) == user
    assert content_of(user) == content_of(run / "bundle")
    assert read_manifest(user) == read_manifest(run / "bundle")


def test_install_takes_the_place_of_an_earlier_bundle(tmp_path: Path, run: Path, user: Path) -> None:
    other = write_bundle(tmp_path / "other", "two")
    (other / CARD_FILE).unlink()
    (other / MANIFEST_FILE).unlink()
    write_manifest(other, task="melanoma", spec=PreprocessSpec(64), decisions={}, provenance={})
    install_bundle(run)
    install_bundle(other)
    assert content_of(user) == content_of(other)
    assert list(user.parent.iterdir()) == [user]


def test_install_of_what_is_installed_changes_nothing(run: Path, user: Path) -> None:
    before = content_of(install_bundle(run))
    assert content_of(install_bundle(user)) == before


def test_install_of_a_changed_bundle_leaves_the_earlier_one(tmp_path: Path, run: Path, user: Path) -> None:
    install_bundle(run)
    before = content_of(user)
    other = write_bundle(tmp_path / "other", "two")
    (other / INT8_FILE).write_text("changed")
    with pytest.raises(BundleError, match=r"model\.int8\.onnx"):
        install_bundle(other)
    assert content_of(user) == before and list(user.parent.iterdir()) == [user]


def test_install_that_copies_wrongly_leaves_the_earlier_one(
    tmp_path: Path, run: Path, user: Path, monkeypatch: Any
) -> None:
    install_bundle(run)
    before = content_of(user)

    def half(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:-1])

    monkeypatch.setattr(shutil, "copyfile", half)
    with pytest.raises(BundleError):
        install_bundle(write_bundle(tmp_path / "other", "two"))
    assert content_of(user) == before and list(user.parent.iterdir()) == [user]


def test_install_where_a_file_lies_is_refused(run: Path, user: Path) -> None:
    user.parent.parent.mkdir(parents=True)
    user.parent.write_text("a file")
    with pytest.raises(OutputError):
        install_bundle(run)
    assert user.parent.read_text() == "a file"


@pytest.mark.parametrize("name", ["none", "empty"])
def test_what_is_neither_run_nor_bundle_is_refused(name: str, tmp_path: Path, user: Path) -> None:
    (tmp_path / "empty").mkdir()
    for action in (install_bundle, bundle_of, lambda path: pack_bundle(path, tmp_path / "out", only=[INT8_FILE])):
        with pytest.raises(BundleError, match="neither a bundle nor a run with one"):
            action(tmp_path / name)
    assert not user.exists() and not (tmp_path / "out").exists()


def test_uninstall_removes_the_bundle_alone(run: Path, user: Path) -> None:
    install_bundle(run)
    (user.parent / "other").touch()
    assert uninstall_bundle() == user
    assert [path.name for path in user.parent.iterdir()] == ["other"]
    with pytest.raises(BundleError, match="no bundle is installed there"):
        uninstall_bundle()


def test_uninstall_of_a_link_leaves_what_it_points_to(run: Path, user: Path) -> None:
    user.parent.mkdir(parents=True)
    user.symlink_to(run / "bundle")
    before = content_of(run / "bundle")
    uninstall_bundle()
    assert not os.path.lexists(user) and content_of(run / "bundle") == before


def test_packed_bundle_holds_the_named_model_card_and_notice(run: Path, tmp_path: Path) -> None:
    source, out = run / "bundle", tmp_path / "models" / "small"
    before = read_manifest(source)
    packed = pack_bundle(run, out, only=[INT8_FILE])
    assert packed == read_manifest(out)
    assert sorted(path.name for path in out.iterdir()) == ["LICENSE-DATA.md", CARD_FILE, MANIFEST_FILE, INT8_FILE]
    for name in ("LICENSE-DATA.md", INT8_FILE):
        assert packed.files[name] == before.files[name]
    assert packed.decisions == {"student_int8": DECISIONS["student_int8"]}
    assert packed.provenance == {**before.provenance, "packed_from": sha256_file(source / MANIFEST_FILE)}
    assert (packed.task, packed.spec) == (before.task, before.spec)


def test_packed_card_says_what_was_left_out(run: Path, tmp_path: Path) -> None:
    pack_bundle(run, tmp_path / "out", only=[INT8_FILE, EXECUTORCH_INT8_FILE])
    card, before = ((folder / CARD_FILE).read_bytes() for folder in (tmp_path / "out", run / "bundle"))
    assert card.startswith(before)
    added = card.removeprefix(before).decode()
    assert f"`{INT8_FILE}`, `{EXECUTORCH_INT8_FILE}` alone" in added
    assert sha256_file(run / "bundle" / MANIFEST_FILE) in added


def test_pack_of_a_bundle_without_a_card_has_none(run: Path, tmp_path: Path) -> None:
    bundle = run / "bundle"
    (bundle / CARD_FILE).unlink()
    (bundle / MANIFEST_FILE).unlink()
    write_manifest(bundle, task="diagnosis", spec=PreprocessSpec(64), decisions={}, provenance={})
    assert set(pack_bundle(run, tmp_path / "out", only=[FP32_FILE]).files) == {FP32_FILE, "LICENSE-DATA.md"}


def test_pack_is_the_same_twice(run: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        pack_bundle(run, tmp_path / name, only=[INT8_FILE])
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")


@pytest.mark.parametrize("only", [[], ["model.web.onnx"], [INT8_FILE, CARD_FILE], ["../model.onnx"]])
def test_pack_of_what_is_no_model_of_the_bundle_is_refused(only: list[str], run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        pack_bundle(run, tmp_path / "out", only=only)
    assert all(name in caught.value.rule for name in (FP32_FILE, INT8_FILE, EXECUTORCH_INT8_FILE))
    assert not (tmp_path / "out").exists()


def test_pack_over_something_is_refused(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    pack_bundle(run, out, only=[INT8_FILE])
    before = content_of(out)
    for place in (out, out / INT8_FILE, run):
        with pytest.raises(ConfigError, match="is there already"):
            pack_bundle(run, place, only=[FP32_FILE])
    assert content_of(out) == before


def test_pack_that_copies_wrongly_writes_nothing(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(pack.shutil, "copyfile", lambda source, target: target.write_text("half"))
    with pytest.raises(BundleError, match="was changed while it was copied"):
        pack_bundle(run, tmp_path / "out", only=[INT8_FILE])
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_pack_of_a_changed_bundle_is_refused(run: Path, tmp_path: Path) -> None:
    (run / "bundle" / FP32_FILE).write_text("changed")
    with pytest.raises(BundleError, match=r"model\.onnx"):
        pack_bundle(run, tmp_path / "out", only=[INT8_FILE])
    assert not (tmp_path / "out").exists()


def test_packed_bundle_can_be_packed_and_installed_again(run: Path, tmp_path: Path, user: Path) -> None:
    first = pack_bundle(run, tmp_path / "one", only=[INT8_FILE, FP32_FILE])
    second = pack_bundle(tmp_path / "one", tmp_path / "two", only=[FP32_FILE])
    assert second.provenance["packed_from"] == sha256_file(tmp_path / "one" / MANIFEST_FILE)
    assert first.provenance["packed_from"] != second.provenance["packed_from"]
    install_bundle(tmp_path / "two")
    assert json.loads((user / MANIFEST_FILE).read_text())["provenance"] == second.provenance

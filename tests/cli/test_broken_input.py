"""What a user sees who gives broken input: status 2, one clear screen, and nothing half-written."""

import errno
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

SCREEN = 40
METADATA = "HAM10000_metadata.csv"
PICTURES = "HAM10000_images_part_1"


def told(outcome: Any, *words: str) -> None:
    """Status 2 and one screen that holds these words, and says what is right or what to do."""
    assert outcome.status == 2, outcome.err
    assert "error: " in outcome.err and "Traceback" not in outcome.err
    assert len(outcome.err.splitlines()) <= SCREEN, outcome.err
    for word in words:
        assert word in outcome.err, f"{word!r} is not in: {outcome.err}"
    assert "Rule: " in outcome.err or "Next: " in outcome.err, outcome.err


def nothing_left(folder: Path) -> None:
    """No temporary file or folder below."""
    assert not [path for path in folder.rglob("*") if ".part" in path.name or path.name.endswith(".old")]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def metadata(old: str, new: str) -> Callable[[Path], None]:
    return lambda data: edit(data / METADATA, old, new)


def picture(change: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda data: change(data / PICTURES / "I_bcc_0_0.jpg")


BROKEN_DATA: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "missing column": (metadata(",dx,", ",ddx,"), (f"{METADATA}: missing column 'dx'", "'ddx'")),
    "column named twice": (metadata(",age,", ",sex,"), (METADATA, "column 'sex' stands twice")),
    "ragged row": (metadata("histo,50.0", "histo,50.0,9"), ("row 2", "8 values", "7 columns")),
    "unknown diagnosis": (metadata(",mel,", ",melanom,"), ("row", "unknown diagnosis 'melanom'", "akiec")),
    "age that is no number": (metadata("50.0", "old"), (f"{METADATA} row 2", "age 'old' is not a number")),
    "age out of range": (metadata("50.0", "300"), (f"{METADATA} row 2", "age 300", "0 to 120")),
    "duplicate image id": (metadata("I_nv_1_0", "I_nv_0_0"), ("duplicate image_id 'I_nv_0_0'", "first in")),
    "lesion with two diagnoses": (
        metadata("I_nv_0_1,nv", "I_nv_0_1,mel"),
        ("lesion 'L_nv_0' has two diagnoses", "'mel' here", "'nv' in"),
    ),
    "binary junk as CSV": (
        lambda data: (data / METADATA).write_bytes(bytes(range(256)) * 8),
        (METADATA, "is not UTF-8 text"),
    ),
    "zeros as CSV": (lambda data: (data / METADATA).write_bytes(bytes(99)), (METADATA, "binary file")),
    "empty CSV": (lambda data: (data / METADATA).write_bytes(b""), (METADATA, "the file is empty")),
    "CSV with a header alone": (
        lambda data: (data / METADATA).write_text("lesion_id,image_id,dx,dx_type,age,sex,localization\n"),
        ("no rows",),
    ),
    "no folder of images": (
        lambda data: (data / PICTURES).rename(data / "pictures"),
        ("no folder HAM10000_images_part_1",),
    ),
    "missing image": (picture(Path.unlink), ("missing image", "'I_bcc_0_0'", "row")),
    "truncated JPEG": (
        picture(lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])),
        ("I_bcc_0_0.jpg", "cannot be decoded (truncated"),
    ),
    "text named .jpg": (
        picture(lambda file: file.write_text("my holiday")),
        ("I_bcc_0_0.jpg", "is not an image (it holds text)"),
    ),
    "empty JPEG": (picture(lambda file: file.write_bytes(b"")), ("I_bcc_0_0.jpg", "is empty")),
    "folder named like an image": (
        picture(lambda file: (file.unlink(), file.mkdir())),
        ("missing image", "'I_bcc_0_0'"),
    ),
    "empty folder": (lambda data: (shutil.rmtree(data), data.mkdir()), ("the folder is empty", "layouts")),
    "no such folder": (shutil.rmtree, ("no such folder",)),
    "file instead of a folder": (
        lambda data: (shutil.rmtree(data), data.write_text("x")),
        ("is a file, not a folder",),
    ),
    "only an unknown class folder": (
        lambda data: ((data / METADATA).unlink(), (data / PICTURES).rename(data / "melanomma")),
        ("no known data layout", "a folder of images per class"),
    ),
    "an unknown class folder": (
        lambda data: (
            (data / METADATA).unlink(),
            (data / PICTURES).rename(data / "melanomma"),
            shutil.copytree(data / "melanomma", data / "nv", copy_function=_renamed),
        ),
        ("melanomma/I_akiec_0_0.jpg", "unknown diagnosis 'melanomma'", "known: akiec"),
    ),
}


def _renamed(source: str, target: str) -> str:
    return shutil.copy(source, Path(target).with_name("copy_" + Path(target).name))


@pytest.mark.parametrize("kind", BROKEN_DATA)
def test_run_on_broken_data_names_the_fault_and_leaves_nothing(
    kind: str, call: Any, data: Path, tiny: list[str], tmp_path: Path
) -> None:
    damage, words = BROKEN_DATA[kind]
    damage(data)
    told(call("run", "quick", "--data", data, "--out", tmp_path / "out", *tiny), str(tmp_path), *words)
    assert not (tmp_path / "out").exists()
    nothing_left(tmp_path)


def test_500_faults_fit_a_screen_and_are_all_listed_on_request(
    call: Any, data: Path, tiny: list[str], tmp_path: Path
) -> None:
    rows = [f"L{number},I{number},melanom,histo,50.0,male,back" for number in range(500)]
    (data / METADATA).write_text("\n".join(["lesion_id,image_id,dx,dx_type,age,sex,localization", *rows]) + "\n")
    words = ("run", "quick", "--data", data, "--out", tmp_path / "out", *tiny)
    told(call(*words), "1000 faults", "... and 970 more", "--all-faults")
    every = call("--all-faults", *words)
    assert every.status == 2 and every.err.count("unknown diagnosis 'melanom'") == 500
    assert not (tmp_path / "out").exists()


BROKEN_RECIPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "unknown key": ("student.epoch=5", ("student.epoch: unknown key", "epochs", "batch_size")),
    "unknown key in a branch": (
        "student.model.branches.0.name=x",
        ("student.model.branches.0.name: unknown key", "backbone"),
    ),
    "negative size": ("data.size=-1", ("data.size", "-1", "greater than or equal to 16")),
    "size of five million": ("data.size=5000000", ("data.size", "5000000", "less than or equal to 1024")),
    "no epochs": ("student.epochs=0", ("student.epochs", "greater than or equal to 1")),
    "learning rate nan": ("student.learning_rate=.nan", ("student.learning_rate", "nan", "finite")),
    "learning rate 'nan' as text": ("student.learning_rate=nan", ("student.learning_rate", "nan", "finite")),
    "temperature zero": ("student.distill.temperature=0", ("student.distill.temperature", "greater than 0")),
    "word for a number": ("student.epochs=many", ("student.epochs", "'many'", "valid integer")),
    "stacked remedies": ("student.loss.focal_gamma=2", ("logit_adjustment and focal_gamma are stacked",)),
    "exit without counterpart": ("teacher.model.exits=[1]", ("student exits [2] have no counterpart",)),
    "given without a file": ("data.protocol=given", ("split_file", "set both or neither")),
    "unknown backbone": (
        "teacher.model.branches.0.backbone=resnet999",
        ("unknown backbone 'resnet999'", "resnet34", "close timm names"),
    ),
    "unfit option of a backbone": (
        "teacher.model.branches.0.options={depth: 4}",
        ("backbone 'small_cnn' refuses its options", "depth"),
    ),
    "size that the network cannot take": (
        "teacher.model.branches=[{backbone: vit_tiny, options: {img_size: 64, patch_size: 8, depth: 4,"
        " embed_dim: 24, num_heads: 2}}]",
        ("the teacher network cannot take images of 32 x 32 pixels", "teacher.model.branches"),
    ),
    "no value": ("epochs", ("--set 'epochs'", "key=value")),
    "value that is not YAML": ("student.epochs=[1", ("--set 'student.epochs=[1'", "not YAML")),
    "date that is none": ("name=2024-13-45", ("--set 'name=2024-13-45'", "not YAML")),
    "no such place in a list": ("teacher.model.branches.7.backbone=x", ("'7' is no place in a list of 1",)),
    "key below a value": ("teacher.epochs.x=1", ("teacher.epochs is a value, not a table",)),
    "key two below a value": ("teacher.epochs.x.y=1", ("'x' is no key here",)),
    "very long value": (f"data.size={'9' * 4000}x", ("data.size", "9...9")),
}


@pytest.mark.parametrize("kind", BROKEN_RECIPES)
def test_run_of_a_broken_recipe_names_key_and_value_and_leaves_nothing(
    kind: str, call: Any, tiny: list[str], tmp_path: Path
) -> None:
    setting, words = BROKEN_RECIPES[kind]
    told(call("run", "quick", "--out", tmp_path / "out", *tiny, "--set", setting), *words)
    assert not (tmp_path / "out").exists()


def test_all_faults_of_a_recipe_come_at_once(call: Any, tmp_path: Path) -> None:
    settings = ("data.size=1", "student.epochs=0", "teacher.loss.gamma=1", "seed=-1")
    words = [word for setting in settings for word in ("--set", setting)]
    told(call("run", "quick", "--out", tmp_path / "out", *words), *(item.split("=")[0] for item in settings))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"\x89PNG\r\n\x1a\n\xff\xfe", ("cannot be read",)),
        (b"a: [1, 2", ("is not YAML",)),
        (b"- a\n- b\n", ("holds no recipe",)),
        (b"", ("holds no recipe",)),
        (b"name: mine\n", ("teacher: Field required", "student: Field required")),
        (b"name: mine\nteacher: 5\nstudent: []\n", ("teacher", "(given: 5)", "student")),
        (b"1: 2\n", ("teacher: Field required",)),
    ],
)
def test_run_of_a_broken_recipe_file_names_it(text: bytes, words: tuple[str, ...], call: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(text)
    told(call("run", file, "--out", tmp_path / "out"), str(file), *words)
    assert not (tmp_path / "out").exists()


def _write_text(path: Path) -> None:
    path.write_text("no weights at all")


def _write_other_objects(path: Path) -> None:
    torch.save({"note": "text", "more": [1, 2]}, path)


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("missing.safetensors", None, ("no such file of weights",)),
        ("junk.safetensors", _write_text, ("cannot be read as weights",)),
        ("junk.pth", _write_text, ("is no file of plain tensors",)),
        ("notes.pth", _write_other_objects, ("holds no plain table of tensors",)),
    ],
)
def test_weights_from_a_file_that_cannot_be_had(
    name: str,
    write: Callable[[Path], None] | None,
    words: tuple[str, ...],
    call: Any,
    tiny: list[str],
    tmp_path: Path,
) -> None:
    file = tmp_path / name
    if write is not None:
        write(file)
    branch = f"teacher.model.branches=[{{backbone: small_cnn, weights: {file}}}]"
    told(call("run", "quick", "--out", tmp_path / "out", *tiny, "--set", branch), str(file), *words)
    assert not (tmp_path / "out").exists()


def test_weights_that_no_package_carries(call: Any, tiny: list[str], tmp_path: Path) -> None:
    branch = "student.model.branches=[{backbone: resnet34, weights: offline}]"
    outcome = call("run", "quick", "--out", tmp_path / "out", *tiny, "--set", branch)
    told(outcome, "no packaged weights for backbone 'resnet34'", "efficientnet_lite0")
    assert not (tmp_path / "out").exists()


def test_hub_weights_without_a_network(
    call: Any, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: Any, pretrained: bool = False, **kwargs: Any) -> Any:
        assert pretrained
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

    monkeypatch.setattr("dermdistill.models.weights.create_backbone", unreachable)
    branch = "teacher.model.branches=[{backbone: mobilenetv3_small, weights: hub}]"
    outcome = call("run", "quick", "--out", tmp_path / "out", *tiny, "--set", branch)
    told(outcome, "hub weights of 'mobilenetv3_small' cannot be had", "unreachable", "set weights=none")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def two_lesions(data: Path) -> Path:
    """The data with two lesions of the class df, where three are needed."""
    lines = (data / METADATA).read_text().splitlines(keepends=True)
    (data / METADATA).write_text("".join(line for line in lines if not line.startswith("L_df_2")))
    return data


def test_split_with_too_few_lesions_in_a_class(call: Any, two_lesions: Path, tmp_path: Path) -> None:
    outcome = call("data", "split", two_lesions, "--out", tmp_path / "split")
    told(outcome, "class 'df' has 2 lesions", "at least 3 lesions")
    assert not (tmp_path / "split").exists()


def test_resume_reads_mended_data_again(call: Any, two_lesions: Path, tiny: list[str], tmp_path: Path) -> None:
    words = ("run", "quick", "--data", two_lesions, "--out", tmp_path / "out", *tiny)
    told(call(*words), "class 'df' has 2 lesions")
    assert list(json.loads((tmp_path / "out" / "run.json").read_text())["stages"]) == ["catalog"]
    edit(two_lesions / METADATA, "L_df_1", "L_df_9")
    edit(two_lesions / METADATA, ",vasc,", ",vascular,")
    told(call(*words, "--resume"), "unknown diagnosis 'vascular'")
    nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda text: text.replace("I_nv_0_0", "nobody"),
            ("'nobody' is not in the data", "'I_nv_0_0' has no"),
        ),
        (lambda text: text.replace(",test", ",tset", 1), ("split 'tset' is none of train, val, test",)),
        (lambda text: text.replace("split", "part", 1), ("no column split",)),
        (lambda text: text.replace(",test", ",val"), ("no image in part 'test'",)),
        (lambda text: text + "I_nv_0_0,train\n", ("image_id 'I_nv_0_0' already stands in row",)),
        (lambda text: "", ("not a table",)),
    ],
)
def test_given_split_that_does_not_fit_the_data(
    change: Callable[[str], str], words: tuple[str, ...], call: Any, data: Path, tmp_path: Path
) -> None:
    assert call("data", "split", data, "--out", tmp_path / "made").status == 0
    file = tmp_path / "mine.csv"
    file.write_text(change((tmp_path / "made" / "split.csv").read_text()))
    outcome = call("data", "split", data, "--out", tmp_path / "split", "--protocol", "given", "--split-file", file)
    told(outcome, "mine.csv", *words)
    assert not (tmp_path / "split").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data", "index", "{data}", "--layout", "ham"), ("unknown layout 'ham'", "ham10000, isic, folder")),
        (("data", "split", "{data}", "--out", "{tmp}/x", "--seed", "-1"), ("seed", "-1")),
        (
            ("data", "split", "{data}", "--out", "{tmp}/x", "--protocol", "odd"),
            ("protocol", "'odd'", "'lesion'"),
        ),
        (("data", "split", "{data}", "--out", "{tmp}/x", "--protocol", "given"), ("split_file",)),
        (("data", "audit", "{data}", "--split", "{tmp}/none"), ("split.csv", "cannot be read")),
        (("data", "synth", "{tmp}/x", "--lesions", "3"), ("lesions", "greater than or equal to 21")),
        (("data", "synth", "{tmp}/x", "--artefacts", "snow"), ("artefacts", "'snow'", "'hair'")),
        (("data", "synth", "{data}"), ("exists and is no synthetic data set",)),
        (("data", "explore", "{data}", "--out", "{data}"), ("is not empty", "no earlier exploration")),
        (("predict", "{tmp}/none", "{tmp}/a.jpg"), ("manifest.json", "cannot be read")),
        (("report", "{tmp}/none"), ("has no recipe.yaml, provenance.json", "--resume")),
        (("report", "{data}"), ("has no recipe.yaml, provenance.json", "--resume")),
        (("results", "add", "{data}", "x", "--results", "{tmp}/x"), ("has no recipe.yaml",)),
    ],
)
def test_other_commands_with_broken_arguments(
    words: tuple[str, ...], said: tuple[str, ...], call: Any, data: Path, tmp_path: Path
) -> None:
    before = content(data)
    told(call(*(word.format(data=data, tmp=tmp_path) for word in words)), *said)
    assert content(data) == before and not (tmp_path / "x").exists()
    nothing_left(tmp_path)


def test_out_that_is_a_file_is_left_alone(call: Any, tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    told(call("run", "quick", "--out", tmp_path / "out", *tiny), str(tmp_path / "out"), "is a file", "--out")
    assert (tmp_path / "out").read_text() == "mine"


def test_out_that_is_not_empty_is_left_alone(call: Any, tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    told(call("run", "quick", "--out", tmp_path / "out", *tiny), "is not empty", "--resume")
    assert content(tmp_path / "out") == {"thesis.txt": b"mine"}


@pytest.mark.parametrize("exists", [False, True])
def test_resume_of_a_folder_without_a_run(exists: bool, call: Any, tiny: list[str], tmp_path: Path) -> None:
    if exists:
        (tmp_path / "out").mkdir()
    told(call("run", "quick", "--out", tmp_path / "out", "--resume", *tiny), "holds no run to resume")
    assert (tmp_path / "out").exists() == exists
    assert not content(tmp_path)


def test_a_failed_start_leaves_an_empty_folder_empty(call: Any, data: Path, tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (data / METADATA).write_bytes(b"")
    told(call("run", "quick", "--data", data, "--out", tmp_path / "out", *tiny), "the file is empty")
    assert list((tmp_path / "out").iterdir()) == []


def test_resume_with_another_recipe(call: Any, finished: Path, tiny: list[str]) -> None:
    before = content(finished)
    outcome = call("run", "quick", "--out", finished, "--resume", *tiny, "--set", "student.epochs=2")
    told(outcome, str(finished), "different keys: student.epochs", "same --set options")
    assert content(finished) == before


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"\xff\xfe", b'{"stages": 5}', b'{"stages": {"catalog": 3}}'])
def test_resume_with_a_damaged_record(text: bytes, call: Any, tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(text)
    told(call("run", "quick", "--out", tmp_path, "--resume", *tiny), "run.json", "is damaged")
    assert content(tmp_path) == {"run.json": text, ".lock": b""}


@pytest.mark.parametrize("text", [b"a: [", b"\xff\xfe", b"name: x\n"])
def test_resume_with_a_damaged_recipe(text: bytes, call: Any, tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"stages": {}}')
    (tmp_path / "recipe.yaml").write_bytes(text)
    told(call("run", "quick", "--out", tmp_path, "--resume", *tiny), str(tmp_path / "recipe.yaml"))
    assert (tmp_path / "recipe.yaml").read_bytes() == text


@pytest.mark.parametrize("junk", [b"", b"no checkpoint", b"\x08\0\0\0\0\0\0\0{}      "])
def test_resume_from_a_damaged_checkpoint(junk: bytes, call: Any, finished: Path, tiny: list[str]) -> None:
    record = json.loads((finished / "run.json").read_text())
    del record["stages"]["teacher"]
    (finished / "run.json").write_text(json.dumps(record))
    (finished / "teacher" / "checkpoint.safetensors").write_bytes(junk)
    before = content(finished)
    outcome = call("run", "quick", "--out", finished, "--resume", *tiny)
    told(outcome, "checkpoint.safetensors: damaged checkpoint", "delete checkpoint.safetensors")
    assert content(finished).keys() == before.keys()
    assert (finished / "teacher" / "checkpoint.safetensors").read_bytes() == junk


def _flip_a_byte(file: Path) -> None:
    middle = file.stat().st_size // 2
    raw = bytearray(file.read_bytes())
    raw[middle] ^= 1
    file.write_bytes(bytes(raw))


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("model.int8.onnx", _flip_a_byte, ("its content was changed", "copy the bundle again")),
        ("model.onnx", Path.unlink, ("model.onnx: cannot be read",)),
        ("manifest.json", Path.unlink, ("manifest.json: cannot be read",)),
        (
            "manifest.json",
            lambda file: edit(file, '"at_95_sensitivity": ', '"at_95_sensitivity":  '),
            ("its content was changed",),
        ),
    ],
)
def test_predict_with_a_changed_bundle(
    name: str, damage: Callable[[Path], object], words: tuple[str, ...], call: Any, finished: Path, data: Path
) -> None:
    damage(finished / "bundle" / name)
    outcome = call("predict", finished / "bundle", data / PICTURES / "I_mel_0_0.jpg")
    told(outcome, name, *words)
    assert outcome.out == ""


def test_predict_of_what_is_no_image_predicts_nothing(call: Any, finished: Path, data: Path) -> None:
    notes = data / "notes.jpg"
    notes.write_text("not an image")
    outcome = call("predict", finished / "bundle", data / PICTURES / "I_mel_0_0.jpg", notes, data / "gone.png")
    told(outcome, "2 of 3 images cannot be used", str(notes), str(data / "gone.png"))
    assert outcome.out == ""


@pytest.mark.parametrize("missing", ["evaluation", "provenance.json"])
def test_report_and_results_of_an_unfinished_run(missing: str, call: Any, finished: Path, tmp_path: Path) -> None:
    path = finished / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = content(finished)
    told(call("report", finished), f"has no {missing}", "--resume")
    told(call("results", "add", finished, "x", "--results", tmp_path / "results"), f"has no {missing}")
    assert content(finished) == before and not (tmp_path / "results").exists()


WRITERS: dict[str, tuple[str, ...]] = {
    "run": ("run", "quick", "--out", "{out}"),
    "catalog": ("data", "index", "{data}", "--out", "{out}"),
    "split": ("data", "split", "{data}", "--out", "{out}"),
    "plots": ("data", "explore", "{data}", "--out", "{out}"),
    "synthetic lesions": ("data", "synth", "{out}", "--lesions", "21"),
    "page of results": ("results", "page", "--results", "{data}", "--page", "{out}"),
}


def _words(kind: str, data: Path, out: Path, tiny: list[str]) -> list[str]:
    return [word.format(data=data, out=out) for word in WRITERS[kind]] + (tiny if kind == "run" else [])


@pytest.mark.parametrize("kind", WRITERS)
def test_output_below_a_device(kind: str, call: Any, data: Path, tiny: list[str]) -> None:
    told(call(*_words(kind, data, Path(os.devnull, "x", "y"), tiny)), os.devnull, "cannot be written")


@pytest.mark.parametrize("kind", WRITERS)
def test_read_only_output(
    kind: str, call: Any, data: Path, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Patched, as permission bits do not bind root.
    make = os.mkdir

    def refuse(path: Any, *args: Any, **kwargs: Any) -> None:
        if tmp_path / "locked" in [Path(path), *Path(path).parents]:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        make(path, *args, **kwargs)

    monkeypatch.setattr(os, "mkdir", refuse)
    outcome = call(*_words(kind, data, tmp_path / "locked" / "out", tiny))
    told(outcome, str(tmp_path / "locked"), "cannot be written (Permission denied)")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["data"]


@pytest.mark.parametrize("kind", ["catalog", "page of results"])
def test_output_never_takes_the_place_of_a_device(kind: str, call: Any, data: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    told(call(*_words(kind, data, pipe, [])), str(pipe), "is no file")
    assert pipe.is_fifo()


@pytest.mark.parametrize("kind", WRITERS)
def test_full_disk_when_a_file_is_flushed(
    kind: str, call: Any, data: Path, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("dermdistill.atomic.os.fsync", full)
    outcome = call(*_words(kind, data, tmp_path / "out", tiny))
    told(outcome, str(tmp_path / "out"), "No space left on device", "free some space")
    assert {Path(name).parts[0] for name in content(tmp_path)} == {"data"}


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel refuses to let any file of this process grow beyond ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("size", "file"),
    [
        (10, "run.json"),
        (500, "recipe.yaml"),
        (3000, "synthetic"),
        (100_000, "images-32"),
        (400_000, "teacher"),
    ],
)
def test_file_that_the_kernel_refuses(
    size: int, file: str, call: Any, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # git would be killed by the limit, in the middle of its own work.
    monkeypatch.setattr("dermdistill.provenance._git", lambda *words: "")
    with largest_file(size):
        outcome = call("run", "quick", "--out", tmp_path / "out", *tiny)
    torch.use_deterministic_algorithms(False)
    told(outcome, file, "cannot be written (File too large)", "free some space")
    nothing_left(tmp_path)
    assert (tmp_path / "out").exists() == (size > 3000)


def test_mistakes_in_a_process_of_its_own(process: Any, tmp_path: Path) -> None:
    """What the tests above check inside this process holds for real ones: nothing else is printed."""
    for words, said in (
        (("recipes", "show", "nope"), "unknown recipe 'nope'"),
        (("run", "nope", "--out", tmp_path / "out"), "unknown recipe 'nope'"),
        (("data", "index", tmp_path / "none"), "no such folder"),
        (("predict", tmp_path / "none", tmp_path / "a.jpg"), "manifest.json: cannot be read"),
    ):
        outcome = process(*words)
        told(outcome, said)
        assert outcome.err.startswith("error: ") and outcome.out == ""
    assert list(tmp_path.iterdir()) == []


def test_missing_package_says_what_to_install(process: Any, tmp_path: Path) -> None:
    before = "import sys; sys.modules['pandas'] = None"
    outcome = process("data", "index", tmp_path, before=before)
    told(outcome, "needs the package 'pandas'", "pip install 'dermdistill[train]'")

"""``manifest.json``: what a bundle holds, how its model is fed and read, and the hash of every byte of it.

Form of a bundle: ``manifest.json``, at least one of the model files of ``variants.py``, and what stands beside them:
``MODEL_CARD.md``, notices. No file of it runs code when it is loaded. Read without pydantic, whose import alone would
take longer than the first prediction.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from dermdistill.atomic import write_text
from dermdistill.bundle.decisions import Decisions
from dermdistill.bundle.image_gate import ImageGate
from dermdistill.bundle.variants import MODEL_NAMES
from dermdistill.errors import BundleError
from dermdistill.labels import Task, class_names
from dermdistill.preprocess import PreprocessSpec
from dermdistill.provenance import sha256_file, sha256_json

MANIFEST_FILE = "manifest.json"
CARD_FILE = "MODEL_CARD.md"
FORMAT: Final = 2

_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class FileEntry:
    """One file of a bundle: 64 hex digits and at least one byte."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``.

    Args:
        task: ``diagnosis`` (seven classes) or ``melanoma`` (two).
        spec: the preprocessing of the bundle's models.
        decisions: for each model (names of ``VARIANTS``) what validation decided; none for a model that has none.
        gate: what the training images looked like; None where images are not looked at.
        files: every file by name.
        provenance: where the model comes from.
    """

    task: Task
    spec: PreprocessSpec
    decisions: Mapping[str, Decisions]
    gate: ImageGate | None
    files: Mapping[str, FileEntry]
    provenance: Mapping[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """The order of the logits."""
        return class_names(self.task)

    def decisions_of(self, model: str) -> Decisions:
        """What validation decided for a model: nothing, and raw probabilities, where the manifest has no entry."""
        return self.decisions.get(model) or Decisions.plain({}, len(self.classes))

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {
            "format": FORMAT,
            "task": self.task,
            "classes": list(self.classes),
            "preprocess": self.spec.to_dict(),
            "decisions": {name: own.to_dict() for name, own in self.decisions.items()},
            "gate": None if self.gate is None else self.gate.to_dict(),
            "files": {name: {"sha256": entry.sha256, "bytes": entry.bytes} for name, entry in self.files.items()},
            "provenance": dict(self.provenance),
        }


KEYS = ("format", "task", "classes", "preprocess", "decisions", "gate", "files", "provenance")


def _manifest_of(values: Mapping[str, Any]) -> Manifest:
    """The manifest with these values.

    Raises:
        BundleError: a key too many or too few, or a value out of its range.
    """
    if set(values) != set(KEYS):
        odd = sorted(set(values) ^ set(KEYS))
        raise BundleError(f"keys {', '.join(odd)} are missing or not known", rule=f"the keys are {', '.join(KEYS)}")
    task = values["task"]
    if task not in get_args(Task):
        raise BundleError(f"task {task!r}", rule=f"one of {', '.join(get_args(Task))}")
    if values["classes"] != list(class_names(task)):
        raise BundleError(f"classes {values['classes']!r:.200} are not those of the task {task!r}")
    for key in ("decisions", "files", "provenance"):
        if not isinstance(values[key], dict):
            raise BundleError(f"{key} {values[key]!r:.200}", rule="it is an object")
    if not values["files"]:
        raise BundleError("files is empty", rule="a bundle holds at least one file")
    gate = values["gate"]
    return Manifest(
        task=task,
        spec=_spec(values["preprocess"]),
        decisions={name: _decisions(name, own, task) for name, own in values["decisions"].items()},
        gate=None if gate is None else ImageGate.from_dict(gate),
        files={name: _file_entry(name, entry) for name, entry in values["files"].items()},
        provenance=values["provenance"],
    )


def _decisions(name: str, values: Any, task: Task) -> Decisions:
    try:
        return Decisions.from_dict(values, len(class_names(task)))
    except BundleError as error:
        raise BundleError(f"decisions of {name!r}: {error.problem}", rule=error.rule) from error


def _spec(values: Any) -> PreprocessSpec:
    try:
        spec = PreprocessSpec.from_dict(values)
        sound = spec.to_dict() == values and spec.size > 0 and min(spec.std) > 0
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BundleError(f"preprocess {values!r:.200} cannot be read ({error!r})") from error
    if not sound or spec.resize not in ("squash", "crop"):
        raise BundleError(f"preprocess {values!r:.200} is not a preprocessing that this version knows")
    return spec


def _file_entry(name: str, entry: Any) -> FileEntry:
    sound = (
        _FILE_NAME.fullmatch(name)
        and isinstance(entry, dict)
        and set(entry) == {"sha256", "bytes"}
        and isinstance(entry["sha256"], str)
        and _SHA256.fullmatch(entry["sha256"])
        and type(entry["bytes"]) is int
        and entry["bytes"] >= 1
    )
    if not sound:
        raise BundleError(
            f"file {name!r}: {entry!r:.200}",
            rule="a plain file name, with sha256 (64 hex digits) and bytes (1 or more)",
        )
    return FileEntry(entry["sha256"], entry["bytes"])


def render_manifest(manifest: Manifest) -> str:
    """The text of ``manifest.json``: its values and, last, the hash of them all."""
    values = manifest.to_dict()
    return json.dumps({**values, "content_sha256": sha256_json(values)}, indent=2, allow_nan=False) + "\n"


def parse_manifest(text: str, source: str = MANIFEST_FILE) -> Manifest:
    """Read what ``render_manifest`` wrote; ``source`` is the file name for messages.

    Raises:
        BundleError: another format version, a value out of its range, or any byte changed since it was
            written.
    """
    try:
        values = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _unreadable(source, f"it is not JSON ({error})") from error
    if not isinstance(values, dict):
        raise _unreadable(source, "it is not a JSON object")
    if values.get("format") != FORMAT:
        raise BundleError(
            f"{source}: its format is {values.get('format')!r}",
            rule=f"this version of dermdistill reads format {FORMAT}",
            next_step="write the bundle again with this version, or read it with the version that wrote it",
        )
    values.pop("content_sha256", None)
    try:
        manifest = _manifest_of(values)
    except BundleError as error:
        raise _unreadable(source, f"{error.problem} (rule: {error.rule})" if error.rule else error.problem) from error
    if text != render_manifest(manifest):
        raise BundleError(
            f"{source}: its content was changed after it was written",
            rule="the values agree with content_sha256, byte for byte",
            next_step="copy the bundle again from where it was made; do not edit it",
        )
    return manifest


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _unreadable(source: str, why: str) -> BundleError:
    return BundleError(
        f"{source}: cannot be used: {why}",
        rule="a manifest as dermdistill writes it",
        next_step="copy the bundle again from where it was made, or run the stage that writes it",
    )


def _entry(path: Path) -> FileEntry:
    return FileEntry(sha256=sha256_file(path), bytes=path.stat().st_size)


def write_manifest(
    folder: Path,
    *,
    task: Task,
    spec: PreprocessSpec,
    decisions: Mapping[str, Decisions],
    provenance: Mapping[str, Any],
    gate: ImageGate | None = None,
) -> Manifest:
    """Hash the files that lie in ``folder`` and write ``manifest.json`` beside them.

    Args:
        folder: holds at least one model file, and nothing that does not belong into the bundle.
        task: gives the classes in the order of the logits.
        spec: the preprocessing of the models.
        decisions: by model name, see ``Manifest``.
        provenance: JSON-able.
        gate: of the training images.

    Raises:
        BundleError: there is no model file, something else than a file, or a value out of its range.
        OutputError: the file cannot be written.
    """
    names = sorted(item.name for item in folder.iterdir() if item.name != MANIFEST_FILE)
    strange = [name for name in names if not (folder / name).is_file() or (folder / name).is_symlink()]
    if strange:
        raise BundleError(f"{folder / strange[0]}: is not a plain file", rule="a bundle holds plain files alone")
    if not set(names) & set(MODEL_NAMES):
        raise BundleError(f"{folder}: holds no model", rule=f"a bundle holds at least one of {', '.join(MODEL_NAMES)}")
    files = {name: _entry(folder / name) for name in names}
    manifest = Manifest(task, spec, decisions, gate, files, provenance)
    try:
        # What could not be read again must not be written.
        _manifest_of(json.loads(json.dumps(manifest.to_dict(), allow_nan=False)))
    except (BundleError, ValueError) as error:
        raise BundleError(f"the manifest of {folder} cannot be written: {error}") from error
    write_text(folder / MANIFEST_FILE, render_manifest(manifest))
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read a bundle's manifest and verify every file that it names.

    Raises:
        BundleError: a file is missing, changed or one too many, all of them named; or the manifest itself is changed.
    """
    path = folder / MANIFEST_FILE
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror})",
            rule=f"a bundle is a folder with {MANIFEST_FILE} and the files that it names",
            next_step="give the bundle folder of a finished run, such as runs/demo/bundle",
        ) from error
    except UnicodeDecodeError as error:
        raise _unreadable(str(path), "it is not UTF-8 text") from error
    manifest = parse_manifest(text, str(path))
    faults = [fault for name, entry in manifest.files.items() if (fault := _fault(folder / name, entry))]
    extra = sorted(item.name for item in folder.iterdir() if item.name not in {MANIFEST_FILE, *manifest.files})
    faults += [f"{folder / name}: is not in the manifest" for name in extra]
    if faults:
        raise BundleError(
            "\n".join(faults),
            rule="a bundle holds its manifest and the files that it names, unchanged, and nothing else",
            next_step="copy the bundle again from where it was made",
        )
    return manifest


def _fault(path: Path, entry: FileEntry) -> str:
    try:
        size, digest = path.stat().st_size, sha256_file(path)
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})"
    if size != entry.bytes:
        return f"{path}: has {size} bytes, not {entry.bytes}"
    if digest != entry.sha256:
        return f"{path}: its content was changed (sha256 {digest[:12]}…, not {entry.sha256[:12]}…)"
    return ""

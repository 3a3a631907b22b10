"""``manifest.json``: what a bundle holds, how its model is fed and read, and the hash of every byte of it.

Form of a bundle: ``manifest.json``, at least one of the model files of ``variants.py``, and what stands beside them:
``MODEL_CARD.md``, notices. No file of it runs code when it is loaded.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dermdistill.atomic import write_text
from dermdistill.bundle.variants import MODEL_NAMES
from dermdistill.errors import BundleError
from dermdistill.labels import Task, class_names
from dermdistill.preprocess import PreprocessSpec
from dermdistill.provenance import sha256_file, sha256_json

MANIFEST_FILE = "manifest.json"
CARD_FILE = "MODEL_CARD.md"
FORMAT: Literal[1] = 1

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Threshold = Annotated[float, Field(ge=0, le=1)] | None


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileEntry(_Frozen):
    """One file of a bundle."""

    sha256: Sha256
    bytes: int = Field(ge=1)


class Manifest(_Frozen):
    """The content of ``manifest.json``.

    Args:
        format: version of this form.
        task: ``diagnosis`` (seven classes) or ``melanoma`` (two).
        classes: the order of the logits.
        preprocess: ``PreprocessSpec.to_dict()``.
        thresholds: for each model (names of ``VARIANTS``) its operating points on the melanoma probability, chosen on
            validation: ``youden``, ``at_95_sensitivity``; null where validation gave none.
        files: every file by name.
        provenance: where the model comes from.
    """

    format: Literal[1] = FORMAT
    task: Task
    classes: tuple[str, ...]
    preprocess: dict[str, Any]
    thresholds: dict[str, dict[str, Threshold]]
    files: dict[FileName, FileEntry] = Field(min_length=1)
    provenance: dict[str, Any]

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        if self.classes != class_names(self.task):
            raise ValueError(f"classes {list(self.classes)} are not those of the task {self.task!r}")
        try:
            sound = self.spec.to_dict() == self.preprocess and self.spec.size > 0 and min(self.spec.std) > 0
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"preprocess {self.preprocess} cannot be read ({error!r})") from error
        if not sound or self.spec.resize not in ("squash", "crop"):
            raise ValueError(f"preprocess {self.preprocess} is not a preprocessing that this version knows")
        return self

    @property
    def spec(self) -> PreprocessSpec:
        """The preprocessing of the bundle's models."""
        return PreprocessSpec.from_dict(self.preprocess)


def render_manifest(manifest: Manifest) -> str:
    """The text of ``manifest.json``: its values and, last, the hash of them all."""
    values = manifest.model_dump(mode="json")
    return json.dumps({**values, "content_sha256": sha256_json(values)}, indent=2, allow_nan=False) + "\n"


def parse_manifest(text: str, source: str = MANIFEST_FILE) -> Manifest:
    """Read what ``render_manifest`` wrote; ``source`` is the file name for messages.

    Raises:
        BundleError: another format version, a value out of its range, or any byte changed since it was
            written.
    """
    try:
        values = json.loads(text)
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
        manifest = Manifest.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise _unreadable(source, faults) from error
    if text != render_manifest(manifest):
        raise BundleError(
            f"{source}: its content was changed after it was written",
            rule="the values agree with content_sha256, byte for byte",
            next_step="copy the bundle again from where it was made; do not edit it",
        )
    return manifest


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
    thresholds: dict[str, dict[str, float | None]],
    provenance: dict[str, Any],
) -> Manifest:
    """Hash the files that lie in ``folder`` and write ``manifest.json`` beside them.

    Args:
        folder: holds at least one model file, and nothing that does not belong into the bundle.
        task: gives the classes in the order of the logits.
        spec: the preprocessing of the models.
        thresholds: by model name, see ``Manifest``.
        provenance: JSON-able.

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
    try:
        manifest = Manifest(
            task=task,
            classes=class_names(task),
            preprocess=spec.to_dict(),
            thresholds=thresholds,
            files={name: _entry(folder / name) for name in names},
            provenance=provenance,
        )
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise BundleError(f"the manifest of {folder} cannot be written: {faults}") from error
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

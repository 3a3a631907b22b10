"""A smaller bundle from a run's: some of its models, everything that is to be read beside them, and a new manifest."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from dermdistill.atomic import atomic_folder
from dermdistill.bundle.manifest import CARD_FILE, MANIFEST_FILE, Manifest, read_manifest, write_manifest
from dermdistill.bundle.predictor import FLIPPED
from dermdistill.bundle.variants import MODEL_NAMES
from dermdistill.errors import BundleError, ConfigError
from dermdistill.provenance import sha256_file

RUN_BUNDLE = "bundle"


def bundle_of(source: Path) -> Path:
    """The bundle folder that is meant by a bundle folder or by the folder of a run.

    Raises:
        BundleError: it is neither.
    """
    for folder in (source, source / RUN_BUNDLE):
        if (folder / MANIFEST_FILE).is_file():
            return folder
    raise BundleError(
        f"{source}: is neither a bundle nor a run with one",
        rule=f"a folder with {MANIFEST_FILE}, or a run folder with {RUN_BUNDLE}/{MANIFEST_FILE}",
        next_step="give the folder of a finished run, such as runs/demo",
    )


def pack_bundle(source: Path, out: Path, *, only: Sequence[str]) -> Manifest:
    """Write a bundle with some of another's models, its card and its notices.

    The decisions of the models that stay are kept, and so is the provenance; ``packed_from`` in it is the SHA-256 of
    the manifest that it was made from. The card says at its end which models stayed.

    Args:
        source: a bundle folder, or a run folder.
        out: the folder to write, whole or not at all; it is not there yet, or empty.
        only: the model files that stay.

    Returns:
        The new manifest.

    Raises:
        BundleError: the source is no whole bundle.
        ConfigError: ``only`` names no file, or one that is no model of the bundle; or ``out`` holds something.
        OutputError: the folder cannot be written.
    """
    folder = bundle_of(source)
    before = read_manifest(folder)
    models = [name for name in before.files if name in MODEL_NAMES]
    _require_models(folder, models, only)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"{out}: is there already", next_step="choose another --out, or remove it")
    origin = sha256_file(folder / MANIFEST_FILE)
    kept = {name: entry for name, entry in before.files.items() if name in only or name not in models}
    names = {MODEL_NAMES[name] for name in only}
    with atomic_folder(out) as temporary:
        for name in kept:
            shutil.copyfile(folder / name, temporary / name)
        if CARD_FILE in kept:
            _add_note(temporary / CARD_FILE, only, origin)
        manifest = write_manifest(
            temporary,
            task=before.task,
            spec=before.spec,
            decisions={model: own for model, own in before.decisions.items() if model.removesuffix(FLIPPED) in names},
            gate=before.gate,
            provenance={**before.provenance, "packed_from": origin},
        )
        changed = [name for name, entry in kept.items() if name != CARD_FILE and manifest.files[name] != entry]
        if changed:
            raise BundleError(f"{folder / changed[0]}: was changed while it was copied", next_step="pack it again")
    return manifest


def _require_models(folder: Path, models: Sequence[str], only: Sequence[str]) -> None:
    strangers = sorted(set(only) - set(models))
    if strangers or not only:
        raise ConfigError(
            f"{folder}: has no model {', '.join(strangers)}" if strangers else "no model was named",
            rule=f"--only names models of that bundle: {', '.join(models)}",
            next_step="name one of them, or several with an --only each",
        )


def _add_note(card: Path, only: Sequence[str], origin: str) -> None:
    named = ", ".join(f"`{name}`" for name in sorted(set(only)))
    note = (
        "\n## This folder\n\n"
        f"It was packed from the bundle described above, whose manifest has the SHA-256 {origin}. "
        f"Of its models it holds {named} alone.\n"
    )
    card.write_text(card.read_text(encoding="utf-8") + note, encoding="utf-8")

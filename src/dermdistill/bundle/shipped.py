"""Which bundle is taken where none is named: the user's own, or the one that comes with the package. No torch needed.

Looked for in this order: the environment variable ``DERMDISTILL_BUNDLE``, the bundle that the user installed, the
shipped one. A place that is set, or filled, but holds no bundle is an error: the next place is not tried instead.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from dermdistill.atomic import atomic_folder
from dermdistill.bundle.manifest import MANIFEST_FILE, read_manifest
from dermdistill.bundle.pack import bundle_of
from dermdistill.errors import BundleError

VARIABLE = "DERMDISTILL_BUNDLE"
SHIPPED = "ham10000-edge"
PACKAGE = Path(__file__).resolve().parents[1]
INSTALL = "dermdistill bundle install RUN"


@dataclass(frozen=True)
class Found:
    """The bundle that is taken where none is named.

    Attributes:
        folder: where it lies.
        place: which of the three places that is, in words.
    """

    folder: Path
    place: str


def find_bundle() -> Found:
    """The bundle that is taken where none is named; its files are not verified yet.

    Raises:
        BundleError: there is none, or the place that comes first holds something else.
    """
    named, installed = os.environ.get(VARIABLE), _installed()
    if named:
        return _required(Found(Path(named), f"named by {VARIABLE}"), f"set {VARIABLE} to a bundle folder, or unset it")
    if installed is not None and installed.exists():
        return _required(Found(installed, "installed"), f"`{INSTALL}` again, or `dermdistill bundle uninstall`")
    for folder in _shipped():
        if (folder / MANIFEST_FILE).is_file():
            return Found(folder, "shipped with the package")
    raise BundleError(
        "no bundle was named, none is installed, and none came with this package",
        rule=f"a bundle comes from {VARIABLE}, from `{INSTALL}`, or with the package, in this order",
        next_step=f"name a bundle folder, such as runs/demo/bundle, or install one: {INSTALL}",
    )


def default_bundle() -> Path:
    """The folder of ``find_bundle``.

    Raises:
        BundleError: see there.
    """
    return find_bundle().folder


def install_bundle(source: Path) -> Path:
    """Copy a bundle to the user's place, in place of an earlier one, whole or not at all.

    Args:
        source: a bundle folder, or a run folder.

    Returns:
        The user's place: ``dermdistill/bundle`` below ``$XDG_DATA_HOME``, by default ``~/.local/share``.

    Raises:
        BundleError: the source is no whole bundle, or the user has no home folder.
        OutputError: the place cannot be written.
    """
    folder, place = bundle_of(source), _require_place()
    manifest = read_manifest(folder)
    with atomic_folder(place) as temporary:
        for name in (MANIFEST_FILE, *manifest.files):
            shutil.copyfile(folder / name, temporary / name)
        if read_manifest(temporary) != manifest:
            raise BundleError(f"{folder}: was changed while it was copied", next_step="install it again")
    return place


def uninstall_bundle() -> Path:
    """Remove the bundle that the user installed; returns where it was.

    Raises:
        BundleError: there is none.
    """
    place = _require_place()
    if not place.is_dir():
        raise BundleError(f"{place}: no bundle is installed there", next_step=f"nothing; to install one: {INSTALL}")
    gone = place.with_name(f".{place.name}.{os.getpid()}.old")
    place.replace(gone)
    if gone.is_symlink():
        gone.unlink()
    else:
        shutil.rmtree(gone)
    return place


def _required(found: Found, next_step: str) -> Found:
    if not (found.folder / MANIFEST_FILE).is_file():
        raise BundleError(
            f"{found.folder}: holds no {MANIFEST_FILE}; it is the bundle {found.place}",
            rule="a place that comes first is taken, and never passed over for the next",
            next_step=next_step,
        )
    return found


def _installed() -> Path | None:
    """The user's place; None where the system knows no home folder, as in some containers."""
    data = Path(os.environ.get("XDG_DATA_HOME") or "")
    if not data.is_absolute():
        try:
            data = Path.home() / ".local" / "share"
        except RuntimeError:
            return None
    return data / "dermdistill" / "bundle"


def _require_place() -> Path:
    place = _installed()
    if place is None:
        raise BundleError(
            "there is no home folder to install a bundle in",
            rule="HOME, or XDG_DATA_HOME, is the path of a folder",
            next_step=f"set one of them; or leave the bundle where it is, and set {VARIABLE} to it",
        )
    return place


def _shipped() -> list[Path]:
    """Where the shipped bundle may lie: in the installed package; in a checkout, beside the sources."""
    places = [PACKAGE / "shipped" / SHIPPED]
    checkout = PACKAGE.parents[1]
    if PACKAGE.parent.name == "src" and (checkout / "pyproject.toml").is_file():
        places.append(checkout / "models" / SHIPPED)
    return places

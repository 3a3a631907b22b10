"""What travels inside a page: pictures, its data to save, its one script and the policy that lets nothing else run."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dermdistill.report.formats import megabytes

SCRIPT = Path(__file__).parent / "templates" / "report.js"
MOST_BYTES = 3_000_000
KINDS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


@dataclass(frozen=True)
class Download:
    """A file that travels inside the page: what it is called when saved, where it is, how large it is."""

    name: str
    address: str
    size: str


def json_download(path: Path, name: str) -> Download | None:
    """A JSON file as a download; None where it is missing or larger than ``MOST_BYTES``."""
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        return None
    content = path.read_bytes()
    size = megabytes(len(content)) if len(content) >= 100_000 else f"{len(content) / 1000:.0f} kB"
    return Download(name, "data:application/json;base64," + base64.b64encode(content).decode(), size)


def page_script() -> str:
    """The page's own script: it sorts tables and saves tables and figures. Without it the page only lacks that."""
    return SCRIPT.read_text(encoding="utf-8")


def content_policy(script: str) -> str:
    """A Content Security Policy under which a page runs this script and loads nothing (W3C, CSP level 3).

    Args:
        script: the text between the script tags, character for character.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules: Mapping[str, str] = {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "img-src": "data: blob:",
        "script-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def folder_pictures(folder: Path) -> dict[str, str]:
    """{image id: data URI} of the pictures in a folder, which are named by it; none where there is no such folder."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.stem: data_uri(path) for path in found if path.suffix in KINDS}


def data_uri(path: Path) -> str:
    """A picture as a data URI; an empty text where the file is missing or no picture."""
    if not path.is_file() or path.suffix not in KINDS:
        return ""
    return f"data:image/{KINDS[path.suffix]};base64," + base64.b64encode(path.read_bytes()).decode()

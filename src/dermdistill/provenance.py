"""Where a result comes from: code version, data and weight hashes, seed, machine, package versions."""

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

from dermdistill import __version__

PACKAGES = ("numpy", "onnxruntime", "pillow", "torch", "torchvision", "timm", "scikit-learn", "pandas")


def sha256_bytes(content: bytes) -> str:
    """SHA-256 of bytes as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content as 64 hex digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_json(content: Any) -> str:
    """SHA-256 of a JSON-able value, independent of the order of keys."""
    return sha256_bytes(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


def _git(*words: str) -> str:
    import subprocess  # a predictor has no use for it, and should not wait for it

    root = Path(__file__).resolve().parent
    try:
        answer = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout.strip()


def code_version() -> dict[str, Any]:
    """The package version, the git commit it runs from (or ``unknown``) and whether tracked files were changed."""
    commit = _git("rev-parse", "HEAD")
    return {
        "version": __version__,
        "commit": commit or "unknown",
        "dirty": bool(commit and _git("status", "--porcelain", "--untracked-files=no")),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def machine() -> dict[str, Any]:
    """Processor, its cores, operating system and Python; nothing that names a person or a path."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def package_versions() -> dict[str, str]:
    """Versions of the packages that a number can depend on, those installed."""
    from importlib import metadata

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def origin() -> dict[str, Any]:
    """Where a figure comes from: ``code``, ``machine`` and ``packages``."""
    return {"code": code_version(), "machine": machine(), "packages": package_versions()}

"""Fixtures that several test modules share."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Root has no sandbox, and a browser left alone asks its maker for news.
BROWSER_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="session")
def ham10000() -> Path:
    """The real HAM10000 folder; the test is skipped, with its reason shown, where that is missing."""
    folder = Path(os.environ.get("DERMDISTILL_HAM10000", REPOSITORY.parent / "shared" / "ham10000"))
    if not (folder / "HAM10000_metadata.csv").is_file():
        pytest.skip(f"REAL DATA MISSING: {folder} has no HAM10000_metadata.csv; set DERMDISTILL_HAM10000")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; the test is skipped, with its reason shown, where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="BROWSER MISSING: pip install playwright")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"BROWSER MISSING: none of {', '.join(BROWSERS)} is on the path; apt-get install chromium")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=found, args=BROWSER_OPTIONS)
        yield opened
        opened.close()

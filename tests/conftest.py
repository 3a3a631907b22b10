"""Fixtures that several test modules share."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def ham10000() -> Path:
    """The real HAM10000 folder; the test is skipped, with its reason shown, where that is missing."""
    folder = Path(os.environ.get("DERMDISTILL_HAM10000", REPOSITORY.parent / "shared" / "ham10000"))
    if not (folder / "HAM10000_metadata.csv").is_file():
        pytest.skip(f"REAL DATA MISSING: {folder} has no HAM10000_metadata.csv; set DERMDISTILL_HAM10000")
    return folder

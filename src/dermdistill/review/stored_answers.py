"""The answers of a study's database as a table, without a server."""

import hashlib
from pathlib import Path

import pandas as pd
from sqlalchemy.engine import make_url

from dermdistill.errors import DataError
from dermdistill.review.database import database_url, open_database
from dermdistill.review.export import answers_frame
from dermdistill.review.study import STUDY_FILE, read_study


def stored_answers(folder: Path, database: str | None = None) -> pd.DataFrame:
    """Every whole answer, as ``export.COLUMNS``.

    Args:
        folder: of the study.
        database: URL; None is the SQLite file in the study's folder.

    Raises:
        DataError: no study, or no database beside it yet.
        ConfigError: a database that cannot be used, or that holds another study.
    """
    study, url = read_study(folder), database_url(folder, database)
    place = make_url(url).database if url.get_backend_name() == "sqlite" else None
    if place and not Path(place).is_file():
        raise DataError(
            f"{folder}: has no answers yet ({Path(place).name} is not there)",
            rule="a summary is made of answers that raters gave",
            next_step=f"dermdistill review serve {folder}",
        )
    sha256 = hashlib.sha256((folder / STUDY_FILE).read_bytes()).hexdigest()
    opened = open_database(url, study_sha256=sha256, title=study.title)
    try:
        with opened.reading() as session:
            return answers_frame(session)
    finally:
        opened.close()

"""A training's curves in MLflow: one run in a local SQLite file; no server, no telemetry, nothing outside."""

import logging
import math
import os
import sqlite3
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from dermdistill import __version__
from dermdistill.atomic import make_folder
from dermdistill.errors import ConfigError, OutputError
from dermdistill.training.tracked import missing_package, numbers, refused, settings_text

EXPERIMENT = "dermdistill"
# Marks the runs that this module made, so that a user's own runs in the same file are left alone.
MARK = "dermdistill.version"
# Limits of one call of MLflow's `log_batch`.
PARAMS_AT_ONCE = 100
METRICS_AT_ONCE = 1000


def _tables(file: Path) -> int:
    """Number of tables in an SQLite file, which is made if missing; raises where it cannot be written.

    Asked first, because MLflow tries for over a minute to open what cannot be opened.
    """
    with closing(sqlite3.connect(file)) as database:
        database.execute("BEGIN IMMEDIATE")
        return int(database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _mlflow_client(file: Path) -> Any:
    """MLflow's client on an SQLite file, which is made if missing; MLflow's telemetry is off in this process."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    news = logging.getLogger("mlflow.store.db.utils")
    with warnings.catch_warnings():
        # MLflow asks SQLAlchemy 2.1 for a loading strategy that will go.
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy", category=DeprecationWarning)
        try:
            import alembic  # noqa: F401 (MLflow imports both only when it opens a database)
            import sqlalchemy  # noqa: F401
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise missing_package("mlflow", error) from error
        level = news.level
        news.setLevel(logging.WARNING)
        try:
            return MlflowClient(tracking_uri=f"sqlite:///{file}")
        finally:
            news.setLevel(level)


class MlflowTracker:
    """One MLflow run in the SQLite file ``mlflow.db`` of a tracking folder, found again on resume.

    Teacher and student of a run share it; see ``tracking_place``.

    Raises:
        ConfigError: MLflow is not installed, or the folder's name cannot stand in the address of a database.
        OutputError: the file cannot be written, or is no database of this MLflow.
    """

    def __init__(self, folder: Path, run_name: str) -> None:
        self.file = folder.resolve() / "mlflow.db"
        if set("?%") & set(str(self.file)):
            raise ConfigError(
                f"{self.file}: MLflow cannot keep a database there",
                rule="no ? or % in the path of a run that MLflow tracks",
                next_step="choose another --out, or take mlflow out of tracking",
            )
        make_folder(self.file.parent)
        with refused("mlflow", self.file):
            _tables(self.file)
            self.client = _mlflow_client(self.file)
            # MLflow keeps a database open after its last use, and would write into a deleted file.
            if not _tables(self.file):
                raise OutputError(f"{self.file}: was deleted while open", next_step="run it again in a new process")
        self.run_name = run_name
        self.run_id = ""
        self.settings: dict[str, str] = {}
        self.points: dict[str, dict[int, Any]] = {}

    def start(self, settings: Mapping[str, Any]) -> None:
        """Find the run of this folder or make one, and log the settings; a changed one becomes a tag ``later.KEY``.

        Raises:
            OutputError: it cannot be written.
        """
        self.settings = settings_text(settings)
        with refused("mlflow", self.file):
            found = self.client.get_experiment_by_name(EXPERIMENT)
            experiment = found.experiment_id if found else self._new_experiment()
            runs = self.client.search_runs([experiment], f"tags.`{MARK}` != ''", order_by=["start_time DESC"])
            self.run_id = runs[0].info.run_id if runs else self._new_run(experiment)
            self.client.update_run(self.run_id, status="RUNNING")
            self._log_settings()
            for name in self.client.get_run(self.run_id).data.metrics:
                history = self.client.get_metric_history(self.run_id, name)
                self.points[name] = {point.step: point for point in history}

    def _new_experiment(self) -> str:
        place = (self.file.parent / "artifacts").as_uri()
        return str(self.client.create_experiment(EXPERIMENT, artifact_location=place))

    def _new_run(self, experiment: str) -> str:
        # Without a name MLflow would draw one from Python's global random state.
        run = self.client.create_run(experiment, run_name=self.run_name or "run", tags={MARK: __version__})
        return str(run.info.run_id)

    def _log_settings(self) -> None:
        """MLflow refuses to change a param, so only new ones are logged as such."""
        from mlflow.entities import Param

        known = self.client.get_run(self.run_id).data.params
        new = [Param(key, value) for key, value in self.settings.items() if key not in known]
        for start in range(0, len(new), PARAMS_AT_ONCE):
            self.client.log_batch(self.run_id, params=new[start : start + PARAMS_AT_ONCE])
        for key, value in self.settings.items():
            if key in known and known[key] != value:
                self.client.set_tag(self.run_id, f"later.{key}", value)

    def epoch(self, role: str, line: Mapping[str, Any]) -> None:
        """Log one point a curve; a line that is there already is not logged again.

        Raises:
            OutputError: it cannot be written.
        """
        from mlflow.entities import Metric

        step, now = int(line["epoch"]), int(time.time() * 1000)
        new = {name: Metric(name, value, now, step) for name, value in numbers(role, line).items()}
        told = {name: points[step] for name, points in self._of(role).items() if step in points}
        if told and _values(told) == _values(new):
            return
        with refused("mlflow", self.file):
            if told:
                self._begin_anew(role, step)
            self._log_points(list(new.values()))

    def _of(self, role: str) -> dict[str, dict[int, Any]]:
        return {name: points for name, points in self.points.items() if name.startswith(f"{role}/")}

    def _log_points(self, points: list[Any]) -> None:
        for start in range(0, len(points), METRICS_AT_ONCE):
            self.client.log_batch(self.run_id, metrics=points[start : start + METRICS_AT_ONCE])
        for point in points:
            self.points.setdefault(point.key, {})[point.step] = point

    def _begin_anew(self, role: str, step: int) -> None:
        """MLflow cannot take points back: a new run gets those that stay valid, and the old one is marked deleted."""
        dropped = self._of(role)
        kept = [
            point
            for name, points in self.points.items()
            for point in points.values()
            if name not in dropped or point.step < step
        ]
        old = self.client.get_run(self.run_id)
        self.run_id, self.points = self._new_run(old.info.experiment_id), {}
        self.settings = {**old.data.params, **self.settings}
        self._log_settings()
        self._log_points(kept)
        self.client.delete_run(old.info.run_id)

    def close(self, *, failed: bool = False) -> None:
        """Mark the run as finished or failed."""
        if self.run_id:
            with refused("mlflow", self.file):
                self.client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")


def _values(points: Mapping[str, Any]) -> dict[str, float | None]:
    """The values of points as the database gives them back, NaN as None, so that they can be compared."""
    largest = sys.float_info.max
    return {
        name: None if math.isnan(point.value) else min(max(point.value, -largest), largest)
        for name, point in points.items()
    }

"""What all stages of a run share: recipe, folder, and the data once they stand."""

import datetime as dt
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dermdistill import __version__
from dermdistill.config import Recipe
from dermdistill.data.catalog import catalog_sha256, load_catalog
from dermdistill.data.split import Split, load_split
from dermdistill.data.store import ImageStore, open_store
from dermdistill.labels import Task, encode
from dermdistill.preprocess import PreprocessSpec
from dermdistill.provenance import origin, sha256_json
from dermdistill.run import RunFolder
from dermdistill.training.loop import TrainingData


def cache_folder() -> Path:
    """Where image stores are kept for all runs: ``$DERMDISTILL_CACHE``, by default ``~/.cache/dermdistill``."""
    return Path(os.environ.get("DERMDISTILL_CACHE") or Path.home() / ".cache" / "dermdistill")


@dataclass(frozen=True)
class Context:
    """A run under way.

    Args:
        recipe: all settings.
        run: its folder, opened.
        source: folder of images, or None for the built-in synthetic ones.
    """

    recipe: Recipe
    run: RunFolder
    source: Path | None

    @property
    def path(self) -> Path:
        """The run folder's path."""
        return self.run.path

    @property
    def spec(self) -> PreprocessSpec:
        """Preprocessing of the student and of all that comes from it."""
        return self.recipe.data.preprocess()

    @property
    def teacher_spec(self) -> PreprocessSpec:
        """Preprocessing of the teacher, which may see more pixels."""
        return self.recipe.data.preprocess(self.recipe.teacher.size)

    def inputs(self, stage: str, *upstream: str, **settings: Any) -> str:
        """Hash of what a stage reads: the outputs of earlier stages, settings, and the package's version."""
        return sha256_json(
            {
                "stage": stage,
                "version": __version__,
                "upstream": [self.run.output_hashes(name) for name in upstream],
                "settings": settings,
            }
        )

    @cached_property
    def catalog(self) -> pd.DataFrame:
        """The run's catalog."""
        return load_catalog(self.path / "catalog.parquet")

    @cached_property
    def split(self) -> Split:
        """The run's split."""
        return load_split(self.path)

    @cached_property
    def stores(self) -> "Stores":
        """Decoded images at any size."""
        return Stores(self.catalog)

    @property
    def store(self) -> ImageStore:
        """Decoded images at the student's size."""
        return self.stores.at(self.spec)

    def rows(self, part: str) -> npt.NDArray[np.int64]:
        """Rows of the store that are in a part, in the split's order; the same at every size."""
        return self.store.rows(self.split.ids(part))

    def provenance(self, command: str) -> dict[str, Any]:
        """Where figures made from these data with this recipe come from; without any path of this machine."""
        catalog, recipe = self.catalog, self.recipe
        return {
            "command": command,
            **origin(),
            "recipe": {"name": recipe.name, "sha256": sha256_json(recipe.model_dump(mode="json"))},
            "data": {
                "source": str(catalog["source"].iloc[0]),
                "images": len(catalog),
                "lesions": int(catalog["lesion_id"].nunique()),
                "catalog_sha256": catalog_sha256(catalog),
                "store_sha256": self.store.sha256,
                "split_sha256": self.split.info["split_sha256"],
            },
            "finished": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        }

    def training_data(self, spec: PreprocessSpec) -> TrainingData:
        """Images of one size, labels and parts as the training loop takes them."""
        return training_data(self.catalog, self.split, self.stores.at(spec), spec, self.recipe.task)


class Stores:
    """Decoded images of one catalog at any size, shared with other runs of the same data.

    Args:
        catalog: whose images.
    """

    def __init__(self, catalog: pd.DataFrame) -> None:
        self.catalog = catalog
        self._opened: dict[tuple[int, str], ImageStore] = {}

    def at(self, spec: PreprocessSpec) -> ImageStore:
        """The store for a preprocessing; opened, and its bytes checked, once."""
        key = (spec.size, spec.resize)
        if key not in self._opened:
            self._opened[key] = open_store(self.catalog, spec, cache_folder(), verify=True)
        return self._opened[key]


def training_data(
    catalog: pd.DataFrame, split: Split, store: ImageStore, spec: PreprocessSpec, task: Task
) -> TrainingData:
    """Images, labels and parts as the training loop takes them."""
    diagnosis = catalog.set_index("image_id")["diagnosis"]
    labels = [encode(diagnosis[image_id], task) for image_id in store.image_ids]
    return TrainingData(
        images=store.images,
        labels=np.array(labels, dtype=np.int64),
        train_rows=store.rows(split.ids("train")),
        val_rows=store.rows(split.ids("val")),
        spec=spec,
        task=task,
    )

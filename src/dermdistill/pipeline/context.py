"""What all stages of a run share: recipe, folder, and the data once they stand."""

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
from dermdistill.data.catalog import load_catalog
from dermdistill.data.split import Split, load_split
from dermdistill.data.store import ImageStore, open_store
from dermdistill.labels import encode
from dermdistill.preprocess import PreprocessSpec
from dermdistill.provenance import sha256_json
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
        """Preprocessing of the run."""
        return self.recipe.data.preprocess()

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
    def store(self) -> ImageStore:
        """Decoded images, shared with other runs of the same data and size."""
        return open_store(self.catalog, self.spec, cache_folder(), verify=True)

    def rows(self, part: str) -> npt.NDArray[np.int64]:
        """Rows of the store that are in a part, in the split's order."""
        return self.store.rows(self.split.ids(part))

    @cached_property
    def training_data(self) -> TrainingData:
        """Images, labels and parts as the training loop takes them."""
        diagnosis = self.catalog.set_index("image_id")["diagnosis"]
        labels = [encode(diagnosis[image_id], self.recipe.task) for image_id in self.store.image_ids]
        return TrainingData(
            images=self.store.images,
            labels=np.array(labels, dtype=np.int64),
            train_rows=self.rows("train"),
            val_rows=self.rows("val"),
            spec=self.spec,
            task=self.recipe.task,
        )

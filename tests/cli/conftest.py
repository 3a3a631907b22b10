"""The command line called as a user calls it, a small data folder, and one tiny finished run."""

import io
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dermdistill.cli.main import main
from dermdistill.labels import CODES

BRANCHES = "[{backbone: small_cnn, options: {widths: [8, 16, 32, 64]}}]"
TINY = (
    "synthetic.lesions=60",
    "synthetic.width=64",
    "synthetic.height=48",
    "data.size=32",
    f"teacher.model.branches={BRANCHES}",
    f"student.model.branches={BRANCHES}",
    "teacher.epochs=1",
    "student.epochs=1",
    "evaluate.bootstrap_samples=50",
    "evaluate.latency_repeats=5",
    "evaluate.permutations=50",
    "evaluate.robustness_images=4",
    "evaluate.not_skin_images=12",
    "explain.correct=1",
    "explain.wrong=1",
    "explain.scored_images=6",
    "explain.costly_images=1",
    "explain.lime_samples=20",
    "compress.calibration_images=16",
    "compress.mobile=false",
    "compress.gate={macro_auc: 1, balanced_accuracy: 1, same_label: 0}",
    "threads=1",
)
IMAGES_A_LESION = 2
LESIONS_A_CLASS = 3


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it wrote."""

    status: int
    out: str
    err: str


Call = Callable[..., Outcome]


def _call(*words: object) -> Outcome:
    out, err = io.StringIO(), io.StringIO()
    status: Any = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["dermdistill", *map(str, words)])
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    return Outcome(status, out.getvalue(), err.getvalue())


@pytest.fixture
def call() -> Call:
    """The command line in this process; an exception that it lets through fails the test."""
    return _call


@pytest.fixture
def process() -> Call:
    """The command line as a process of its own; ``before`` is Python that runs first."""

    def start(*words: object, before: str = "") -> Outcome:
        code = f"{before}\nfrom dermdistill.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, words)],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return start


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the user's cache."""
    monkeypatch.setenv("DERMDISTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tiny() -> list[str]:
    """``--set`` words that make the recipe quick run in seconds."""
    return [word for setting in TINY for word in ("--set", setting)]


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    import torch

    folder = tmp_path_factory.mktemp("finished")
    settings = [word for setting in TINY for word in ("--set", setting)]
    deterministic = torch.are_deterministic_algorithms_enabled()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("DERMDISTILL_CACHE", str(folder / "cache"))
        warnings.simplefilter("default")
        outcome = _call("run", "quick", "--out", folder / "run", *settings)
    torch.use_deterministic_algorithms(deterministic)
    assert outcome.status == 0, outcome.err
    yield folder / "run"


@pytest.fixture
def finished(_finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run of ``tiny``, to be damaged at will."""
    return Path(shutil.copytree(_finished, tmp_path / "finished"))


@pytest.fixture(scope="session")
def _data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    images = folder / "HAM10000_images_part_1"
    images.mkdir()
    generator = np.random.default_rng(0)
    rows = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    for code in CODES:
        for lesion in range(LESIONS_A_CLASS):
            for photo in range(IMAGES_A_LESION):
                name = f"I_{code}_{lesion}_{photo}"
                pixels = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(images / f"{name}.jpg", quality=90)
                rows.append(f"L_{code}_{lesion},{name},{code},histo,50.0,male,back")
    (folder / "HAM10000_metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def data(_data: Path, tmp_path: Path) -> Path:
    """42 images of noise in HAM10000's layout: ``I_mel_0_1.jpg`` is photo 1 of lesion ``L_mel_0``."""
    return Path(shutil.copytree(_data, tmp_path / "data"))

"""Which GPU a worker gets, and where trials and controls track their curves."""

from pathlib import Path

import pytest

from dermdistill.evaluate.predictions import CONTROL
from dermdistill.pipeline.stages import STAGES
from dermdistill.pipeline.trials import device_names
from dermdistill.run import RECORD
from dermdistill.training.tracking import tracking_place


@pytest.mark.parametrize(
    ("count", "visible", "names"),
    [
        (3, None, ["0", "1", "2"]),
        (3, "", ["0", "1", "2"]),
        (2, "2,3", ["2", "3"]),
        (2, " 3, 1 ", ["3", "1"]),
        (2, "GPU-8932f937,GPU-1f2a", ["GPU-8932f937", "GPU-1f2a"]),
        (1, "2,-1,0", ["2"]),
        (0, None, []),
        (0, "-1", []),
    ],
)
def test_workers_get_gpus_that_this_process_sees(count: int, visible: str | None, names: list[str]) -> None:
    assert device_names(count, visible) == names


@pytest.mark.parametrize("training", ["teacher", "student", f"controls/{CONTROL}", "trials/row/seed-0"])
def test_no_stage_counts_the_files_of_a_tracker(training: str, tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text("{}")
    place = tracking_place(tmp_path / training)[0].relative_to(tmp_path)
    counted = [written for stage in STAGES.values() for written in stage.writes if place.is_relative_to(written)]
    assert counted == []

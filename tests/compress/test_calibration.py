import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dermdistill.compress.calibration import calibration_rows


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=200),
    st.integers(1, 250),
    st.integers(0, 2**32 - 1),
)
def test_every_class_has_its_share_and_no_image_comes_twice(classes: list[int], count: int, seed: int) -> None:
    labels = np.array(classes)
    rows = 10 * np.arange(len(labels)) + 3
    repeated, again = np.concatenate([rows, rows[:5]]), np.concatenate([labels, labels[:5]])
    chosen = calibration_rows(repeated, again, count, seed)
    assert len(np.unique(chosen)) == len(chosen)
    assert set(chosen) <= set(rows)
    assert np.array_equal(chosen, calibration_rows(repeated, again, count, seed))
    if count >= len(rows):
        assert np.array_equal(chosen, rows)
        return
    of_row = dict(zip(rows.tolist(), labels.tolist(), strict=True))
    for label in set(classes):
        wanted = count * classes.count(label) / len(classes)
        found = sum(of_row[row] == label for row in chosen.tolist())
        assert found >= 1
        assert abs(found - wanted) <= max(0.5, 1 - wanted)


def test_another_seed_draws_other_images() -> None:
    rows, labels = np.arange(1000), np.zeros(1000, dtype=np.int64)
    first, second = (calibration_rows(rows, labels, 50, seed) for seed in (0, 1))
    assert not np.array_equal(first, second)

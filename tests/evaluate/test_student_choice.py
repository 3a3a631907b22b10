"""The Pareto front and the smallest student that is good enough, on hand-made and on drawn figures."""

from hypothesis import given
from hypothesis import strategies as st

from dermdistill.evaluate.student_choice import pareto_front, smallest_within

SIZES = {"tiny": 1.0, "small": 2.0, "middle": 3.0, "large": 4.0}
DRAWN = st.dictionaries(
    st.text(min_size=1, max_size=3), st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=8
)


def test_front_leaves_out_who_is_larger_and_no_better() -> None:
    scores = {"large": 0.95, "tiny": 0.90, "small": 0.89, "middle": 0.93}
    assert pareto_front(SIZES, scores) == ["tiny", "middle", "large"]
    assert pareto_front(SIZES, scores | {"large": 0.93}) == ["tiny", "middle"]


def test_equals_stand_on_the_front_together() -> None:
    assert pareto_front({"a": 1, "b": 1}, {"a": 0.9, "b": 0.9}) == ["a", "b"]
    assert pareto_front({"a": 1, "b": 1}, {"a": 0.8, "b": 0.9}) == ["b"]


def test_smallest_is_taken_within_the_tolerance_and_not_outside() -> None:
    scores = {"tiny": 0.943, "small": 0.9455, "middle": 0.946, "large": 0.95}
    assert smallest_within(SIZES, scores, 0.005) == "small"
    assert smallest_within(SIZES, scores, 0.0) == "large"
    assert smallest_within(SIZES, scores, 0.05) == "tiny"


def test_of_two_as_small_the_better_one_is_taken() -> None:
    assert smallest_within({"a": 1, "b": 1}, {"a": 0.900, "b": 0.901}, 0.005) == "b"


def test_nobody_is_chosen_without_figures() -> None:
    assert pareto_front(SIZES, {}) == [] and smallest_within(SIZES, {}, 0.005) is None


@given(DRAWN)
def test_everyone_off_the_front_is_beaten_by_someone_on_it(drawn: dict[str, tuple[int, int]]) -> None:
    sizes, scores = ({name: float(pair[place]) for name, pair in drawn.items()} for place in (0, 1))
    front = pareto_front(sizes, scores)
    assert [sizes[name] for name in front] == sorted(sizes[name] for name in front)
    for name, pair in drawn.items():
        better = [
            other
            for other in front
            if sizes[other] <= sizes[name] and scores[other] >= scores[name] and drawn[other] != pair
        ]
        assert (name in front) == (not better)

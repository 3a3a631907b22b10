import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermdistill.report import formats


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.9234, ".923"),
        (1.0, "1.000"),
        (0.0, ".000"),
        (-0.0041, "-.004"),
        (-0.0001, ".000"),
        (-1.5, "-1.500"),
    ],
)
def test_number_has_three_digits_and_no_leading_zero(value: float, text: str) -> None:
    assert formats.number(value) == text


@given(st.floats(-2, 2))
def test_number_and_signed_read_back_as_the_rounded_value(value: float) -> None:
    assert float(formats.number(value)) == pytest.approx(round(value, 3), abs=1e-12)
    assert float(formats.signed(value)) == pytest.approx(round(value, 3), abs=1e-12)
    assert formats.signed(value).startswith("+") == (round(value, 3) > 0)


def test_estimate_shows_value_and_interval() -> None:
    assert str(formats.estimate({"value": 0.9231, "low": 0.905, "high": 0.941})) == ".923 (.905-.941)"


@pytest.mark.parametrize("entry", [None, {}, {"value": None, "low": None, "high": None}])
def test_estimate_of_null_says_not_computable(entry: dict[str, float] | None) -> None:
    assert str(formats.estimate(entry)) == "not computable"
    assert str(formats.difference(entry)) == "not computable"


def test_estimate_without_bounds_says_so() -> None:
    assert str(formats.estimate({"value": 0.5, "low": None, "high": None})) == ".500 (no interval)"


def test_difference_is_signed_at_both_ends() -> None:
    assert str(formats.difference({"value": 0.004, "low": -0.01, "high": 0.012})) == "+.004 (-.010 to +.012)"


@pytest.mark.parametrize(
    ("size", "text"),
    [(3_671_004, "3.67 MB"), (34_512_880, "34.5 MB"), (123_400_000, "123 MB"), (900, "0.00 MB")],
)
def test_megabytes_have_three_digits(size: int, text: str) -> None:
    assert formats.megabytes(size) == text


def test_smaller_names_the_direction() -> None:
    assert formats.smaller(0.2643) == "73.6% smaller"
    assert formats.smaller(2.5) == "150.0% larger"


def test_latency_that_was_not_measured_is_a_word() -> None:
    assert str(formats.latency({"latency_ms": None})) == "not measured"
    assert str(formats.latency({"latency_ms": {"median": 2.0, "p5": 1.5, "p95": 3.25}})) == "2.00 ms (1.50-3.25)"

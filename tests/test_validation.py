"""Every error of the validators shows the value and the range."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_utils import _validation as v


@given(st.integers())
def test_integers_pass_unchanged(value: int) -> None:
    assert v.check_int(value, "n") == value
    assert v.check_sizes([max(value, 1)], "widths") == [max(value, 1)]


def test_numpy_integers_count_and_booleans_do_not() -> None:
    assert v.check_int(np.int64(3), "n") == 3
    with pytest.raises(TypeError, match="n must be an integer, got True"):
        v.check_int(True, "n")


@given(st.floats())
def test_a_half_open_interval_holds_its_low_end_only(value: float) -> None:
    if 0 <= value < 1:
        assert v.check_in_range(value, "p", 0, 1) == value
    else:
        with pytest.raises(ValueError, match=r"p must be in \[0, 1\), got"):
            v.check_in_range(value, "p", 0, 1)


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
def test_positive_means_finite_and_above_zero(value: float) -> None:
    with pytest.raises(ValueError, match=r"lr must be in \(0, inf\), got"):
        v.check_positive(value, "lr")


@pytest.mark.parametrize("value", ["0.1", None, True, [1]])
def test_a_number_is_a_number(value: object) -> None:
    with pytest.raises(TypeError, match="lr must be a number, got"):
        v.check_positive(value, "lr")


def test_one_of_lists_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="mode must be one of 'a', 'b', got 'c'"):
        v.check_one_of("c", "mode", ["a", "b"])


def test_sizes_name_the_entry() -> None:
    with pytest.raises(ValueError, match=r"widths\[1\] must be at least 1, got 0"):
        v.check_sizes([3, 0], "widths")
    with pytest.raises(TypeError, match=r"widths must be a sequence of widths such as \[64, 64\], got '64'"):
        v.check_sizes("64", "widths")  # type: ignore[arg-type]

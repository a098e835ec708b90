"""The check for bounded numbers: its bound, for any length of an array and any position of the outlier."""

import numpy as np
import pytest

from cnnlite.kernels.bounded import BOUND, is_bounded
from tests.kernels.drawn import compiled_kernels_needed

pytestmark = compiled_kernels_needed

LENGTHS = [*range(70), 127, 128, 129, 1000]  # every remainder after whole iterations of the vector loop


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf, BOUND, -BOUND, 1e30])
def test_one_number_that_is_not_is_found_wherever_it_is(dtype, bad):
    rng = np.random.default_rng(0)
    for length in LENGTHS:
        x = rng.normal(size=length).astype(dtype)
        assert is_bounded(x)
        for place in {0, length // 2, length - 1} if length else ():
            spoilt = x.copy()
            spoilt[place] = bad
            assert not is_bounded(spoilt), (length, place)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_bound_itself_is_the_first_that_is_not(dtype):
    just_below = np.nextafter(dtype(BOUND), dtype(0))
    assert is_bounded(np.array([just_below, -just_below, 0, -0.0, np.finfo(dtype).tiny], dtype))
    assert not is_bounded(np.array([BOUND], dtype))


def test_what_lies_round_the_numbers_is_not_looked_at():
    around = np.full(300, np.nan, np.float32)
    for begin, length in ((1, 0), (1, 1), (3, 17), (5, 64), (7, 201)):
        x = around[begin : begin + length]
        x[:] = 1
        assert is_bounded(x)
        x[:] = np.nan

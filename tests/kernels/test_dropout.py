import numba
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cnnlite import kernels, reference
from cnnlite.kernels import operation
from cnnlite.kernels.dropout import CHUNK
from tests.kernels.drawn import compiled_kernels_needed
from tests.kernels.stages import assert_same_bits

THREADS = range(1, min(3, numba.config.NUMBA_NUM_THREADS) + 1)
LARGEST = 2**64 - 1
integers = st.integers(0, LARGEST)


@settings(max_examples=60, deadline=None)
@given(size=st.integers(0, 40), key=st.tuples(integers, integers), rate=st.floats(0, 1),
       dtype=st.sampled_from(["float32", "float64"]))
@example(size=CHUNK - 1, key=(0, 0), rate=0.5, dtype="float32")
@example(size=CHUNK, key=(1, 2), rate=0.25, dtype="float64")
@example(size=2 * CHUNK + 3, key=(LARGEST, LARGEST), rate=0.1, dtype="float32")
def test_the_mask_is_the_reference_to_the_last_bit(size, key, rate, dtype):
    mask, expected = np.full(size, 7, dtype), np.full(size, 7, dtype)
    assert kernels.dropout_mask(key, rate, mask) is mask
    reference.dropout_mask(key, rate, expected)
    assert mask.tobytes() == expected.tobytes()


def test_a_draw_that_is_the_rate_itself_is_kept():
    draws = np.random.Generator(np.random.Philox(key=np.array([3, 4], np.uint64))).random(20, np.float32)
    for rate in draws:
        for near in (np.nextafter(rate, np.float32(0)), rate, np.nextafter(rate, np.float32(1))):
            mask = kernels.dropout_mask((3, 4), float(near), np.empty(20, "f4"))
            np.testing.assert_array_equal(mask != 0, draws >= near)


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.5, 0.9])
def test_zeros_are_as_many_and_as_independent_as_chance_has_them(rate):
    n = 4 * CHUNK
    masks = [kernels.dropout_mask((seed, count), rate, np.empty(n, "f4")) for seed in (0, 1) for count in range(3)]
    dropped = np.array(masks) == 0
    deviation = np.sqrt(rate * (1 - rate))
    assert np.abs(dropped.mean(axis=1) - rate).max() < 5 * deviation / np.sqrt(n)
    assert np.abs(np.corrcoef(dropped) - np.eye(6)).max() < 5 / np.sqrt(n)  # between steps and between seeds
    chunks = dropped.reshape(-1, CHUNK)
    assert np.abs(np.corrcoef(chunks) - np.eye(len(chunks))).max() < 5.5 / np.sqrt(CHUNK)
    for lag in (1, 2, 3, 4, 7, 8, 16, 1600):  # and between neighbours, also across counters
        both = (dropped[:, lag:] & dropped[:, :-lag]).mean()
        assert abs(both - rate**2) < 6 * rate / np.sqrt(6 * (n - lag))


@compiled_kernels_needed
@pytest.mark.skipif(len(THREADS) < 2, reason="numba has only one thread")
def test_any_number_of_threads_gives_the_same_mask():
    results = set()
    before = numba.get_num_threads()
    try:
        for threads in THREADS:
            numba.set_num_threads(threads)
            results.add(kernels.dropout_mask((5, 6), 0.5, np.empty((9, CHUNK), "f4")).tobytes())
    finally:
        numba.set_num_threads(before)
    assert len(results) == 1


@compiled_kernels_needed
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(17,), (3, 5), (3, 7, 5, 3), (1, 130), (0, 4)])
def test_however_the_batch_is_cut_a_number_has_its_draw(shape, dtype):
    def mask(key, x):
        return kernels.dropout_mask(key, 0.4, key.graph.work(x.shape, x.dtype))

    arrays = {"x": np.zeros(shape, dtype), "key": np.array([5, LARGEST], np.uint64)}
    (drawn,) = assert_same_bits(mask, arrays, "x")
    np.testing.assert_array_equal(drawn, reference.dropout_mask((5, LARGEST), 0.4, np.empty(shape, dtype)))


@compiled_kernels_needed
@pytest.mark.parametrize("shape", [(1,), (1, 5), (CHUNK + 9,)])
def test_a_mask_that_all_samples_share_is_drawn_once(shape):
    def mask(x, key):
        return kernels.dropout_mask(key, 0.4, key.graph.work(shape))

    (drawn,) = assert_same_bits(mask, {"x": np.zeros((3, 5), "f4"), "key": np.array([5, 6], np.uint64)}, "x")
    np.testing.assert_array_equal(drawn, reference.dropout_mask((5, 6), 0.4, np.empty(shape, "f4")))


def test_a_mask_without_axes_is_drawn():
    mask = np.array(7.0)
    assert kernels.dropout_mask((1, 2), 0.5, mask) is mask
    assert mask == reference.dropout_mask((1, 2), 0.5, np.empty(1))[0]


@compiled_kernels_needed
def test_keys_have_one_plan():
    kernels.dropout_mask((1, 2), 0.5, np.empty(5))
    before = len(operation._plans)
    for key in ((3, 4), [5, 6], np.array([7, LARGEST], np.uint64)):
        kernels.dropout_mask(key, 0.5, np.empty(5))
    assert len(operation._plans) == before


@compiled_kernels_needed
def test_what_is_not_contiguous_or_not_real_is_refused():
    with pytest.raises(ValueError, match="dropout_mask: out must be C-contiguous"):
        kernels.dropout_mask((0, 0), 0.5, np.empty((4, 4)).T[:2])
    with pytest.raises(TypeError, match="dropout_mask: out must be float32 or float64"):
        kernels.dropout_mask((0, 0), 0.5, np.empty(4, int))

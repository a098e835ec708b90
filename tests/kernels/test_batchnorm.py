"""The kernels of BatchNorm against their definitions, and the accuracy of the statistics."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlite import kernels, reference

THREADS = range(1, min(3, numba.config.NUMBA_NUM_THREADS) + 1)


@st.composite
def batches(draw):
    """Draw (dy, x, gamma, beta), with fewer and more rows than a chunk has, 512."""
    rows = draw(st.one_of(st.integers(0, 9), st.sampled_from([511, 512, 513, 1300])))
    channels = draw(st.sampled_from([1, 2, 3, 17, 40]))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from(["float32", "float64"]))
    x = generator.normal(draw(st.sampled_from([0, 5])), 2, (rows, channels))
    return (generator.normal(size=x.shape).astype(dtype), x.astype(dtype),
            generator.normal(size=channels).astype(dtype), generator.normal(size=channels).astype(dtype))


def close(actual, expected, dtype, size=None):
    """Assert equality relative to `size`, by default the largest value, because single elements can be near 0."""
    assert actual.dtype == dtype
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    size = np.abs(expected).max(initial=1e-3) if size is None else size
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * size)


@settings(max_examples=40, deadline=None)
@given(batches())
def test_statistics_and_normalisation_are_the_reference(case):
    _, x, gamma, beta = case
    mean, variance = kernels.batchnorm_statistics(x)
    expected = reference.batchnorm_statistics(x)
    # The numbers may cancel to a mean near 0, whose absolute error is that of the numbers.
    exact = x.astype(np.float64).reshape(-1, x.shape[-1])
    exact_mean = exact.mean(axis=0) if len(exact) else np.zeros_like(gamma)
    assert np.abs(mean - exact_mean).max() <= 16 * np.finfo(x.dtype).eps * np.abs(exact).max(initial=0)
    assert mean.dtype == x.dtype
    close(variance, expected[1], x.dtype)
    inv_std = 1 / np.sqrt(variance + x.dtype.type(1e-3))
    close(kernels.batchnorm_normalize(x, mean, inv_std, gamma, beta),
          reference.batchnorm_normalize(x, mean, inv_std, gamma, beta), x.dtype)


@settings(max_examples=40, deadline=None)
@given(batches())
def test_the_gradients_are_the_reference(case):
    dy, x, gamma, _ = case
    mean, variance = reference.batchnorm_statistics(x)
    inv_std = 1 / np.sqrt(variance + x.dtype.type(1e-3))
    dx, dgamma, dbeta = kernels.batchnorm_backward(dy, x, mean, inv_std, gamma)
    # In float64, so that the reference's own rounding doesn't matter.
    wide = [array.astype(np.float64) for array in (dy, x, mean, inv_std, gamma)]
    expected = reference.batchnorm_backward(*wide)
    # The terms of a sum may cancel to a number near 0, whose absolute error is that of the terms.
    scale = np.sqrt(len(x) + 1)  # typical size of a sum of that many random terms
    normalised = np.abs(wide[0] * (wide[1] - wide[2]) * wide[3])
    close(dgamma / x.dtype.type(scale), expected[1] / scale, x.dtype, size=normalised.max(initial=1e-3))
    close(dbeta / x.dtype.type(scale), expected[2] / scale, x.dtype, size=np.abs(dy).max(initial=1e-3))
    # With few samples, dy almost cancels in dx, so the error is relative to the terms that cancel.
    close(dx, expected[0], x.dtype, size=np.abs(gamma * inv_std * dy).max(initial=1e-3))
    close(kernels.batchnorm_inference_backward(dy, inv_std, gamma),
          reference.batchnorm_inference_backward(dy, inv_std, gamma), x.dtype)


@pytest.mark.parametrize("rows", [5, 2000])
@pytest.mark.parametrize("loc", [1e4, -1e6])
def test_the_variance_stays_accurate_beside_a_large_mean_in_float32(rows, loc):
    x = np.random.default_rng(0).normal(loc, 1, (rows, 20)).astype("float32")
    mean, variance = kernels.batchnorm_statistics(x)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(variance, wide.var(axis=0), rtol=1e-5)


def test_the_variance_stays_accurate_after_a_first_row_that_is_far_off():
    x = np.random.default_rng(0).normal(0, 1, (1024, 3)).astype("float32")
    x[0] = 1e4
    _, variance = kernels.batchnorm_statistics(x)
    np.testing.assert_allclose(variance, x.astype(np.float64).var(axis=0), rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 7, 1100])
def test_a_constant_channel_has_exactly_its_value_as_mean_and_no_variance(rows):
    x = np.full((rows, 4), 0.1, "float32") * np.array([1, 7, -1e6, 1e-20], "float32")
    mean, variance = kernels.batchnorm_statistics(x)
    assert (mean == x[0]).all()
    assert (variance == 0).all()


def test_no_samples_give_zeros_and_no_division():
    x = np.empty((0, 3))
    mean, variance = kernels.batchnorm_statistics(x)
    assert (mean == 0).all()
    assert (variance == 0).all()
    dx, dgamma, dbeta = kernels.batchnorm_backward(x, x, mean, np.ones(3), np.ones(3))
    assert dx.shape == (0, 3)
    assert (dgamma == 0).all()
    assert (dbeta == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_value_spoils_its_own_channel_and_no_other(bad):
    x = np.random.default_rng(0).normal(size=(600, 20)).astype("float32")
    dy = x.copy()
    x[550, 7] = bad
    for module in (kernels, reference):
        mean, variance = module.batchnorm_statistics(x)
        assert np.flatnonzero(np.isnan(mean)).tolist() == [7]
        assert np.flatnonzero(np.isnan(variance)).tolist() == [7]
        dx, dgamma, dbeta = module.batchnorm_backward(dy, x, mean, 1 / np.sqrt(variance), mean)
        assert np.flatnonzero(np.isnan(dx).all(axis=0)).tolist() == [7]
        assert np.flatnonzero(np.isnan(dgamma)).tolist() == [7]
        assert np.isfinite(dbeta).all()


def test_batchnorm_does_not_change_its_inputs():
    arrays = [np.random.default_rng(i).normal(size=(6, 3)) for i in range(2)] + [np.ones(3) for _ in range(4)]
    before = [array.copy() for array in arrays]
    dy, x, mean, inv_std, gamma, beta = arrays
    kernels.batchnorm_statistics(x)
    kernels.batchnorm_normalize(x, mean, inv_std, gamma, beta)
    kernels.batchnorm_backward(dy, x, mean, inv_std, gamma)
    kernels.batchnorm_inference_backward(dy, inv_std, gamma)
    assert all((array == copy).all() for array, copy in zip(arrays, before))


@pytest.mark.skipif(len(THREADS) < 2, reason="numba has only one thread")
def test_any_number_of_threads_gives_the_same_bytes():
    generator = np.random.default_rng(0)
    x, dy = generator.normal(size=(2, 3000, 5)).astype("float32")
    gamma = generator.normal(size=5).astype("float32")
    results = set()
    before = numba.get_num_threads()
    try:
        for threads in THREADS:
            numba.set_num_threads(threads)
            mean, variance = kernels.batchnorm_statistics(x)
            arrays = (mean, variance, kernels.batchnorm_normalize(x, mean, variance, gamma, gamma),
                      *kernels.batchnorm_backward(dy, x, mean, variance, gamma))
            results.add(b"".join(array.tobytes() for array in arrays))
    finally:
        numba.set_num_threads(before)
    assert len(results) == 1

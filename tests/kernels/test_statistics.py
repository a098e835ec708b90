"""Batch normalisation in stages: the same bits however they are run, chunked sums, and moving averages."""

import numpy as np
import pytest

from cnnlite import kernels, reference
from cnnlite.engine.buffers import chunk_count
from tests.kernels.drawn import compiled_kernels_needed, threads, two_threads_needed
from tests.kernels.stages import assert_same_bits, assert_same_bits_alone

SHAPES = [(40,), (4, 5), (5, 7), (23, 23), (600,)]  # of a sample without channels


def problem(samples, shape, channels, dtype="float32"):
    """Return the arrays of a batch by argument name."""
    rng = np.random.default_rng(channels)
    x, dy = rng.normal(1, 2, (2, samples, *shape, channels)).astype(dtype)
    mean, gamma, beta = rng.normal(size=(3, channels)).astype(dtype)
    return {"dy": dy, "x": x, "mean": mean, "inv_std": np.abs(gamma) + 1, "gamma": gamma, "beta": beta}


def some(arrays, names):
    return {name: arrays[name] for name in names.split()}


@compiled_kernels_needed
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(), (3,), (5, 7), (23, 23)])
def test_the_bits_do_not_depend_on_how_the_stages_are_run(shape, dtype):
    for channels, samples in ((1, 0), (3, 1), (19, 2), (33, 3), (70, 17)):
        arrays = problem(samples, shape, channels, dtype)
        assert_same_bits(kernels.batchnorm_statistics, some(arrays, "x"), "x")
        assert_same_bits(kernels.batchnorm_backward, some(arrays, "dy x mean inv_std gamma"), "dy x")
        for function, names in ((kernels.batchnorm_normalize, "x mean inv_std gamma beta"),
                                (kernels.batchnorm_inference_backward, "dy inv_std gamma")):
            assert_same_bits(function, some(arrays, names), names.split()[0])
            if samples <= 3:
                assert_same_bits_alone(function, some(arrays, names), names.split()[0])


@pytest.mark.parametrize("shape", [(), *SHAPES])
def test_images_and_matrices_are_the_reference_for_every_number_of_channels(shape):
    for channels in (*range(1, 71, 3), 70) if shape == (4, 5) else (1, 5, 17):
        arrays = problem(3, shape, channels)
        x = arrays["x"]
        for mine, definition in zip(kernels.batchnorm_statistics(x), reference.batchnorm_statistics(x)):
            np.testing.assert_allclose(mine, definition, rtol=1e-5, atol=1e-6)
        statistics = reference.batchnorm_statistics(x)
        arguments = arrays["dy"], x, statistics[0], 1 / np.sqrt(statistics[1] + 1), arrays["gamma"]
        wide = [array.astype(np.float64) for array in arguments]
        for mine, definition in zip(kernels.batchnorm_backward(*arguments), reference.batchnorm_backward(*wide)):
            np.testing.assert_allclose(mine, definition, rtol=1e-4, atol=1e-4 * np.sqrt(x.size / channels))
        arguments = list(some(arrays, "x mean inv_std gamma beta").values())
        np.testing.assert_allclose(kernels.batchnorm_normalize(*arguments), reference.batchnorm_normalize(*arguments),
                                   rtol=1e-5, atol=1e-5)


def test_without_gamma_and_beta_they_are_1_and_0():
    arrays = problem(3, (2, 2), 5)
    dy, x, mean, inv_std, gamma, beta = arrays.values()
    ones, zeros = np.ones_like(gamma), np.zeros_like(beta)
    np.testing.assert_array_equal(kernels.batchnorm_normalize(x, mean, inv_std, None, None),
                                  kernels.batchnorm_normalize(x, mean, inv_std, ones, zeros))
    np.testing.assert_array_equal(kernels.batchnorm_inference_backward(dy, inv_std, None),
                                  kernels.batchnorm_inference_backward(dy, inv_std, ones))
    for mine, expected in zip(kernels.batchnorm_backward(dy, x, mean, inv_std, None),
                              kernels.batchnorm_backward(dy, x, mean, inv_std, ones)):
        np.testing.assert_array_equal(mine, expected)


def test_the_gradients_are_written_to_the_arrays_that_are_given():
    dy, x, mean, inv_std, gamma, _ = problem(2, (4, 4), 3).values()
    expected = kernels.batchnorm_backward(dy, x, mean, inv_std, gamma)
    given = np.full_like(x, 7), np.full_like(gamma, 7), np.full_like(gamma, 7)
    results = kernels.batchnorm_backward(dy, x, mean, inv_std, gamma, *given)
    for result, array, numbers in zip(results, given, expected):
        assert result is array
        np.testing.assert_array_equal(array, numbers)


@pytest.mark.parametrize("shape", [(), (4, 5)])
def test_the_sums_of_a_batch_are_those_of_its_chunks_added_as_a_tree(shape):
    if not kernels.COMPILED:
        pytest.skip("the definitions add in a different order")
    # Numbers of very different magnitudes, so that a different order would show.
    samples, channels = 37, 3
    rng = np.random.default_rng(0)
    dy, x = (rng.normal(size=(2, samples, *shape, channels)) * 10.0 ** rng.integers(-8, 8, (samples, *shape, 1)))
    mean, ones = np.zeros(channels), np.ones(channels)
    chunks = chunk_count(samples)
    assert chunks == 16
    parts = []
    for chunk in range(chunks):
        here = slice(chunk * samples // chunks, (chunk + 1) * samples // chunks)
        by_sample = [kernels.batchnorm_backward(dy[n : n + 1], x[n : n + 1], mean, ones, ones)[2]
                     for n in range(here.start, here.stop)]
        total = np.zeros(channels)
        for part in by_sample:
            total = total + part
        parts.append(total)
    while len(parts) > 1:
        parts = [a + b for a, b in zip(parts[::2], parts[1::2])]
    _, _, dbeta = kernels.batchnorm_backward(dy, x, mean, ones, ones)
    assert dbeta.tobytes() == parts[0].tobytes()


@pytest.mark.parametrize("channels", [1, 5, 17])
def test_a_map_is_one_rounding_of_the_product_and_the_sum_wherever_a_number_stands(channels):
    # In whole vectors and in the remainder, in a batch and alone: a number has the same bits in every position.
    x = np.random.default_rng(0).normal(size=(1, 3, 3, 1)).astype("float32").repeat(channels, axis=3)
    mean, inv_std, gamma, beta = (np.full(channels, value, "float32") for value in (0.1, 1.7, 0.3, -0.9))
    y = kernels.batchnorm_normalize(x, mean, inv_std, gamma, beta)
    assert (y == y[..., :1]).all()
    alone = kernels.batchnorm_normalize(np.ascontiguousarray(x[..., :1]), mean[:1], inv_std[:1], gamma[:1], beta[:1])
    np.testing.assert_array_equal(y[..., :1], alone)


@compiled_kernels_needed
@two_threads_needed
def test_large_batches_have_the_same_bits_by_one_thread_and_by_two():
    for shape in ((26, 26), ()):
        arrays = problem(64 if shape else 30_000, shape, 32)
        results = []
        for number in (1, 2):
            with threads(number):
                arguments = list(some(arrays, "dy x mean inv_std gamma").values())
                results.append([*kernels.batchnorm_statistics(arrays["x"]), *kernels.batchnorm_backward(*arguments)])
        for one, other in zip(*results):
            assert one.tobytes() == other.tobytes()


def test_the_inverse_deviation_of_an_infinite_variance_is_nan_and_of_0_finite():
    variance = np.array([0, 1, 4e30, np.inf, np.nan], "float32")
    inv_std = kernels.inverse_deviation(variance, 1e-3)
    assert inv_std.dtype == np.float32
    np.testing.assert_array_equal(inv_std, [*(1 / np.sqrt(variance[:3] + np.float32(1e-3))), np.nan, np.nan])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_average_moves_to_the_bits_of_numpy(dtype):
    average, value = np.random.default_rng(0).normal(size=(2, 37)).astype(dtype)
    expected = average.copy()
    expected *= 0.9
    expected += (1 - 0.9) * value
    assert kernels.move_average(average, value, 0.9, np.zeros((3, 37), dtype)) is None
    assert average.tobytes() == expected.tobytes()


@pytest.mark.parametrize(("samples", "refused", "moves"), [(2, None, True), (2, 0, True), (2, 1, False),
                                                           (0, None, False), (0, 0, False)])
def test_an_average_stays_where_it_is_without_samples_and_if_the_step_is_refused(samples, refused, moves):
    average = np.ones(3, "float32")
    flag = None if refused is None else np.array([refused], np.int64)
    kernels.move_average(average, np.zeros(3, "float32"), 0.5, np.zeros((samples, 3), "float32"), flag)
    assert average.tolist() == [0.5 if moves else 1] * 3


@compiled_kernels_needed
def test_arrays_that_do_not_fit_are_an_error():
    x, short = np.ones((2, 3), "float32"), np.ones(2, "float32")
    with pytest.raises(ValueError, match="value must have the shape"):
        kernels.move_average(np.ones(3, "float32"), short, 0.5, x)
    with pytest.raises(TypeError, match="refused must be of dtype int64"):
        kernels.move_average(short, short, 0.5, x, np.zeros(1, np.int32))
    with pytest.raises(ValueError, match="inv_std must have the shape"):
        kernels.batchnorm_inference_backward(x, short, None)
    with pytest.raises(ValueError, match="dbeta must have the shape"):
        kernels.batchnorm_backward(x, x, *np.ones((3, 3), "float32"), dbeta=short)
    with pytest.raises(ValueError, match="variance must have 1 axes"):
        kernels.inverse_deviation(x, 0.1)

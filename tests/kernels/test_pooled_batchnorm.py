"""The gradient of BatchNorm below max pooling: agreement with the definition, and when it is taken from the maxima."""

import functools

import numpy as np
import pytest

import cnnlite
from cnnlite import kernels, layers, reference
from cnnlite.engine.buffers import N
from cnnlite.engine.graph import Graph
from cnnlite.engine.plan import Plan
from cnnlite.kernels.pooling import pooled_shape
from tests.kernels.drawn import assert_close, compiled_kernels_needed
from tests.kernels.stages import assert_same_bits, results

pytestmark = compiled_kernels_needed

DTYPES = ["float32", "float64"]
TWO = (2, 2), (2, 2), ((0, 0), (0, 0))
OVERLAPPING = (3, 3), (2, 2), ((1, 1), (1, 1))
GEOMETRIES = {
    "2x2": ((8, 6), TWO),
    "with pixels left over": ((9, 7), TWO),
    "2x2 with padding": ((9, 7), ((2, 2), (2, 2), ((0, 1), (0, 1)))),
    "padding on all sides": ((8, 9), ((3, 2), (3, 2), ((2, 2), (1, 0)))),
    "3x2 with pixels left over": ((8, 9), ((3, 2), (3, 2), ((0, 0), (0, 0)))),
    "gaps": ((9, 8), ((2, 2), (3, 4), ((0, 0), (0, 0)))),
    "overlapping": ((9, 7), ((3, 3), (2, 2), ((0, 0), (0, 0)))),
    "overlapping with padding": ((8, 7), OVERLAPPING),
    "more than a part of a sum": ((60, 61), TWO),
    "parts that end within a window": ((27, 25), TWO),
    "parts that end within a padded window": ((25, 29), ((4, 3), (5, 4), ((1, 2), (2, 0)))),
    "rows of more than a part of a sum": ((5, 1050), ((2, 2), (2, 2), ((1, 0), (1, 1)))),
    "more pixels in a window than a byte can number": ((2, 300), ((1, 257), (1, 257), ((0, 0), (0, 214)))),
}
FROM_MAXIMA = set(GEOMETRIES) - {"overlapping", "overlapping with padding",
                                 "more pixels in a window than a byte can number"}
ALL_FROM_MAXIMA = {"2x2", "with pixels left over", "3x2 with pixels left over", "parts that end within a window",
                   "more than a part of a sum"}  # windows that tile the image


def arrays_of(size, geometry, channels, dtype, samples=3):
    """Return the arrays that `backward` takes, with the actual mean and deviation of x."""
    rng = np.random.default_rng(channels)
    x = rng.normal(1, 2, (samples, *size, channels)).astype(dtype)
    mean, variance = kernels.batchnorm_statistics(x)
    return {"x": x, "dp": rng.normal(size=pooled_shape(x.shape, *geometry)).astype(dtype), "mean": mean,
            "inv_std": kernels.inverse_deviation(variance, 1e-3), "gamma": rng.normal(size=channels).astype(dtype)}


def backward(geometry, x, dp, mean, inv_std, gamma):
    _, argmax = kernels.max_pool(x, *geometry)
    dy = kernels.max_pool_backward(dp, argmax, x.shape, *geometry)
    return kernels.batchnorm_backward(dy, x, mean, inv_std, gamma)


def by_definition(geometry, x, dp, mean, inv_std, gamma):
    _, argmax = reference.max_pool(x, *geometry)
    x, dp, mean, inv_std, gamma = (array.astype(np.float64) for array in (x, dp, mean, inv_std, gamma))
    dy = reference.max_pool_backward(dp, argmax, x.shape, *geometry)
    return reference.batchnorm_backward(dy, x, mean, inv_std, gamma)


def stages_of(make, *shapes):
    """Return the names of the stages in a plan of `make`, applied to buffers of these shapes."""
    graph = Graph(np.float32)
    made = make(*map(graph.given, shapes))
    return [step.stage.name for step in Plan(graph, list(made)).steps]


def small(geometry=TWO, size=(8, 6)):
    """Return the shapes of the buffers of `backward`."""
    x = (N, *size, 3)
    return x, pooled_shape(x, *geometry), (3,), (3,), (3,)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_it_is_that_of_the_definition(name, dtype):
    size, geometry = GEOMETRIES[name]
    for channels in (3, 17) if max(size) > 50 else (1, 3, 16, 17, 32, 40):
        arrays = arrays_of(size, geometry, channels, dtype)
        found = results(functools.partial(backward, geometry), arrays, "x dp")
        for mine, expected in zip(found, by_definition(geometry, **arrays), strict=True):
            assert_close(mine, expected, 1e-5 if dtype == "float32" else 1e-13)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_bits_do_not_depend_on_how_it_is_scheduled(name):
    size, geometry = GEOMETRIES[name]
    assert_same_bits(functools.partial(backward, geometry), arrays_of(size, geometry, 17, "float32"), "x dp")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_it_has_the_bits_that_it_has_where_the_spread_gradient_is_given(name, dtype):
    size, geometry = GEOMETRIES[name]
    for channels in (3, 17, 40):
        arrays = arrays_of(size, geometry, channels, dtype)
        arrays["dp"][..., 1] = 0  # a dead channel, whose gradient is 0 and never -0
        x, dp, *coefficients = arrays.values()
        _, argmax = kernels.max_pool(x, *geometry)
        dy = kernels.max_pool_backward(dp, argmax, x.shape, *geometry)
        apart = kernels.batchnorm_backward(dy, x, *coefficients)
        for mine, expected in zip(results(functools.partial(backward, geometry), arrays, "x dp"), apart, strict=True):
            assert mine.tobytes() == expected.tobytes()


@pytest.mark.parametrize("samples", range(6))
@pytest.mark.parametrize("name", ["with pixels left over", "2x2 with padding"])
def test_any_number_of_samples(name, samples):
    size, geometry = GEOMETRIES[name]
    arrays = arrays_of(size, geometry, 5, "float32", samples)
    for mine, expected in zip(results(functools.partial(backward, geometry), arrays, "x dp"),
                              by_definition(geometry, **arrays)):
        assert_close(mine, expected, 1e-5)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_it_is_taken_from_the_maxima_where_windows_do_not_overlap(name):
    size, geometry = GEOMETRIES[name]
    names = stages_of(functools.partial(backward, geometry), *small(geometry, size))
    assert ("pooled_gradient_sums" in names) == (name in FROM_MAXIMA)
    assert ("sample_gradient_sums" in names) == (name not in FROM_MAXIMA)
    assert ("unpooled_input_gradient" in names) == (name in ALL_FROM_MAXIMA)
    assert ("input_gradient" in names) == (name not in ALL_FROM_MAXIMA)
    assert any(stage.startswith("max_pool_backward") for stage in names) == (name not in ALL_FROM_MAXIMA)


def test_images_of_a_few_pixels_are_left_alone():
    names = stages_of(functools.partial(backward, TWO), *small(size=(3, 5)))
    assert "gradient_sums_of_rows" in names
    assert "input_gradient" in names


def test_long_sums_keep_their_digits():
    x = np.full((1, 400, 402, 1), 0.3, np.float32)
    dp = np.full((1, 200, 201, 1), 0.1, np.float32)
    ones = np.ones(1, np.float32)
    _, dgamma, dbeta = results(functools.partial(backward, TWO),
                               {"x": x, "dp": dp, "mean": 0 * ones, "inv_std": ones, "gamma": ones}, "x dp")
    count = dp.size
    np.testing.assert_allclose(dbeta, count * np.float64(np.float32(0.1)), rtol=2e-6)
    np.testing.assert_allclose(dgamma, count * np.float64(np.float32(0.1)) * np.float32(0.3), rtol=2e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, "overflow"])
@pytest.mark.parametrize("where", ["x", "dp"])
@pytest.mark.parametrize("name", ["with pixels left over", "2x2 with padding", "gaps"])
def test_what_is_not_finite_shows_where_it_shows_without_the_pooling(name, where, bad):
    size, geometry = GEOMETRIES[name]
    arrays = arrays_of(size, geometry, 5, "float32")
    if bad != "overflow":
        arrays[where][1, 1, 1, 3] = bad
    else:
        arrays[where][1, 1, 1, 3], arrays[where][:, 2:, 2:, 3] = -3e38, 3e38
    arrays["mean"], variance = kernels.batchnorm_statistics(arrays["x"])
    arrays["inv_std"] = kernels.inverse_deviation(variance, 1e-3)
    _, argmax = kernels.max_pool(arrays["x"], *geometry)
    dy = kernels.max_pool_backward(arrays["dp"], argmax, arrays["x"].shape, *geometry)
    given = [arrays[name] for name in ("x", "mean", "inv_std", "gamma")]
    for mine, apart in zip(results(functools.partial(backward, geometry), arrays, "x dp"),
                           kernels.batchnorm_backward(dy, *given), strict=True):
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(apart))
        np.testing.assert_array_equal(np.isinf(mine), np.isinf(apart))
        assert np.isfinite(mine).any()  # it spoils one channel, not all


def reshaped(shape, x, dp, mean, inv_std, gamma):
    """Return the gradient below a pooling when x is reshaped first, with coefficients for the new last axis."""
    _, argmax = kernels.max_pool(x, *TWO)
    dy = kernels.max_pool_backward(dp, argmax, x.shape, *TWO).reshape(shape)
    return kernels.batchnorm_backward(dy, x.reshape(shape), mean, inv_std, gamma)


def test_pixels_in_another_shape_are_the_same_pixels():
    names = stages_of(functools.partial(reshaped, (N, 48, 3)), *small())
    assert "unpooled_input_gradient" in names
    arrays = arrays_of((8, 6), TWO, 3, "float32")
    dx, *others = results(functools.partial(reshaped, (N, 48, 3)), arrays, "x dp")
    expected, *rest = results(functools.partial(backward, TWO), arrays, "x dp")
    np.testing.assert_array_equal(dx.reshape(expected.shape), expected)
    for mine, other in zip(others, rest, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_channels_in_another_shape_are_not():
    x, dp = (N, 8, 6, 4), (N, 4, 3, 4)
    for shape, channels in ((N, 96, 2), 2), ((N, 24, 8), 8):
        names = stages_of(functools.partial(reshaped, shape), x, dp, *[(channels,)] * 3)
        assert "sample_gradient_sums" in names
        assert "input_gradient" in names


def test_others_may_read_the_gradient_too():
    def two(x, dp, mean, inv_std, gamma):
        _, argmax = kernels.max_pool(x, *TWO)
        dy = kernels.max_pool_backward(dp, argmax, x.shape, *TWO)
        return [*kernels.batchnorm_backward(dy, x, mean, inv_std, gamma), kernels.tanh_backward(dy, x)]

    names = stages_of(two, *small())
    assert {"pooled_gradient_sums", "unpooled_input_gradient"} <= set(names)
    arrays = arrays_of((8, 6), TWO, 3, "float32")
    *found, other = assert_same_bits(two, arrays, "x dp")
    for mine, expected in zip(found, by_definition(TWO, **arrays), strict=True):
        assert_close(mine, expected, 1e-5)
    _, argmax = kernels.max_pool(arrays["x"], *TWO)
    dy = kernels.max_pool_backward(arrays["dp"], argmax, arrays["x"].shape, *TWO)
    np.testing.assert_array_equal(other, kernels.tanh_backward(dy, arrays["x"]))


def test_a_gradient_that_was_changed_since_is_read_itself():
    def overwritten(where, x, dp, mean, inv_std, gamma):
        _, argmax = kernels.max_pool(x, *TWO)
        dy = kernels.max_pool_backward(dp, argmax, x.shape, *TWO)
        kernels.tanh(x if where == "dy" else dp, out=dy if where == "dy" else dp)
        return kernels.batchnorm_backward(dy, x, mean, inv_std, gamma)

    for where in ("dy", "dp"):
        names = stages_of(functools.partial(overwritten, where), *small())
        assert "sample_gradient_sums" in names
        assert "input_gradient" in names


@pytest.mark.parametrize("own", ["x", "dy"])
def test_the_result_may_lie_where_what_it_is_made_of_lay(own):
    def in_place(x, dp, mean, inv_std, gamma):
        _, argmax = kernels.max_pool(x, *TWO)
        dy = kernels.max_pool_backward(dp, argmax, x.shape, *TWO)
        copy = kernels.pad(x, ((0, 0), (0, 0)))
        return kernels.batchnorm_backward(dy, copy, mean, inv_std, gamma, out=copy if own == "x" else dy)

    arrays = arrays_of((9, 7), TWO, 3, "float32")
    found = assert_same_bits(in_place, arrays, "x dp")
    for mine, expected in zip(found, results(functools.partial(backward, TWO), arrays, "x dp"), strict=True):
        np.testing.assert_array_equal(mine, expected)


STACKS = {
    "ReLU": lambda: [layers.BatchNorm(), layers.ReLU(), layers.MaxPool()],
    "no ReLU": lambda: [layers.BatchNorm(), layers.MaxPool()],
    "a tanh behind": lambda: [layers.BatchNorm(), layers.MaxPool(), layers.Activation("tanh")],
    "twice": lambda: [layers.BatchNorm(), layers.ReLU(), layers.MaxPool(), layers.Conv2D(5, 3, padding="same"),
                      layers.BatchNorm(), layers.LeakyReLU(), layers.MaxPool()],
    "padding": lambda: [layers.BatchNorm(), layers.ReLU(), layers.MaxPool(3, padding="same")],
    "Dropout between": lambda: [layers.BatchNorm(), layers.Dropout(0.5), layers.MaxPool()],
    "an addition between": lambda: [layers.Residual([layers.Conv2D(4, 1), layers.BatchNorm()]), layers.MaxPool()],
    "overlapping": lambda: [layers.BatchNorm(), layers.MaxPool(3, 2)],
    "frozen": lambda: [layers.BatchNorm(trainable=False), layers.ReLU(), layers.MaxPool()],
}
LEFT_ALONE = {"Dropout between", "overlapping"}  # an addition passes the gradient on unchanged


def model_of(name):
    cnnlite.utils.set_random_seed(1)
    model = cnnlite.Sequential([cnnlite.Input((13, 12, 3)), layers.Conv2D(4, 3), *STACKS[name](), layers.Flatten(),
                                layers.Dense(2)])
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("name", STACKS)
def test_a_model_trains_as_in_eager_mode(name):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 13, 12, 3)).astype(np.float32), rng.normal(size=(6, 2))
    model, eager = model_of(name), model_of(name)
    for _ in range(2):
        model.train_on_batch(x, y)
        with cnnlite.reference_mode():
            eager.train_on_batch(x, y)
    for mine, expected in zip(model.get_weights(), eager.get_weights(), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", STACKS)
def test_the_plan_of_a_step_has_the_sums_over_the_maxima(name):
    ((_, plan),) = model_of(name).plan(6, training=True).plans
    names = [step.stage.name for group in plan.schedule.groups for track in group for step in track.steps]
    if name == "frozen":
        assert not any(stage.endswith("gradient_sums") for stage in names)
        return
    assert ("pooled_gradient_sums" in names) == (name not in LEFT_ALONE)
    assert ("sample_gradient_sums" in names) == (name in LEFT_ALONE)

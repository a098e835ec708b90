"""Denormals, 1e30, -0.0, NaN, infinities, no sample, one, and a million classes: right by plain formulas in float64.

Where NaN and infinities go inside the kernels is held in tests/kernels/test_nan_and_infinity.py.
"""

import math
import time
import tracemalloc

import numpy as np
import pytest

import cnnlite
from cnnlite import layers, losses, metrics, optimizers, regularizers
from cnnlite.eager import is_eager
from cnnlite.optimizers import SGD, Adagrad, Adam, RMSprop, schedules
from tests.optimizers.test_optimizers import Parameters

SIZES = [1e-45, 1e-40, 1e-38, 1e-30, 1e30]

# Each layer with the shape of one sample. None of them mixes sizes so that a sum cancels.
LAYERS = {
    "Conv2D": (lambda **a: layers.Conv2D(3, 3, **a), (6, 5, 2)),
    "Conv2D, same": (lambda **a: layers.Conv2D(3, 3, padding="same", use_bias=False, **a), (8, 8, 2)),
    "Conv2D, 1 x 1": (lambda **a: layers.Conv2D(3, 1, **a), (4, 4, 2)),
    "Conv2D, strided": (lambda **a: layers.Conv2D(3, 2, strides=2, **a), (6, 6, 2)),
    "DepthwiseConv2D": (lambda **a: layers.DepthwiseConv2D(3, **a), (6, 5, 2)),
    "Dense": (lambda **a: layers.Dense(4, **a), (7,)),
    "MaxPool": (lambda **a: layers.MaxPool(**a), (4, 4, 2)),
    "AveragePool": (lambda **a: layers.AveragePool(**a), (4, 4, 2)),
    "GlobalMaxPool": (lambda **a: layers.GlobalMaxPool(**a), (4, 4, 2)),
    "GlobalAveragePool": (lambda **a: layers.GlobalAveragePool(**a), (4, 4, 2)),
    "ReLU": (lambda **a: layers.ReLU(**a), (9,)),
    "ReLU, clipped": (lambda **a: layers.ReLU(6, 0.25, 1.0, **a), (9,)),
    "LeakyReLU": (lambda **a: layers.LeakyReLU(**a), (9,)),
    "ELU": (lambda **a: layers.ELU(**a), (9,)),
    "GELU": (lambda **a: layers.GELU(**a), (9,)),
    "SiLU": (lambda **a: layers.SiLU(**a), (9,)),
    "Sigmoid": (lambda **a: layers.Sigmoid(**a), (9,)),
    "Tanh": (lambda **a: layers.Tanh(**a), (9,)),
    "Softplus": (lambda **a: layers.Softplus(**a), (9,)),
    "Softmax": (lambda **a: layers.Softmax(**a), (9,)),
    "LogSoftmax": (lambda **a: layers.LogSoftmax(**a), (9,)),
    "BatchNorm": (lambda **a: layers.BatchNorm(**a), (3, 3, 2)),
    "Dropout": (lambda **a: layers.Dropout(0.5, seed=3, **a), (9,)),
    "SpatialDropout2D": (lambda **a: layers.SpatialDropout2D(0.5, seed=3, **a), (3, 3, 2)),
    "Flatten": (lambda **a: layers.Flatten(**a), (3, 3, 2)),
    "Reshape": (lambda **a: layers.Reshape((-1,), **a), (3, 3, 2)),
    "ZeroPadding2D": (lambda **a: layers.ZeroPadding2D(1, **a), (3, 3, 2)),
    "Rescaling": (lambda **a: layers.Rescaling(0.5, 0.25, **a), (3, 3, 2)),
}


def passes(name, x, dy=None, dtype="float32"):
    """Return y, dx and the gradients of the weights, all made from the same numbers in either dtype."""
    make, shape = LAYERS[name]
    cnnlite.utils.set_random_seed(0)
    layer = make()
    layer.build((None, *shape))
    weights = layer.get_weights()
    layer = make(dtype=dtype)
    layer.build((None, *shape))
    layer.set_weights(weights)
    y = layer(x, training=True)
    if dy is None:
        dy = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    return [y, layer.backward(dy), *layer.grads.values()]


def assert_as_in_float64(name, x, dy=None, tolerance=2e-5):
    with np.errstate(all="ignore"):
        mine, exact = passes(name, x, dy), passes(name, x, dy, "float64")
    for result, expected in zip(mine, exact, strict=True):
        with np.errstate(over="ignore"):
            rounded = expected.astype(np.float32)
        assert result.dtype == np.float32
        scale = np.abs(rounded[np.isfinite(rounded)]).max(initial=0.0)
        # A denormal number has fewer digits: the smallest one is 1.4e-45.
        np.testing.assert_allclose(result, rounded, rtol=tolerance, atol=tolerance * float(scale) + 3e-44)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [name for name in LAYERS if name != "BatchNorm"])
def test_a_layer_takes_inputs_of_every_size_in_both_directions(name, size):
    shape = LAYERS[name][1]
    x = (np.random.default_rng(0).normal(size=(2, *shape)) * size).astype(np.float32)
    assert_as_in_float64(name, x)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LAYERS)
def test_and_gradients_of_every_size(name, size):
    shape = LAYERS[name][1]
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    y = passes(name, x)[0]
    dy = (np.random.default_rng(1).normal(size=y.shape) * size).astype(np.float32)
    assert_as_in_float64(name, x, dy, tolerance=5e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_minus_zero_is_zero(name):
    shape = LAYERS[name][1]
    zeros = np.zeros((2, *shape), np.float32)
    for mine, expected in zip(passes(name, -zeros), passes(name, zeros)):
        np.testing.assert_array_equal(mine, expected)  # to which 0 and -0 are equal


@pytest.mark.parametrize("name", LAYERS)
def test_one_sample_is_as_the_same_one_among_others_and_none_gives_none(name):
    shape = LAYERS[name][1]
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    make, _ = LAYERS[name]
    layer = make()
    layer.build((None, *shape))
    together = layer(x)
    for i in range(3):
        np.testing.assert_allclose(layer(x[i : i + 1])[0], together[i], rtol=1e-6, atol=1e-6)
    assert layer(x[:0]).shape == (0, *together.shape[1:])
    y, dx, *gradients = passes(name, x[:0])
    assert (len(y), dx.shape) == (0, (0, *shape))
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("value", [0.0, 1e-40, 1e-3, 1.0, 255.0, 1e4, 1e15, 1e30])
@pytest.mark.parametrize("rows", [1, 2, 7, 1000])
def test_a_channel_of_equal_numbers_is_normalised_to_beta(value, rows):
    layer = layers.BatchNorm(beta_initializer=cnnlite.initializers.Constant(0.5))
    x = np.full((rows, 2), value, np.float32)
    y = layer(x, training=True)
    np.testing.assert_array_equal(y, 0.5)
    dx = layer.backward(np.random.default_rng(0).normal(size=y.shape).astype(np.float32))
    assert np.isfinite(dx).all()
    np.testing.assert_array_equal(layer.grads["gamma"], 0)
    np.testing.assert_allclose(layer.moving_mean, np.float32(value) * 0.01, rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, 0.99, rtol=1e-6)


def test_a_variance_too_large_for_its_dtype_is_seen():
    cnnlite.utils.set_random_seed(0)
    x = np.array([[1e30, 1.0], [-1e30, 2.0]], np.float32)
    layer = layers.BatchNorm()
    for training in (True, False):
        with np.errstate(over="ignore"):
            y = layer(x, training=training)  # 0 would look healthy
        assert np.isnan(y[:, 0]).all()
        assert np.isfinite(y[:, 1]).all()
    conv = layers.Conv2D(1, 1, kernel_initializer="ones", input_shape=(2, 2, 1))
    model = cnnlite.Sequential([conv, layers.BatchNorm(), layers.ReLU()])  # run as one
    images = np.array([1e30, -1e30, 1e29, 0], np.float32).reshape(1, 2, 2, 1)
    assert np.isnan(model.forward(images, training=True)).all()


# Losses.

BINARY, ONE_HOT = losses.BinaryCrossentropy(True), losses.CategoricalCrossentropy(True)
SPARSE = losses.SparseCategoricalCrossentropy(True)


def log_softmax(z):
    """The plain formula in Python's floats, with the largest logit taken off."""
    top = max(z)
    return [a - top - math.log(sum(math.exp(b - top) for b in z)) for a in z]


@pytest.mark.parametrize("loss", [ONE_HOT, SPARSE], ids=["one-hot", "sparse"])
@pytest.mark.parametrize("z", [
    (1e30, 0, -1e30), (0, 1e30, 0), (1e-45, -1e-45, 0), (-0.0, 0.0, 0.0), (88.0, -104.0, 3.0), (1e4, 1e4, -1e4),
    (0.0, -np.inf, 1.0), (3.0, -np.inf, -np.inf),
])
def test_crossentropy_of_extreme_logits(loss, z):
    z32 = np.array([z], np.float32)
    t = np.array([0]) if loss is SPARSE else np.array([[1, 0, 0]])
    log_p = log_softmax([float(a) for a in z32[0]])
    value, gradient = loss.value_and_gradient(t, z32)
    assert value == pytest.approx(-log_p[0], rel=1e-6, abs=1e-7)
    expected = np.array([math.exp(a) for a in log_p]) - [1, 0, 0]
    np.testing.assert_allclose(gradient[0], expected, rtol=1e-6, atol=1e-7)
    assert loss(t, z32) == value
    np.testing.assert_array_equal(loss.backward(t, z32), gradient)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_sparse_and_one_hot_labels_give_the_same_bits(label_smoothing):
    generator = np.random.default_rng(0)
    z = generator.normal(size=(7, 4, 5)).astype(np.float32)
    classes = generator.integers(0, 5, (7, 4))
    weights = generator.uniform(size=7)
    sparse = losses.SparseCategoricalCrossentropy(True, label_smoothing=label_smoothing)
    one_hot = losses.CategoricalCrossentropy(True, label_smoothing=label_smoothing)
    t = np.eye(5)[classes]
    for mine, other in zip(sparse.value_and_gradient(classes, z, weights), one_hot.value_and_gradient(t, z, weights)):
        np.testing.assert_array_equal(mine, other)
    np.testing.assert_array_equal(sparse.forward(classes, z), one_hot.forward(t, z))
    np.testing.assert_array_equal(sparse.gradient(classes, z), one_hot.gradient(t, z))


@pytest.mark.parametrize("t", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("z", [0.0, -0.0, 1e-45, 50.0, -50.0, 1e30, -1e30, np.inf, -np.inf])
def test_binary_crossentropy_of_extreme_logits(z, t):
    def cost(share, logit):  # of what has the probability sigmoid(logit)
        if share == 0:
            return 0.0
        return share * (max(-logit, 0) + (0.0 if math.isinf(logit) else math.log1p(math.exp(-abs(logit)))))

    z32 = np.array([[z]], np.float32)
    logit = float(z32[0, 0])
    assert BINARY([[t]], z32) == pytest.approx(cost(t, logit) + cost(1 - t, -logit), rel=1e-6)
    p = 0.0 if logit < -700 else 1 / (1 + math.exp(-min(logit, 700)))
    np.testing.assert_allclose(BINARY.backward([[t]], z32), [[p - t]], rtol=1e-6, atol=1e-7)


ALL_LOSSES = [
    losses.CategoricalCrossentropy(), ONE_HOT, losses.SparseCategoricalCrossentropy(), SPARSE,
    losses.BinaryCrossentropy(), BINARY, losses.MeanSquaredError(), losses.MeanAbsoluteError(), losses.Huber(),
]
LOSS_IDS = [f"{loss.name}{' of logits' * getattr(loss, 'from_logits', False)}" for loss in ALL_LOSSES]


def labels_and_predictions(loss):
    y = np.random.default_rng(0).uniform(0.1, 0.9, (4, 3)).astype(np.float32)
    t = np.array([0, 2, 1, 0])
    return (t if isinstance(loss, losses.SparseCategoricalCrossentropy) else np.eye(3)[t]), y


@pytest.mark.parametrize("loss", ALL_LOSSES, ids=LOSS_IDS)
def test_a_nan_shows_in_the_loss_and_in_the_gradient_of_its_sample(loss):
    t, y = labels_and_predictions(loss)
    y[1, 2] = np.nan
    value, gradient = loss.value_and_gradient(t, y)
    assert math.isnan(value)
    assert np.isnan(gradient[1, 2])
    assert np.isfinite(gradient[[0, 2, 3]]).all()


@pytest.mark.parametrize("loss", ALL_LOSSES, ids=LOSS_IDS)
@pytest.mark.parametrize("scale", [1e-30, 1e-45, 0.0, 1e30])
def test_a_loss_scaled_by_weights_of_extreme_size(loss, scale):
    t, y = labels_and_predictions(loss)
    scale = float(np.float32(scale))
    value, gradient = loss.value_and_gradient(t, y, [scale] * 4)
    plain, plain_gradient = loss.value_and_gradient(t, y.astype(np.float64))
    assert value == pytest.approx(scale * plain, rel=1e-5, abs=3e-45)
    np.testing.assert_allclose(gradient, scale * plain_gradient, rtol=1e-4, atol=3e-45)


@pytest.mark.parametrize("loss", ALL_LOSSES, ids=LOSS_IDS)
def test_the_loss_of_no_sample_is_zero_and_its_gradient_empty(loss):
    t, y = labels_and_predictions(loss)
    value, gradient = loss.value_and_gradient(t[:0], y[:0])
    assert value == 0
    assert gradient.shape == (0, 3)


# Metrics.


@pytest.mark.parametrize("metric", [
    metrics.BinaryAccuracy(), metrics.CategoricalAccuracy(), metrics.SparseCategoricalAccuracy(),
    metrics.TopKCategoricalAccuracy(1), metrics.SparseTopKCategoricalAccuracy(1), metrics.Precision(), metrics.Recall(),
], ids=lambda metric: metric.name)
def test_a_metric_counts_a_nan_as_wrong_and_takes_numbers_of_every_size(metric):
    sparse = isinstance(metric, (metrics.SparseCategoricalAccuracy, metrics.SparseTopKCategoricalAccuracy))
    t = np.array([1]) if sparse else np.array([[0, 1]])
    wrong = 0.5 if isinstance(metric, metrics.BinaryAccuracy) else 0  # where one of the two numbers is a NaN
    for row, expected in {(-1e30, 1e30): 1, (-np.inf, np.inf): 1, (0.0, np.nan): wrong, (-0.0, 1.0): 1}.items():
        metric.reset_state()
        assert metric(t, np.array([row], np.float32)) == expected
    metric.reset_state()
    assert metric(t[:0], np.empty((0, 2), np.float32)) == 0


def test_a_mean_of_very_many_batches_keeps_its_digits():
    mean = metrics.Mean()
    mean.total, mean.count = 1e9 * 0.25, 1e9
    mean.update_state(np.full(1000, 0.75))
    assert mean.result() == pytest.approx(0.25 + 0.5e-6, rel=1e-12)


# A million classes.


def test_a_million_classes_cost_no_more_than_a_few_times_their_predictions():
    classes, n = 10**6, 4
    z = np.random.default_rng(0).normal(size=(n, classes)).astype(np.float32)
    y = np.array([0, classes - 1, 5, 123_456])
    scores = metrics.SparseCategoricalAccuracy(), metrics.SparseTopKCategoricalAccuracy(5)
    SPARSE.value_and_gradient(y, z)
    tracemalloc.start()
    start = time.process_time()
    value, gradient = SPARSE.value_and_gradient(y, z)
    for metric in scores:
        metric.update_state(y, z)
    seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (8 if is_eager() else 3.5) * z.nbytes  # the definition writes the classes as zeros and ones
    assert seconds < 5
    exact = z.astype(np.float64)
    log_p = exact - exact.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    assert value == pytest.approx(-log_p[np.arange(n), y].mean(), rel=1e-6)
    expected = np.exp(log_p)
    expected[np.arange(n), y] -= 1
    np.testing.assert_allclose(gradient, expected / n, rtol=1e-4, atol=1e-12)


# Optimizers, regularizers and schedules.


def adam_in_float64(p, gradients, t, rate=0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    m = v = 0.0
    for g in gradients:
        t += 1
        m, v = beta_1 * m + (1 - beta_1) * g, beta_2 * v + (1 - beta_2) * g * g
        correction = math.sqrt(-math.expm1(t * math.log(beta_2))) / -math.expm1(t * math.log(beta_1))
        p -= rate * correction * m / (math.sqrt(v) + epsilon)
    return p


@pytest.mark.parametrize("t", [0, 10**5, 10**9, 2**53 + 1, 2**62])
def test_adam_after_very_many_steps(t):
    optimizer, parameters = Adam(0.1), Parameters([1.0], dtype="float32")
    parameters.gradient[:] = 0.5
    optimizer.iterations = t
    for _ in range(3):
        optimizer.step(parameters)
    assert parameters.vector[0] == pytest.approx(adam_in_float64(1.0, [0.5] * 3, t), rel=1e-6)
    assert optimizer.iterations == t + 3
    again = Adam(0.1)
    again.build(parameters)
    again.load_state(optimizer.state())
    assert again.iterations == t + 3


@pytest.mark.parametrize("gradient", [0.0, -0.0, 1e-45, 1e-30, -1e-20, 1e-7, 1e15])
def test_adam_of_gradients_of_every_size(gradient):
    g = float(np.float32(gradient))
    optimizer, parameters = Adam(0.1), Parameters([1.0], dtype="float32")
    for _ in range(3):
        parameters.gradient[:] = g
        optimizer.step(parameters)
    assert parameters.vector[0] == pytest.approx(adam_in_float64(1.0, [g] * 3, 0), rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("optimizer", [SGD, RMSprop, Adam, Adagrad])
def test_a_gradient_that_is_not_finite_does_not_look_healthy_afterwards(optimizer, bad):
    optimizer, parameters = optimizer(0.1), Parameters([1.0, 1.0], dtype="float32")
    parameters.gradient[:] = bad, 1
    optimizer.step(parameters)
    assert not np.isfinite(parameters.vector[0])
    assert np.isfinite(parameters.vector[1])


@pytest.mark.parametrize("optimizer", [RMSprop, Adam, Adagrad])
def test_a_gradient_too_large_to_be_squared_can_be_clipped(optimizer):
    plain, clipped = Parameters([1.0], dtype="float32"), Parameters([1.0], dtype="float32")
    for parameters, arguments in ((plain, {}), (clipped, {"clipnorm": 1.0})):
        parameters.gradient[:] = 1e30
        optimizer(0.1, **arguments).step(parameters)
    assert plain.vector[0] == 1  # 1 / inf, as in PyTorch
    assert 0 < clipped.vector[0] < 1


@pytest.mark.parametrize("clipping", [{"clipnorm": 2.0}, {"global_clipnorm": 2.0}])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e19, 1e30, 3e38])
def test_gradients_whose_squares_overflow_are_clipped_to_the_norm(clipping, size):
    parameters = Parameters([0.0, 0.0], dtype="float32")
    parameters.gradient[:] = 0.6 * size, -0.8 * size
    optimizers.SGD(1.0, **clipping).step(parameters)
    length = min(size, 2.0)
    np.testing.assert_allclose(parameters.vector, [-0.6 * length, 0.8 * length], rtol=1e-6)


@pytest.mark.parametrize("iterations", [-1, 1.5, np.nan, 2**63, 10**400, "3"])
def test_a_count_of_steps_that_is_none_is_not_loaded(iterations):
    optimizer = Adam()
    with pytest.raises((ValueError, TypeError), match="iterations must be"):
        optimizer.load_state({"iterations": iterations})
    assert optimizer.iterations == 0


def test_schedules_after_very_many_steps():
    assert schedules.ExponentialDecay(0.1, 1, 0.5)(10**9) == 0
    assert schedules.ExponentialDecay(0.1, 1000, 0.96, staircase=True)(10**5) == pytest.approx(0.1 * 0.96**100)
    assert schedules.InverseTimeDecay(0.1, 1, 0.5)(10**9) == pytest.approx(0.1 / (1 + 0.5e9))
    assert schedules.PolynomialDecay(0.1, 7)(10**9) == 0.0001
    assert schedules.CosineDecay(0.1, 7)(10**9) == pytest.approx(0, abs=1e-17)


def test_a_schedule_that_leads_to_no_number_is_refused_before_the_step():
    optimizer, parameters = SGD(schedules.ExponentialDecay(0.1, 1, 1.5)), Parameters([1.0])
    optimizer.iterations = 10**9
    with pytest.raises(ValueError, match=r"must return finite numbers .* inf from ExponentialDecay at step 1"):
        optimizer.step(parameters)
    assert (parameters.vector[0], optimizer.iterations) == (1, 10**9)


@pytest.mark.parametrize(("penalty", "expected"), [
    (regularizers.L1(0.5), 0.5e30), (regularizers.L2(0.5), math.inf), (regularizers.L1L2(), 0.0),
])
def test_a_penalty_on_a_large_weight_is_no_nan(penalty, expected):
    with np.errstate(over="ignore"):
        assert penalty(np.array([1e30], np.float32)) == pytest.approx(expected)

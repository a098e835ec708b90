"""The library computes the same under any `np.seterr`, and weights are set whole or not at all."""

import warnings

import numpy as np
import pytest

import cnnlite
from cnnlite import callbacks, initializers, layers, losses, metrics, optimizers, regularizers
from tests.test_extreme_numbers import LAYERS, passes

SIZES = [1e-45, 1e-30, 1e-19, 1.0, 1e19, 3e38]


def same_under_any_setting(compute):
    """Assert that compute(), which returns arrays and numbers, returns the same where NumPy raises every error."""
    with np.errstate(all="ignore"):
        expected = compute()
    with np.errstate(all="raise"):
        mine = compute()
    assert len(mine) == len(expected) > 0
    for got, wanted in zip(mine, expected):
        np.testing.assert_array_equal(got, wanted)


def drawn(shape, size=1.0, seed=0, dtype="float32"):
    # No number is too large to be one of that dtype: 3e38 times 1.13 is infinite in float32.
    return (np.random.default_rng(seed).uniform(-1, 1, shape) * size).astype(dtype)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_in_both_directions(name):
    shape = (2, *LAYERS[name][1])
    with np.errstate(under="ignore"):
        inputs = [drawn(shape, size) for size in SIZES]
        y = passes(name, inputs[3])[0]
        gradients = [drawn(y.shape, size, 1) for size in SIZES]
    for x in inputs:
        same_under_any_setting(lambda x=x: passes(name, x))
    for dy in gradients:
        same_under_any_setting(lambda dy=dy: passes(name, inputs[3], dy))


LOSSES = {
    "mse": losses.MeanSquaredError(),
    "mae": losses.MeanAbsoluteError(),
    "huber": losses.Huber(),
    "binary": losses.BinaryCrossentropy(),
    "binary of logits": losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1),
    "categorical": losses.CategoricalCrossentropy(),
    "categorical of logits": losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
    "sparse": losses.SparseCategoricalCrossentropy(),
    "sparse of logits": losses.SparseCategoricalCrossentropy(from_logits=True),
}


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_and_its_gradient(name):
    loss = LOSSES[name]
    labels = np.array([0, 2, 1, 1]) if "sparse" in name else np.eye(3, dtype="float32")[[0, 2, 1, 1]]
    for size in SIZES:
        with np.errstate(under="ignore"):
            weights = np.abs(drawn(4, size, 2))
            predictions = drawn((4, 3), size)
            if "logits" not in name:
                predictions = np.abs(predictions)
        for y_pred, weight in ((predictions, None), (np.abs(drawn((4, 3))), weights)):
            same_under_any_setting(lambda y=y_pred, w=weight: [
                loss(labels, y, w), loss.backward(labels, y, w), *loss.value_and_gradient(labels, y, w)])


@pytest.mark.parametrize("function", [
    losses.mean_squared_error, losses.mean_absolute_error, losses.huber, losses.binary_crossentropy,
    losses.categorical_crossentropy,
])  # fmt: skip
def test_every_loss_as_a_function(function):
    for size in SIZES:
        with np.errstate(under="ignore"):
            y_pred = np.abs(drawn((4, 3), size))
        same_under_any_setting(lambda y_pred=y_pred: [function(np.eye(4, 3, dtype="float32"), y_pred)])


@pytest.mark.parametrize("make", [
    metrics.MeanSquaredError, metrics.BinaryCrossentropy, metrics.BinaryAccuracy, metrics.Precision, metrics.Recall,
    metrics.CategoricalCrossentropy, metrics.CategoricalAccuracy, metrics.TopKCategoricalAccuracy,
])  # fmt: skip
def test_every_metric(make):
    def computed(y_pred, weight):
        metric = make()
        metric.update_state(np.eye(4, 3), y_pred, weight)
        return [metric.result()]

    for size in SIZES:
        with np.errstate(under="ignore"):
            y_pred, weight = np.abs(drawn((4, 3), size)), np.abs(drawn(4, size, 2))
        same_under_any_setting(lambda y=y_pred: computed(y, None))
        same_under_any_setting(lambda w=weight: computed(np.abs(drawn((4, 3))), w))


OPTIMIZERS = [
    lambda **a: optimizers.SGD(1e-3, momentum=0.9, weight_decay=1e-42, **a),
    lambda **a: optimizers.RMSprop(1e-3, epsilon=1e-60, centered=True, momentum=0.5, **a),
    lambda **a: optimizers.Adam(1e-3, epsilon=1e-60, amsgrad=True, **a),
    lambda **a: optimizers.Adagrad(1e-3, initial_accumulator_value=1e-60, epsilon=1e-60, **a),
    lambda **a: optimizers.SGD(1e-60, **a),
]


@pytest.mark.parametrize("clipping", [
    {}, {"clipnorm": 1e-3}, {"global_clipnorm": 1e-45}, {"clipvalue": 1e-50},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_every_optimizer(make, clipping):
    def stepped(gradient):
        layer = layers.Dense(3, input_shape=(4,))
        model = cnnlite.Sequential([layer])
        layer.set_weights([drawn((4, 3), 1e-3), drawn(3, 1e-3)])
        parameters, optimizer = model.parameters(), make(**clipping)
        for _ in range(3):
            parameters.gradient[...] = gradient
            optimizer.step(parameters)
        return [parameters.vector, *optimizer.slots.values()]

    for size in SIZES:
        with np.errstate(under="ignore"):
            gradient = drawn(15, size)
        same_under_any_setting(lambda gradient=gradient: stepped(gradient))


@pytest.mark.parametrize("make", [
    lambda: initializers.RandomNormal(0.0, 1e-40, seed=0), lambda: initializers.RandomUniform(-1e-44, 1e-44, seed=0),
    lambda: initializers.TruncatedNormal(0.0, 1e-45, seed=0), lambda: initializers.Constant(1e-50),
    lambda: initializers.Orthogonal(1e-42, seed=0), lambda: initializers.VarianceScaling(1e-80, seed=0),
])  # fmt: skip
def test_every_initializer(make):
    same_under_any_setting(lambda: [make()((5, 4))])


def test_regularizers():
    penalty = regularizers.L1L2(1e-42, 1e-3)
    for size in SIZES:
        with np.errstate(under="ignore"):
            weights = drawn((4, 3), size)
        same_under_any_setting(lambda weights=weights: [penalty(weights), penalty.gradient(weights)])


def test_normalize():
    for size in SIZES:
        with np.errstate(under="ignore"):
            x = drawn((3, 4), size)
        same_under_any_setting(lambda x=x: [cnnlite.utils.normalize(x)])


X, Y = drawn((24, 6, 6, 2), dtype="float64") * 1e-50, np.arange(24) % 3  # which are denormal in float32, or 0
W = np.full(24, 1e-42)


def net():
    cnnlite.utils.set_random_seed(0)
    model = cnnlite.Sequential([
        layers.Rescaling(1e-3, 1e-42, input_shape=(6, 6, 2)),
        layers.Conv2D(4, 3, kernel_regularizer=regularizers.L2(1e-42)),
        layers.BatchNorm(epsilon=1e-30), layers.ReLU(), layers.MaxPool(), layers.Flatten(), layers.Dropout(1e-42),
        layers.Dense(3, activation="softmax"),
    ])  # fmt: skip
    model.compile(optimizers.Adam(epsilon=1e-30, global_clipnorm=1e-22), "sparse_categorical_crossentropy",
                  weighted_metrics=["accuracy", "sparse_categorical_crossentropy"])
    return model


def test_a_training_with_all_that_belongs_to_it(tmp_path):
    def trained():
        model = net()
        history = model.fit(X, Y, batch_size=8, epochs=2, verbose=0, sample_weight=W, validation_split=0.25,
                            class_weight={0: 1e-300, 1: 1.0, 2: 2.0}, callbacks=[callbacks.TerminateOnNaN()])
        assert np.isfinite(history.history["loss"]).all()
        values = [*history.history.values(), *model.evaluate(X, Y, verbose=0, sample_weight=W)]
        values += [*model.train_on_batch(X, Y), *model.test_on_batch(X, Y, W), model.predict(X, verbose=0)]
        values += [model(X[:1]) for _ in range(6)]
        with cnnlite.fusion.disabled():
            values += [*model.train_on_batch(X, Y, W), model(X)]
        model.save(tmp_path / "model.safetensors")
        again = cnnlite.load_model(tmp_path / "model.safetensors")
        model.save_weights(tmp_path / "weights.safetensors")
        again.load_weights(tmp_path / "weights.safetensors")
        return [*values, *again.get_weights(), *again.optimizer.slots.values()]

    same_under_any_setting(trained)


class Bell(layers.ActivationLayer):
    """y = exp(-x²), as a user may write it: most of it underflows."""

    def function(self, x, out):
        return np.exp(-x * x, out=out)

    def gradient(self, dy, x, y, out):
        return np.multiply(dy, -2 * x * y, out=out)


def test_a_layer_of_a_users_own_within_fit_evaluate_and_predict():
    def trained():
        cnnlite.utils.set_random_seed(0)
        model = cnnlite.Sequential([layers.Dense(4, input_shape=(3,)), Bell(), layers.Dense(1)])
        model.compile("sgd", "mse")
        x = drawn((20, 3), 30)
        history = model.fit(x, x[:, 0], epochs=2, verbose=0)
        return [history.history["loss"], model.evaluate(x, x[:, 0], verbose=0), model.predict(x, verbose=0)]

    same_under_any_setting(trained)


def test_a_training_that_diverges():
    def trained():
        model = net()
        model.compile(optimizers.SGD(1e38), "sparse_categorical_crossentropy")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            history = model.fit(X * 1e60, Y, batch_size=8, epochs=2, verbose=0)
        return [history.history["loss"], model.predict(X, verbose=0)]

    same_under_any_setting(trained)


def test_gradients_are_checked():
    model = cnnlite.Sequential([layers.Dense(3, activation="softmax", input_shape=(4,))])
    model.compile("sgd", "sparse_categorical_crossentropy")

    def errors(target, x, y):
        return [row.relative_error for row in cnnlite.check_gradients(target, x, y).rows]

    same_under_any_setting(lambda: errors(model, drawn((2, 4)), Y[:2]))
    same_under_any_setting(lambda: errors(losses.MeanSquaredError(), np.array([1e-300, 0.5]), np.array([1e-320, 1.0])))


# Weights are set whole or not at all.


@pytest.fixture(params=["raise", "warn", "ignore"])
def overflow(request):
    with np.errstate(over=request.param):
        yield


def test_numbers_too_large_for_a_weight_are_refused_before_the_first_is_copied(overflow):
    model = cnnlite.Sequential([layers.Dense(2, input_shape=(3,)), layers.Dense(1)])
    before = model.get_weights()
    message = r"numbers that float32 can hold. Received: 1e\+300 in an array of shape \(1,\)"
    with pytest.raises(ValueError, match=message):
        model.set_weights([np.ones((3, 2)), np.ones(2), np.ones((2, 1)), np.array([-1e300])])
    assert all(np.array_equal(mine, weight) for mine, weight in zip(model.get_weights(), before))


def test_infinite_and_tiny_weights_are_set(overflow):
    layer = layers.Dense(1, input_shape=(4,))
    layer.build((None, 4))
    with np.errstate(under="raise", invalid="raise"):
        layer.set_weights([np.array([[np.inf], [np.nan], [1e-300], [1.0]]), np.zeros(1)])
        layer.params["kernel"] = np.array([[np.inf], [np.nan], [1e-300], [2.0]])
    np.testing.assert_array_equal(layer.params["kernel"], [[np.inf], [np.nan], [0.0], [2.0]])


def test_small_weights_of_a_file_in_double_precision_are_not_taken_for_large_ones(tmp_path):
    double, single = (cnnlite.Sequential([layers.Dense(1, input_shape=(2,), dtype=dtype)])
                      for dtype in ("float64", "float32"))
    double.set_weights([np.array([[1e-300], [1.0]]), np.zeros(1)])
    double.save_weights(tmp_path / "weights.safetensors")
    with np.errstate(all="raise"):
        single.load_weights(tmp_path / "weights.safetensors")
    np.testing.assert_array_equal(single.get_weights()[0], [[0.0], [1.0]])


def test_an_assignment_to_a_weight_that_ends_in_an_error_leaves_it():
    layer = layers.Dense(1, input_shape=(2,))
    layer.build((None, 2))
    before = layer.params["kernel"].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="overflow"):
            layer.params["kernel"] = [[1.0], [1e300]]
    np.testing.assert_array_equal(layer.params["kernel"], before)
    with np.errstate(over="raise"), pytest.warns(RuntimeWarning, match="overflow"):
        layer.params["kernel"] = [[1.0], [1e300]]
    np.testing.assert_array_equal(layer.params["kernel"], [[1.0], [np.inf]])


def test_an_input_too_large_for_the_model_is_infinite_with_no_more_than_a_warning():
    layer = layers.ReLU()
    with np.errstate(over="raise"), pytest.warns(RuntimeWarning, match="overflow"):
        assert layer(np.array([[1e300]])) == np.inf
    with np.errstate(over="ignore"):
        assert layer(np.array([[1e300]])) == np.inf

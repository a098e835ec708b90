"""clone_model: a new model of the same architecture, compiled in the same way."""

import threading

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from cnnlite.models import clone_model
from cnnlite.optimizers import Adam


def make_model():
    return cnnlite.Sequential([
        cnnlite.Input((3,)), layers.Dense(4, "relu", name="low"),
        cnnlite.Sequential([layers.Dense(2, name="inner")], name="block"), layers.Dense(1, name="top"),
    ])


def test_a_clone_has_the_architecture_and_weights_of_its_own():
    model = cnnlite.Sequential([layers.Conv2D(2, 3, input_shape=(6, 6, 1)), layers.Flatten(), layers.Dense(3)])
    clone = clone_model(model)
    assert clone.get_config() == model.get_config()
    assert not np.shares_memory(clone.layers[0].kernel, model.layers[0].kernel)
    assert (clone.layers[0].kernel != model.layers[0].kernel).any()


def test_a_clone_of_a_model_with_layers_of_a_user_has_them_too():
    class Twice(layers.Layer):
        def forward(self, x, training=False):
            return 2 * x

    clone = clone_model(cnnlite.Sequential([Twice(input_shape=(3,))]))
    assert isinstance(clone.layers[0], Twice)


def test_a_clone_of_a_compiled_model_is_compiled_and_starts_anew():
    x = np.random.default_rng(0).normal(size=(8, 3))
    model = make_model()
    model.compile(Adam(0.1, clipnorm=1.0), "mse", metrics=["mae"], weighted_metrics=["mse"])
    model.fit(x, x.sum(1), verbose=0)
    model.optimizer.learning_rate = 0.01
    clone = clone_model(model)
    assert clone.get_compile_config() == model.get_compile_config()
    assert clone.optimizer.learning_rate == 0.01
    assert (clone.optimizer.iterations, clone.optimizer.slots) == (0, {})
    assert clone.optimizer is not model.optimizer
    assert clone.loss is not model.loss
    assert not {id(metric) for metric in clone.metrics} & {id(metric) for metric in model.metrics}
    assert model.metrics[0].result() > 0
    assert clone.metrics[0].result() == 0
    before = model.get_weights()
    clone.fit(x, x.sum(1), verbose=0)
    model.fit(x, x.sum(1), verbose=0)
    assert all((a != b).any() for a, b in zip(before, model.get_weights()))
    assert not clone_model(make_model()).compiled


def test_a_clone_has_the_loss_and_metric_of_a_user():
    class Half(cnnlite.losses.MeanSquaredError):
        def forward(self, y_true, y_pred):
            return super().forward(y_true, y_pred) / 2

        def gradient(self, y_true, y_pred):
            return super().gradient(y_true, y_pred) / 2

    def largest(y_true, y_pred):
        return abs(y_true - y_pred).max(axis=-1)

    model = make_model()
    model.compile("sgd", Half(), metrics=[largest, cnnlite.metrics.LossMetric(Half(), name="half")])
    clone = clone_model(model)
    clone.set_weights(model.get_weights())
    x = np.ones((2, 3))
    assert clone.evaluate(x, [[0], [1]], verbose=0) == model.evaluate(x, [[0], [1]], verbose=0)


def test_a_function_makes_the_layers_of_a_clone():
    def renamed(layer):
        if isinstance(layer, cnnlite.Sequential):
            return clone_model(layer)
        return type(layer).from_config({**layer.get_config(), "name": layer.name + "_new"})

    model = make_model()
    model.compile("sgd", "mse")
    clone = clone_model(model, clone_function=renamed)
    assert [layer.name for layer in clone.layers] == ["low_new", "block", "top_new"]
    assert clone.layers[1].layers[0].name == "inner"
    assert clone.input_shape == (None, 3)
    assert clone.compiled
    deep = clone_model(model, clone_function=renamed, recursive=True)
    assert deep.layers[1].layers[0].name == "inner_new"
    shared = clone_model(make_model(), clone_function=lambda layer: layer)
    assert shared.built


def test_a_clone_without_an_input_is_built_if_the_model_is():
    model = cnnlite.Sequential([layers.Dense(2)])
    assert not clone_model(model, clone_function=lambda layer: layers.Dense(2)).built
    model.build((None, 5))
    for arguments in ({}, {"clone_function": lambda layer: layers.Dense(2)}):
        assert clone_model(model, **arguments).input_shape == (None, 5)


def test_an_input_opens_a_clone():
    model = cnnlite.Sequential([cnnlite.Input((8, 8, 1)), layers.Conv2D(2, 3), layers.GlobalMaxPool()])
    for given in (cnnlite.Input((5, 6, 3)), [cnnlite.Input((5, 6, 3))]):
        clone = clone_model(model, input_tensors=given)
        assert (clone.input_shape, clone.output_shape) == ((None, 5, 6, 3), (None, 2))
    assert model.input_shape == (None, 8, 8, 1)


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"input_tensors": np.ones((2, 3))}, ValueError, "input_tensors must be one Input"),
    ({"input_tensors": [cnnlite.Input((3,))] * 2}, ValueError, "input_tensors must be one Input"),
    ({"clone_function": "copy"}, TypeError, "clone_function must be a function"),
    ({"clone_function": lambda layer: None}, TypeError, "add takes a layer"),
    ({"call_function": lambda layer, x: x}, ValueError, "call_function must be None"),
])
def test_arguments_that_make_no_clone_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        clone_model(make_model(), **arguments)
    with pytest.raises(TypeError, match="model must be a Sequential"):
        clone_model(layers.Dense(1))


class WithoutConfig(cnnlite.optimizers.SGD):
    def __init__(self, rate):
        super().__init__(rate)


def test_an_optimizer_that_can_not_be_made_again_is_named_with_the_remedy():
    model = cnnlite.Sequential([cnnlite.Input((3,)), layers.Dense(1)])
    model.compile(WithoutConfig(0.1), "mse")
    with pytest.raises(TypeError, match=r"recreate the optimizer.*Received: a WithoutConfig.*get_config"):
        clone_model(model)


class WithLock(cnnlite.losses.MeanSquaredError):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


def test_a_loss_that_can_not_be_copied_is_named_with_the_remedy():
    model = cnnlite.Sequential([cnnlite.Input((3,)), layers.Dense(1)])
    model.compile("sgd", WithLock())
    with pytest.raises(TypeError, match=r"clone_model: .*copy the loss and the metrics.*WithLock.*lock.*__deepcopy__"):
        clone_model(model)

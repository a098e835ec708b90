"""What a user puts in the place of a method holds in every mode: by a plan of some layers, and layer by layer."""

import abc
import copy

import numpy as np
import pytest

import cnnlite
from cnnlite import kernels, layers
from cnnlite.layers import overrides
from tests.helpers.fused import layer_by_layer, normal, randomise

SHAPE = (13, 12, 3)


def model_of_all():
    """A model of which all layers run by one plan: Conv2D, ReLU, BatchNorm, MaxPool, Flatten, Dense."""
    model = cnnlite.Sequential([
        layers.Input(shape=SHAPE), layers.Conv2D(17, 3, activation="relu"), layers.BatchNorm(), layers.MaxPool(),
        layers.Flatten(), layers.Dropout(0.5), layers.Dense(4), layers.Activation("relu"), layers.Dense(5, "relu"),
    ])
    randomise(model)
    return model


def negated(method):
    return lambda *arguments, **named: -method(*arguments, **named)


def scaled(method):
    return lambda x: method(x) * np.float32(2)


class Negative(layers.Dense):
    def forward(self, x, training=False):
        return -super().forward(x, training)


def on_object(place, name, wrap=negated):
    def put(model, monkeypatch):
        layer = model.layers[place]
        monkeypatch.setattr(layer, name, wrap(getattr(layer, name)))
    return put


def in_activation(place, name, wrap=negated):
    def put(model, monkeypatch):
        layer = model.layers[place].activation
        monkeypatch.setattr(layer, name, wrap(getattr(layer, name)))
    return put


def on_class(cls, name, wrap=negated):
    return lambda model, monkeypatch: monkeypatch.setattr(cls, name, wrap(getattr(cls, name)))


def another_class(model, monkeypatch):
    model.layers[-1].__class__ = Negative


def put_limits(model, monkeypatch):
    monkeypatch.setattr(layers.ReLU, "limits", property(lambda layer: (0.5, 0, 0)))


def borrow(model, monkeypatch):
    monkeypatch.setattr(layers.ReLU, "function", layers.Tanh.function)


PATCHES = {
    "forward of a convolution": on_object(0, "forward"),
    "prepare of a convolution": on_object(0, "prepare", lambda prepare: lambda x: 2 * prepare(x)),
    "function of an activation inside a convolution": in_activation(0, "function"),
    "forward of an activation inside a convolution": in_activation(0, "forward"),
    "inverse_deviation of a BatchNorm": on_object(1, "inverse_deviation"),
    "gamma_and_beta of a BatchNorm": on_object(1, "gamma_and_beta", lambda method: lambda: [-a for a in method()]),
    "prepare of a pooling": on_object(2, "prepare"),
    "window of a pooling": on_object(2, "window", lambda window: lambda shape: ((2, 1), (2, 2), ((0, 0), (0, 0)))),
    "prepare of a Flatten": on_object(3, "prepare", lambda prepare: lambda x: prepare(x)[:, ::-1]),
    "prepare of a Dropout": on_object(4, "prepare", scaled),
    "prepare of a Dense": on_object(5, "prepare", scaled),
    "forward of a Dense": on_object(5, "forward"),
    "function of an Activation": on_object(6, "function"),
    "function inside an Activation": in_activation(6, "function"),
    "function of an activation inside a Dense": in_activation(7, "function"),
    "prepare of an activation inside a Dense": in_activation(7, "prepare", scaled),
    "class of a layer": another_class,
    "Dense.forward": on_class(layers.Dense, "forward"),
    "Conv2D.forward, which a base has": on_class(layers.Conv2D, "forward"),
    "Conv2D.geometry": on_class(layers.Conv2D, "geometry",
                                lambda geometry: lambda layer, shape: ((1, 1), ((0, 0), (0, 0)), (1, 1))),
    "BatchNorm.forward": on_class(layers.BatchNorm, "forward"),
    "MaxPool.forward": on_class(layers.MaxPool, "forward"),
    "ReLU.function": on_class(layers.ReLU, "function"),
    "ReLU.forward, which a base has": on_class(layers.ReLU, "forward"),
    "ReLU.limits": put_limits,
    "ReLU.function, from another layer": borrow,
    "Flatten.forward": on_class(layers.Flatten, "forward"),
    "Dropout.forward": on_class(layers.Dropout, "forward"),
    "Layer.prepare": on_class(layers.Layer, "prepare", lambda prepare: lambda layer, x: prepare(layer, x) * 2),
    "kernels.relu": on_class(kernels, "relu"),
    "kernels.matmul": on_class(kernels, "matmul"),
    "kernels.conv2d": on_class(kernels, "conv2d"),
}
# These compute the same, and only go another way.
SAME = {"Conv2D.geometry"}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("patch", PATCHES)
def test_a_patch_holds_in_every_mode_and_so_does_taking_it_off(patch, late, monkeypatch):
    model = model_of_all()
    plain = copy.deepcopy(model)
    images = [normal(1, *SHAPE, seed=seed) for seed in range(6)]
    before = [layer_by_layer(plain, image) for image in images]
    if late:
        for image in images:
            model(image)
        model(normal(8, *SHAPE))
    with monkeypatch.context() as context:
        PATCHES[patch](model, context)
        expected = [layer_by_layer(model, image) for image in images]
        assert patch in SAME or not any(np.array_equal(*pair) for pair in zip(before, expected))
        for _ in range(2):
            for image, y in zip(images, expected):
                np.testing.assert_array_equal(model(image), y)
        np.testing.assert_allclose(model(np.concatenate(images)), np.concatenate(expected), rtol=1e-5, atol=1e-6)
    if patch != "class of a layer":
        for image, y in zip(images, before):
            np.testing.assert_array_equal(model(image), y)


def counted(method, calls):
    return lambda *arguments: (calls.append(method), method(*arguments))[1]


def test_a_patch_of_backward_holds_in_training(monkeypatch):
    x, y = normal(8, *SHAPE), np.zeros((8, 5), np.float32)
    for name in ("backward", "_weight_gradients", "prepare_gradient"):
        model = model_of_all()
        model.compile("sgd", "mse")
        model.train_on_batch(x, y)
        twin, calls = copy.deepcopy(model), []
        for cls in (layers.Conv2D, layers.Dense):
            method = getattr(cls, name)
            monkeypatch.setattr(cls, name, counted(method, calls))
        model.train_on_batch(x, y)
        monkeypatch.undo()
        twin.train_on_batch(x, y)
        assert len(calls) >= 2
        assert all(map(np.array_equal, model.get_weights(), twin.get_weights()))


def test_what_is_read_and_not_called_leaves_a_layer_untouched():
    layer = layers.Conv2D(4, 3, activation="relu")
    layer(normal(1, *SHAPE))
    layer.note = "mine"
    assert layers.Conv2D.__annotations__ is not None  # which Python creates when it is looked at
    assert overrides.is_untouched(layer)
    assert overrides.is_untouched(layer.activation)
    layer.note = negated(layer.forward)
    assert overrides.is_untouched(layer)


def test_a_layer_may_be_an_abstract_class():
    class Base(layers.Layer, abc.ABC):
        @abc.abstractmethod
        def factor(self):
            ...

        def forward(self, x, training=False):
            return self.prepare(x) * self.factor()

    class Double(Base):
        def factor(self):
            return 2

    np.testing.assert_array_equal(cnnlite.Sequential([Double()])(np.ones((1, 2))), [[2, 2]])
    with pytest.raises(TypeError, match="abstract"):
        Base()


class Halved(layers.Dense):
    """Its gradients are half of what they should be, on purpose."""

    def backward(self, dy):
        return super().backward(dy / 2)


def test_the_lowest_layer_is_trained_by_the_users_own_backward():
    x, y = normal(6, 4), normal(6, 3, seed=1)
    gradients = []
    for first in (Halved(5, "tanh", kernel_initializer="ones"), layers.Dense(5, "tanh", kernel_initializer="ones")):
        model = cnnlite.Sequential([cnnlite.Input((4,)), first, layers.Dense(3, kernel_initializer="ones")])
        model.compile("sgd", "mse")
        model.train_on_batch(x, y)
        gradients.append(first.grads["kernel"].copy())
    np.testing.assert_allclose(2 * gradients[0], gradients[1], rtol=1e-5)


def test_a_model_is_trained_by_its_own_backward():
    class Halving(cnnlite.Sequential):
        def backward(self, dy):
            return super().backward(dy / 2)

    x, y = normal(6, 4), normal(6, 3, seed=1)
    gradients = []
    for cls in (Halving, cnnlite.Sequential):
        model = cls([cnnlite.Input((4,)), layers.Dense(3, kernel_initializer="ones")])
        model.compile("sgd", "mse")
        model.train_on_batch(x, y)
        gradients.append(model.layers[0].grads["kernel"].copy())
    np.testing.assert_allclose(2 * gradients[0], gradients[1], rtol=1e-5)


class Doubled(layers.Layer):
    def forward(self, x, training=False):
        return 2 * x


class Inner(cnnlite.Sequential):
    pass


@pytest.mark.parametrize("cls", [Doubled, Inner])
def test_a_class_of_the_users_own_may_be_patched_between_calls(cls, monkeypatch):
    inside = Doubled() if cls is Doubled else cls([layers.Dense(4)])
    model = cnnlite.Sequential([layers.Input((4,)), layers.Dense(4, "relu"), inside, layers.Dense(3)])
    x = normal(1, 4)
    before = [model(x) for _ in range(6)][-1]
    monkeypatch.setattr(cls, "forward", lambda layer, x, training=False: np.full_like(x, 7))
    expected = model.layers[-1](np.full((1, 4), 7, np.float32))
    for _ in range(6):
        np.testing.assert_array_equal(model(x), expected)
    monkeypatch.undo()
    np.testing.assert_array_equal(model(x), before)


def test_what_is_taken_off_an_object_no_longer_holds():
    model = cnnlite.Sequential([layers.Input((4,)), layers.Dense(4, "tanh"), Doubled(), layers.Dense(3)])
    x = normal(1, 4)
    before = [model(x) for _ in range(6)][-1]
    for layer in model.layers:
        layer.forward = lambda x, training=False: np.zeros((len(x), 4 if x.shape[1] == 4 else 3), np.float32)
        assert not np.array_equal([model(x) for _ in range(6)][-1], before)
        del layer.forward
        np.testing.assert_array_equal(model(x), before)

"""The passes of a stack in training and inference: logits, gradients of the weights alone, frozen layers."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import cnnlite
from cnnlite import kernels, layers
from cnnlite.layers import Layer
from tests.helpers.models import convnet, normal

pytestmark = pytest.mark.usefixtures("same_weights_in_every_run")

RNG = np.random.default_rng


class Counting(Layer):
    """The identity, which counts its backward passes."""

    passes = 0

    def forward(self, x, training=False):
        return x

    def backward(self, dy):
        self.passes += 1
        return dy


def test_backward_weights_gives_the_gradients_that_backward_gives():
    model = convnet()
    y = model.forward(normal(3, 8, 7, 2), training=True)
    dy = normal(*y.shape, seed=1)
    model.backward(dy)
    expected = {name: gradient.copy() for name, gradient in model.grads.items()}
    for gradient in model.grads.values():
        gradient[...] = np.nan
    model.backward_weights(dy)
    for name, gradient in model.grads.items():
        np.testing.assert_array_equal(gradient, expected[name])


def test_backward_weights_computes_no_gradient_of_the_input(monkeypatch):
    model = convnet()
    bottom = model.layers[0]
    backward, computed = kernels.conv2d_backward, []

    def watched(x, *arguments):
        computed.append(arguments[-1] is not None)  # dx
        backward(x, *arguments)

    monkeypatch.setattr(kernels, "conv2d_backward", watched)
    y = model.forward(normal(3, 8, 7, 2), training=True)
    bottom.grads["kernel"][...] = np.nan
    model.backward_weights(normal(*y.shape, seed=1))
    assert np.isfinite(bottom.grads["kernel"]).all()
    assert computed[-1] is False


def nested_top():
    return cnnlite.Sequential([
        layers.Dense(6, activation="tanh", input_shape=(3,)),
        cnnlite.Sequential([layers.Dense(5), layers.Softmax()], name="head"),
    ])


def activation_top():
    return cnnlite.Sequential([layers.Dense(5, input_shape=(3,)), layers.Activation("sigmoid")])


@pytest.mark.parametrize(("make", "shape", "activation"), [
    (convnet, (3, 8, 7, 2), "softmax"), (nested_top, (4, 3), "softmax"), (activation_top, (4, 3), "sigmoid"),
])
def test_logits_and_their_activation_are_the_forward_pass(make, shape, activation):
    model, x = make(), normal(*shape)
    assert model.output_activation == activation
    for training in (True, False):
        y = model.forward(x, training)
        z = model.forward_logits(x, training)
        assert not np.array_equal(y, z)
        np.testing.assert_array_equal(model.activate_logits(z), y)


@pytest.mark.parametrize(("make", "shape"), [(convnet, (3, 8, 7, 2)), (nested_top, (4, 3)), (activation_top, (4, 3))])
def test_the_gradient_by_the_logits_gives_the_same_weights_gradients(make, shape):
    model, x = make(), normal(*shape)
    y = model.forward(x, training=True)
    dy = normal(*y.shape, seed=1)
    model.backward(dy)
    expected = {name: gradient.copy() for name, gradient in model.grads.items()}
    z = model.forward_logits(x, training=True)
    model.activation.forward(z, training=True)
    dz = model.activation.backward(dy)
    for gradient in model.grads.values():
        gradient[...] = np.nan
    model.backward_weights(dz, from_logits=True)
    for name, gradient in model.grads.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-6, atol=1e-7)


def test_a_model_that_ends_without_an_activation_says_linear_or_none():
    assert cnnlite.Sequential([layers.Dense(2)]).output_activation == "linear"
    assert cnnlite.Sequential([layers.Dense(2), layers.Dropout(0.5)]).output_activation is None
    assert cnnlite.Sequential().output_activation is None


def test_frozen_layers_below_are_not_gone_back_through():
    model = cnnlite.Sequential([
        layers.Dense(3, input_shape=(3,)), Counting(name="low"), layers.Dense(3), Counting(name="high"), layers.Dense(2)
    ])
    y = model.forward(normal(4, 3), training=True)
    dy = normal(*y.shape, seed=1)
    model.backward(dy)
    assert (model.get_layer("low").passes, model.get_layer("high").passes) == (1, 1)
    expected = {name: gradient.copy() for name, gradient in model.grads.items()}
    model.layers[0].trainable = False
    for gradient in model.grads.values():
        gradient[...] = np.nan
    model.backward_weights(dy)
    assert (model.get_layer("low").passes, model.get_layer("high").passes) == (1, 2)
    for name, gradient in model.grads.items():
        np.testing.assert_array_equal(gradient, np.nan if name.startswith("dense/") else expected[name])
    model.trainable = False
    model.backward_weights(dy)
    assert model.get_layer("high").passes == 2


def test_frozen_layers_below_keep_their_weights_in_training_and_those_above_learn():
    model = convnet()
    model.layers[0].trainable = model.layers[1].trainable = False
    model.compile(cnnlite.optimizers.Adam(0.1), "sparse_categorical_crossentropy")
    before = model.get_weights()
    model.fit(normal(8, 8, 7, 2), RNG(1).integers(5, size=8), epochs=2, verbose=0)
    for i, (mine, array) in enumerate(zip(model.weights, before)):
        assert np.array_equal(mine, array) == (i < 6)


def test_inference_writes_nothing():
    model = convnet()
    model.forward(normal(3, 8, 7, 2), training=True)
    model.parameters()
    before = pickle.dumps(model)
    model.forward(normal(5, 8, 7, 2, seed=1))
    model.forward_logits(normal(2, 8, 7, 2, seed=1))
    model.predict(normal(40, 8, 7, 2, seed=2), verbose=0)
    assert pickle.dumps(model) == before


def test_eight_threads_predict_with_one_model_at_the_same_time():
    model = convnet()
    inputs = [normal(10 + i, 8, 7, 2, seed=i) for i in range(8)]
    expected = [model.predict(x, verbose=0) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for mine, wanted in zip(pool.map(lambda x: model.predict(x, batch_size=4, verbose=0), inputs), expected):
                np.testing.assert_array_equal(mine, wanted)


def test_backward_before_forward_says_what_to_do():
    with pytest.raises(ValueError, match=r"Call forward\(x, training=True\) first"):
        convnet().backward(np.ones((3, 5)))


def test_batches_of_every_size_are_computed_from_the_same_packed_weights():
    model = cnnlite.Sequential([cnnlite.Input((6,)), layers.BatchNorm(), layers.Dense(3)])
    x = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    expected = model(x)
    for samples in (8, 2, 1, 20):
        np.testing.assert_array_equal(model(x[:samples]), expected[:samples])


@pytest.mark.parametrize("where", ["layer", "activation", "model on top"])
def test_logits_of_a_top_that_is_the_users_own_are_refused(where):
    dense = layers.Dense(3, activation="softmax")
    top = cnnlite.Sequential([dense]) if where == "model on top" else dense
    model = cnnlite.Sequential([cnnlite.Input((4,)), layers.Dense(5), top])
    x = normal(2, 4)
    expected, y = model.forward_logits(x), model.forward(x)
    thing = {"layer": dense, "activation": dense.activation, "model on top": top}[where]
    forward = thing.forward
    thing.forward = lambda x, training=False: 2 * forward(x, training)
    with pytest.raises(ValueError, match="the library's own forward and backward"):
        model.forward_logits(x)
    np.testing.assert_array_equal(model.forward(x), 2 * y)
    del thing.forward
    np.testing.assert_array_equal(model.forward_logits(x), expected)

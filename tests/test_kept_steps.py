"""A model keeps which of its layers run as one, and finds out anew as soon as anything about them changes."""

import copy

import numpy as np
import pytest

from cnnlite import Sequential, fusion, layers
from cnnlite.layers.activation import Linear
from cnnlite.layers.activation import ReLU as ReLULayer
from tests.fused import normal, randomise
from tests.kernels.drawn import compiled_kernels_needed


def small():
    model = Sequential([
        layers.Input(shape=(13, 12, 3)),
        layers.Conv2D(17, 3, activation="relu"),
        layers.BatchNorm(),
        layers.MaxPool(),
        layers.Flatten(),
        layers.Dense(5),
    ])
    randomise(model)
    return model


def layer_by_layer(model, x, training):
    for layer in model.layers:
        x = layer.forward(x, training=training)
    return x


def set_on(place, name, value):
    return lambda model: setattr(model.layers[place], name, value)


def assign_weights(model):
    model.layers[0].kernel = -model.layers[0].kernel


def write_weights(model):
    model.layers[0].params["kernel"][0] = 7


def patch_forward(model):
    forward = model.layers[2].forward
    model.layers[2].forward = lambda x, training=False: -forward(x, training)


def unpatch_forward(model):
    patch_forward(model)
    model(np.zeros((2, 13, 12, 3), "float32"))
    del model.layers[2].forward


def replace_top(model):
    model.pop()
    model.add(layers.Dense(5, kernel_initializer="ones", activation="tanh"))


CHANGES = {
    "activation": set_on(0, "activation", Linear()),
    "activation of another kind": set_on(0, "activation", ReLULayer(max_value=0.5)),
    "padding of the pooling": set_on(2, "strides", (1, 2)),
    "window of the pooling": set_on(2, "pool_size", (3, 2)),
    "strides of the convolution": set_on(0, "strides", (2, 1)),
    "epsilon": set_on(1, "epsilon", 0.5),
    "trainable": set_on(1, "trainable", False),
    "weights": assign_weights,
    "numbers of the weights": write_weights,
    "forward on an object": patch_forward,
    "forward taken off again": unpatch_forward,
    "the top layer": replace_top,
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_a_layer_shows_in_the_next_pass(change, training):
    x = normal(3, 13, 12, 3)
    model = small()
    before = model.forward(x, training=training)
    if change in ("padding of the pooling", "window of the pooling", "strides of the convolution"):
        model.pop()  # another number of features
        before = model.forward(x, training=training)
    CHANGES[change](model)
    twin = copy.deepcopy(model)
    after = model.forward(x, training=training)
    np.testing.assert_array_equal(after, layer_by_layer(twin, x, training))
    unchanged = change == "forward taken off again" or (change == "trainable" and not training)
    assert unchanged == np.array_equal(before, after)


def test_steps_are_found_once_and_again_after_a_change():
    model = small()
    x = normal(2, 13, 12, 3)
    model.forward(x)
    steps = model._steps(model.inner_layers, False)
    model.forward(x)
    model.predict(x, verbose=0)
    assert model._steps(model.inner_layers, False) is steps
    with fusion.disabled():
        assert len(model._steps(model.inner_layers, False)) == 5
    layers.Dense(3)  # any layer at all
    assert model._steps(model.inner_layers, False) is not steps


def test_a_block_lets_go_of_a_batch_with_the_pass():
    model = small()
    model.compile("sgd", "mse")
    model.train_on_batch(normal(4, 13, 12, 3), np.zeros((4, 5), "float32"))
    for _, steps in model._kept_steps.values():
        assert all(step._memory is None for step in steps if isinstance(step, fusion.ConvBlock))


@compiled_kernels_needed
def test_shapes_of_a_thousand_batches_are_not_all_kept():
    model = small()
    for n in range(1, 200):
        model.forward(np.zeros((n, 13, 12, 3), "float32"))
    (block, *_) = model._steps(model.inner_layers, False)
    assert 1 <= len(block._shapes) <= fusion.MOST_SHAPES

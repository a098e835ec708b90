"""A stack computes the same as its layers one by one, even where they are fused, NaN and infinity included."""

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from tests.kernels.drawn import EPSILON, assert_close

# The layers that follow a convolution in most networks, in the usual orders.
STACKS = {
    "Conv2D, ReLU, MaxPool": lambda: [layers.Conv2D(18, 3), layers.ReLU(), layers.MaxPool()],
    "Conv2D(relu), MaxPool": lambda: [layers.Conv2D(18, 3, activation="relu"), layers.MaxPool()],
    "Conv2D(relu), overlapping MaxPool": lambda: [
        layers.Conv2D(18, 3, padding="same", activation="relu"), layers.MaxPool(3, strides=2, padding="same"),
    ],
    "Conv2D, BatchNorm, ReLU, MaxPool": lambda: [
        layers.Conv2D(18, 3, padding="same", use_bias=False), layers.BatchNorm(), layers.ReLU(), layers.MaxPool(),
    ],
    "Conv2D(5x5), BatchNorm, ReLU": lambda: [layers.Conv2D(17, 5), layers.BatchNorm(), layers.ReLU()],
    "Conv2D, BatchNorm, Activation(relu), AveragePool": lambda: [
        layers.Conv2D(16, 3, strides=2), layers.BatchNorm(), layers.Activation("relu"), layers.AveragePool(),
    ],
    "BatchNorm, Conv2D(relu), Conv2D(relu)": lambda: [
        layers.BatchNorm(), layers.Conv2D(16, 3, activation="relu"), layers.Conv2D(17, 3, activation="relu"),
    ],
    "DepthwiseConv2D, BatchNorm, ReLU(6)": lambda: [
        layers.DepthwiseConv2D(3, padding="same"), layers.BatchNorm(), layers.ReLU(6.0),
    ],
    "Flatten, Dense(relu), Dropout, Dense": lambda: [
        layers.Flatten(), layers.Dense(20, activation="relu"), layers.Dropout(0.3), layers.Dense(7),
    ],
    "Rescaling, Conv2D(relu), GlobalAveragePool": lambda: [
        layers.Rescaling(1 / 3, -0.5), layers.Conv2D(16, 3, activation="relu"), layers.GlobalAveragePool(),
    ],
}


def made(name, shape):
    cnnlite.utils.set_random_seed(0)
    model = cnnlite.Sequential([cnnlite.Input(shape=shape), *STACKS[name]()])
    rng = np.random.default_rng(1)
    for layer in model.layers:  # so that no weight is 0 or 1 by chance
        if isinstance(layer, layers.BatchNorm):
            layer.set_weights([rng.uniform(0.5, 2, array.shape) for array in layer.get_weights()])
            layer.gamma[0] *= -1  # which turns the largest value of a window into the smallest
    return model


def gradients(model):
    return [gradient.copy() for layer in model.walk() for gradient in layer.grads.values()]


def together(model, x, dy):
    inference, y = model.forward(x), model.forward(x, training=True)
    return [inference, y.copy(), model.backward(dy(y)), *gradients(model), *model.non_trainable_weights]


def one_by_one(model, x, dy):
    inference = y = x
    for layer in model.layers:
        inference = layer.forward(inference)
    for layer in model.layers:
        y = layer.forward(y, training=True)
    dx = dy(y)
    for layer in reversed(model.layers):
        dx = layer.backward(dx)
    return [inference, y, dx, *gradients(model), *model.non_trainable_weights]


@np.errstate(all="ignore")
@pytest.mark.parametrize("bad", [None, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 17])
@pytest.mark.parametrize("name", STACKS)
def test_a_stack_gives_what_its_layers_give_one_by_one(name, channels, bad):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 11, 10, channels)).astype("float32")
    if bad is not None:
        x[3, 4, 6, 0] = bad

    def dy(y):
        return np.random.default_rng(2).normal(size=y.shape).astype("float32")

    expected = one_by_one(made(name, x.shape[1:]), x, dy)
    results = together(made(name, x.shape[1:]), x, dy)
    for mine, theirs in zip(results, expected, strict=True):
        assert_close(mine, theirs, 10 * EPSILON["float32"])


@pytest.mark.parametrize("name", STACKS)
def test_a_stack_takes_arrays_in_any_order_in_memory(name):
    x = np.random.default_rng(0).normal(size=(8, 11, 10, 17)).astype("float32")[::2]
    expected = together(made(name, x.shape[1:]), np.ascontiguousarray(x), np.sin)
    for other in (x, np.asfortranarray(x), np.ascontiguousarray(x.transpose(3, 0, 1, 2)).transpose(1, 2, 3, 0)):
        assert not other.flags.c_contiguous
        for mine, theirs in zip(together(made(name, x.shape[1:]), other, np.sin), expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", STACKS)
def test_a_stack_trains_in_one_memory_for_batches_of_all_sizes(name):
    # A plan reuses the memory of the previous step; the short last batch of an epoch uses only part of it.
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(n, 11, 10, 3)).astype("float32") for n in (4, 2, 5, 1)]
    expected = [together(made(name, (11, 10, 3)), x, np.sin)[2:] for x in batches]
    model = made(name, (11, 10, 3))
    start = model.get_weights()
    for x, theirs in zip(batches, expected):
        model.set_weights(start)
        for layer in model.walk():
            if hasattr(layer, "random"):
                layer.random.state = (layer.random.seed, 0)
        y = model.forward(x, training=True)
        mine = [model.backward(np.sin(y)), *gradients(model), *model.non_trainable_weights]
        for array, alone in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(array, alone)

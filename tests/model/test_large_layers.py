"""Layers whose kernels are too large for the caches, and so take paths of their own, in a model that trains."""

import numpy as np
import pytest

import cnnlite
from cnnlite import fusion, layers
from tests.kernels.drawn import compiled_kernels_needed

pytestmark = compiled_kernels_needed


def make_model():
    model = cnnlite.Sequential([
        cnnlite.Input((6, 6, 256)),
        layers.Conv2D(160, 1, activation="relu"),
        layers.Conv2D(260, 3, strides=2, padding="same"),
        layers.ReLU(),
        layers.Conv2D(512, 3, padding="same"),
        layers.GlobalAveragePool(),
        layers.Dense(300, activation="relu"),
        layers.Dense(5),
    ])
    loss = cnnlite.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(cnnlite.optimizers.SGD(0.05, momentum=0.9), loss)
    return model


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(9, 6, 6, 256)).astype("float32"), rng.integers(0, 5, 9)


def trained(model, weights, data, steps=3):
    model.set_weights(weights)
    losses = [model.train_on_batch(*data) for _ in range(steps)]
    return [*losses, model.predict(data[0], verbose=0), *model.get_weights()]


def test_large_layers_train_as_their_definitions_say(data):
    cnnlite.utils.set_random_seed(0)
    model, eager = make_model(), make_model()
    weights = model.get_weights()
    with cnnlite.reference_mode():
        expected = trained(eager, weights, data)
    for mine, theirs in zip(trained(model, weights, data), expected):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
    model.layers[0].params["kernel"][...] *= 2
    eager.set_weights(model.get_weights())
    with cnnlite.reference_mode():
        expected = eager(data[0])
    np.testing.assert_allclose(model(data[0]), expected, rtol=1e-4, atol=1e-5)


def test_large_layers_have_the_same_bits_layer_by_layer(data):
    cnnlite.utils.set_random_seed(0)
    model, apart = make_model(), make_model()
    weights = model.get_weights()
    with fusion.disabled():
        expected = trained(apart, weights, data)
    for mine, theirs in zip(trained(model, weights, data), expected):
        np.testing.assert_array_equal(mine, theirs)


def test_one_sample_has_the_bits_that_it_has_in_a_batch(data):
    model = make_model()
    together = model(data[0])
    for i in range(3):
        np.testing.assert_array_equal(model(data[0][i : i + 1])[0], together[i])

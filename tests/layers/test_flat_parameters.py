"""One vector for all weights, one for all gradients, and the layers' arrays as views into them."""

import numpy as np
import pytest

import cnnlite
from cnnlite import layers

RNG = np.random.default_rng


def dense_model(*units, features=3, **arguments):
    rows = [layers.Dense(n, name=f"dense_{i}", **arguments) for i, n in enumerate(units)]
    return cnnlite.Sequential([cnnlite.Input(shape=(features,)), *rows])


def test_the_layers_arrays_are_views_and_keep_their_values():
    model = dense_model(4, 2, bias_initializer="random_normal")
    before = model.get_weights()
    parameters = model.parameters()
    assert parameters.names == ["dense_0/kernel", "dense_0/bias", "dense_1/kernel", "dense_1/bias"]
    assert parameters.slices == [slice(0, 12), slice(12, 16), slice(16, 24), slice(24, 26)]
    for array, mine, place in zip(before, model.weights, parameters.slices):
        np.testing.assert_array_equal(mine, array)
        np.testing.assert_array_equal(parameters.vector[place], array.ravel())
        assert np.may_share_memory(mine, parameters.vector)
    assert parameters.vector.shape == parameters.gradient.shape == (26,)
    parameters.vector[:] = 5
    assert all((array == 5).all() for array in model.weights)


def test_backward_fills_the_gradient_vector():
    model = dense_model(4, 2)
    parameters = model.parameters()
    y = model.forward(RNG(0).normal(size=(5, 3)), training=True)
    model.backward(RNG(1).normal(size=y.shape))
    flat = np.concatenate([gradient.ravel() for gradient in model.grads.values()])
    np.testing.assert_array_equal(parameters.gradient, flat)
    assert flat.all()


def test_the_same_vector_is_kept_until_the_layers_change():
    model = dense_model(4)
    parameters = model.parameters()
    assert model.parameters() is parameters
    model.set_weights(model.get_weights())
    assert model.parameters() is parameters
    kept = model.get_weights()
    model.add(layers.Dense(2))
    grown = model.parameters()
    assert grown is not parameters
    assert grown.vector.size == 26
    for mine, array in zip(model.weights, kept):
        np.testing.assert_array_equal(mine, array)
    model.pop()
    assert model.parameters().vector.size == 16


def test_a_layer_shared_by_two_models_moves_and_keeps_its_values():
    shared = layers.Dense(4, name="shared")
    one = cnnlite.Sequential([cnnlite.Input(shape=(3,)), shared, layers.Dense(2)])
    two = cnnlite.Sequential([cnnlite.Input(shape=(3,)), shared])
    values = shared.params["kernel"].copy()
    first = one.parameters()
    second = two.parameters()
    np.testing.assert_array_equal(shared.params["kernel"], values)
    assert shared.params["kernel"].base is second.vector
    second.vector += 1
    # The first model sees what the second one learnt, and takes the layer back.
    back = one.parameters()
    assert back is not first
    np.testing.assert_array_equal(back.vector[back.slices[0]].reshape(3, 4), values + 1)
    np.testing.assert_array_equal(shared.params["kernel"], values + 1)


def test_two_models_that_share_a_layer_train_it_in_turns():
    shared = layers.Dense(4, name="shared")
    models = [cnnlite.Sequential([cnnlite.Input(shape=(3,)), shared, layers.Dense(1)]) for _ in range(2)]
    x, y = RNG(0).normal(size=(8, 3)), RNG(1).normal(size=(8, 1))
    for model in models:
        model.compile(cnnlite.optimizers.SGD(0.1), "mse")
    for _ in range(3):
        for model in models:
            before = shared.get_weights()
            model.train_on_batch(x, y)
            expected = [old - np.float32(0.1) * gradient for old, gradient in zip(before, shared.grads.values())]
            for mine, wanted in zip(shared.get_weights(), expected):
                np.testing.assert_allclose(mine, wanted, rtol=1e-6, atol=1e-7)
            assert np.abs(shared.params["kernel"] - before[0]).max() > 0


def test_segments_are_the_fewest_runs_of_what_is_trainable_now():
    model = dense_model(4, 2, 5)
    parameters = model.parameters()
    assert parameters.trainable_segments() == [(0, 41)]
    model.layers[1].trainable = False
    assert parameters.trainable_segments() == [(0, 16), (26, 41)]
    model.layers[0].trainable = False
    assert parameters.trainable_segments() == [(26, 41)]
    model.trainable = False
    assert parameters.trainable_segments() == []
    model.trainable = True
    assert parameters.trainable_segments() == [(0, 41)]


def test_state_that_has_no_gradient_stays_out():
    model = cnnlite.Sequential([layers.BatchNorm(input_shape=(3,))])
    parameters = model.parameters()
    assert parameters.names == ["batch_norm/gamma", "batch_norm/beta"]
    assert parameters.vector.tolist() == [1, 1, 1, 0, 0, 0]


def test_layers_of_two_dtypes_are_refused_and_stay_as_they_are():
    model = cnnlite.Sequential([layers.Dense(2, input_shape=(3,), dtype="float64"), layers.Dense(2)])
    arrays = model.weights
    with pytest.raises(TypeError, match=r"must have the same dtype. Received: float32, float64"):
        model.parameters()
    assert all(mine is array for mine, array in zip(model.weights, arrays))


def test_a_model_without_weights_has_empty_vectors():
    model = cnnlite.Sequential([layers.Flatten(input_shape=(2, 2))])
    parameters = model.parameters()
    assert parameters.vector.size == 0
    assert parameters.trainable_segments() == []


def test_models_inside_models_have_paths():
    inner = cnnlite.Sequential([layers.Dense(2, name="a")], name="inner")
    model = cnnlite.Sequential([layers.Dense(3, name="a", input_shape=(3,)), inner])
    assert model.parameters().names == ["a/kernel", "a/bias", "inner/a/kernel", "inner/a/bias"]

import numpy as np
import pytest

from cnnlite import layers

MAKERS = [lambda: layers.Conv2D(2, 1), lambda: layers.MaxPool(1), lambda: layers.BatchNorm(), lambda: layers.Dense(2)]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("shape", [(None, 0, 4, 3), (None, 4, -4, 3), (None, 4, 4, 0), (None, 4, "4", 3)])
def test_sizes_must_be_positive_integers(make, shape):
    layer = make()
    with pytest.raises((ValueError, TypeError), match="input_shape must be"):
        layer.build(shape)
    assert not layer.built and not layer.weights


@pytest.mark.parametrize("make", MAKERS)
def test_an_array_of_samples_without_values_is_refused(make):
    layer = make()
    with pytest.raises(ValueError, match="input_shape must be at least 1"):
        layer(np.zeros((2, 4, 4, 0)))
    assert not layer.built


def test_a_shape_must_be_a_tuple():
    with pytest.raises(TypeError, match=r"dense: input_shape must be a tuple.*Received: input_shape=5"):
        layers.Dense(3).build(5)


@pytest.mark.parametrize("wrong", [None, 1, "ab"])
def test_set_weights_takes_a_list(wrong):
    layer = layers.Dense(2)
    layer.build((None, 3))
    with pytest.raises(TypeError, match="set_weights must get a list of arrays"):
        layer.set_weights(wrong)


@pytest.mark.parametrize("bias", [["a", "b"], [1j, 2j], [None, None]])
def test_set_weights_takes_real_numbers_and_otherwise_sets_nothing(bias):
    layer = layers.Dense(2)
    layer.build((None, 3))
    before = layer.get_weights()
    with pytest.raises(TypeError, match="a weight must be an array of real numbers"):
        layer.set_weights([np.ones((3, 2)), bias])
    for mine, array in zip(layer.weights, before):
        np.testing.assert_array_equal(mine, array)


def test_an_initializer_must_return_the_shape_that_it_was_asked_for():
    layer = layers.Dense(2, kernel_initializer=lambda shape, dtype=None: np.ones((9, 9)))
    with pytest.raises(ValueError, match=r"the initializer of kernel must return.*\(3, 2\). Received: shape=\(9, 9\)"):
        layer.build((None, 3))

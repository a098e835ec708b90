"""Input: the forms in which a shape can be given."""

import numpy as np
import pytest

from cnnlite.layers import Input, InputLayer


def test_input_holds_the_shape_of_a_sample():
    layer = Input(shape=(28, None, 1), batch_size=32, dtype=np.uint8, name="images")
    assert isinstance(layer, InputLayer)
    assert (layer.shape, layer.batch_size, layer.dtype, layer.name) == ((28, None, 1), 32, "uint8", "images")
    assert Input([784]).shape == Input(784).shape == (784,)


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({}, ValueError, r"Input: shape must be given.*shape=\(28, 28, 1\)"),
    ({"shape": (0, 1)}, ValueError, "Input: shape must be at least 1"),
    ({"shape": (2.5,)}, TypeError, "Input: shape must be an integer"),
    ({"shape": (2,), "batch_size": 0}, ValueError, "Input: batch_size must be at least 1"),
    ({"batch_size": 4, "batch_shape": (2, 3)}, ValueError, r"batch_size=4, batch_shape=\(2, 3\)\. Pass shape and"),
    ({"batch_size": 2, "batch_shape": (2, 3)}, ValueError, "batch_size must not be given with batch_shape"),
    ({"batch_shape": (0, 3)}, ValueError, "batch_size must be at least 1"),
    ({"batch_shape": 3}, ValueError, "batch_shape must be a tuple that starts with the batch"),
    ({"batch_shape": ()}, ValueError, "batch_shape must be a tuple"),
    ({"batch_shape": "ab"}, ValueError, "batch_shape must be a tuple"),
    ({"shape": (3,), "dtype": "foo"}, TypeError, "dtype must be a NumPy dtype.*Received: dtype='foo'"),
    ({"shape": (3,), "name": 5}, TypeError, "name must be a string"),
])
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Input(**arguments)


def test_the_shape_can_be_given_as_keras_scripts_do():
    assert Input(input_shape=(28, 28, 1)).shape == (28, 28, 1)
    layer = Input(batch_shape=(8, 28, 28, 1))
    assert (layer.shape, layer.batch_size) == ((28, 28, 1), 8)
    assert Input(batch_shape=(None, 5)).batch_size is None
    with pytest.raises(ValueError, match="shape must be given exactly once"):
        Input(shape=(5,), batch_shape=(None, 5))

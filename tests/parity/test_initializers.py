"""Initializers against Keras: the same spread and the same limits."""

import numpy as np
import pytest

from cnnlite import initializers
from tests.test_initializers import RANDOM, make

pytest.importorskip("torch")
keras = pytest.importorskip("keras")

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("shape", [(30, 50), (5, 4, 20, 30), (3, 200)])
def test_keras_draws_with_the_same_spread(name, shape):
    keras.utils.set_random_seed(1)
    theirs = keras.ops.convert_to_numpy(keras.initializers.get(name)(shape, "float32"))
    ours = make(name, seed=1)(shape)
    assert ours.std() == pytest.approx(theirs.std(), rel=0.12)
    assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=0.3)


@pytest.mark.parametrize("shape", [(), (7,), (7, 3), (5, 4, 20, 60), (2, 3, 4)])
def test_keras_counts_the_same_fans(shape):
    from keras.src.initializers.random_initializers import compute_fans

    assert initializers.compute_fans(shape) == compute_fans(shape)

"""The same seed gives the same bits, in every run and for every number of threads."""

import numba
import numpy as np
import pytest

import cnnlite
from cnnlite import layers


def weights_after_training(threads):
    """Train a network with everything in it that sums or draws, and return the bytes of its weights and outputs."""
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        cnnlite.utils.set_random_seed(3)
        model = cnnlite.Sequential([
            layers.Conv2D(6, 3, padding="same", input_shape=(12, 10, 2)), layers.BatchNorm(), layers.ReLU(),
            layers.MaxPool(), layers.Conv2D(8, 3, strides=2, padding="same", activation="gelu"),
            layers.DepthwiseConv2D(2), layers.SpatialDropout2D(0.1), layers.AveragePool(2, padding="same"),
            layers.Flatten(), layers.Dropout(0.2), layers.Dense(5, activation="softmax"),
        ])
        model.compile("adam", "sparse_categorical_crossentropy")
        random = np.random.default_rng(0)
        x, y = random.normal(size=(150, 12, 10, 2)), random.integers(0, 5, 150)
        model.fit(x, y, batch_size=40, epochs=8, verbose=0)
        return [array.tobytes() for array in [*model.get_weights(), model.predict(x, verbose=0)]]
    finally:
        numba.set_num_threads(before)


def test_two_runs_give_the_same_bits():
    threads = numba.get_num_threads()
    assert weights_after_training(threads) == weights_after_training(threads)


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="numba has one thread only")
def test_the_number_of_threads_does_not_show():
    alone = weights_after_training(1)
    for threads in range(2, min(numba.config.NUMBA_NUM_THREADS, 4) + 1):
        assert weights_after_training(threads) == alone


def test_numpys_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - it is the global state that is looked at
    weights_after_training(1)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002 - likewise

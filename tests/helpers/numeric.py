"""Central differences in float64, to check `backward` against."""

import numba
import numpy as np


def numeric_gradient(f, array, dy=1.0, step=1e-6):
    """Return d Σ f() dy / d array; f reads `array`, which is perturbed and restored one element at a time.

    `f` returns an array of dy's shape, or a number.
    """
    gradient = np.empty_like(array)
    # Waking a second thread costs hundreds of times more than computing a small layer.
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + step
        above = f()
        array[index] = value - step
        below = f()
        array[index] = value
        gradient[index] = np.sum((above - below) * dy) / (2 * step)
    numba.set_num_threads(threads)
    return gradient


def assert_gradients(layer, x, seed=0, tolerance=1e-6):
    """Assert that backward's gradients for x and all weights match the training forward pass.

    The upstream gradient is random: with all ones, many gradients are 0 whatever backward does.
    """
    x = np.array(x, np.float64)
    y = layer(x, training=True)
    dy = np.random.default_rng(seed).normal(size=y.shape)
    dx = layer.backward(dy)
    expected = numeric_gradient(lambda: layer.forward(x, training=True), x, dy)
    np.testing.assert_allclose(dx, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max()))
    for name, array in layer.params.items():
        gradient = layer.grads[name].copy()
        expected = numeric_gradient(lambda: layer.forward(x, training=True), array, dy)
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max()),
                                   err_msg=name)

"""The same data for every side."""

import numpy as np

from benchmarks.convolutions import Convolution

CLASSES = 10


def batch(shape, n):
    """Return samples (n, *shape) and their labels."""
    generator = np.random.default_rng(0)
    return generator.normal(size=(n, *shape)).astype(np.float32), generator.integers(0, CLASSES, n)


def dense(shape):
    """Return x (N, inputs), a kernel (inputs, units), a bias and an upstream gradient dy (N, units)."""
    generator = np.random.default_rng(0)
    n, inputs, units = shape
    return [generator.standard_normal(each, np.float32) for each in ((n, inputs), (inputs, units), units, (n, units))]


def convolution(shape):
    """Return x (N, H, W, C), a kernel (K, K, C, F), a bias and an upstream gradient dy (N, OH, OW, F)."""
    generator = np.random.default_rng(0)
    shape = Convolution(*shape)
    x, dy = (shape.n, shape.size, shape.size, shape.channels), (shape.n, shape.out, shape.out, shape.filters)
    kernel = (shape.kernel_size, shape.kernel_size, shape.channels, shape.filters)
    # Drawn as float32: float64 would briefly need twice the memory.
    return [generator.standard_normal(each, np.float32) for each in (x, kernel, kernel[-1:], dy)]

"""The same numbers for every side."""

import numpy as np

CLASSES = 10


def batch(shape, n):
    """Return samples (n, *shape) and their labels."""
    generator = np.random.default_rng(0)
    return generator.normal(size=(n, *shape)).astype(np.float32), generator.integers(0, CLASSES, n)


def convolution(n, size, channels, filters, kernel_size):
    """Return x (N, H, W, C), a kernel (K, K, C, F), a bias and an upstream gradient dy (N, OH, OW, F)."""
    generator = np.random.default_rng(0)
    out = size - kernel_size + 1
    x, kernel = (n, size, size, channels), (kernel_size, kernel_size, channels, filters)
    shapes = [x, kernel, (filters,), (n, out, out, filters)]
    return [generator.normal(size=shape).astype(np.float32) for shape in shapes]

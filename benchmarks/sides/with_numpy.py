"""The machine's own rate: a product of two large matrices in the BLAS that NumPy brings."""

import numpy as np


def prepare(job, layout, threads):
    n = job["n"]
    generator = np.random.default_rng(0)
    a, b = (generator.normal(size=(n, n)).astype(np.float32) for _ in range(2))
    c = np.empty_like(a)
    return lambda: np.matmul(a, b, out=c), None

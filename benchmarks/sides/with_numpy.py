"""The machine's peak rates: a product of two large matrices in the BLAS that comes with NumPy, and a memory copy."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np


def prepare(job, layout, threads):
    return {"sgemm": sgemm, "copy": copy}[job["kind"]](job, threads), None


def sgemm(job, threads):
    n = job["n"]
    generator = np.random.default_rng(0)
    a, b = (generator.normal(size=(n, n)).astype(np.float32) for _ in range(2))
    c = np.empty_like(a)
    return lambda: np.matmul(a, b, out=c)


def copy(job, threads):
    """Each thread copies a part, in parallel because NumPy's copy releases the GIL."""
    source = np.ones(job["bytes"] // 8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads)))
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(lambda part: np.copyto(*part), parts))

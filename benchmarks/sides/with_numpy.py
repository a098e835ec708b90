"""The machine's own rates: a product of two large matrices in the BLAS that NumPy brings, and a copy of memory."""

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
    """Each thread copies a part. NumPy's copy runs without Python's lock, so they do that at the same time."""
    source = np.ones(job["bytes"] // 8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads)))
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(lambda part: np.copyto(*part), parts))

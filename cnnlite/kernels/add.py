"""The sum of two arrays of one shape, where two branches of a net come together."""

import numpy as np

from cnnlite.kernels._jit import kernel
from cnnlite.kernels.checks import require
from cnnlite.kernels.threads import CHUNK, chunk, chunks_of, run


def add(a, b, out=None):
    """Return a + b, element by element; b has the shape and the dtype of a, and out overlaps neither."""
    require(a, "a", a.shape, None, "add")
    require(b, "b", a.shape, a.dtype, "add")
    if out is None:
        out = np.empty(a.shape, a.dtype)
    require(out, "out", a.shape, a.dtype, "add")
    run(_add, chunks_of(out.size), (a.reshape(-1), b.reshape(-1), out.reshape(-1)), alone=out.size <= CHUNK)
    return out


@kernel
def _add(a, b, out, unit):
    a, b, out = chunk(a, unit), chunk(b, unit), chunk(out, unit)
    for i in range(out.size):
        out[i] = a[i] + b[i]

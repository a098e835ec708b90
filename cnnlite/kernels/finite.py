"""Whether a training step may be taken: whether its loss and its gradient are finite."""

import math

import numpy as np

from cnnlite.engine.stages import BATCH, array, array_as, stage


def nonfinite(value, gradient, segments):
    """Add a stage; return an int64 buffer (1,) that is 0 if a float64 loss (1,) and a gradient are finite, else 1.

    segments: [(start, stop), ...], the parts of the gradient that count.
    """
    graph = value.graph
    flag = graph.work((1,), np.int64)
    bounds = np.array(segments, np.int64).reshape(-1)
    graph.add(_nonfinite, value=value, gradient=gradient, bounds=bounds, flag=flag, size=math.prod(gradient.shape),
              segments=len(segments), work=math.prod(gradient.shape))
    return flag


@stage(reads="value gradient bounds", writes="flag", sizes="size segments", footprint=BATCH)
def _nonfinite(r, run, first, last):
    value, gradient = array_as(run, r.value, (1,), np.float64), array(run, r.gradient, (r.size,))
    bounds = array_as(run, r.bounds, (r.segments, 2), np.int64)
    found = 0 if np.isfinite(value[0]) else 1
    for i in range(r.segments):
        part = gradient[bounds[i, 0] : bounds[i, 1]]
        for j in range(part.size):
            found |= 0 if abs(part[j]) < np.inf else 1
    array_as(run, r.flag, (1,), np.int64)[0] = found


def add_numbers(a, b):
    """Add a stage; return a buffer with the sum of two float64 buffers (1,)."""
    out = a.graph.work((1,), np.float64)
    a.graph.add(_add_numbers, a=a, b=b, out=out)
    return out


@stage(reads="a b", writes="out", footprint=BATCH)
def _add_numbers(r, run, first, last):
    a, b = array_as(run, r.a, (1,), np.float64), array_as(run, r.b, (1,), np.float64)
    array_as(run, r.out, (1,), np.float64)[0] = a[0] + b[0]

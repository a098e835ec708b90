"""Penalties on weights, and their gradient, which is added to the gradient of the loss."""

import math

import numpy as np

from cnnlite.engine.stages import BATCH, array, array_as, stage
from cnnlite.kernels.checks import require
from cnnlite.kernels.operation import graph_of, operation
from cnnlite.kernels.sums import LANES_BYTES, NUMBERS_A_UNIT, sums_of_sizes_and_squares


@operation(samples="")
def l1_l2_penalty(w, l1, l2):
    """Return l1 sum(|w|) + l2 sum(w²) as one float64, in an array (1,); a factor of 0 omits its sum.

    The sums are computed in float64 and rounded to the dtype of w.
    """
    require(w, "w", w.shape, None, "l1_l2_penalty")
    graph, size = w.graph, math.prod(w.shape)
    pieces = -(-size // NUMBERS_A_UNIT)
    sums, value = graph.work((pieces, 2), np.float64), graph.work((1,), np.float64)
    graph.add(_sum_pieces, units=pieces, w=w, sums=sums, size=size, scratch=LANES_BYTES, work=4 * size)
    graph.add(_penalty, w=w, sums=sums, value=value, pieces=pieces, l1=l1, l2=l2, work=2 * pieces)
    return value


@stage(reads="w", writes="sums", sizes="size", footprint=BATCH)
def _sum_pieces(r, run, first, last):
    w, sums = array(run, r.w, (r.size,)), array_as(run, r.sums, (last, 2), np.float64)
    for piece in range(first, last):
        sums[piece, 0], sums[piece, 1] = sums_of_sizes_and_squares(
            run, w[piece * NUMBERS_A_UNIT : (piece + 1) * NUMBERS_A_UNIT])


@stage(reads="w sums", writes="value", sizes="pieces", floats="l1 l2", footprint=BATCH)
def _penalty(r, run, first, last):
    number = array(run, r.w, (0,)).dtype.type  # the sums are rounded to it, and infinite if they overflow it
    sums = array_as(run, r.sums, (r.pieces, 2), np.float64)
    sizes, squares = 0.0, 0.0
    for piece in range(r.pieces):
        sizes += sums[piece, 0]
        squares += sums[piece, 1]
    # A factor of 0 omits its sum: 0 times an infinite sum would be NaN.
    value = r.l1 * number(sizes) if r.l1 != 0 else 0.0
    array_as(run, r.value, (1,), np.float64)[0] = value + (r.l2 * number(squares) if r.l2 != 0 else 0.0)


@operation(samples="")
def add_l1_l2_gradient(w, g, l1, l2):
    """Add l1 sign(w) + 2 l2 w to g, which has w's shape and dtype."""
    require(w, "w", w.shape, None, "add_l1_l2_gradient")
    require(g, "g", w.shape, w.dtype, "add_l1_l2_gradient")
    size = math.prod(w.shape)
    graph_of(w, g).add(_add_gradient, units=-(-size // NUMBERS_A_UNIT), w=w, g=g, size=size, l1=l1, l2=l2,
                       work=4 * size)


@stage(reads="w g", writes="g", sizes="size", floats="l1 l2", footprint=BATCH)
def _add_gradient(r, run, first, last):
    start, stop = first * NUMBERS_A_UNIT, min(r.size, last * NUMBERS_A_UNIT)
    w, g = array(run, r.w, (stop,))[start:stop], array(run, r.g, (stop,))[start:stop]
    l1, l2 = w.dtype.type(r.l1), w.dtype.type(2 * r.l2)
    for i in range(w.size):
        # The sign of 0 is 0, and that of NaN is NaN.
        change = l1 if w[i] > 0 else -l1 if w[i] < 0 else l1 * w[i]
        g[i] += change + l2 * w[i]

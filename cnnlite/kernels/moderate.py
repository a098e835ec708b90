"""Whether numbers are so moderate that sums and differences of them can't overflow, and that none is a NaN.

Two ways of convolving compute with more than the definition does: Winograd's adds and subtracts neighbours, and
pixels that are computed together multiply with zeros. Where numbers are not moderate they would spoil their
neighbours, and the direct way is taken.
"""

import math

import numpy as np
from numba.extending import register_jitable

from cnnlite.engine.jit import kernel
from cnnlite.engine.stages import BATCH, array, array_as, stage

NUMBERS_A_UNIT = 1 << 15


@kernel
def moderate(x):
    """Return whether all numbers of x (C-contiguous) are finite and less than 2^40 in size.

    Then no sum in a tile can overflow. It doesn't say that small pixels keep their digits next to large ones: the
    error is relative to the largest of a tile, at most 3e-6 of it in float32.
    """
    outside = 0
    flat = x.reshape(-1)
    for i in range(flat.size):
        outside |= not abs(flat[i]) < 1099511627776.0  # "not <", because NaN must count
    return outside == 0


def moderate_flags(graph, weights):
    """Add a stage that looks whether weights are moderate; return the buffer of its flags, one for each unit."""
    size = math.prod(weights.shape)
    flags = graph.work((max(1, -(-size // NUMBERS_A_UNIT)),), np.int64)
    graph.add(_look, units=flags.shape[0], x=weights, flags=flags, size=size, work=size)
    return flags


@stage(reads="x", writes="flags", sizes="size", footprint=BATCH)
def _look(r, run, first, last):
    x, flags = array(run, r.x, (r.size,)), array_as(run, r.flags, (last,), np.int64)
    for unit in range(first, last):
        flags[unit] = moderate(x[unit * NUMBERS_A_UNIT : min(r.size, (unit + 1) * NUMBERS_A_UNIT)])


@kernel
def are_moderate(flags):
    """Return whether all weights are, given the flags."""
    result = True
    for i in range(flags.size):
        result &= flags[i] != 0
    return result


@register_jitable
def rows_read(first, last, h, window):
    """Return (begin, end) of the rows of an image of h rows that some rows of the output are made of."""
    begin = first * window.stride_h - window.top
    end = (last - 1) * window.stride_h - window.top + (window.height - 1) * window.dilation_h + 1
    begin = min(h, max(0, begin))
    return begin, max(begin, min(h, end))

"""Matrices in the layout that the micro-kernel reads: panels two vectors wide, from front to back."""

import math

import numpy as np

from cnnlite.engine.jit import jit
from cnnlite.engine.stages import BATCH, array, stage
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.operation import graph_of
from cnnlite.kernels.rows import transpose_panels


def panel_width(dtype):
    """Return how many columns of a NumPy dtype one tile covers: two vectors."""
    return 2 * VECTOR_BYTES // np.dtype(dtype).itemsize


def pack_panels(b, k, n, k_step, n_step, groups=1, group_step=0, taps=1, tap_step=0, graph=None):
    """Add a stage that copies matrices into panels; return their buffer (groups, ceil(N / width), taps * K, width).

    A tile reads a panel from front to back, in whole vectors. Column j of row (tap, i) of a group is
    b[group * group_step + tap * tap_step + i * k_step + j * n_step], in elements from the first; the last panel is
    padded with zeros.

    Args:
        graph: the graph to add to, if b is an array.
    """
    graph = graph_of(b) if graph is None else graph
    width = panel_width(b.dtype)
    out = graph.work((groups, -(-n // width), taps * k, width), b.dtype)
    graph.add(_pack, units=groups * out.shape[1], b=b, out=out, size=math.prod(b.shape), k=k, n=n, k_step=k_step,
              n_step=n_step, groups=groups, group_step=group_step, taps=taps, tap_step=tap_step,
              work=math.prod(out.shape))
    return out


@stage(reads="b", writes="out", sizes="size k n k_step n_step groups group_step taps tap_step", footprint=BATCH)
def _pack(r, run, first, last):
    width = 2 * VECTOR_BYTES // array(run, r.out, (0,)).itemsize
    panels, rows = (r.n + width - 1) // width, r.taps * r.k
    b, out = array(run, r.b, (r.size,)), array(run, r.out, (r.groups, panels, rows, width))
    for unit in range(first, last):
        group, panel = unit // panels, unit % panels
        begin = group * r.group_step + panel * width * r.n_step
        columns, target = min(width, r.n - panel * width), out[group, panel]
        if r.k_step == 1 and r.taps == 1 and r.k > 0 and r.k % (width // 2) == 0:
            # The columns lie in memory as rows: they are transposed in registers, 8 or 16 at a time.
            transpose_panels(target[0, 0], b.ctypes.data + begin * b.itemsize, r.n_step, columns, r.k,
                             target.ctypes.data)
        else:
            for tap in range(r.taps):
                _pack_rows(b, begin + tap * r.tap_step, r.k_step, r.n_step, columns,
                           target[tap * r.k : (tap + 1) * r.k])


@jit
def _pack_rows(b, begin, k_step, n_step, columns, out):
    for i in range(out.shape[0]):
        place, row = begin + i * k_step, out[i]
        if n_step == 1:
            source = b[place : place + columns]
            for j in range(columns):
                row[j] = source[j]
        else:
            for j in range(columns):
                row[j] = b[place + j * n_step]
        for j in range(columns, row.size):
            row[j] = 0


@jit
def rows_of_vectors(size, n, column, width):
    """Return how many rows of n columns have `width` elements from a column on, including those of the next row.

    What a vector holds beyond the columns is unused, but must not lie past the end of the array.
    """
    return (size - column - width) // n + 1 if size >= column + width else 0

"""Sums over the rows of a matrix, which are gradients of biases: ones @ x."""

import numpy as np

from cnnlite.engine.jit import jit
from cnnlite.engine.stages import BEGIN, CHUNKS, END, IMAGE, UNIT, array, array_as, scratch, stage, word
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.checks import require
from cnnlite.kernels.operation import operation, result
from cnnlite.kernels.product.microkernel import block_address, call_block
from cnnlite.kernels.product.panels import panel_width, rows_of_vectors
from cnnlite.kernels.sums import add_chunks, chunk_sums

ROWS_A_SUM = 256  # rows that are added one by one before their sum is added to the others


@operation(samples="x")
def column_sums(x, out=None):
    """out[j] = sum over all i of x[i..., j], the gradient of a bias, for x of shape (samples, ..., N).

    ROWS_A_SUM rows at a time are added one by one, by the micro-kernel as ones @ x, and then their sums in float64.
    """
    require(x, "x", max(2, x.ndim), None, "column_sums")
    if x.ndim > 2:
        x = x.reshape(-1, x.shape[-1])
    out = result(out, x, x.shape[1:])
    require(out, "out", x.shape[1:], x.dtype, "column_sums")
    n, width = x.shape[1], panel_width(x.dtype)
    some = chunk_sums(x.graph, (-(-n // width) * width,), x.dtype)
    sums = chunk_sums(x.graph, out.shape, np.float64)
    rows_a_sample = x.shape[0].factor
    x.graph.add(_column_sums, together=-(-ROWS_A_SUM // rows_a_sample), work=2 * x.sample_size, scratch=x.itemsize,
                x=x, some=some, sums=sums, rows_a_sample=rows_a_sample, n=n, whole=some.sample_size,
                block=block_address(x.dtype))
    add_chunks(sums, out)
    return out


@stage(reads="x", adds="some sums", sizes="rows_a_sample n whole block", footprint=IMAGE)
def _column_sums(r, run, first, last):
    rows, chunk = r.rows_a_sample, word(run, UNIT)
    x = array(run, r.x, (last * rows * r.n,))
    some = array(run, r.some, (word(run, CHUNKS), r.whole))[chunk]
    sums = array_as(run, r.sums, (word(run, CHUNKS), r.n), np.float64)[chunk]
    begin, end = word(run, BEGIN) * rows, word(run, END) * rows
    if first == word(run, BEGIN):
        some[:] = 0
        sums[:] = 0
    row = first * rows
    while row < last * rows:
        stop = min(last * rows, row + ROWS_A_SUM - (row - begin) % ROWS_A_SUM)
        _add_rows(r, run, x, row, stop, some)
        row = stop
        if (row - begin) % ROWS_A_SUM == 0 or row == end:
            for j in range(sums.size):
                sums[j] += some[j]
            some[:] = 0


@jit
def _add_rows(r, run, x, first, last, sums):
    """Add some rows of x to `sums`, which is padded to whole panels."""
    lanes = VECTOR_BYTES // x.itemsize
    one = scratch(run, 0, (1,))
    one[0] = 1
    for column in range(0, r.n, 2 * lanes):
        columns = min(2 * lanes, r.n - column)
        width = lanes if columns <= lanes else 2 * lanes
        whole = max(first, min(last, rows_of_vectors(x.size, r.n, column, width)))
        target = sums[column : column + columns]
        call_block(r.block, 1, width // lanes, target.ctypes.data, 0, target.ctypes.data, 0, one.ctypes.data, 0, 0, 0,
                   x.ctypes.data + (first * r.n + column) * x.itemsize, 0, r.n, 1, whole - first)
        for i in range(whole, last):
            source = x[i * r.n + column : i * r.n + column + columns]
            for j in range(columns):
                target[j] += source[j]

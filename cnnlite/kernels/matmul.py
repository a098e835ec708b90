"""Matrix products on the micro-kernel, and the sums over rows that bias gradients are.

No BLAS: its threads and numba's would take turns on the same cores, and each turn costs milliseconds.
"""

import numpy as np

from cnnlite.engine.jit import kernel
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.floating import arithmetic
from cnnlite.kernels.checks import require
from cnnlite.kernels.microkernel import block_address, call_block
from cnnlite.kernels.packing import packed
from cnnlite.kernels.threads import run
from cnnlite.kernels.vector_ir import transpose_panels

SMALL = 2e6  # additions and multiplications that are done before other threads would have begun
SMALL_COPY = 1 << 16  # and numbers that are copied or added up
ROWS_A_UNIT = 32  # rows of the result that one thread computes at a time: enough units for many threads
ROWS_A_SUM = 256  # rows that are added up before their sum joins the others


def panel_width(dtype):
    """Return how many columns of that NumPy dtype one tile covers: two vectors."""
    return 2 * VECTOR_BYTES // dtype.itemsize


def matmul(a, b, bias=None, transpose_a=False, transpose_b=False, out=None):
    """c = a @ b + bias, with either factor transposed where asked.

    Args:
        a: (M, K), or (K, M) with `transpose_a`. All arrays are C-contiguous and of one dtype.
        b: (K, N), or (N, K) with `transpose_b`.
        bias: (N,), or None for none.
        out: (M, N) to write to.
    """
    require(a, "a", 2, None, "matmul")
    m, k = a.shape[::-1] if transpose_a else a.shape
    n = b.shape[0 if transpose_b else -1]
    require(b, "b", (n, k) if transpose_b else (k, n), a.dtype, "matmul")
    if bias is not None:
        require(bias, "bias", (n,), a.dtype, "matmul")
    out = np.empty((m, n), a.dtype) if out is None else out
    require(out, "out", (m, n), a.dtype, "matmul")
    start = padded_columns(bias, n, a.dtype)
    alone, width = 2 * m * n * k < SMALL, panel_width(a.dtype)
    a_i, a_k = (1, m) if transpose_a else (k, 1)
    if transpose_b or n % (width // 2):
        b_j, b_k = (k, 1) if transpose_b else (1, n)

        def pack(b, out):
            return pack_panels(b, k, n, b_k, b_j, out=out)

        # In a @ b and a @ b.T, b are weights, which come again. In a.T @ b it is a gradient.
        if transpose_a:
            b = pack(b, None)
        else:
            (b,) = packed(b, [("transposed matrix" if transpose_b else "matrix", pack)], anew=not alone)
        b_panel, b_k = k * width, width
    else:
        b_panel, b_k = width, n
    units = -(-n // width) * -(-m // ROWS_A_UNIT)
    arguments = (a.reshape(-1), block_address(a.dtype), a_i, a_k, b.reshape(-1), b_panel, b_k, start, out, m, n, k)
    run(_matmul_task, units, arguments, alone)
    return out


@kernel
def _matmul_task(a, block, a_i, a_k, b, b_panel, b_k, start, c, m, n, k, unit):
    width = 2 * VECTOR_BYTES // c.itemsize
    row_units = (m + ROWS_A_UNIT - 1) // ROWS_A_UNIT
    panel, row_unit = unit // row_units, unit % row_units
    scratch = np.empty((ROWS_A_UNIT, width), c.dtype)
    first, column = row_unit * ROWS_A_UNIT, panel * width
    product_block(block, min(ROWS_A_UNIT, m - first), min(width, n - column),
                  c.reshape(-1), first * n + column, n, start, column, 0,
                  a, first * a_i, a_i, 0, a_k, b, panel * b_panel, 0, b_k, 1, k, scratch)


@kernel
def product_block(block, rows, columns, c, c_place, c_i, start, start_place, start_i, a, a_place, a_i, a_k1, a_k0,
                  b, b_place, b_k1, b_k0, n1, n0, scratch):
    """Write start + a @ b, for up to two vectors of columns, to a part of c.

    All arrays but `scratch` are one-dimensional, each with the place of its first element. start is one row that
    holds whole vectors if start_i is 0, else as many rows as c and of the same width; it may be c itself. b must
    hold whole vectors. c need not: the last columns go through `scratch` (rows, 2 vectors).
    """
    itemsize = c.itemsize
    width = VECTOR_BYTES // itemsize
    vectors = 1 if columns <= width else 2
    target, target_i = c.ctypes.data + c_place * itemsize, c_i
    begin, begin_i = start.ctypes.data + start_place * itemsize, start_i
    whole = columns == vectors * width
    if not whole:
        target, target_i = scratch.ctypes.data, 2 * width
        if start_i:
            begin, begin_i = target, target_i
            for i in range(rows):
                for j in range(columns):
                    scratch[i, j] = start[start_place + i * start_i + j]
    call_block(block, rows, vectors, target, target_i, begin, begin_i,
               a.ctypes.data + a_place * itemsize, a_i, a_k1, a_k0, b.ctypes.data + b_place * itemsize, b_k1, b_k0,
               n1, n0)
    if not whole:
        for i in range(rows):
            for j in range(columns):
                c[c_place + i * c_i + j] = scratch[i, j]


def padded_columns(bias, n, dtype):
    """Return the bias (or zeros) with zeros up to a whole number of panels: what sums start from. Don't write to it."""
    width = panel_width(dtype)
    if bias is not None and n % width == 0 and bias.flags.carray:
        return bias
    padded = np.zeros(-(-n // width) * width, dtype)
    if bias is not None:
        padded[:n] = bias
    return padded


def pack_panels(b, k, n, k_step, n_step, groups=1, group_step=0, taps=1, tap_step=0, out=None):
    """Copy matrices into panels of two vectors' width: (groups, ceil(N / width), taps * K, width), zeros at the end.

    A tile reads a panel from front to back, in whole vectors. Column j of row (tap, i) of a group is
    b[group * group_step + tap * tap_step + i * k_step + j * n_step], in elements from the first.
    """
    width = panel_width(b.dtype)
    out = np.empty((groups, -(-n // width), taps * k, width), b.dtype) if out is None else out
    arguments = (b.reshape(-1), k, n, k_step, n_step, group_step, tap_step, out)
    run(_pack_task, out.shape[0] * out.shape[1], arguments, alone=out.size < SMALL_COPY)
    return out


@kernel
def _pack_task(b, k, n, k_step, n_step, group_step, tap_step, out, unit):
    _, panels, rows, width = out.shape
    group, panel = unit // panels, unit % panels
    columns = min(width, n - panel * width)
    first = group * group_step + panel * width * n_step
    target = out[group, panel]
    if k_step == 1 and rows == k > 0 and k % (width // 2) == 0:
        # The columns lie in memory as rows: they are turned in registers, 8 or 16 at a time.
        transpose_panels(target[0, 0], b.ctypes.data + first * b.itemsize, n_step, columns, k, target.ctypes.data)
        return
    for tap in range(rows // max(k, 1)):
        for i in range(k):
            place, row = first + tap * tap_step + i * k_step, target[tap * k + i]
            for j in range(columns):
                row[j] = b[place + j * n_step]
            for j in range(columns, width):
                row[j] = 0


def column_sums(x, out=None):
    """out[j] = sum over i of x[i, j], the gradient of a bias, for x of shape (M, N).

    Rows are added up in groups of 256 and the groups' sums in order: the result depends on neither the number
    of threads nor, much, on the number of rows.
    """
    require(x, "x", 2, None, "column_sums")
    out = np.empty(x.shape[1], x.dtype) if out is None else out
    partial = np.empty((max(1, -(-x.shape[0] // ROWS_A_SUM)), x.shape[1]), x.dtype)
    run(_column_sums_task, len(partial), (x, partial), alone=x.size < SMALL_COPY)
    with arithmetic():
        out[...] = partial.sum(axis=0, dtype=np.float64)
    return out


@kernel
def add_up_rows(x, out):
    """out[j] = sum over i of x[i, j].

    Four rows at a time, since the next addition to a sum that is in memory must wait for the last one to get there.
    """
    rows, columns = x.shape
    fours = rows // 4 * 4
    for j in range(columns):
        out[j] = 0
    for i in range(0, fours, 4):
        for j in range(columns):
            out[j] += (x[i, j] + x[i + 1, j]) + (x[i + 2, j] + x[i + 3, j])
    for i in range(fours, rows):
        for j in range(columns):
            out[j] += x[i, j]


@kernel
def _column_sums_task(x, partial, unit):
    add_up_rows(x[unit * ROWS_A_SUM : (unit + 1) * ROWS_A_SUM], partial[unit])


@kernel
def move_sums(sums, exact):
    """Add sums in float32 to those in float64, and begin them anew. Both are flat."""
    for i in range(sums.size):
        exact[i] += sums[i]
        sums[i] = 0

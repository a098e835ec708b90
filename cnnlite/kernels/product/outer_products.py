"""Sums of outer products, a.T @ b: the kernel gradient of a Dense layer or a large convolution.

    c[i, j] = sum over the rows of all samples of  a[row, i] * b[row, j]

or several such products at once, c[p, i, j] from a[row, p, i] and b[row, p, j].

A unit computes a block of c. It goes through the rows in leaves of up to 512, whose products are added one by one in
the registers of a tile. The sums of the leaves are added as a binary tree, whose shape depends on the number of rows
alone.

**Why operands are copied.** In a large matrix the elements that a tile reads in succession are a row apart: in
different cache lines, often on different pages, and if a row is 4 KiB long, all in the same few sets of the cache. So
the products use copies in which these elements are contiguous (Goto and van de Geijn, "Anatomy of High-Performance
Matrix Multiplication", 2008). Each copied element is used in about a hundred products or more.

In a convolution, row n * OH * OW + oh * OW + ow of a is the window that this pixel of dy came from, a row of the im2col
matrix, and c is the kernel gradient, (KH * KW * C, F). Only a piece of that matrix ever exists, as the copy.
"""

import numpy as np

from cnnlite.engine.buffers import Samples
from cnnlite.engine.jit import jit
from cnnlite.engine.stages import BATCH, NONE, SAMPLES, SCRATCH, array, array_as, scratch, stage, word
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.bounded import are_bounded
from cnnlite.kernels.geometry import FIELDS
from cnnlite.kernels.operation import graph_of
from cnnlite.kernels.product.microkernel import block_address, call_block
from cnnlite.kernels.product.panels import panel_width
from cnnlite.kernels.rows import copy_rows

BLOCKS = (128, 256), (128, 128), (64, 128)  # rows and columns of c that a unit computes, the largest first
ENOUGH_UNITS = 32  # enough for many threads: with fewer, blocks are smaller
LEAF = 512  # rows of a and b whose products are added one by one
PIECE = 128  # rows that are copied at a time
MOST_LEVELS = 24  # of the tree: more rows than memory can hold
FEW_COLUMNS = 64  # up to this many, copying a doesn't pay
COPIED_ROW = BLOCKS[0][0] + VECTOR_BYTES // 4  # distance between copied rows of a: a vector may overhang


def add_outer_products(a, b, out, bias=None, windows=None, flags=None, where=1):
    """Add the stage that writes a.T @ b + bias to out (M, N), or several such products to out (P, M, N).

    Args:
        a: (rows, M) or (rows, P, M); with `windows`, images (N, H, W, C) whose windows are the rows.
        b: (rows, N) or (rows, P, N).
        windows: the FIELDS of a convolution without groups.
        flags: whether each sample is `bounded`. With `where=1` the stage does nothing unless all samples are, and with
            `where=0` it does nothing if they are.
    """
    products, m, n = (1, *out.shape)[-3:]
    width = panel_width(out.dtype)
    rows, rows_a_sample = rows_of(b.shape[0])
    block_rows, block_columns = block_size(m, n, products)
    columns = min(block_columns, -(-n // width) * width)

    def work(samples):
        return 2.0 * products * m * n * (rows + rows_a_sample * samples) if where else 0

    graph_of(a, b).add(
        _sum_of_outer_products, units=products * -(-n // block_columns) * -(-m // block_rows), work=work,
        scratch=(width + PIECE * (COPIED_ROW + width) + MOST_LEVELS * block_rows * columns) * out.itemsize,
        a=a, b=b, bias=bias, flags=flags, c=out, rows=rows, rows_a_sample=rows_a_sample, products=products, m=m, n=n,
        block_rows=block_rows, block_columns=block_columns, block_width=columns, block=block_address(out.dtype),
        windows=int(windows is not None), where=where, **(windows or dict.fromkeys(FIELDS.split(), 0)))


def block_size(m, n, products=1):
    """Return the rows and columns of the blocks into which an (m, n) result is cut."""
    for rows, columns in BLOCKS:
        if products * -(-m // rows) * -(-n // columns) >= ENOUGH_UNITS:
            break
    return rows, columns


def rows_of(size):
    """Return the fixed number of rows, and the number of rows per sample."""
    return (0, size.factor) if isinstance(size, Samples) else (size, 0)


@jit
def all_rows(r, run):
    """Return the number of rows in a run."""
    return r.rows + r.rows_a_sample * word(run, SAMPLES)


@jit
def begin_with_bias(r, run, column, columns, start):
    """Write what the sums of a panel start from: the bias, or zeros."""
    for j in range(start.size):
        start[j] = 0
    if r.bias != NONE:
        bias = array(run, r.bias, (r.n,))
        for j in range(columns):
            start[j] = bias[column + j]


@stage(reads="a b bias flags", writes="c", footprint=BATCH,
       sizes=f"rows rows_a_sample products m n block_rows block_columns block_width block windows where {FIELDS}")
def _sum_of_outer_products(r, run, first, last):
    if r.flags != NONE and are_bounded(array_as(run, r.flags, (word(run, SAMPLES),), np.int64)) != (r.where == 1):
        return
    results = array(run, r.c, (r.products, r.m, r.n))
    start = scratch(run, 0, (2 * VECTOR_BYTES // results.itemsize,))
    row_units, units = (r.m + r.block_rows - 1) // r.block_rows, (r.n + r.block_columns - 1) // r.block_columns
    units *= row_units
    for unit in range(first, last):
        product, block = unit // units, unit % units
        c = results[product]
        row, column = block % row_units * r.block_rows, block // row_units * r.block_columns
        rows, columns = min(r.block_rows, r.m - row), min(r.block_columns, r.n - column)
        # A row of a or b holds the elements of one product after those of another.
        i, j, total = product * r.m + row, product * r.n + column, all_rows(r, run)
        if r.bias == NONE and 0 < total <= LEAF and columns % (VECTOR_BYTES // c.itemsize) == 0:
            _multiply_leaf(r, run, 0, total, i, rows, j, columns, c[row:, column:])
            continue
        sums = _sum_of_leaves(r, run, i, rows, j, columns)
        for j in range(0, columns, start.size):
            count = min(start.size, columns - j)
            begin_with_bias(r, run, column + j, count, start)
            for i in range(rows):
                target, source = c[row + i, column + j : column + j + count], sums[i, j : j + count]
                for k in range(target.size):
                    target[k] = source[k] + start[k]


@jit
def _sum_of_leaves(r, run, row, rows, column, columns):
    """Return a block (r.block_rows, r.block_width) of a.T @ b, summed over all rows of a and b.

    Two sums of equally many leaves are merged as soon as the second is ready. So at most one of each size is waiting,
    whatever the number of leaves, and the bits do not depend on which thread computes which block.
    """
    itemsize = array(run, r.c, (0,)).itemsize
    place = 2 * VECTOR_BYTES + PIECE * (COPIED_ROW * itemsize + 2 * VECTOR_BYTES)
    waiting = scratch(run, place, (MOST_LEVELS, r.block_rows, r.block_width))
    total = all_rows(r, run)
    leaves, count = (total + LEAF - 1) // LEAF, 0
    if leaves == 0:
        waiting[0] = 0  # there are no samples
    for leaf in range(leaves):
        begin, end = leaf * total // leaves, (leaf + 1) * total // leaves
        _multiply_leaf(r, run, begin, end, row, rows, column, columns, waiting[count])
        count, pairs = count + 1, leaf + 1
        while count > 1 and (pairs % 2 == 0 or leaf == leaves - 1):
            count, pairs = count - 1, pairs // 2
            for i in range(rows):
                here, other = waiting[count - 1, i, :columns], waiting[count, i, :columns]
                for j in range(here.size):
                    here[j] += other[j]
    return waiting[0]


@jit
def _multiply_leaf(r, run, begin, end, row, rows, column, columns, sums):
    """Write the block of a.T @ b over rows `begin` to before `end` to sums, which has room for whole vectors."""
    zeros = scratch(run, 0, (2 * VECTOR_BYTES // sums.itemsize,))
    for j in range(zeros.size):
        zeros[j] = 0
    sums_i = sums.strides[0] // sums.itemsize
    pieces = max(1, (end - begin + PIECE - 1) // PIECE)
    for piece in range(pieces):
        first, last = begin + piece * (end - begin) // pieces, begin + (piece + 1) * (end - begin) // pieces
        target = sums.ctypes.data, sums_i
        before = target if piece else (zeros.ctypes.data, 0)
        _multiply_piece(r, run, (first, last), (row, rows), (column, columns), before, target)


@jit
def _multiply_piece(r, run, summed, block_rows, block_columns, before, target):
    """Write target = before + the products of the rows `summed` of a and b.

    Args:
        summed: (first, end).
        block_rows, block_columns: (first, count) within a row of a, and within a row of b.
        before, target: (address, distance between rows).
    """
    (begin, end), (row, rows), (column, columns), (before, before_i) = summed, block_rows, block_columns, before
    b = array(run, r.b, (end * r.products * r.n,))
    itemsize, lanes = b.itemsize, VECTOR_BYTES // b.itemsize
    width, count = 2 * lanes, end - begin
    copied, a_k = scratch(run, 2 * VECTOR_BYTES, (count, COPIED_ROW)), COPIED_ROW
    a_row, b_row = r.products * r.m, r.products * r.n
    place, a = copied.ctypes.data, word(run, r.a) + (begin * a_row + row) * itemsize
    if r.windows:
        _copy_windows(r, array(run, r.a, (end, r.h, r.w, r.channels)), begin, row, rows, copied)
    elif columns > FEW_COLUMNS:
        copy_rows(b[0], a, a_row, count, rows, place, COPIED_ROW)
    else:
        place, a_k = a, a_row
    panel = word(run, SCRATCH) + 2 * VECTOR_BYTES + PIECE * COPIED_ROW * itemsize
    for j in range(0, columns, width):
        copy_rows(b[0], b.ctypes.data + (begin * b_row + column + j) * itemsize, b_row, count, min(width, columns - j),
                  panel, width)
        call_block(r.block, rows, 1 if columns - j <= lanes else 2, target[0] + j * itemsize, target[1],
                   before + (j * itemsize if before_i else 0), before_i, place, 1, 0, a_k, panel, 0, width, 1, count)


@jit
def _copy_windows(r, x, first, column, columns, out):
    """Copy `columns` columns of some rows of the im2col matrix of the images x to out (rows, COPIED_ROW)."""
    itemsize, j = x.itemsize, 0
    while j < columns:
        tap, c = (column + j) // r.channels, (column + j) % r.channels
        down, across = tap // r.width * r.dilation_h - r.top, tap % r.width * r.dilation_w - r.left
        count, i = min(columns - j, r.channels - c), 0
        while i < len(out):  # pixels of one row of dy at a time
            n, pixel = (first + i) // (r.oh * r.ow), (first + i) % (r.oh * r.ow)
            y, ow = pixel // r.ow * r.stride_h + down, pixel % r.ow
            pixels = min(len(out) - i, r.ow - ow)
            # Pixels from `begin` to before `end` see pixels of x, the others padding.
            begin = end = 0
            if 0 <= y < r.h:
                begin = min(pixels, max(0, (r.stride_w - 1 - across) // r.stride_w - ow))
                end = max(begin, min(pixels, (r.w - across + r.stride_w - 1) // r.stride_w - ow))
            for k in range(pixels):
                if k < begin or k >= end:
                    out[i + k, j : j + count] = 0
            if begin < end:
                source = x.ctypes.data + (((n * r.h + y) * r.w + (ow + begin) * r.stride_w + across) * r.channels + c
                                          ) * itemsize
                copy_rows(out[0, 0], source, r.stride_w * r.channels, end - begin, count,
                          out.ctypes.data + ((i + begin) * COPIED_ROW + j) * itemsize, COPIED_ROW)
            i += pixels
        j += count

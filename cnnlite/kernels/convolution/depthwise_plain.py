"""Rows of a depthwise convolution and its gradients in plain loops: for M > 1, and for kernels with very many taps.

They take the records of the stages in `depthwise.py`, which defines what they compute.
"""

import numpy as np

from cnnlite.engine.jit import jit
from cnnlite.engine.stages import array, array_at, scratch


@jit
def plain_row(r, run, n, row, start):
    """Compute a row of y; with many taps, the products are added up in float64."""
    channels = r.c * r.m
    x, y = array(run, r.x, (n + 1, r.h, r.w, r.c))[n], array(run, r.y, (n + 1, r.oh, r.ow, channels))[n, row]
    if r.is_long:
        total = array_at(scratch(run, 0, (0,)).ctypes.data, (channels,), np.float64)
        for column in range(r.ow):
            _add_taps(r, run, x, row, column, start, total)
            for f in range(channels):
                y[column, f] = total[f]
    else:
        for column in range(r.ow):
            _add_taps(r, run, x, row, column, start, y[column])


@jit
def _add_taps(r, run, x, row, column, start, total):
    kernel = array(run, r.kernel, (r.kh, r.kw, r.c, r.m))
    for f in range(total.size):
        total[f] = start[f]
    for ky in range(r.kh):
        i = row * r.stride_y + ky * r.dilation_y - r.top
        for kx in range(r.kw if 0 <= i < r.h else 0):
            j = column * r.stride_x + kx * r.dilation_x - r.left
            if j < 0 or j >= r.w:
                continue
            source, weights = x[i, j], kernel[ky, kx]
            for m in range(r.m):
                for c in range(r.c):
                    total[c * r.m + m] += source[c] * weights[c, m]


@jit
def plain_input_gradient_row(r, run, n, row):
    """Compute a row of dx; a long sum is split into one sum per kernel row."""
    dy, dx = array(run, r.dy, (n + 1, r.oh, r.ow, r.c * r.m))[n], array(run, r.dx, (n + 1, r.h, r.w, r.c))[n, row]
    line = scratch(run, 0, (r.w, r.c))
    dx[:] = 0
    for ky in range(r.kh - 1, -1, -1):
        place = row + r.top - ky * r.dilation_y
        if place % r.stride_y or not 0 <= place // r.stride_y < r.oh:
            continue
        if r.is_long:
            line[:] = 0
            _add_line(r, run, dy[place // r.stride_y], ky, line)
            for j in range(r.w):
                for c in range(r.c):
                    dx[j, c] += line[j, c]
        else:
            _add_line(r, run, dy[place // r.stride_y], ky, dx)


@jit
def _add_line(r, run, dy, ky, dx):
    """Add to a row of dx the contribution of a row of dy through one kernel row."""
    kernel = array(run, r.kernel, (r.kh, r.kw, r.c, r.m))
    for column in range(r.ow):
        source = dy[column]
        for kx in range(r.kw):
            j = column * r.stride_x + kx * r.dilation_x - r.left
            if j < 0 or j >= r.w:
                continue
            target, weights = dx[j], kernel[ky, kx]
            for m in range(r.m):
                for c in range(r.c):
                    target[c] += source[c * r.m + m] * weights[c, m]


@jit
def add_rows_to_kernel(r, run, n, first, last):
    """Add the contribution of some rows of an image's dy to the sums at the start of the stage's scratch memory."""
    x, dy = array(run, r.x, (n + 1, r.h, r.w, r.c))[n], array(run, r.dy, (n + 1, r.oh, r.ow, r.c * r.m))[n]
    sums = scratch(run, 0, (r.kh, r.kw, r.c, r.m))
    for row in range(first, last):
        for column in range(r.ow):
            gradient = dy[row, column]
            for ky in range(r.kh):
                i = row * r.stride_y + ky * r.dilation_y - r.top
                if i < 0 or i >= r.h:
                    continue
                for kx in range(r.kw):
                    j = column * r.stride_x + kx * r.dilation_x - r.left
                    if j < 0 or j >= r.w:
                        continue
                    source, target = x[i, j], sums[ky, kx]
                    for m in range(r.m):
                        for c in range(r.c):
                            target[c, m] += source[c] * gradient[c * r.m + m]

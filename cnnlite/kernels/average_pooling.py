"""Average pooling of images (N, H, W, C); `pooling.py` says where the windows are."""

import math

import numpy as np

from cnnlite.engine.jit import jit
from cnnlite.engine.stages import HALO, IMAGE, SCRATCH, array, array_at, band_rows, scratch, stage, word
from cnnlite.kernels.checks import require
from cnnlite.kernels.geometry import Window
from cnnlite.kernels.operation import operation, result
from cnnlite.kernels.pooling import LONG_SUM, SIZES, add_pooling, adds_many, checked_shape, input_gradient


@operation(samples="x out")
def average_pool(x, window, strides, pads, out=None):
    """Return y (N, OH, OW, C), the mean of the real pixels of each window; arguments as for `max_pool`."""
    shape = checked_shape(x, window, strides, pads, "average_pool")
    y = result(out, x, shape)
    require(y, "out", shape, x.dtype, "average_pool")
    is_long = window[0] * window[1] > LONG_SUM
    add_pooling(_average_pool_long if is_long else _average_pool, x, y, (window, strides, pads), x=x, y=y,
         scratch=8 * shape[3] if is_long else 0)
    return y


@operation(samples="dy out")
def average_pool_backward(dy, x_shape, window, strides, pads, out=None):
    """Return dx: each element of dy is shared equally by the real pixels of its window."""
    dx, _ = input_gradient(dy, x_shape, window, strides, pads, out, "average_pool_backward")
    lines = 1 if adds_many(window, strides) else 0
    add_pooling(_average_pool_backward, dx, dy, (window, strides, pads), dy=dy, dx=dx, lines=lines,
         scratch=lines * math.prod(dx.shape[2:]) * dx.itemsize)
    return dx


@stage(reads="x", writes="y", sizes=SIZES, footprint=HALO)
def _average_pool(r, run, first, last):
    window = Window(r.kh, r.kw, r.sh, r.sw, r.top, r.left, 1, 1)
    x, y = array(run, r.x, (last, r.h, r.w, r.c)), array(run, r.y, (last, r.oh, r.ow, r.c))
    begin, end = band_rows(run, r.oh)
    for n in range(first, last):
        for i in range(begin, end):
            _average_row(x[n], i, window, y[n, i])


@stage(reads="x", writes="y", sizes=SIZES, footprint=HALO)
def _average_pool_long(r, run, first, last):
    window = Window(r.kh, r.kw, r.sh, r.sw, r.top, r.left, 1, 1)
    x, y = array(run, r.x, (last, r.h, r.w, r.c)), array(run, r.y, (last, r.oh, r.ow, r.c))
    total = array_at(word(run, SCRATCH), (r.c,), np.float64)
    begin, end = band_rows(run, r.oh)
    for n in range(first, last):
        for i in range(begin, end):
            _average_long_row(x[n], i, window, total, y[n, i])


@jit
def _average_row(x, i, window, y):
    """Fill row i of the output, y (OW, C), from an image x."""
    height, width, channels = x.shape
    top = i * window.stride_h - window.top
    first_row, last_row = max(top, 0), min(top + window.height, height)
    for j in range(y.shape[0]):
        left = j * window.stride_w - window.left
        first_column, last_column = max(left, 0), min(left + window.width, width)
        total = y[j]
        total[:] = 0
        for row in range(first_row, last_row):
            for column in range(first_column, last_column):
                pixel = x[row, column]
                for c in range(channels):
                    total[c] += pixel[c]
        count = x.dtype.type((last_row - first_row) * (last_column - first_column))
        for c in range(channels):
            total[c] /= count


@jit
def _average_long_row(x, i, window, total, y):
    """Do the same for large windows: their pixels are summed in float64."""
    height, width, channels = x.shape
    top = i * window.stride_h - window.top
    first_row, last_row = max(top, 0), min(top + window.height, height)
    for j in range(y.shape[0]):
        left = j * window.stride_w - window.left
        first_column, last_column = max(left, 0), min(left + window.width, width)
        columns = last_column - first_column
        fours = columns // 4 * 4
        total[:] = 0
        for r in range(first_row, last_row):
            row = x[r, first_column:last_column]
            # Four at a time, since each addition to a sum in memory must wait until the previous one is stored.
            for k in range(0, fours, 4):
                for c in range(channels):
                    total[c] += (row[k, c] + row[k + 1, c]) + (row[k + 2, c] + row[k + 3, c])
            for k in range(fours, columns):
                for c in range(channels):
                    total[c] += row[k, c]
        for c in range(channels):
            y[j, c] = total[c] / ((last_row - first_row) * columns)


@stage(reads="dy", writes="dx", sizes=f"{SIZES} lines", footprint=IMAGE)
def _average_pool_backward(r, run, first, last):
    window = Window(r.kh, r.kw, r.sh, r.sw, r.top, r.left, 1, 1)
    dy, dx = array(run, r.dy, (last, r.oh, r.ow, r.c)), array(run, r.dx, (last, r.h, r.w, r.c))
    lines = scratch(run, 0, (r.lines, r.w, r.c))
    for n in range(first, last):
        _share_out(dy[n], window, lines, dx[n])


@jit
def _share_out(dy, window, lines, dx):
    """Fill dx (H, W, C) of one image; `lines` holds one row of it, or none: see `adds_many`."""
    height, width, channels = dx.shape
    is_long = len(lines) > 0
    dx[:] = 0
    for i in range(dy.shape[0]):
        top = i * window.stride_h - window.top
        first_row, last_row = max(top, 0), min(top + window.height, height)
        for row in range(first_row, first_row + 1 if is_long else last_row):
            target = lines[0] if is_long else dx[row]
            lines[:] = 0
            for j in range(dy.shape[1]):
                left = j * window.stride_w - window.left
                first_column, last_column = max(left, 0), min(left + window.width, width)
                gradient = dy[i, j]
                count = dy.dtype.type((last_row - first_row) * (last_column - first_column))
                for column in range(first_column, last_column):
                    pixel = target[column]
                    for c in range(channels):
                        pixel[c] += gradient[c] / count
        for row in range(first_row, last_row if is_long else first_row):
            for column in range(width):
                for c in range(channels):
                    dx[row, column, c] += lines[0, column, c]

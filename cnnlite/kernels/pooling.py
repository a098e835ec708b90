"""Max and average pooling of images (N, H, W, C).

Output pixel (i, j) looks at the window of rows i·SH − top .. i·SH − top + KH − 1 and of columns likewise. The
part of it that lies in the padding is skipped, never read: padding can't win a maximum and doesn't count in an
average. The padding must be smaller than the window, so that each window holds at least one real pixel.

The channels of a pixel lie next to each other in memory and don't depend on each other, so that a vector takes 8 or 16
at a time. Max pooling whose windows lie wholly in the image has its loops written in vector instructions, see
`vector_ir.py`; those that reach into padding take the plain loops.
"""

import numpy as np

from cnnlite.engine.jit import kernel
from cnnlite.kernels.checks import require
from cnnlite.kernels.geometry import padded_output_size, window_of
from cnnlite.kernels.threads import run
from cnnlite.kernels.vector_ir import max_pool_windows, max_unpool_windows

SMALL = 1 << 16  # numbers that are looked at before other threads would have begun
LONG_SUM = 64  # pixels that may be added one by one in float32


def _checked_shape(x, window, strides, pads, owner):
    """Return the shape of the output, after a look at the images and the window."""
    require(x, "the images", 4, None, owner)
    shape = pooled_shape(x.shape, window, strides, pads)
    fits = all(max(pad) < size and min(pad) >= 0 for pad, size in zip(pads, window))
    if min(strides) < 1 or not fits or min(shape[1:3]) < 1:
        raise ValueError(
            f"{owner}: a window must hold a pixel wherever it is: pads must be smaller than it, strides at least 1, "
            f"and the image as large as it. Received: images of {x.shape[1:3]}, window={window}, strides={strides}, "
            f"pads={pads}."
        )
    return shape


def _require_argmax(argmax, shape, window, owner):
    require(argmax, "argmax", shape, argmax.dtype, owner)
    if argmax.dtype != argmax_dtype(window):
        raise TypeError(f"{owner}: argmax must be {argmax_dtype(window)}. Received: dtype={argmax.dtype}.")


def _run(task, images, arguments):
    """Run a task that has the images for its units."""
    run(task, len(images), arguments, alone=images.size < SMALL)


def pooled_shape(x_shape, window, strides, pads):
    """Return (N, OH, OW, C)."""
    n, height, width, channels = x_shape
    return (n, padded_output_size(height, window[0], strides[0], pads[0]),
            padded_output_size(width, window[1], strides[1], pads[1]), channels)


def argmax_dtype(window):
    """Return the smallest type that can number the pixels of a window: uint8 up to 256 of them, else int32."""
    # In float32, forward then writes 5 bytes an output pixel instead of 8, and backward reads as many.
    return np.dtype(np.uint8 if window[0] * window[1] <= 256 else np.int32)


def max_pool(x, window, strides, pads, out=None):
    """Return (y, argmax): the largest value of each window and where in the window it stands.

    y[n, i, j, c] = max over (a, b) of x[n, i·SH − top + a, j·SW − left + b, c]

    Args:
        x: (N, H, W, C).
        window, strides: (KH, KW) and (SH, SW).
        pads: ((top, bottom), (left, right)).
        out: a pair (y, argmax) of arrays to write to.

    Returns:
        y: (N, OH, OW, C).
        argmax: a·KW + b of the pixel that won, of `argmax_dtype(window)`. It is the first of several equal ones,
            in row-major order; the first NaN if there is any; the first real pixel where all are -inf.
    """
    shape = _checked_shape(x, window, strides, pads, "max_pool")
    y, argmax = (np.empty(shape, x.dtype), np.empty(shape, argmax_dtype(window))) if out is None else out
    require(y, "y", shape, x.dtype, "max_pool")
    _require_argmax(argmax, shape, window, "max_pool")
    _run(_max_pool_task, x, (x, window_of(window, strides, pads), y, argmax))
    return y, argmax


def max_pool_backward(dy, argmax, x_shape, window, strides, pads, out=None):
    """Return dx: each element of dy goes to the pixel that won its window; overlapping windows add up.

    Args:
        dy, argmax: (N, OH, OW, C), the gradient of y and what `max_pool` returned.
        x_shape: (N, H, W, C).
        out: an array of that shape to write to.
    """
    dx = np.empty(x_shape, dy.dtype) if out is None else out
    require(dx, "out", tuple(x_shape), dy.dtype, "max_pool_backward")
    require(dy, "dy", _checked_shape(dx, window, strides, pads, "max_pool_backward"), None, "max_pool_backward")
    _require_argmax(argmax, dy.shape, window, "max_pool_backward")
    _run(_max_pool_backward_task, dx, (dy, argmax, window_of(window, strides, pads), dx))
    return dx


def average_pool(x, window, strides, pads, out=None):
    """Return y (N, OH, OW, C), the mean of the real pixels of each window; arguments as for `max_pool`."""
    shape = _checked_shape(x, window, strides, pads, "average_pool")
    y = np.empty(shape, x.dtype) if out is None else out
    require(y, "out", shape, x.dtype, "average_pool")
    _run(_average_pool_task, x, (x, window_of(window, strides, pads), y))
    return y


def average_pool_backward(dy, x_shape, window, strides, pads, out=None):
    """Return dx: each element of dy is shared equally by the real pixels of its window."""
    dx = np.empty(x_shape, dy.dtype) if out is None else out
    require(dx, "out", tuple(x_shape), dy.dtype, "average_pool_backward")
    shape = _checked_shape(dx, window, strides, pads, "average_pool_backward")
    require(dy, "dy", shape, None, "average_pool_backward")
    _run(_average_pool_backward_task, dx, (dy, window_of(window, strides, pads), dx))
    return dx


@kernel
def inside(height, width, i, window, columns):
    """Return whether all windows of a row i of `columns` output pixels lie wholly in an image of that size."""
    top = i * window.stride_h - window.top
    right = (columns - 1) * window.stride_w - window.left + window.width
    return top >= 0 and top + window.height <= height and window.left <= 0 and right <= width


@kernel
def max_pool_image(x, affine, relu, window, y, argmax):
    """Fill y and argmax (OH, OW, C) of an image x (H, W, C).

    affine is (3, C): the values are (x - affine[0]) * affine[1] + affine[2]; or (0, C). With `relu`, what is not above
    0 in y becomes 0.
    """
    height, width, channels = x.shape
    maps, columns = len(affine) > 0, y.shape[1]
    for i in range(len(y)):
        top = i * window.stride_h - window.top
        if argmax.itemsize == 1 and inside(height, width, i, window, columns):
            place = x.ctypes.data + x.itemsize * channels * (top * width - window.left)
            row = affine.shape[1] * affine.itemsize
            # Without a map the three addresses are read from nevertheless, so they must be those of something.
            mean = affine.ctypes.data if maps else place
            row = row if maps else 0
            max_pool_windows(x[0, 0, 0], place, width * channels, window.stride_w * channels, maps,
                             mean, mean + row, mean + 2 * row, relu, window.height, window.width, columns, channels,
                             y[i].ctypes.data, argmax[i].ctypes.data)
            continue
        first_row, last_row = max(top, 0), min(top + window.height, height)
        for j in range(columns):
            left = j * window.stride_w - window.left
            first_column, last_column = max(left, 0), min(left + window.width, width)
            for c in range(channels):
                best, where = x.dtype.type(0), -1
                for row in range(first_row, last_row):
                    for column in range(first_column, last_column):
                        value = x[row, column, c]
                        if maps:
                            value = (value - affine[0, c]) * affine[1, c] + affine[2, c]
                        # Larger, or the first NaN: both comparisons are false for a NaN.
                        if where < 0 or (not value <= best and best == best):
                            best, where = value, (row - top) * window.width + column - left
                y[i, j, c] = 0 if relu and best <= 0 else best
                argmax[i, j, c] = where


@kernel
def _max_pool_task(x, window, y, argmax, unit):
    max_pool_image(x[unit], x[unit, 0, :0], False, window, y[unit], argmax[unit])


@kernel
def max_pool_backward_image(dy, y, argmax, relu, window, dx):
    """Fill dx (H, W, C) of one image; with `relu`, dy counts as 0 where y, of `max_pool_image`, is not above 0."""
    height, width, channels = dx.shape
    overlaps = window.stride_h < window.height or window.stride_w < window.width
    for i in range(dy.shape[0]):
        top = i * window.stride_h - window.top
        if overlaps or argmax.itemsize != 1 or not inside(height, width, i, window, dy.shape[1]):
            break
        if i == 0:
            _clear_outside(dy.shape[0], dy.shape[1], window, dx)
        max_unpool_windows(dx[0, 0, 0], dy[i].ctypes.data, y[i].ctypes.data if relu else dy[i].ctypes.data,
                           argmax[i].ctypes.data, relu, window.height, window.width, dy.shape[1], channels,
                           dx[top, -window.left].ctypes.data, width * channels, window.stride_w * channels)
        if i == dy.shape[0] - 1:
            return
    dx[:] = 0
    # Where many windows overlap, those of a row of them are added up before they join the others.
    is_long = window.height * window.width > LONG_SUM * window.stride_h * window.stride_w
    lines = np.empty((min(window.height, height) if is_long else 0, width, channels), dx.dtype)
    for i in range(dy.shape[0]):
        top = i * window.stride_h - window.top
        first_row, last_row = max(top, 0), min(top + window.height, height)
        lines[:] = 0
        for j in range(dy.shape[1]):
            left = j * window.stride_w - window.left
            for row in range(first_row, last_row):
                target = lines[row - first_row] if is_long else dx[row]
                for column in range(max(left, 0), min(left + window.width, width)):
                    tap = (row - top) * window.width + column - left
                    for c in range(channels):
                        if argmax[i, j, c] == tap and not (relu and y[i, j, c] <= 0):
                            target[column, c] += dy[i, j, c]
        for row in range(first_row, last_row if is_long else first_row):
            for column in range(width):
                for c in range(channels):
                    dx[row, column, c] += lines[row - first_row, column, c]


@kernel
def _clear_outside(rows, columns, window, dx):
    """Write 0 to the pixels that are in none of the windows, which don't overlap and lie wholly in the image."""
    height, width, _ = dx.shape
    gaps = window.stride_h > window.height or window.stride_w > window.width or window.top < 0 or window.left < 0
    if gaps:
        dx[:] = 0
        return
    # The last rows of windows may yet reach into padding: then all is done anew, but not outside the image.
    bottom, right = min(rows * window.stride_h, height), columns * window.stride_w
    dx[bottom:] = 0
    if right < width:
        for row in range(bottom):
            dx[row, right:] = 0


@kernel
def _max_pool_backward_task(dy, argmax, window, dx, unit):
    max_pool_backward_image(dy[unit], dy[unit], argmax[unit], False, window, dx[unit])


@kernel
def average_pool_row(x, i, first, window, y):
    """Fill row i of the output, y (OW, C), from rows x of an image."""
    height, width, channels = x.shape
    top = i * window.stride_h - window.top - first
    first_row, last_row = max(top, 0), min(top + window.height, height)
    for j in range(y.shape[0]):
        left = j * window.stride_w - window.left
        first_column, last_column = max(left, 0), min(left + window.width, width)
        total = y[j]
        if window.height * window.width > LONG_SUM:
            _average(x, first_row, last_row, first_column, last_column, total)
            continue
        total[:] = 0
        for row in range(first_row, last_row):
            for column in range(first_column, last_column):
                pixel = x[row, column]
                for c in range(channels):
                    total[c] += pixel[c]
        count = x.dtype.type((last_row - first_row) * (last_column - first_column))
        for c in range(channels):
            total[c] /= count


@kernel
def _average(x, first_row, last_row, first_column, last_column, y):
    """Write the mean of a large window, added up in float64."""
    columns, channels = last_column - first_column, x.shape[2]
    total = np.zeros(channels)
    fours = columns // 4 * 4
    for r in range(first_row, last_row):
        row = x[r, first_column:last_column]
        # Four at a time, since the next addition to a sum that is in memory must wait for the last one to get there.
        for i in range(0, fours, 4):
            for c in range(channels):
                total[c] += (row[i, c] + row[i + 1, c]) + (row[i + 2, c] + row[i + 3, c])
        for i in range(fours, columns):
            for c in range(channels):
                total[c] += row[i, c]
    for c in range(channels):
        y[c] = total[c] / ((last_row - first_row) * columns)


@kernel
def _average_pool_task(x, window, y, unit):
    for i in range(y.shape[1]):
        average_pool_row(x[unit], i, 0, window, y[unit, i])


@kernel
def average_pool_backward_image(dy, window, dx):
    """Fill dx (H, W, C) of one image."""
    height, width, channels = dx.shape
    dx[:] = 0
    # Where many windows overlap, those of a row of them are added up before they join the others.
    is_long = window.height * window.width > LONG_SUM * window.stride_h * window.stride_w
    line = np.empty((width if is_long else 0, channels), dx.dtype)
    for i in range(dy.shape[0]):
        top = i * window.stride_h - window.top
        first_row, last_row = max(top, 0), min(top + window.height, height)
        for row in range(first_row, first_row + 1 if is_long else last_row):
            target = line if is_long else dx[row]
            line[:] = 0
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
                    dx[row, column, c] += line[column, c]


@kernel
def _average_pool_backward_task(dy, window, dx, unit):
    average_pool_backward_image(dy[unit], window, dx[unit])

"""Max and average pooling of images (N, H, W, C).

Output pixel (i, j) looks at the window of rows i·SH − top .. i·SH − top + KH − 1 and of columns likewise. The
part of it that lies in the padding is skipped, never read: padding can't win a maximum and doesn't count in an
average. The padding must be smaller than the window, so that each window holds at least one real pixel.

The innermost loop runs over the channels of one pixel. They lie next to each other in memory and don't depend
on each other, so the compiler handles 8 or 16 at a time.
"""

import numpy as np
from numba import prange

from cnnlite.kernels._jit import kernel
from cnnlite.kernels import geometry
from cnnlite.kernels.geometry import padded_output_size, window_of

as_window = kernel(geometry.as_window)


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
    if out is None:
        shape = pooled_shape(x.shape, window, strides, pads)
        out = np.empty(shape, x.dtype), np.empty(shape, argmax_dtype(window))
    y, argmax = out
    _max_pool(x, tuple(window_of(window, strides, pads)), y, argmax)
    return y, argmax


def max_pool_backward(dy, argmax, x_shape, window, strides, pads, out=None):
    """Return dx: each element of dy goes to the pixel that won its window; overlapping windows add up.

    Args:
        dy, argmax: (N, OH, OW, C), the gradient of y and what `max_pool` returned.
        x_shape: (N, H, W, C).
        out: an array of that shape to write to.
    """
    dx = np.empty(x_shape, dy.dtype) if out is None else out
    _max_pool_backward(dy, argmax, tuple(window_of(window, strides, pads)), dx)
    return dx


def average_pool(x, window, strides, pads, out=None):
    """Return y (N, OH, OW, C), the mean of the real pixels of each window; arguments as for `max_pool`."""
    y = np.empty(pooled_shape(x.shape, window, strides, pads), x.dtype) if out is None else out
    _average_pool(x, tuple(window_of(window, strides, pads)), y)
    return y


def average_pool_backward(dy, x_shape, window, strides, pads, out=None):
    """Return dx: each element of dy is shared equally by the real pixels of its window."""
    dx = np.empty(x_shape, dy.dtype) if out is None else out
    _average_pool_backward(dy, tuple(window_of(window, strides, pads)), dx)
    return dx


@kernel
def max_pool_row(x, i, first, window, y, argmax):
    """Fill row i of the output, y and argmax (OW, C), from the rows of an image x (rows, W, C).

    `first` is the number of the image's row that x begins with; x ends where the image or the window does.
    """
    height, width, channels = x.shape
    top = i * window.stride_h - window.top - first
    first_row, last_row = max(top, 0), min(top + window.height, height)
    for j in range(y.shape[0]):
        left = j * window.stride_w - window.left
        first_column, last_column = max(left, 0), min(left + window.width, width)
        best, where = y[j], argmax[j]
        # Numbers of the arrays' own types here and below: mixed with a plain int, the arithmetic would widen.
        first_tap = argmax.dtype.type((first_row - top) * window.width + first_column - left)
        pixel = x[first_row, first_column]
        for c in range(channels):
            best[c] = pixel[c]
            where[c] = first_tap
        for row in range(first_row, last_row):
            for column in range(first_column, last_column):
                tap = argmax.dtype.type((row - top) * window.width + column - left)
                if tap != first_tap:
                    pixel = x[row, column]
                    for c in range(channels):
                        # Larger, or the first NaN. Both comparisons are false for a NaN, and & instead of
                        # `and` leaves no branch, so that the loop can be vectorised.
                        wins = (not pixel[c] <= best[c]) & (best[c] == best[c])
                        best[c] = pixel[c] if wins else best[c]
                        where[c] = tap if wins else where[c]


@kernel(parallel=True)
def _max_pool(x, window, y, argmax):
    n, rows = y.shape[0], y.shape[1]
    for task in prange(n * rows):
        image, i = task // rows, task % rows
        max_pool_row(x[image], i, 0, as_window(window), y[image, i], argmax[image, i])


@kernel
def max_pool_backward_image(dy, argmax, window, dx):
    """Fill dx (H, W, C) of one image."""
    height, width, channels = dx.shape
    dx[:] = 0
    overlaps = window.stride_h < window.height or window.stride_w < window.width
    zero = dx.dtype.type(0)
    for i in range(dy.shape[0]):
        top = i * window.stride_h - window.top
        for j in range(dy.shape[1]):
            left = j * window.stride_w - window.left
            gradient, where = dy[i, j], argmax[i, j]
            # Asking every pixel of the window whether it won keeps the channels together; going straight to
            # the winner would mean a store to another place for each channel.
            for row in range(max(top, 0), min(top + window.height, height)):
                for column in range(max(left, 0), min(left + window.width, width)):
                    tap = argmax.dtype.type((row - top) * window.width + column - left)
                    target = dx[row, column]
                    if overlaps:
                        for c in range(channels):
                            target[c] += gradient[c] if where[c] == tap else zero
                    else:
                        for c in range(channels):
                            target[c] = gradient[c] if where[c] == tap else zero


@kernel(parallel=True)
def _max_pool_backward(dy, argmax, window, dx):
    for image in prange(dx.shape[0]):
        max_pool_backward_image(dy[image], argmax[image], as_window(window), dx[image])


@kernel
def average_pool_row(x, i, first, window, y):
    """Fill row i of the output, y (OW, C), from rows x of an image as `max_pool_row` does."""
    height, width, channels = x.shape
    top = i * window.stride_h - window.top - first
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


@kernel(parallel=True)
def _average_pool(x, window, y):
    n, rows = y.shape[0], y.shape[1]
    for task in prange(n * rows):
        image, i = task // rows, task % rows
        average_pool_row(x[image], i, 0, as_window(window), y[image, i])


@kernel
def average_pool_backward_image(dy, window, dx):
    """Fill dx (H, W, C) of one image."""
    height, width, channels = dx.shape
    dx[:] = 0
    for i in range(dy.shape[0]):
        top = i * window.stride_h - window.top
        first_row, last_row = max(top, 0), min(top + window.height, height)
        for j in range(dy.shape[1]):
            left = j * window.stride_w - window.left
            first_column, last_column = max(left, 0), min(left + window.width, width)
            gradient = dy[i, j]
            count = dy.dtype.type((last_row - first_row) * (last_column - first_column))
            for row in range(first_row, last_row):
                for column in range(first_column, last_column):
                    target = dx[row, column]
                    for c in range(channels):
                        target[c] += gradient[c] / count


@kernel(parallel=True)
def _average_pool_backward(dy, window, dx):
    for image in prange(dx.shape[0]):
        average_pool_backward_image(dy[image], as_window(window), dx[image])

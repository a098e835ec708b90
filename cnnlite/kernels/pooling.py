"""Max pooling of images (N, H, W, C), and what it shares with average pooling.

Output pixel (i, j) covers the window of rows i·SH − top .. i·SH − top + KH − 1, and likewise for columns. The part of
it that lies in the padding is skipped, never read: padding can't win a maximum and doesn't count in an average. The
padding must be smaller than the window, so that every window contains at least one real pixel.

The channels of a pixel are adjacent in memory and independent of each other, so a vector processes 8 or 16 at a time.
Max pooling uses hand-written vector code for windows that lie wholly in the image, see `windows.py`, and plain loops
for those that reach into the padding.
"""

import math

import numpy as np

from cnnlite.engine.graph import stages_of
from cnnlite.engine.jit import jit
from cnnlite.engine.stages import HALO, IMAGE, array, array_as, band_rows, scratch, stage
from cnnlite.kernels.checks import require
from cnnlite.kernels.geometry import Window, padded_output_size
from cnnlite.kernels.layout import samples_together
from cnnlite.kernels.numberwise import add_numberwise
from cnnlite.kernels.operation import graph_of, operation, result
from cnnlite.kernels.rewriting import before_rectifier
from cnnlite.kernels.windows import max_pool_windows, max_unpool_windows

LONG_SUM = 64  # pixels that may be added one by one in float32
SIZES = "h w c oh ow kh kw sh sw top left"  # in the records of all pooling stages


def pooled_shape(x_shape, window, strides, pads):
    """Return (N, OH, OW, C)."""
    n, height, width, channels = x_shape
    return (n, padded_output_size(height, window[0], strides[0], pads[0]),
            padded_output_size(width, window[1], strides[1], pads[1]), channels)


def argmax_dtype(window):
    """Return the smallest type that can number the pixels of a window: uint8 up to 256 of them, else int32."""
    # In float32, forward then writes 5 bytes per output pixel instead of 8, and backward reads as many.
    return np.dtype(np.uint8 if window[0] * window[1] <= 256 else np.int32)


@operation(samples="x out")
def max_pool(x, window, strides, pads, out=None):
    """Return (y, argmax): the largest value of each window and its position in the window.

    y[n, i, j, c] = max over (a, b) of x[n, i·SH − top + a, j·SW − left + b, c]

    Args:
        x: (N, H, W, C).
        window, strides: (KH, KW) and (SH, SW).
        pads: ((top, bottom), (left, right)).
        out: a pair (y, argmax) of arrays to write to.

    Returns:
        y: (N, OH, OW, C).
        argmax: a·KW + b of the winning pixel, in `argmax_dtype(window)`. Of equal pixels the first one wins, in
            row-major order; the first NaN wins over all; if all are -inf, the first real pixel wins.
    """
    shape = checked_shape(x, window, strides, pads, "max_pool")
    if out is None:
        z, rectifier = before_rectifier(x, math.prod(shape[1:]))
        if rectifier is not None:
            y, argmax = max_pool(z, window, strides, pads)
            floats = {name: rectifier.arguments[name] for name in rectifier.stage.floats}
            with stages_of(rectifier.layer):
                return add_numberwise(rectifier.stage, (y,), None, **floats), argmax
    y, argmax = (None, None) if out is None else out
    y, argmax = result(y, x, shape), result(argmax, x, shape, argmax_dtype(window))
    require(y, "y", shape, x.dtype, "max_pool")
    _require_argmax(argmax, shape, window, "max_pool")
    stage = _max_pool if argmax.itemsize == 1 else _max_pool_wide
    add_pooling(stage, x, y, (window, strides, pads), x=x, y=y, argmax=argmax)
    return y, argmax


@operation(samples="dy argmax out")
def max_pool_backward(dy, argmax, x_shape, window, strides, pads, out=None):
    """Return dx: each element of dy goes to the pixel that won its window; overlapping windows add up.

    Args:
        dy, argmax: (N, OH, OW, C), the gradient of y and what `max_pool` returned.
        x_shape: (N, H, W, C).
        out: an array of that shape to write to.
    """
    dx, shape = input_gradient(dy, x_shape, window, strides, pads, out, "max_pool_backward")
    _require_argmax(argmax, shape, window, "max_pool_backward")
    geometry, arrays = (window, strides, pads), {"dy": dy, "argmax": argmax, "dx": dx}
    if _side_by_side(dx.shape[1:3], shape[1:3], *geometry) and argmax.itemsize == 1:
        add_pooling(_max_pool_backward, dx, dy, geometry, **arrays)
        return dx
    height, width, channels = dx.shape[1:]
    lines = min(window[0], height) if adds_many(window, strides) else 0
    stage = _max_pool_backward_by_pixels if argmax.itemsize == 1 else _max_pool_backward_wide
    add_pooling(stage, dx, dy, geometry, **arrays, lines=lines, scratch=lines * width * channels * dx.itemsize)
    return dx


def checked_shape(x, window, strides, pads, owner):
    """Check the images and the window, and return the shape of the output."""
    require(x, "the images", 4, None, owner)
    shape = pooled_shape(x.shape, window, strides, pads)
    fits = all(max(pad) < size and min(pad) >= 0 for pad, size in zip(pads, window))
    if min(strides) < 1 or not fits or min(shape[1:3]) < 1:
        raise ValueError(
            f"{owner}: every window must contain a pixel: pads must be smaller than the window, strides at least 1, "
            f"and the image at least as large as the window. Received: images of {x.shape[1:3]}, window={window}, "
            f"strides={strides}, pads={pads}."
        )
    return shape


def _require_argmax(argmax, shape, window, owner):
    require(argmax, "argmax", shape, argmax.dtype, owner)
    if argmax.dtype != argmax_dtype(window):
        raise TypeError(f"{owner}: argmax must be {argmax_dtype(window)}. Received: dtype={argmax.dtype}.")


def input_gradient(dy, x_shape, window, strides, pads, out, owner):
    """Check dy, the window and `out`, and return (dx, the shape of y)."""
    require(dy, "dy", 4, None, owner)
    x_shape = tuple(x_shape)
    dx = result(out, dy, x_shape)
    require(dx, "out", x_shape, dy.dtype, owner)
    shape = checked_shape(dx, window, strides, pads, owner)
    require(dy, "dy", shape, None, owner)
    return dx, shape


def _side_by_side(size, pooled_size, window, strides, pads):
    """Return whether the windows don't overlap and lie wholly in the image."""
    (top, _), (left, _) = pads
    return top == left == 0 and all(
        stride >= width and (count - 1) * stride + width <= pixels
        for pixels, count, width, stride in zip(size, pooled_size, window, strides)
    )


def adds_many(window, strides):
    """Return whether so many windows overlap that each row of windows is summed before it is added to the others."""
    return window[0] * window[1] > LONG_SUM * strides[0] * strides[1]


def add_pooling(stage, image, pooled, geometry, **arguments):
    """Add a stage between images (N, H, W, C) and their pooled form (N, OH, OW, C)."""
    window, strides, ((top, _), (left, _)) = geometry
    sizes = (*image.shape[1:], *pooled.shape[1:3], *window, *strides, top, left)
    graph_of(image).add(stage, **arguments, **dict(zip(SIZES.split(), sizes)),
                        together=samples_together(image.sample_size), work=pooled.sample_size * math.prod(window))


# argmax is uint8 or, in stages called `wide`, int32, for which there is no hand-written vector code.


@stage(reads="x", writes="y argmax", sizes=SIZES, footprint=HALO)
def _max_pool(r, run, first, last):
    window = Window(r.kh, r.kw, r.sh, r.sw, r.top, r.left, 1, 1)
    x, y = array(run, r.x, (last, r.h, r.w, r.c)), array(run, r.y, (last, r.oh, r.ow, r.c))
    argmax = array_as(run, r.argmax, (last, r.oh, r.ow, r.c), np.uint8)
    rows = band_rows(run, r.oh)
    for n in range(first, last):
        _max_pool_rows(x[n], rows, window, y[n], argmax[n])


@jit
def _max_pool_rows(x, rows, window, y, argmax):
    """Fill the rows rows[0], ..., rows[1] - 1 of the output, y and argmax (OH, OW, C), from an image x."""
    height, width, channels = x.shape
    columns = y.shape[1]
    # The windows that have no column in the padding.
    left = (window.left + window.stride_w - 1) // window.stride_w
    right = min(columns, (width + window.left - window.width) // window.stride_w + 1)
    for i in range(*rows):
        top = i * window.stride_h - window.top
        if top < 0 or top + window.height > height or left >= right:
            _max_pool_windows(x, i, (0, columns), window, y[i], argmax[i])
            continue
        corner = x[top, left * window.stride_w - window.left]
        max_pool_windows(x, corner, width * channels, window.stride_w * channels, (window.height, window.width),
                         right - left, channels, y[i, left], argmax[i, left])
        if left > 0:
            _max_pool_windows(x, i, (0, left), window, y[i], argmax[i])
        if right < columns:
            _max_pool_windows(x, i, (right, columns), window, y[i], argmax[i])


@stage(reads="x", writes="y argmax", sizes=SIZES, footprint=HALO)
def _max_pool_wide(r, run, first, last):
    window = Window(r.kh, r.kw, r.sh, r.sw, r.top, r.left, 1, 1)
    x, y = array(run, r.x, (last, r.h, r.w, r.c)), array(run, r.y, (last, r.oh, r.ow, r.c))
    argmax = array_as(run, r.argmax, (last, r.oh, r.ow, r.c), np.int32)
    begin, end = band_rows(run, r.oh)
    for n in range(first, last):
        for i in range(begin, end):
            _max_pool_windows(x[n], i, (0, r.ow), window, y[n, i], argmax[n, i])


@jit
def _max_pool_windows(x, i, columns, window, y, argmax):
    """Fill columns[0], ..., columns[1] - 1 of row i of the output, y and argmax (OW, C), from an image x."""
    height, width, channels = x.shape
    top = i * window.stride_h - window.top
    first_row, last_row = max(top, 0), min(top + window.height, height)
    for j in range(*columns):
        left = j * window.stride_w - window.left
        first_column, last_column = max(left, 0), min(left + window.width, width)
        best, winner = y[j], argmax[j]
        for row in range(first_row, last_row):
            for column in range(first_column, last_column):
                pixel, tap = x[row, column], (row - top) * window.width + column - left
                is_first = row == first_row and column == first_column
                for c in range(channels):
                    # Larger, or the first NaN: both comparisons are false for a NaN.
                    wins = is_first or (not pixel[c] <= best[c] and best[c] == best[c])
                    best[c] = pixel[c] if wins else best[c]
                    winner[c] = tap if wins else winner[c]


@stage(reads="dy argmax", writes="dx", sizes=SIZES, footprint=IMAGE, spreads=True)
def _max_pool_backward(r, run, first, last):
    """For windows side by side."""
    dy, dx = array(run, r.dy, (last, r.oh, r.ow, r.c)), array(run, r.dx, (last, r.h, r.w, r.c))
    argmax = array_as(run, r.argmax, (last, r.oh, r.ow, r.c), np.uint8)
    for n in range(first, last):
        _unpool_image(dy[n], argmax[n], (r.kh, r.kw), (r.sh, r.sw), dx[n])


@jit
def _unpool_image(dy, argmax, window, strides, dx):
    rows, columns, channels = dy.shape
    width = dx.shape[1]
    _clear_outside(rows * strides[0], columns * strides[1], strides[0] > window[0] or strides[1] > window[1], dx)
    for i in range(rows):
        max_unpool_windows(dx, dy[i], argmax[i], window, columns, channels, dx[i * strides[0]], width * channels,
                           strides[1] * channels)


@jit
def _clear_outside(bottom, right, gaps, dx):
    """Write 0 to the pixels outside all windows, which end at `bottom` and `right` and may have gaps in between."""
    if gaps:
        dx[:] = 0
        return
    dx[bottom:] = 0
    if right < dx.shape[1]:
        for row in range(bottom):
            dx[row, right:] = 0


@stage(reads="dy argmax", writes="dx", sizes=f"{SIZES} lines", footprint=IMAGE)
def _max_pool_backward_by_pixels(r, run, first, last):
    window = Window(r.kh, r.kw, r.sh, r.sw, r.top, r.left, 1, 1)
    dy, dx = array(run, r.dy, (last, r.oh, r.ow, r.c)), array(run, r.dx, (last, r.h, r.w, r.c))
    argmax = array_as(run, r.argmax, (last, r.oh, r.ow, r.c), np.uint8)
    lines = scratch(run, 0, (r.lines, r.w, r.c))
    for n in range(first, last):
        _max_unpool(dy[n], argmax[n], window, lines, dx[n])


@stage(reads="dy argmax", writes="dx", sizes=f"{SIZES} lines", footprint=IMAGE)
def _max_pool_backward_wide(r, run, first, last):
    window = Window(r.kh, r.kw, r.sh, r.sw, r.top, r.left, 1, 1)
    dy, dx = array(run, r.dy, (last, r.oh, r.ow, r.c)), array(run, r.dx, (last, r.h, r.w, r.c))
    argmax = array_as(run, r.argmax, (last, r.oh, r.ow, r.c), np.int32)
    lines = scratch(run, 0, (r.lines, r.w, r.c))
    for n in range(first, last):
        _max_unpool(dy[n], argmax[n], window, lines, dx[n])


@jit
def _max_unpool(dy, argmax, window, lines, dx):
    """Fill dx (H, W, C) of one image; `lines` holds as many rows as a window has, or none: see `adds_many`."""
    height, width, channels = dx.shape
    is_long = len(lines) > 0
    dx[:] = 0
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
                        if argmax[i, j, c] == tap:
                            target[column, c] += dy[i, j, c]
        for row in range(first_row, last_row if is_long else first_row):
            for column in range(width):
                for c in range(channels):
                    dx[row, column, c] += lines[row - first_row, column, c]

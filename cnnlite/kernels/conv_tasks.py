"""What the threads do in `conv_block.py`: tasks on a few images, forward and back.

A task takes arrays of the whole batch and the number of the unit that is its own. What is switched off comes as an
array of no size. Kernels are called by their numbers in a table, so that each is compiled once, and only if needed.

From Python, a `Window` and a `Following` come as plain tuples (`flat`), of which each task makes them again: numba
takes 0.1 us for a number of a named tuple on its way in, and hardly anything for one of a plain tuple.
"""

import functools
from typing import NamedTuple

import numba
import numpy as np
from numba import types

from cnnlite.engine.jit import kernel
from cnnlite.kernels.batchnorm import (
    LONG_LINE,
    affine_rows,
    image_gradient_sums,
    image_statistics,
)
from cnnlite.kernels.batchnorm_ir import map_rows
from cnnlite.kernels.direct import by_pixels, by_wide_pixels, copy_window, direct_images, unroll_taps
from cnnlite.kernels.geometry import Window
from cnnlite.kernels.microkernel import block_address
from cnnlite.kernels.pooling import average_pool_row, max_pool_backward_image, max_pool_image
from cnnlite.kernels.table import (
    BY_PIXELS,
    BY_WIDE_PIXELS,
    CONVOLVE,
    COPY_WINDOW,
    DIRECT_IMAGES,
    FOLLOW,
    FOLLOW_AVERAGE_POOL,
    FOLLOW_MAX_POOL,
    GRADIENT_SUMS,
    MAX_UNPOOL,
    STATISTICS,
    UNROLL_TAPS,
    WINOGRAD_IMAGES,
    Table,
    call,
)
from cnnlite.kernels.winograd import moderate, winograd_images
from cnnlite.kernels.winograd_transforms import transform_address

NO_POOL, MAX_POOL, AVERAGE_POOL = 0, 1, 2
SMALL_PLACES = np.dtype(np.uint8)  # what places of maxima are in, unless a window has more than 256 pixels


class Following(NamedTuple):
    """What follows a convolution: a ReLU or not, before and after the map of a BatchNorm, and which pooling."""

    first_relu: bool = False
    relu: bool = False
    pool: int = NO_POOL
    window: Window = Window(1, 1)


def flat(following):
    """Return a `Following` as plain tuples."""
    return (*following[:3], tuple(following.window))


@kernel
def _following_of(parts):
    return Following(parts[0], parts[1], parts[2], Window(*parts[3]))


@functools.cache
def kernels_for(dtype, argmax=SMALL_PLACES, by_points=False):
    """Return the table of the kernels for arrays of a dtype, and what the tasks get: its address and two others.

    The second is that of the micro-kernel, the third that of Winograd's transform, or 0 if it is not gone `by_points`.
    argmax: the dtype of the places of the maxima.
    """
    table = _table(dtype, argmax)
    return table, (table.address, block_address(dtype), transform_address(dtype) if by_points else 0)


@functools.cache
def _table(dtype, argmax):
    number, flag, window, real = types.int64, types.boolean, numba.typeof(Window(1, 1)), numba.from_dtype(dtype)
    kernels, before = types.UniTuple(number, 3), types.UniTuple(number, 2)
    row, rows, image, images = (types.Array(real, axes, "C") for axes in (1, 2, 3, 4))
    sums, places = types.float64[:, ::1], types.Array(numba.from_dtype(argmax), 3, "C")
    following = image, rows, flag, window, image, places
    table = {
        CONVOLVE: (convolve, kernels, images, row, images, row, window, number, images),
        DIRECT_IMAGES: (direct_images, kernels, images, row, row, window, number, images),
        BY_PIXELS: (by_pixels, kernels, images, row, row, window, number, images),
        BY_WIDE_PIXELS: (by_wide_pixels, kernels, image, row, row, window, image),
        UNROLL_TAPS: (unroll_taps, image, number, window, image),
        COPY_WINDOW: (copy_window, image, number, number, number, image),
        WINOGRAD_IMAGES: (winograd_images, number, number, images, number, number, images, row, number, before, images),
        FOLLOW: (follow_image, *following),
        FOLLOW_MAX_POOL: (max_pool_image, *following),
        FOLLOW_AVERAGE_POOL: (average_pool_image, *following),
        MAX_UNPOOL: (max_pool_backward_image, image, image, places, flag, window, image),
        STATISTICS: (image_statistics, rows, sums, sums),
        GRADIENT_SUMS: (image_gradient_sums, image, image, places, flag, window, image, row, sums, sums),
    }
    return Table([(table[number][0], table[number][1:]) for number in range(len(table))])


# Forward.


@kernel
def convolve(kernels, x, weights, spectra, start, window, groups, y):
    """y = x * kernel + start for some images, by Winograd's method where there are weights for it."""
    if not len(spectra):
        call(kernels, DIRECT_IMAGES, (kernels, x, weights, start, window, groups, y))
        return
    together = moderate(x)
    for i in range(1 if together else len(x)):
        images = len(x) if together else 1
        if together or moderate(x[i : i + 1]):
            call(kernels, WINOGRAD_IMAGES, (kernels[1], kernels[2], x, i, i + images, spectra, start, window.height,
                                            (window.top, window.left), y[i:]))
        else:
            call(kernels, DIRECT_IMAGES, (kernels, x[i : i + 1], weights, start, window, groups, y[i : i + 1]))


@kernel
def forward_task(x, kernels, weights, spectra, start, window, groups, z, means, m2s, affine, following, y, argmax,
                 images, unit):
    """Compute a unit of so many images; z, means and m2s, and y and argmax are written where they have a size."""
    window, following = Window(*window), _following_of(following)
    first, last = unit * images, min(len(x), (unit + 1) * images)
    _, oh, ow, filters = z.shape
    part = z[first:last] if len(z) else np.empty((last - first, oh, ow, filters), x.dtype)
    call(kernels, CONVOLVE, (kernels, x[first:last], weights, spectra, start, window, groups, part))
    if following.first_relu:
        _relu_in_place(part.reshape(-1))
    if len(means):
        for i in range(first, last):
            call(kernels, STATISTICS, (part[i - first].reshape(oh * ow, filters), means[i], m2s[i]))
    if len(y):
        _follow(kernels, part, affine, following, y, argmax, first)


@kernel
def moderate_task(x, result, unit):
    """Write to result (N, H) of a row of pixels whether it is moderate."""
    n, row = unit // x.shape[1], unit % x.shape[1]
    result[n, row] = moderate(x[n, row])


@kernel
def band_task(x, kernels, weights, spectra, start, window, groups, z, are_moderate, height, bands, unit):
    """Compute a band of rows of an image, which is a smaller image; it begins at a multiple of `height`."""
    window = Window(*window)
    n, band, h, oh = unit // bands, unit % bands, x.shape[1], z.shape[1]
    pieces = (oh + height - 1) // height
    first, last = band * pieces // bands * height, min(oh, (band + 1) * pieces // bands * height)
    top = first * window.stride_h - window.top
    bottom = (last - 1) * window.stride_h - window.top + (window.height - 1) * window.dilation_h + 1
    begin, end = min(h, max(0, top)), max(0, min(h, bottom))
    rows = x[n][begin : max(begin, end)]
    moved = Window(window.height, window.width, window.stride_h, window.stride_w, begin - top, window.left,
                   window.dilation_h, window.dilation_w)
    image = rows.reshape(1, rows.shape[0], rows.shape[1], rows.shape[2])
    part = z[n][first:last]
    part = part.reshape(1, part.shape[0], part.shape[1], part.shape[2])
    # All bands of an image go the same way, so that its bits don't depend on whether it was cut.
    if len(spectra) and not are_moderate[n].all():
        call(kernels, DIRECT_IMAGES, (kernels, image, weights, start, moved, groups, part))
    else:
        call(kernels, CONVOLVE, (kernels, image, weights, spectra, start, moved, groups, part))


@kernel
def follow_task(z, kernels, affine, following, y, argmax, unit):
    """Do what follows z for one image."""
    _follow(kernels, z[unit : unit + 1], affine, _following_of(following), y, argmax, unit)


@kernel
def _follow(kernels, z, affine, following, y, argmax, first):
    """Do what follows z, some images (n, OH, OW, F), for the images of y from the first on."""
    for i in range(len(z)):
        call(kernels, FOLLOW + following.pool,
             (z[i], affine, following.relu, following.window, y[first + i], argmax[first + i]))


@kernel
def follow_image(z, affine, relu, window, y, argmax):
    h, w, filters = z.shape
    _map_rows(z.reshape(h * w, filters), affine, relu, y.reshape(h * w, filters))


@kernel
def average_pool_image(z, affine, relu, window, y, argmax):
    h, w, filters = z.shape
    buffer = np.empty((window.height, w, filters), z.dtype)
    for row in range(len(y)):
        top = row * window.stride_h - window.top
        begin, end = max(top, 0), min(top + window.height, h)
        for k in range(begin, end):
            _map_rows(z[k], affine, relu, buffer[k - begin])
        average_pool_row(buffer[: end - begin], row, begin, window, y[row])


@kernel
def _map_rows(x, affine, relu, y):
    if len(affine):
        affine_rows(x, affine[0], affine[1], affine[2], relu, y)
    else:  # then a row is as good as another
        map_rows(x[0, 0], x.ctypes.data, 1, x.size, False, 0, 0, 0, relu, y.ctypes.data)


@kernel
def _relu_in_place(y):
    for i in range(y.size):
        y[i] = y[i] if not y[i] <= 0 else 0


# Backward.


@kernel
def _side_by_side(dy, argmax, following, height, width):
    """Return whether there were windows which lie wholly in an image of that size, side by side from its corner.

    Not in one with long lines, whose sums are cut anywhere.
    """
    window = following.window
    plain = width <= LONG_LINE and window.top == 0 and window.left == 0 and argmax.itemsize == 1
    plain = plain and window.stride_h == window.height and window.stride_w == window.width
    fits = dy.shape[1] * window.height <= height and dy.shape[2] * window.width <= width
    return following.pool == MAX_POOL and plain and fits


@kernel
def gradient_sums_task(dy, kernels, y, argmax, z, mean, following, of_dy, of_product, unit):
    """Sum up dz and dz (z - mean) over the pixels of one image; dz is dy taken back through pooling and ReLU."""
    following = _following_of(following)
    image, places, relu, window = z[unit], argmax[unit], following.relu, following.window
    gradient, result = dy[unit], y[unit]
    if not _side_by_side(dy, argmax, following, z.shape[1], z.shape[2]):
        places = places[:0]
        if following.pool == MAX_POOL:
            gradient = np.empty_like(image)
            call(kernels, MAX_UNPOOL, (dy[unit], result, argmax[unit], relu, window, gradient))
            relu = False
    call(kernels, GRADIENT_SUMS,
         (gradient, result, places, relu, window, image, mean, of_dy[unit], of_product[unit]))

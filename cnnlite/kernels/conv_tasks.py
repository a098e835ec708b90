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

from cnnlite.kernels._jit import kernel
from cnnlite.kernels.batchnorm import (
    PART_ROWS,
    affine_rows,
    gradient_in_place,
    image_gradient_sums,
    image_statistics,
    scale_in_place,
)
from cnnlite.kernels.direct import by_pixels, by_wide_pixels, copy_window, direct_images, unroll_taps
from cnnlite.kernels.direct_input_gradient import add_to_planes, by_planes, by_taps, direct_input_gradient, merge_planes
from cnnlite.kernels.direct_kernel_gradient import add_images, add_turned, direct_kernel_gradient
from cnnlite.kernels.geometry import Window
from cnnlite.kernels.matmul import add_up_rows
from cnnlite.kernels.microkernel import block_address
from cnnlite.kernels.pooling import average_pool_row, max_pool_backward_image, max_pool_row
from cnnlite.kernels.table import (
    ADD_IMAGES,
    ADD_ROWS,
    ADD_TO_PLANES,
    ADD_TURNED,
    BY_PIXELS,
    BY_PLANES,
    BY_TAPS,
    BY_WIDE_PIXELS,
    CONVOLVE,
    COPY_WINDOW,
    DIRECT_IMAGES,
    DIRECT_INPUT_GRADIENT,
    DIRECT_KERNEL_GRADIENT,
    FOLLOW,
    FOLLOW_AVERAGE_POOL,
    FOLLOW_MAX_POOL,
    GRADIENT,
    GRADIENT_SUMS,
    MERGE_PLANES,
    STATISTICS,
    TAKE_BACK,
    UNPOOL,
    UNPOOL_MAX,
    UNROLL_TAPS,
    WINOGRAD_BACKWARD,
    WINOGRAD_END,
    WINOGRAD_IMAGES,
    Table,
    call,
)
from cnnlite.kernels.winograd import (
    POINTS,
    moderate,
    winograd_backward,
    winograd_images,
    winograd_kernel_gradient_end,
)
from cnnlite.kernels.winograd_transforms import transform_address

NO_POOL, MAX_POOL, AVERAGE_POOL = 0, 1, 2


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
def kernels_for(dtype):
    """Return the table of the kernels for arrays of a dtype, and what the tasks get: its address and two others.

    The second one is that of the micro-kernel, the third that of Winograd's transform.
    """
    number, flag, window, real = types.int64, types.boolean, numba.typeof(Window(1, 1)), numba.from_dtype(dtype)
    kernels, before = types.UniTuple(number, 3), types.UniTuple(number, 2)
    row, rows, image, images, planes = (types.Array(real, axes, "C") for axes in (1, 2, 3, 4, 5))
    sums, total, which = types.float64[:, ::1], types.float64[::1], types.uint8[:, :, :, ::1]
    following = images, rows, flag, window, images, which, number
    back = images, images, which, flag, window, number, image
    table = {
        CONVOLVE: (convolve, kernels, images, row, images, row, window, number, images),
        DIRECT_IMAGES: (direct_images, kernels, images, row, row, window, number, images),
        BY_PIXELS: (by_pixels, kernels, images, row, row, window, number, images),
        BY_WIDE_PIXELS: (by_wide_pixels, kernels, image, row, row, window, image),
        UNROLL_TAPS: (unroll_taps, image, number, window, image),
        COPY_WINDOW: (copy_window, image, number, number, number, image),
        WINOGRAD_IMAGES: (winograd_images, number, number, images, number, number, images, row, number, before, images),
        TAKE_BACK: (take_back, kernels, images, images, row, images, window, number, image, planes, images),
        DIRECT_KERNEL_GRADIENT: (direct_kernel_gradient, kernels, images, images, window, number, images),
        ADD_IMAGES: (add_images, kernels, images, images, window, number, number, images),
        ADD_TURNED: (add_turned, kernels, images, images, window, images),
        DIRECT_INPUT_GRADIENT: (direct_input_gradient, kernels, images, row, window, number, images),
        BY_TAPS: (by_taps, kernels, images, row, window, number, images),
        BY_PLANES: (by_planes, kernels, images, row, window, number, images),
        ADD_TO_PLANES: (add_to_planes, rows, window, number, number, number, planes),
        MERGE_PLANES: (merge_planes, planes, window, number, image),
        WINOGRAD_BACKWARD: (winograd_backward, number, number, images, images, images, number, before, image, images),
        WINOGRAD_END: (winograd_kernel_gradient_end, number, image, number, images),
        FOLLOW: (follow_images, *following),
        FOLLOW_MAX_POOL: (max_pool_images, *following),
        FOLLOW_AVERAGE_POOL: (average_pool_images, *following),
        UNPOOL: (unpool, *back),
        UNPOOL_MAX: (unpool_max, *back),
        STATISTICS: (image_statistics, rows, sums, sums),
        GRADIENT_SUMS: (image_gradient_sums, rows, rows, row, sums, sums),
        GRADIENT: (gradient_in_place, rows, rows, row, rows),
        ADD_ROWS: (add_rows, rows, total),
    }
    table = Table([(table[number][0], table[number][1:]) for number in range(len(table))])
    return table, (table.address, block_address(dtype), transform_address(dtype))


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
    call(kernels, FOLLOW + following.pool, (z, affine, following.relu, following.window, y, argmax, first))


@kernel
def follow_images(z, affine, relu, window, y, argmax, first):
    for i in range(len(z)):
        for row in range(z.shape[1]):
            _map_rows(z[i, row], affine, relu, y[first + i, row])


@kernel
def max_pool_images(z, affine, relu, window, y, argmax, first):
    for i in range(len(z)):
        for row in range(y.shape[1]):
            max_pool_row(z[i], row, affine, relu, window, y[first + i, row], argmax[first + i, row])


@kernel
def average_pool_images(z, affine, relu, window, y, argmax, first):
    n, h, w, filters = z.shape
    buffer = np.empty((window.height, w, filters), z.dtype)
    for i in range(n):
        for row in range(y.shape[1]):
            top = row * window.stride_h - window.top
            begin, end = max(top, 0), min(top + window.height, h)
            for k in range(begin, end):
                _map_rows(z[i, k], affine, relu, buffer[k - begin])
            average_pool_row(buffer[: end - begin], row, begin, window, y[first + i, row])


@kernel
def _map_rows(x, affine, relu, y):
    if len(affine):
        affine_rows(x, affine[0], affine[1], affine[2], y)
    else:
        _copy(x.reshape(-1), y.reshape(-1))
    if relu:
        _relu_in_place(y.reshape(-1))


@kernel
def _copy(x, y):
    # Not y[:] = x, with which numba compiles seconds of code for the text of an error.
    for i in range(x.size):
        y[i] = x[i]


# What works in place has one array only: with two the compiled code would look at their addresses, see that they
# overlap, and not use vectors (2.7 million numbers of the gradient of a BatchNorm: 3.4 ms instead of 0.5).


@kernel
def _relu_in_place(y):
    for i in range(y.size):
        y[i] = y[i] if not y[i] <= 0 else 0


# Backward.


@kernel
def _unpool(kernels, dy, y, argmax, following, n, dz):
    """Take dy of image n back through pooling and ReLU; dz (OH, OW, F) is written to."""
    number = UNPOOL_MAX if following.pool == MAX_POOL else UNPOOL
    call(kernels, number, (dy, y, argmax, following.relu, following.window, n, dz))


@kernel
def unpool_max(dy, y, argmax, relu, window, n, dz):
    max_pool_backward_image(dy[n], y[n], argmax[n], relu, window, dz)


@kernel
def unpool(dy, y, argmax, relu, window, n, dz):
    _copy(dy[n].reshape(-1), dz.reshape(-1))
    if relu:
        _mask_in_place(dz.reshape(-1), y[n].reshape(-1))


@kernel
def _mask_in_place(dy, y):
    """Make dy 0 where y, the output of a ReLU, is not above 0."""
    for i in range(dy.size):
        dy[i] = dy[i] if not y[i] <= 0 else 0


@kernel
def gradient_sums_task(dy, kernels, y, argmax, z, mean, following, of_dy, of_product, unit):
    """Sum up dz and dz (z - mean) over the pixels of one image."""
    dz = np.empty_like(z[unit])
    _unpool(kernels, dy, y, argmax, _following_of(following), unit, dz)
    pixels, filters = z.shape[1] * z.shape[2], z.shape[3]
    call(kernels, GRADIENT_SUMS, (dz.reshape(pixels, filters), z[unit].reshape(pixels, filters), mean, of_dy[unit],
                                  of_product[unit]))


@kernel
def backward_task(x, kernels, dy, y, argmax, following, scale, z, mean, terms, oh, ow, weights, spectra, window,
                  groups, by_points, sums, bias_sums, dx, images, chunks, chunk):
    """Take one chunk of the images back, so many at a time; sums and bias_sums have a place for each chunk."""
    window, following = Window(*window), _following_of(following)
    filters, channels = dy.shape[3], x.shape[3]
    begin, end = chunk * len(x) // chunks, (chunk + 1) * len(x) // chunks
    if len(sums):
        sums[chunk] = 0
    if len(bias_sums):
        bias_sums[chunk] = 0
    spectrum = np.zeros((POINTS if by_points else 0, channels, sums.shape[4]), x.dtype)
    changes = following.relu or following.pool != NO_POOL or len(scale) > 0 or len(z) > 0
    buffer = np.empty((images if changes else 0, oh, ow, filters), x.dtype)
    for first in range(begin, end, images):
        last = min(end, first + images)
        dz = dy[first:last]
        if changes:
            dz = buffer[: last - first]
            for n in range(first, last):
                _unpool(kernels, dy, y, argmax, following, n, dz[n - first])
                rows = dz[n - first].reshape(oh * ow, filters)
                if len(z):
                    call(kernels, GRADIENT, (rows, z[n].reshape(oh * ow, filters), mean, terms))
                    if following.first_relu:
                        _mask_in_place(rows.reshape(-1), z[n].reshape(-1))
                elif len(scale):
                    scale_in_place(rows, scale)
        if len(bias_sums):
            for i in range(len(dz)):
                call(kernels, ADD_ROWS, (dz[i].reshape(oh * ow, filters), bias_sums[chunk]))
        call(kernels, TAKE_BACK, (kernels, x[first:last], dz, weights, spectra, window, groups, spectrum,
                                  sums[chunk : chunk + 1], dx[first:last]))
    if by_points:
        _add_spectrum(kernels, spectrum, window.height, sums[chunk])


@kernel
def take_back(kernels, x, dz, weights, spectra, window, groups, spectrum, sums, dx):
    """Take dz of some images back to the kernel and to x, where `sums` and dx have a size.

    To the kernel it goes by Winograd's method where there is a `spectrum` to add to, otherwise it is added to sums[0];
    to x by that method where there are spectra of the weights.
    """
    directly = len(spectrum) == 0 and len(spectra) == 0
    together = directly or (moderate(dz) and (len(spectrum) == 0 or moderate(x)))
    images = len(dz) if together else 1
    for i in range(0, len(dz), images):
        image, d_image, dx_image = x[i : i + images], dz[i : i + images], dx[i : i + images]
        to_x = len(spectra) > 0 and (together or moderate(d_image))
        to_kernel = len(spectrum) > 0 and (together or (moderate(d_image) and moderate(image)))
        if to_kernel or to_x:
            call(kernels, WINOGRAD_BACKWARD,
                 (kernels[1], kernels[2], image, d_image, spectra, window.height, (window.top, window.left),
                  spectrum[: POINTS if to_kernel else 0], dx_image[: images if to_x else 0]))
        if len(sums) and not to_kernel:
            call(kernels, DIRECT_KERNEL_GRADIENT, (kernels, image, d_image, window, groups, sums[0]))
        if len(dx) and not to_x:
            call(kernels, DIRECT_INPUT_GRADIENT, (kernels, d_image, weights, window, groups, dx_image))


@kernel
def _add_spectrum(kernels, spectrum, taps, sums):
    _, channels, _ = spectrum.shape
    filters = sums.shape[3]
    dkernel = np.empty((taps, taps, channels, filters), sums.dtype)
    call(kernels, WINOGRAD_END, (kernels[2], spectrum, taps, dkernel))
    source, target = dkernel.reshape(-1), sums.reshape(-1)
    for i in range(source.size):
        target[i] += source[i]


@kernel
def add_rows(x, total):
    """Add the rows of x to `total`, which is float64, in groups over which a sum in float32 is still good."""
    partial = np.empty(x.shape[1], x.dtype)
    for first in range(0, len(x), PART_ROWS):
        add_up_rows(x[first : first + PART_ROWS], partial)
        for j in range(partial.size):
            total[j] += partial[j]


@kernel
def add_chunks(sums, out):
    """out[ky, i, group, f] = sum over the chunks, in their order."""
    chunks, kh, groups, run, _ = sums.shape
    filters = out.shape[3]
    for ky in range(kh):
        for group in range(groups):
            for i in range(run):
                target = out[ky, i, group]
                source = sums[0, ky, group, i]
                for f in range(filters):
                    target[f] = source[f]
                for chunk in range(1, chunks):
                    source = sums[chunk, ky, group, i]
                    for f in range(filters):
                        target[f] += source[f]

"""What the threads do in `conv_block.py`: tasks on a few images, forward and back.

A task takes arrays of the whole batch and the number of the unit that is its own. What is switched off comes as an
array of no size. Heavy kernels are called by their places, so that they are compiled once.

From Python, a `Window`, a `Following` and the `Kernels` come as plain tuples (`flat`), of which each task makes them
again: numba takes 0.1 us for a number of a named tuple on its way in, and hardly anything for one of a plain tuple.
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
from cnnlite.kernels.direct import direct_images
from cnnlite.kernels.direct_input_gradient import direct_input_gradient
from cnnlite.kernels.direct_kernel_gradient import direct_kernel_gradient
from cnnlite.kernels.geometry import Window
from cnnlite.kernels.matmul import add_up_rows
from cnnlite.kernels.microkernel import block_address
from cnnlite.kernels.pooling import average_pool_row, max_pool_backward_image, max_pool_row
from cnnlite.kernels.threads import call, place_of
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


class Kernels(NamedTuple):
    """Where the kernels are that the tasks call: addresses, and places for `call`."""

    block: int
    transform: int
    direct_images: tuple
    direct_input_gradient: tuple
    direct_kernel_gradient: tuple
    winograd_images: tuple
    winograd_backward: tuple
    winograd_kernel_gradient_end: tuple


@functools.cache
def kernels_for(dtype):
    """Return the `Kernels` for arrays of a dtype, as a plain tuple."""
    number, real, window = types.int64, numba.from_dtype(dtype), numba.typeof(Window(1, 1))
    before = types.UniTuple(number, 2)
    row, images, points = (types.Array(real, axes, "C") for axes in (1, 4, 3))
    return tuple(Kernels(
        block_address(dtype),
        transform_address(dtype),
        place_of(direct_images, (number, images, row, row, window, number, images)),
        place_of(direct_input_gradient, (number, images, row, window, number, images)),
        place_of(direct_kernel_gradient, (number, images, images, window, number, images)),
        place_of(winograd_images, (number, number, images, number, number, images, row, number, before, images)),
        place_of(winograd_backward, (number, number, images, images, images, number, before, points, images)),
        place_of(winograd_kernel_gradient_end, (number, points, number, images)),
    ))


# Forward.


@kernel
def _convolve(kernels, x, weights, spectra, start, window, groups, y):
    """y = x * kernel + start for some images, by Winograd's method where there are weights for it."""
    if not len(spectra):
        call(kernels.direct_images, (kernels.block, x, weights, start, window, groups, y))
        return
    together = moderate(x)
    for i in range(1 if together else len(x)):
        images = len(x) if together else 1
        if together or moderate(x[i]):
            call(kernels.winograd_images, (kernels.block, kernels.transform, x, i, i + images, spectra, start,
                                           window.height, (window.top, window.left), y[i:]))
        else:
            call(kernels.direct_images,
                 (kernels.block, x[i : i + 1], weights, start, window, groups, y[i : i + 1]))


@kernel
def forward_task(x, kernels, weights, spectra, start, window, groups, z, means, m2s, affine, following, y, argmax,
                 images, unit):
    """Compute a unit of so many images; z, means and m2s, and y and argmax are written where they have a size."""
    kernels, window, following = Kernels(*kernels), Window(*window), _following_of(following)
    first, last = unit * images, min(len(x), (unit + 1) * images)
    _, oh, ow, filters = z.shape
    part = z[first:last] if len(z) else np.empty((last - first, oh, ow, filters), x.dtype)
    _convolve(kernels, x[first:last], weights, spectra, start, window, groups, part)
    if following.first_relu:
        _relu_in_place(part.reshape(-1))
    if len(means):
        for i in range(first, last):
            image_statistics(part[i - first].reshape(oh * ow, filters), means[i], m2s[i])
    if len(y):
        _follow_images(part, affine, following, y, argmax, first)


@kernel
def moderate_task(x, result, unit):
    """Write to result (N, H) of a row of pixels whether it is moderate."""
    n, row = unit // x.shape[1], unit % x.shape[1]
    result[n, row] = moderate(x[n, row])


@kernel
def band_task(x, kernels, weights, spectra, start, window, groups, z, are_moderate, height, bands, unit):
    """Compute a band of rows of an image, which is a smaller image; it begins at a multiple of `height`."""
    kernels, window = Kernels(*kernels), Window(*window)
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
        call(kernels.direct_images, (kernels.block, image, weights, start, moved, groups, part))
    else:
        _convolve(kernels, image, weights, spectra, start, moved, groups, part)


@kernel
def follow_task(z, affine, following, y, argmax, unit):
    """Do what follows z for one image."""
    _follow_images(z[unit : unit + 1], affine, _following_of(following), y, argmax, unit)


@kernel
def _follow_images(z, affine, following, y, argmax, first):
    """Do what follows z, some images (n, OH, OW, F), for the images of y from the first on."""
    n, h, w, filters = z.shape
    window = following.window
    buffer = np.empty((window.height if following.pool == AVERAGE_POOL else 0, w, filters), z.dtype)
    for i in range(n):
        image, out = z[i], y[first + i]
        for row in range(out.shape[0]):
            if following.pool == NO_POOL:
                _map_rows(image[row], affine, following.relu, out[row])
            elif following.pool == MAX_POOL:
                max_pool_row(image, row, affine, following.relu, window, out[row], argmax[first + i, row])
            else:
                top = row * window.stride_h - window.top
                begin, end = max(top, 0), min(top + window.height, h)
                for k in range(begin, end):
                    _map_rows(image[k], affine, following.relu, buffer[k - begin])
                average_pool_row(buffer[: end - begin], row, begin, window, out[row])


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
def _unpool(dy, y, argmax, following, n, dz):
    """Take dy of image n back through pooling and ReLU; dz (OH, OW, F) is written to."""
    if following.pool == MAX_POOL:
        max_pool_backward_image(dy[n], y[n], argmax[n], following.relu, following.window, dz)
        return
    _copy(dy[n].reshape(-1), dz.reshape(-1))
    if following.relu:
        _mask_in_place(dz.reshape(-1), y[n].reshape(-1))


@kernel
def _mask_in_place(dy, y):
    """Make dy 0 where y, the output of a ReLU, is not above 0."""
    for i in range(dy.size):
        dy[i] = dy[i] if not y[i] <= 0 else 0


@kernel
def gradient_sums_task(dy, y, argmax, z, mean, following, of_dy, of_product, unit):
    """Sum up dz and dz (z - mean) over the pixels of one image."""
    dz = np.empty_like(z[unit])
    _unpool(dy, y, argmax, _following_of(following), unit, dz)
    pixels, filters = z.shape[1] * z.shape[2], z.shape[3]
    image_gradient_sums(dz.reshape(pixels, filters), z[unit].reshape(pixels, filters), mean, of_dy[unit],
                        of_product[unit])


@kernel
def backward_task(x, kernels, dy, y, argmax, following, scale, z, mean, terms, oh, ow, weights, spectra, window,
                  groups, by_points, sums, bias_sums, dx, images, chunks, chunk):
    """Take one chunk of the images back, so many at a time; sums and bias_sums have a place for each chunk."""
    kernels, window, following = Kernels(*kernels), Window(*window), _following_of(following)
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
                _unpool(dy, y, argmax, following, n, dz[n - first])
                rows = dz[n - first].reshape(oh * ow, filters)
                if len(z):
                    gradient_in_place(rows, z[n].reshape(oh * ow, filters), mean, terms)
                    if following.first_relu:
                        _mask_in_place(rows.reshape(-1), z[n].reshape(-1))
                elif len(scale):
                    scale_in_place(rows, scale)
        if len(bias_sums):
            for i in range(len(dz)):
                _add_rows(dz[i].reshape(oh * ow, filters), bias_sums[chunk])
        _take_back(kernels, x[first:last], dz, weights, spectra, window, groups, spectrum, sums[chunk : chunk + 1],
                   dx[first:last])
    if by_points:
        _add_spectrum(kernels, spectrum, window.height, sums[chunk])


@kernel
def _take_back(kernels, x, dz, weights, spectra, window, groups, spectrum, sums, dx):
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
            call(kernels.winograd_backward,
                 (kernels.block, kernels.transform, image, d_image, spectra, window.height, (window.top, window.left),
                  spectrum[: POINTS if to_kernel else 0], dx_image[: images if to_x else 0]))
        if len(sums) and not to_kernel:
            call(kernels.direct_kernel_gradient, (kernels.block, image, d_image, window, groups, sums[0]))
        if len(dx) and not to_x:
            call(kernels.direct_input_gradient, (kernels.block, d_image, weights, window, groups, dx_image))


@kernel
def _add_spectrum(kernels, spectrum, taps, sums):
    _, channels, _ = spectrum.shape
    filters = sums.shape[3]
    dkernel = np.empty((taps, taps, channels, filters), sums.dtype)
    call(kernels.winograd_kernel_gradient_end, (kernels.transform, spectrum, taps, dkernel))
    source, target = dkernel.reshape(-1), sums.reshape(-1)
    for i in range(source.size):
        target[i] += source[i]


@kernel
def _add_rows(x, total):
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

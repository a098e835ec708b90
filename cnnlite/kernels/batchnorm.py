"""Batch normalisation of each channel of x (M, C) or (N, ..., C), over all other axes: M numbers a channel.

Sums over M are cut into parts of at most 512 rows, which never reach from one image into the next, and the sums of
the parts are added in float64 in the order of the rows: the same bits for any number of threads. A part is small
enough to stay in the processor's cache for the second look at it. Sums of gradients are cut into as many parts, but
between the lines of an image, so that they can be summed up through the windows of a pooling; or between any two pixels
where lines are long.

`conv_block.py` calls the functions on one image while that is in the cache. Those on whole batches stand here.
"""

import math

import numpy as np

from cnnlite.engine.jit import kernel
from cnnlite.floating import arithmetic
from cnnlite.kernels.batchnorm_ir import map_rows, row_statistics, sum_gradient, sum_rows, write_gradient
from cnnlite.kernels.checks import require
from cnnlite.kernels.geometry import Window
from cnnlite.kernels.threads import run

SMALL = 1 << 16  # numbers that are looked at before other threads would have begun
PART_ROWS = 512  # over so many rows a sum in float32 is still good
LONG_LINE = 1024  # pixels; a longer line is cut as well


def rows_by_image(x):
    """Return x as (images, rows, C) without copying; a matrix (M, C) counts as one image."""
    return x[np.newaxis] if x.ndim == 2 else x.reshape(len(x), math.prod(x.shape[1:-1]), x.shape[-1])


def lines_by_image(x):
    """Return x as (images, lines, columns, C) without copying; the pixels of long lines, and rows, are lines of one."""
    images = rows_by_image(x)
    columns = x.shape[-2] if 3 < x.ndim and x.shape[-2] <= LONG_LINE else 1
    return images.reshape(len(images), images.shape[1] // max(1, columns), columns, images.shape[2])


def part_count(rows):
    """Return into how many parts the rows of an image are cut."""
    return (rows + PART_ROWS - 1) // PART_ROWS


_part_count = kernel(part_count)  # for compiled code; Python calls the other, even at import


def batchnorm_statistics(x):
    """Return (mean, variance) of each channel, both (C,): variance = 1/M Σ (x − mean)², the biased one.

    Each part is looked at twice, for its mean and then for its squared deviations M2 from it, and parts are
    combined by M2 = Σ (M2_k + n_k (mean_k − mean)²) (Chan, Golub and LeVeque, 1979), which unlike
    Σx² / M − mean² stays accurate where the mean is large beside the deviation. Without samples both are 0;
    both are NaN where a channel holds NaN or an infinity.
    """
    require(x, "x", x.ndim, None, "batchnorm_statistics")
    images = rows_by_image(x)
    parts = new_statistics(images.shape)
    _run(_statistics_task, images, (images, *parts))
    return combine_statistics(*parts, images.shape, x.dtype)


def batchnorm_normalize(x, mean, inv_std, gamma, beta, out=None):
    """Return y = gamma (x − mean) inv_std + beta, of the shape of x; the other arrays are (C,)."""
    y = np.empty_like(x) if out is None else out
    _require_channels(x, "batchnorm_normalize", mean=mean, inv_std=inv_std, gamma=gamma, beta=beta)
    require(y, "out", x.shape, x.dtype, "batchnorm_normalize")
    images = rows_by_image(x)
    _run(_affine_task, images, (images, mean, inv_std * gamma, beta, rows_by_image(y), part_count(images.shape[1])))
    return y


def batchnorm_backward(dy, x, mean, inv_std, gamma, out=None):
    """Return (dx, dgamma, dbeta) where mean and inv_std were those of x itself.

    With x̂ = (x − mean) inv_std (Ioffe and Szegedy, 2015, section 3):

        dbeta  = Σ dy
        dgamma = Σ dy x̂
        dx     = gamma inv_std (dy − dbeta / M − x̂ dgamma / M)

    Args:
        dy, x: (M, C) or (N, ..., C).
        mean, inv_std, gamma: (C,).
        out: an array for dx.
    """
    dx = np.empty_like(x) if out is None else out
    _require_channels(x, "batchnorm_backward", mean=mean, inv_std=inv_std, gamma=gamma)
    require(dy, "dy", x.shape, x.dtype, "batchnorm_backward")
    require(dx, "out", x.shape, x.dtype, "batchnorm_backward")
    rows, images = rows_by_image(x), lines_by_image(x)
    parts = new_statistics(rows.shape)
    _run(_gradient_sums_task, rows, (lines_by_image(dy), images, mean, *parts))
    dgamma, dbeta, terms = combine_gradient_sums(*parts, rows.shape, inv_std, gamma)
    _run(_gradient_task, rows, (lines_by_image(dy), images, mean, terms, lines_by_image(dx), part_count(rows.shape[1])))
    return dx, dgamma, dbeta


def batchnorm_inference_backward(dy, inv_std, gamma, out=None):
    """Return dx = gamma inv_std dy, where mean and inv_std are constants such as moving averages."""
    with arithmetic():
        return np.multiply(dy, inv_std * gamma, out=out)


def _require_channels(x, owner, **arrays):
    """Look at x, and that the arrays have a number for each channel."""
    require(x, "x", x.ndim, None, owner)
    for name, array in arrays.items():
        require(array, name, x.shape[-1:], x.dtype, owner)


def _run(task, images, arguments):
    """Run a task that has all parts of all images for its units."""
    run(task, len(images) * part_count(images.shape[1]), arguments, alone=images.size < SMALL)


def new_statistics(shape):
    """Return two arrays for the sums of all parts of (images, rows, C): (images, parts, C) in float64."""
    images, rows, channels = shape
    return np.empty((images, part_count(rows), channels)), np.empty((images, part_count(rows), channels))


def combine_statistics(means, m2s, shape, dtype):
    """Return (mean, variance) from those of the parts; the shape is (images, rows, C)."""
    mean, variance = np.zeros(shape[2], dtype), np.zeros(shape[2], dtype)
    if shape[0] * shape[1]:
        _combine_statistics(means, m2s, shape[1], mean, variance)
    return mean, variance


def combine_gradient_sums(of_dy, of_product, shape, inv_std, gamma):
    """Return dgamma, dbeta, and the terms (3, C) of dx = terms[0] (dy − terms[1] − (x − mean) terms[2])."""
    channels = shape[2]
    dgamma, dbeta, terms = np.zeros_like(gamma), np.zeros_like(gamma), np.zeros((3, channels), gamma.dtype)
    if shape[0] * shape[1]:
        _combine_gradient_sums(of_dy, of_product, shape[0] * shape[1], inv_std, gamma, dgamma, dbeta, terms)
    return dgamma, dbeta, terms


# Of one image, whose parts have a row each in (parts, C). Each is one or two passes of `batchnorm_ir.py` over a part.


@kernel
def image_statistics(x, means, m2s):
    """Write the mean and Σ (x − mean)² of each part of x (rows, C)."""
    parts, channels = means.shape
    center, error, square = np.empty(channels, x.dtype), np.empty(channels, x.dtype), np.empty(channels, x.dtype)
    for part in range(parts):
        first, last = part * len(x) // parts, (part + 1) * len(x) // parts
        row_statistics(x[0, 0], x[first].ctypes.data, last - first, channels, center.ctypes.data, error.ctypes.data,
                       square.ctypes.data)
        # The rounding error of the center shows as the sum of the deviations from it, and is taken out again.
        for c in range(channels):
            means[part, c] = np.float64(center[c]) + np.float64(error[c]) / (last - first)
            m2s[part, c] = np.float64(square[c]) - np.float64(error[c]) ** 2 / (last - first)


@kernel
def affine_rows(x, mean, scale, beta, relu, y):
    """y = (x − mean) scale + beta for x (rows, C), with 0 where that is not above 0 if there is a `relu`."""
    map_rows(mean[0], x.ctypes.data, len(x), x.shape[1], True, mean.ctypes.data, scale.ctypes.data, beta.ctypes.data,
             relu, y.ctypes.data)


@kernel
def _cut_long_lines(x):
    """Return an image, as lines of one pixel if its own are long. Then there are no windows: see `_side_by_side`."""
    lines, columns, channels = x.shape
    return x.reshape(lines * columns, 1, channels) if columns > LONG_LINE else x


@kernel
def image_gradient_sums(dy, y, places, relu, window, x, mean, of_dy, of_product):
    """Write Σ dz and Σ dz (x − mean) of each part of x (lines, columns, C).

    dz is dy, with 0 where y is not above 0 if there was a `relu`. If there are `places`, dy, y and places are those of
    the maxima of windows that lie side by side, and dz has 0 where no maximum was.
    """
    x = _cut_long_lines(x)
    lines, columns, channels = x.shape
    parts = len(of_dy)
    total, product = np.empty(channels, x.dtype), np.empty(channels, x.dtype)
    for part in range(parts):
        sum_gradient(mean[0], dy.ctypes.data, y.ctypes.data if relu else dy.ctypes.data, places.ctypes.data, relu,
                     len(places) > 0, window.height, window.width, dy.shape[1], len(dy), part * lines // parts,
                     (part + 1) * lines // parts, columns, channels, x.ctypes.data, mean.ctypes.data,
                     total.ctypes.data, product.ctypes.data)
        for c in range(channels):
            of_dy[part, c] = total[c]
            of_product[part, c] = product[c]


@kernel
def image_gradient(dy, y, places, relu, window, x, mean, terms, first_relu, dx, total):
    """Write dx (lines, columns, C), and add its sum over all pixels to `total`, which is in float64.

    dx = terms[0] (dz − terms[1] − (x − mean) terms[2]), with 0 where x is not above 0 if there was a `first_relu`;
    terms[0] dz if there is no x. dz is as above; dy may be dx.
    """
    dx = _cut_long_lines(dx)
    lines, columns, channels = dx.shape
    parts, row = _part_count(lines * columns), channels * dx.itemsize
    partial = np.empty(channels, dx.dtype)
    for part in range(parts):
        write_gradient(terms[0, 0], dy.ctypes.data, y.ctypes.data if relu else dy.ctypes.data, places.ctypes.data,
                       relu, len(places) > 0, window.height, window.width, dy.shape[1], len(dy),
                       part * lines // parts, (part + 1) * lines // parts, columns, channels, len(x) > 0,
                       x.ctypes.data, mean.ctypes.data, terms.ctypes.data, terms.ctypes.data + row,
                       terms.ctypes.data + 2 * row, first_relu, dx.ctypes.data, partial.ctypes.data)
        for c in range(channels):
            total[c] += partial[c]


@kernel
def image_sum(dx, total):
    """Add the sum of dx (lines, columns, C) over all pixels to `total`, to the very bits of `image_gradient`."""
    dx = _cut_long_lines(dx)
    lines, columns, channels = dx.shape
    parts = _part_count(lines * columns)
    partial = np.empty(channels, dx.dtype)
    for part in range(parts):
        first, last = part * lines // parts, (part + 1) * lines // parts
        sum_rows(dx[0, 0, 0], dx[first].ctypes.data, (last - first) * columns, channels, partial.ctypes.data)
        for c in range(channels):
            total[c] += partial[c]


# Of whole batches x (images, rows, C). Where there is one image, a matrix, its parts are what threads share.


@kernel
def _part(x, part, parts):
    return x[part * x.shape[0] // parts : (part + 1) * x.shape[0] // parts]


@kernel
def _statistics_task(x, means, m2s, unit):
    parts = means.shape[1]
    image, part = unit // parts, unit % parts
    image_statistics(_part(x[image], part, parts), means[image, part : part + 1], m2s[image, part : part + 1])


@kernel
def _affine_task(x, mean, scale, beta, y, parts, unit):
    image, part = unit // parts, unit % parts
    affine_rows(_part(x[image], part, parts), mean, scale, beta, False, _part(y[image], part, parts))


@kernel
def _gradient_sums_task(dy, x, mean, of_dy, of_product, unit):
    parts = of_dy.shape[1]
    image, part = unit // parts, unit % parts
    some = _part(dy[image], part, parts)
    image_gradient_sums(some, some, np.empty((0, 0, 0), np.uint8), False, Window(1, 1), _part(x[image], part, parts),
                        mean, of_dy[image, part : part + 1], of_product[image, part : part + 1])


@kernel
def _gradient_task(dy, x, mean, terms, dx, parts, unit):
    image, part = unit // parts, unit % parts
    some = _part(dy[image], part, parts)
    image_gradient(some, some, np.empty((0, 0, 0), np.uint8), False, Window(1, 1), _part(x[image], part, parts), mean,
                   terms, False, _part(dx[image], part, parts), np.zeros(x.shape[3]))


@kernel
def _combine_statistics(means, m2s, rows, mean, variance):
    images, parts, channels = means.shape
    exact, m2 = np.zeros(channels), np.zeros(channels)
    for image in range(images):
        for part in range(parts):
            count = (part + 1) * rows // parts - part * rows // parts
            for c in range(channels):
                exact[c] += means[image, part, c] * count
    for c in range(channels):
        exact[c] /= images * rows
    for image in range(images):
        for part in range(parts):
            count = (part + 1) * rows // parts - part * rows // parts
            for c in range(channels):
                m2[c] += m2s[image, part, c] + count * (means[image, part, c] - exact[c]) ** 2
    for c in range(channels):
        mean[c] = exact[c]
        # Rounding can take a variance of 0 just below it. A NaN is not less than 0 and stays.
        variance[c] = 0.0 if m2[c] < 0 else m2[c] / (images * rows)


@kernel
def _combine_gradient_sums(of_dy, of_product, total, inv_std, gamma, dgamma, dbeta, terms):
    images, parts, channels = of_dy.shape
    dy_sum, product_sum = np.zeros(channels), np.zeros(channels)
    for image in range(images):
        for part in range(parts):
            for c in range(channels):
                dy_sum[c] += of_dy[image, part, c]
                product_sum[c] += of_product[image, part, c]
    for c in range(channels):
        dbeta[c] = dy_sum[c]
        dgamma[c] = product_sum[c] * inv_std[c]
        terms[0, c] = gamma[c] * inv_std[c]
        terms[1, c] = dy_sum[c] / total
        terms[2, c] = np.float64(inv_std[c]) ** 2 * product_sum[c] / total

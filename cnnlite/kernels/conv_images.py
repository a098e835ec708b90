"""What `conv_block.py` runs on one image while that is in the cache; it goes when that goes."""

import numpy as np

from cnnlite.engine.jit import kernel
from cnnlite.kernels.batchnorm_ir import map_rows, row_statistics, sum_gradient, sum_rows, write_gradient
from cnnlite.kernels.vector_ir import max_pool_windows, max_unpool_windows

PART_ROWS = 512  # over so many rows a sum in float32 is still good
LONG_LINE = 1024  # pixels; a longer line is cut as well
LONG_SUM = 64  # pixels that may be added one by one in float32


def part_count(rows):
    """Return into how many parts the rows of an image are cut."""
    return (rows + PART_ROWS - 1) // PART_ROWS


_part_count = kernel(part_count)  # for compiled code; Python calls the other, even at import


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

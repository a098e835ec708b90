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
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.batchnorm import (
    LONG_LINE,
    affine_rows,
    image_gradient,
    image_gradient_sums,
    image_statistics,
    image_sum,
)
from cnnlite.kernels.batchnorm_ir import map_rows
from cnnlite.kernels.direct import copy_window, is_product, panel_columns, pixels_together, sticks_out, unroll_taps
from cnnlite.kernels.direct_input_gradient import add_to_planes, by_planes, by_taps, direct_input_gradient, merge_planes
from cnnlite.kernels.direct_kernel_gradient import add_images, add_turned, direct_kernel_gradient
from cnnlite.kernels.geometry import Window
from cnnlite.kernels.matmul import move_sums, product_block
from cnnlite.kernels.microkernel import LONG_SUM, block_address, call_block
from cnnlite.kernels.moderate import moderate
from cnnlite.kernels.pooling import average_pool_row, max_pool_backward_image, max_pool_image
from cnnlite.kernels.table import (
    ADD_IMAGES,
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
    IMAGE_SUM,
    MAX_UNPOOL,
    MERGE_PLANES,
    STATISTICS,
    TAKE_BACK,
    UNROLL_TAPS,
    WINOGRAD_BACKWARD,
    WINOGRAD_END,
    WINOGRAD_IMAGES,
    Table,
    call,
)
from cnnlite.kernels.winograd import (
    CACHE_BYTES,
    POINTS,
    _distance,
    _tiles_a_block,
    _tiles_of,
    tile_count,
    winograd_backward,
    winograd_kernel_gradient_end,
)
from cnnlite.kernels.winograd_transforms import TILE, call_transform, transform_address

NO_POOL, MAX_POOL, AVERAGE_POOL = 0, 1, 2
LONG_CHAIN = 8192  # pixels, or tiles of Winograd's, of a chunk whose products may be added one by one in float32
CHAIN = 2048  # so many that are before they join a sum in float64, if there are more: it takes as long as 30 of them
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
    row, rows, image, images, planes = (types.Array(real, axes, "C") for axes in (1, 2, 3, 4, 5))
    sums, total, places = types.float64[:, ::1], types.float64[::1], types.Array(numba.from_dtype(argmax), 3, "C")
    following = image, rows, flag, window, image, places
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
        FOLLOW: (follow_image, *following),
        FOLLOW_MAX_POOL: (max_pool_image, *following),
        FOLLOW_AVERAGE_POOL: (average_pool_image, *following),
        MAX_UNPOOL: (max_pool_backward_image, image, image, places, flag, window, image),
        STATISTICS: (image_statistics, rows, sums, sums),
        GRADIENT_SUMS: (image_gradient_sums, image, image, places, flag, window, image, row, sums, sums),
        GRADIENT: (image_gradient, image, image, places, flag, window, image, row, rows, flag, image, total),
        IMAGE_SUM: (image_sum, image, total),
    }
    return Table([(table[number][0], table[number][1:]) for number in range(len(table))])


# Forward.


@kernel
def direct_images(kernels, x, panels, start, window, groups, y):
    """y = x * kernel + start. panels: as of `direct_panels`; start is the bias, filled up with zeros to whole panels.

    The bits of a pixel are the same whether it was computed with others or alone, as products with 0 change nothing.
    But 0 * NaN would: an image with a number that is not finite goes pixel by pixel.
    """
    n, h, w, c = x.shape
    _, oh, ow, filters = y.shape
    width = 2 * VECTOR_BYTES // y.itemsize
    if is_product(window, h, w, oh, ow):
        x, y = x.reshape(n, 1, h * w, c), y.reshape(n, 1, h * w, filters)
    alone = window.height * window.width * c * ((filters // groups + width - 1) // width * width)
    if panels.size == alone:
        call(kernels, BY_PIXELS, (kernels, x, panels, start, window, groups, y))
        return
    for i in range(n):
        if moderate(x[i : i + 1]):
            call(kernels, BY_WIDE_PIXELS, (kernels, x[i], panels[alone:], start, window, y[i]))
        else:
            call(kernels, BY_PIXELS, (kernels, x[i : i + 1], panels, start, window, groups, y[i : i + 1]))


@kernel
def by_pixels(kernels, x, panels, start, window, groups, y):
    """Convolve some images.

    For each image, group and panel, each row of pixels is one product (OW, K) @ (K, width). Its left factor starts
    at `place` in `source`, the image or its copy, in which `pixel` lies between the windows of neighbours and
    `line` between two rows.
    """
    n, h, w, c = x.shape
    _, oh, ow, filters = y.shape
    kh, kw = window.height, window.width
    channels, group_filters = c // groups, filters // groups
    k = kh * kw * channels
    width = 2 * VECTOR_BYTES // y.itemsize
    panel_count = (group_filters + width - 1) // width
    scratch = np.empty((ow, width), y.dtype)
    flat_y, image_numbers = y.reshape(-1), oh * ow * filters
    unrolls = window.dilation_w > 1
    copies = unrolls or groups > 1 or sticks_out(h, w, window, oh, ow)
    columns = ow * kw if unrolls else (ow - 1) * window.stride_w + kw
    height = (oh - 1) * window.stride_h + (kh - 1) * window.dilation_h + 1
    image = np.empty((height, columns, channels) if copies else (0, 0, 0), y.dtype)
    pixel = kw * channels if unrolls else window.stride_w * channels
    for i in range(n):
        for group in range(groups):
            source, place, line = x.reshape(-1), i * h * w * c, w * c
            if copies:
                source, place, line = image.reshape(-1), 0, columns * channels
                if unrolls:
                    call(kernels, UNROLL_TAPS, (x[i], group * channels, window, image))
                else:
                    call(kernels, COPY_WINDOW, (x[i], group * channels, -window.top, window.left, image))
            for panel in range(panel_count):
                column, filters_here = panel_columns(panel, group_filters, width)
                # A vector that sticks out of its pixel may spill into the next one of the image, which is written after
                # it, if there is only one panel.
                spill = (width // 2 if filters_here <= width // 2 else width) - filters_here
                spills = groups == 1 and panel_count == 1
                for row in range(oh):
                    # Rows of the kernel that lie wholly on padding are left out.
                    above = row * window.stride_h - window.top
                    low = max(0, -(above // window.dilation_h))
                    high = max(low, min(kh, (h - 1 - above) // window.dilation_h + 1))
                    fits = spills and (row + 1) * ow * filters + spill <= image_numbers
                    product_block(
                        kernels[1], ow, filters_here + (spill if fits else 0),
                        flat_y, i * image_numbers + row * ow * filters + group * group_filters + column, filters,
                        start, group * panel_count * width + column, 0,
                        source, place + (row * window.stride_h + low * window.dilation_h) * line, pixel,
                        window.dilation_h * line, 1,
                        panels, ((group * panel_count + panel) * k + low * kw * channels) * width,
                        kw * channels * width, width, high - low, kw * channels, scratch)


@kernel
def by_wide_pixels(kernels, x, panel, start, window, y):
    """Convolve an image of few filters, p pixels of a row together; the rows of a tile are the rows of the image.

    What a vector holds beyond the p * F numbers spills into the next pixels, in `rows`, where it is written over. The
    zeros for other pixels must not make the sum a long one, so it goes by as many rows of the kernel as are none.
    """
    _, w, c = x.shape
    oh, ow, filters = y.shape
    itemsize = y.itemsize
    lanes = VECTOR_BYTES // itemsize
    pixels = pixels_together(filters, window.width, window.stride_w, ow, lanes)
    taps = window.width + (pixels - 1) * window.stride_w
    pads = sticks_out(len(x), w, window, oh, ow)
    width = (ow - 1) * window.stride_w + window.width if pads else w
    height = (oh - 1) * window.stride_h + (window.height - 1) * window.dilation_h + 1
    image = np.empty((height if pads else 0, width, c), y.dtype)
    if pads:
        call(kernels, COPY_WINDOW, (x, 0, -window.top, window.left, image))
    line = width * c
    rows, bias = np.empty((oh, ow * filters + lanes), y.dtype), np.zeros(lanes, y.dtype)
    for j in range(pixels * filters):
        bias[j] = start[j % filters]
    together = max(1, LONG_SUM // (taps * c))
    for first in range(0, ow, pixels):
        pixel = min(first, ow - pixels)  # the last ones begin earlier
        for ky in range(0, window.height, together):
            # Asked for in the loop, since an array is freed after its last use, whoever has its address.
            source = (image.ctypes.data if pads else x.ctypes.data) + ky * window.dilation_h * line * itemsize
            target = rows.ctypes.data + pixel * filters * itemsize
            call_block(kernels[1], oh, 1, target, ow * filters + lanes,
                       target if ky else bias.ctypes.data, ow * filters + lanes if ky else 0,
                       source + pixel * window.stride_w * c * itemsize, window.stride_h * line,
                       window.dilation_h * line, 1, panel.ctypes.data + ky * taps * c * lanes * itemsize,
                       taps * c * lanes, lanes, min(together, window.height - ky), taps * c)
    for row in range(oh):
        target, written = y[row].reshape(-1), rows[row]
        for j in range(ow * filters):
            target[j] = written[j]


@kernel
def winograd_images(block, transform, x, first, last, weights, start, taps, before, y):
    """y[i] = the convolution of x[first + i], for i < last - first.

    Args:
        weights: as of `winograd_weights`.
        start: the bias, or zeros, for whole panels, as of `padded_columns`.
        before: rows of zeros above and columns of zeros to the left of an image; a negative number cuts some off.
        y: (last - first or more, OH, OW, F); how many zeros come below and to the right follows from its size.
    """
    _, h, w, c = x.shape
    _, oh, ow, f = y.shape
    itemsize = y.itemsize
    panels, width = weights.shape[1], weights.shape[3]
    outputs = TILE + 1 - taps
    tiles = _tiles_of(last - first, oh, ow, outputs)
    block_tiles = _tiles_a_block(len(tiles), c + width, itemsize, CACHE_BYTES)
    v_distance, m_distance = _distance(block_tiles * c, itemsize), _distance(block_tiles * width, itemsize)
    v, m = np.empty(POINTS * v_distance, y.dtype), np.empty(POINTS * m_distance, y.dtype)
    zeros = np.zeros(width, y.dtype)
    for begin in range(0, len(tiles), block_tiles):
        rows = min(block_tiles, len(tiles) - begin)
        for t in range(rows):
            n, top, left = tiles[begin + t, 0], tiles[begin + t, 1], tiles[begin + t, 2]
            call_transform(transform, TILE, c, x.ctypes.data + (first + n) * h * w * c * itemsize, h, w, c,
                           top - before[0], left - before[1], v.ctypes.data + t * c * itemsize, v_distance, 0)
        for panel in range(panels):
            column, columns = panel_columns(panel, f, width)
            vectors = 1 if columns <= width // 2 else 2
            for point in range(POINTS):
                call_block(block, rows, vectors, m.ctypes.data + point * m_distance * itemsize, width,
                           zeros.ctypes.data, 0, v.ctypes.data + point * v_distance * itemsize, c, 0, 1,
                           weights.ctypes.data + (point * panels + panel) * c * width * itemsize, 0, width, 1, c)
            for t in range(rows):
                n, top, left = tiles[begin + t, 0], tiles[begin + t, 1], tiles[begin + t, 2]
                call_transform(transform, -outputs, columns,
                               y.ctypes.data + (n * oh * ow * f + column) * itemsize, oh, ow, f, top, left,
                               m.ctypes.data + t * width * itemsize, m_distance, start.ctypes.data + column * itemsize)


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


@kernel
def backward_task(x, kernels, dy, y, argmax, following, scale, z, mean, terms, oh, ow, weights, spectra, window,
                  groups, by_points, sums, bias_sums, dx, images, chunks, chunk):
    """Take one chunk of the images back, so many at a time; sums and bias_sums have a place for each chunk."""
    window, following = Window(*window), _following_of(following)
    filters, channels = dy.shape[3], x.shape[3]
    begin, end = chunk * len(x) // chunks, (chunk + 1) * len(x) // chunks
    if len(sums):
        sums[chunk] = 0
    total = np.zeros(filters)
    spectrum = np.zeros((POINTS if by_points else 0, channels, sums.shape[4]), x.dtype)
    chain = spectrum.reshape(-1) if by_points else sums[chunk : chunk + 1].reshape(-1)
    links, length = (tile_count(oh, ow, window.height) if by_points else oh * ow), 0
    exact = np.zeros(chain.size if links * (end - begin) > LONG_CHAIN else 0)
    changes = following.relu or following.pool != NO_POOL or len(scale) > 0 or len(z) > 0
    buffer = np.empty((images if changes else 0, oh, ow, filters), x.dtype)
    side_by_side = _side_by_side(dy, argmax, following, oh, ow)
    if not len(terms):
        terms = np.empty((1, filters), x.dtype)
        for f in range(filters):
            terms[0, f] = scale[f] if len(scale) else 1
    for first in range(begin, end, images):
        last = min(end, first + images)
        dz = dy[first:last]
        if changes:
            dz = buffer[: last - first]
            for n in range(first, last):
                target = dz[n - first]
                image = z[n] if len(z) else target[:0]
                gradient, relu, places = dy[n], following.relu, argmax[n]
                if not side_by_side:
                    places = places[:0]
                    if following.pool == MAX_POOL:
                        call(kernels, MAX_UNPOOL, (dy[n], y[n], argmax[n], relu, following.window, target))
                        gradient, relu = target, False
                call(kernels, GRADIENT, (gradient, y[n], places, relu, following.window, image, mean, terms,
                                         following.first_relu, target, total))
        elif len(bias_sums):
            for i in range(len(dz)):
                call(kernels, IMAGE_SUM, (dz[i], total))
        call(kernels, TAKE_BACK, (kernels, x[first:last], dz, weights, spectra, window, groups, spectrum,
                                  sums[chunk : chunk + 1], dx[first:last]))
        length += links * (last - first)
        if length >= CHAIN and len(exact):
            move_sums(chain, exact)
            length = 0
    if len(exact):
        move_sums(chain, exact)
        for i in range(chain.size):
            chain[i] = exact[i]
    if len(bias_sums):
        # Not bias_sums[chunk] = total, with which numba compiles seconds of code for the text of an error.
        for f in range(filters):
            bias_sums[chunk, f] = total[f]
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
def add_chunks_task(sums, out, ky):
    """out[ky, i, group, f] = sum over the chunks, in their order."""
    chunks, _, groups, run, _ = sums.shape
    filters = out.shape[3]
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

"""Convolution with few filters: several pixels of a row computed as one.

A tile whose columns are 1, 3 or 6 filters wastes most of a vector of 16. So p neighbouring pixels are computed as one
pixel with p * F filters, whose kernel is p copies of the kernel side by side, each shifted by one pixel:

    p = 3, KW = 3:   x   .  .  .  .  .      5 vector operations for 3 pixels instead of 9
                     y0  a  b  c
                     y1     a  b  c
                     y2        a  b  c

y sums the same numbers in the same order, so it has the same bits as pixels computed alone: products with 0 change
nothing. (128, 28, 28, 1), 6 filters of 5x5 and padding: 0.8 ms instead of 1.6. But 0 * NaN is not 0: output rows that
read a value that is not `bounded` are computed directly, and so are all rows if any weight is not.
"""

import math

import numpy as np

from cnnlite.engine.jit import jit
from cnnlite.engine.stages import BATCH, HALO, array, array_as, band_rows, call_stage, scratch, stage
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.bounded import are_bounded, bounded_flags, is_bounded, rows_read
from cnnlite.kernels.convolution.direct import (
    RECORD,
    aligned,
    copy_window,
    direct_arguments,
    direct_bytes,
    pixels_together,
    samples_together,
)
from cnnlite.kernels.geometry import window_in
from cnnlite.kernels.product.microkernel import LONG_SUM, call_block


def wide_pixels(x, kernel, window, groups, ow):
    """Return how many pixels of a row to compute as one; 1 if this method does not apply."""
    if groups > 1 or window.dilation_w > 1:
        return 1
    kh, kw, channels, filters = kernel.shape
    pixels = pixels_together(filters, kw, window.stride_w, ow, VECTOR_BYTES // x.itemsize)
    # A long sum would be split at other places than for a single pixel.
    longest = max(kh * kw, kw + (pixels - 1) * window.stride_w) * channels
    return pixels if longest <= LONG_SUM else 1


def add_wide(convolution, pixels):
    """Add the stage for a `conv2d.Convolution` that computes `pixels` pixels as one."""
    graph, kernel, y = convolution.graph, convolution.kernel, convolution.y
    kh, kw, c, filters = kernel.shape
    stride, lanes = convolution.window.stride_w, VECTOR_BYTES // y.itemsize
    taps = kw + (pixels - 1) * stride
    panel = graph.work((kh, taps, c, lanes), kernel.dtype)
    graph.add(_pack_wide, kernel=kernel, out=panel, kh=kh, kw=kw, c=c, filters=filters, pixels=pixels, stride=stride,
              work=math.prod(panel.shape))
    arguments = direct_arguments(convolution)
    flags = bounded_flags(graph, kernel)
    # First the rows and the bias of this method, then the memory of the direct method, whose image copy both use.
    own = aligned(y.shape[1] * (y.shape[2] * filters + lanes) * y.itemsize) + VECTOR_BYTES
    arguments.update(special=panel, flags=flags, flag_count=flags.shape[0], pixels=pixels, copy_at=aligned(own))
    graph.add(_by_wide_pixels, together=samples_together(convolution), work=convolution.work,
              scratch=aligned(own) + direct_bytes(arguments, y), **arguments)


@stage(reads="kernel", writes="out", sizes="kh kw c filters pixels stride", footprint=BATCH)
def _pack_wide(r, run, first, last):
    lanes, taps = VECTOR_BYTES // array(run, r.out, (0,)).itemsize, r.kw + (r.pixels - 1) * r.stride
    kernel, out = array(run, r.kernel, (r.kh, r.kw, r.c, r.filters)), array(run, r.out, (r.kh, taps, r.c, lanes))
    flat = out.reshape(-1)
    for i in range(flat.size):
        flat[i] = 0
    for ky in range(r.kh):
        for pixel in range(r.pixels):
            for kx in range(r.kw):
                for c in range(r.c):
                    source, target = kernel[ky, kx, c], out[ky, pixel * r.stride + kx, c]
                    for f in range(r.filters):
                        target[pixel * r.filters + f] = source[f]


@stage(**RECORD, footprint=HALO)
def _by_wide_pixels(r, run, first, last):
    """Compute rows of samples, p pixels of a row together; the rows of a tile are rows of the image.

    What a vector holds beyond the p * F elements spills into the next pixels of `rows`, and is overwritten later. The
    zeros added for other pixels must not make a sum a long one, so only as many kernel rows are taken at a time as
    stay below that limit.
    """
    window, w, c, ow, filters, pixels = window_in(r), r.w, r.c, r.ow, r.filters, r.pixels
    top, bottom = band_rows(run, r.oh)
    if top == bottom:
        return
    if not are_bounded(array_as(run, r.flags, (r.flag_count,), np.int64)):
        for i in range(first, last):
            call_stage(r.by_pixels, r, run, i * r.oh + top, i * r.oh + bottom)
        return
    height, band = bottom - top, rows_read(top, bottom, r.h, window)
    x, y = array(run, r.x, (last, r.h, w, c)), array(run, r.y, (last, r.oh, ow * filters))
    itemsize = y.itemsize
    lanes, taps = VECTOR_BYTES // itemsize, window.width + (pixels - 1) * window.stride_w
    panel = array(run, r.special, (window.height * taps * c * lanes,))
    rows = scratch(run, 0, (height, ow * filters + lanes))
    bias, start = scratch(run, aligned(rows.size * itemsize), (lanes,)), array(run, r.start, (filters,))
    for j in range(lanes):
        bias[j] = start[j % filters] if j < pixels * filters else 0
    origin, together = top * window.stride_h - window.top, max(1, LONG_SUM // (taps * c))
    image_rows = (height - 1) * window.stride_h + (window.height - 1) * window.dilation_h + 1 if r.copies else 0
    image = scratch(run, r.copy_at, (image_rows, r.columns, c))
    for i in range(first, last):
        if r.copies:
            copy_window(x[i], 0, origin, window.left, image)
            source, line = image.ctypes.data, r.columns * c
        else:
            source, line = x[i].ctypes.data + (origin * w - window.left) * c * itemsize, w * c
        for column in range(0, ow, pixels):
            pixel = min(column, ow - pixels)  # the last group starts earlier
            target = rows.ctypes.data + pixel * filters * itemsize
            for ky in range(0, window.height, together):
                call_block(r.block, height, 1, target, ow * filters + lanes,
                           target if ky else bias.ctypes.data, ow * filters + lanes if ky else 0,
                           source + (ky * window.dilation_h * line + pixel * window.stride_w * c) * itemsize,
                           window.stride_h * line, window.dilation_h * line, 1,
                           panel.ctypes.data + ky * taps * c * lanes * itemsize, taps * c * lanes, lanes,
                           min(together, window.height - ky), taps * c)
        image_is_bounded = _rows_are_bounded(x[i], band)
        for row in range(top, bottom):
            if image_is_bounded or _rows_are_bounded(x[i], rows_read(row, row + 1, r.h, window)):
                written, target = rows[row - top], y[i, row]
                for j in range(ow * filters):
                    target[j] = written[j]
            else:
                call_stage(r.by_pixels, r, run, i * r.oh + row, i * r.oh + row + 1)


@jit
def _rows_are_bounded(image, rows):
    begin, end = rows
    line = image.shape[1] * image.shape[2]
    return is_bounded(image.reshape(-1)[begin * line : end * line])

"""The gradient of batch normalisation below max pooling, from the gradient of the maxima.

A dy that `max_pool_backward` spreads is 0 except at pixels that won their window, so there is no point in writing it
for all pixels and reading it back. For window o, with the gradient dp[o] of its maximum and the winning pixel w(o),

    Σ dy = Σ_o dp[o]        Σ dy (x − mean) = Σ_o dp[o] (x[w(o)] − mean)

which for 2x2 windows has a quarter of the terms. They are added in the order of the pixels, and in the same parts as in
`batchnorm.py`, so the results are bit-identical to those from dy itself. The windows must not overlap: pixels of
overlapping windows get sums of several gradients and would be read several times, which takes longer than reading dy.

The omitted terms are 0, unless x − mean is NaN or infinite. In that case these sums may be finite while the sums over
all pixels are NaN, but no gradient shows it, since the mean and the deviation are those of x: a NaN or an infinity in a
channel makes its mean NaN, and with it every term; a difference that overflows makes the variance infinite and
1 / deviation NaN, and the second sum is only used multiplied by that.
"""

import numpy as np

from cnnlite.engine.jit import jit
from cnnlite.engine.stages import IMAGE, array, array_as, scratch, stage
from cnnlite.kernels.geometry import Window
from cnnlite.kernels.layout import samples_together
from cnnlite.kernels.operation import graph_of
from cnnlite.kernels.pooling import SIZES
from cnnlite.kernels.rows import write_gradient
from cnnlite.kernels.statistics import PART_ROWS
from cnnlite.kernels.windows import sum_gradient_of_winners, write_gradient_of_winners


def add_pooled_gradient_sums(spreading, x, mean, sums):
    """Write both sums of each sample to sums (N, 2, C), for the dy that a step of `max_pool_backward` spreads."""
    taps = spreading.arguments["kh"] * spreading.arguments["kw"]
    pooled = spreading.arguments["dy"].sample_size
    _add(_pooled_gradient_sums, spreading, x, mean=mean, sums=sums, scratch=2 * x.shape[-1] * x.itemsize,
         work=(taps + 3) * pooled)


def add_unpooled_input_gradient(spreading, x, mean, terms, dx):
    """Write the gradient of the input to dx, for the dy that a step of `max_pool_backward` spreads."""
    _add(_unpooled_input_gradient, spreading, x, mean=mean, terms=terms, dx=dx, work=3 * x.sample_size,
         scratch=spreading.arguments["w"] * x.shape[-1] * x.itemsize)


def _add(stage, spreading, x, **arguments):
    names = "dy", "argmax", *SIZES.split()
    graph_of(x).add(stage, x=x, together=samples_together(x.sample_size), **arguments,
                    **{name: spreading.arguments[name] for name in names})


@stage(reads="dy argmax x mean", writes="sums", sizes=SIZES, footprint=IMAGE)
def _pooled_gradient_sums(r, run, first, last):
    window = Window(r.kh, r.kw, r.sh, r.sw, r.top, r.left, 1, 1)
    dy, x = array(run, r.dy, (last, r.oh, r.ow, r.c)), array(run, r.x, (last, r.h, r.w, r.c))
    argmax = array_as(run, r.argmax, (last, r.oh, r.ow, r.c), np.uint8)
    mean, own = array(run, r.mean, (r.c,)), scratch(run, 0, (2, r.c))
    sums = array_as(run, r.sums, (last, 2, r.c), np.float64)
    for n in range(first, last):
        _sum_gradient(dy[n], argmax[n], x[n], mean, window, own, sums[n])


@jit
def _sum_gradient(dy, argmax, x, mean, window, own, sums):
    """Write the sums of an image to sums (2, C); `own` has the same shape, for the sums of a part of its pixels."""
    height, width, channels = x.shape
    pixels = height * width
    parts = (pixels + PART_ROWS - 1) // PART_ROWS
    sums[:] = 0
    for part in range(parts):
        first, last = part * pixels // parts, (part + 1) * pixels // parts
        own[:] = 0
        for row in range(first // width, (last + width - 1) // width):
            i = (row + window.top) // window.stride_h
            tap = (row + window.top - i * window.stride_h) * window.width
            if i < dy.shape[0] and tap < window.height * window.width:
                columns = max(0, first - row * width), min(width, last - row * width)
                _add_row(dy[i], argmax[i], x[row], mean, window, tap, columns, own)
        for i in range(2):
            for c in range(channels):
                sums[i, c] += own[i, c]


@jit
def _add_row(dy, argmax, x, mean, window, tap, columns, own):
    """Add the pixels columns[0], ..., columns[1] - 1 of a row x (W, C), which may cut off parts of windows.

    dy and argmax (OW, C) are those of the row's windows, and `tap` is the number of their first pixel in this row.
    """
    begin, end = columns[0] + window.left, columns[1] + window.left  # in the padded row
    first = (begin + window.stride_w - 1) // window.stride_w
    last = min(len(dy), (end - window.width) // window.stride_w + 1)
    _add_windows(dy, argmax, x, mean, window, tap, (first - 1, 1), (begin, end), own)
    if first <= last:
        _add_windows(dy, argmax, x, mean, window, tap, (first, last - first), (begin, end), own)
        _add_windows(dy, argmax, x, mean, window, tap, (last, 1), (begin, end), own)


@jit
def _add_windows(dy, argmax, x, mean, window, tap, windows, columns, own):
    """Add a row's pixels in windows = (first, count), which are all cut alike by the first and the last column."""
    j, count = windows
    left = j * window.stride_w
    begin, end = max(left, columns[0]), min(left + window.width, columns[1])
    if 0 <= j < len(dy) and count > 0 and begin < end:
        channels = x.shape[1]
        sum_gradient_of_winners(x, dy[j], argmax[j], x[begin - window.left], window.stride_w * channels,
                                (tap + begin - left, end - begin), count, channels, mean, own)


@stage(reads="dy argmax x mean terms", writes="dx", sizes=SIZES, footprint=IMAGE)
def _unpooled_input_gradient(r, run, first, last):
    dy, x = array(run, r.dy, (last, r.oh, r.ow, r.c)), array(run, r.x, (last, r.h, r.w, r.c))
    argmax = array_as(run, r.argmax, (last, r.oh, r.ow, r.c), np.uint8)
    mean, terms, zeros = array(run, r.mean, (r.c,)), array(run, r.terms, (3, r.c)), scratch(run, 0, (r.w * r.c,))
    dx = array(run, r.dx, (last, r.h, r.w, r.c))
    zeros[:] = 0
    for n in range(first, last):
        for i in range(r.oh):
            top = i * r.kh
            write_gradient_of_winners(x, dy[n, i], argmax[n, i], x[n, top], r.w * r.c, (r.kh, r.kw), (r.ow, r.c), mean,
                                      terms, dx[n, top])
        # The pixels left over at the right and at the bottom are in no window, so their dy is 0.
        for row in range(r.h):
            begin = r.ow * r.kw if row < r.oh * r.kh else 0
            if begin < r.w:
                write_gradient(x, zeros, x[n, row, begin], r.w - begin, r.c, mean, terms, dx[n, row, begin])

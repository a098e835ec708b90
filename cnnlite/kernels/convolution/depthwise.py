"""Depthwise convolution: each channel has its own kernels, and nothing is summed over channels.

    y[n, oh, ow, c * M + m] = bias[c * M + m]
                              + sum over ky, kx of  x[n, oh*s + ky*d, ow*s + kx*d, c] * kernel[ky, kx, c, m]

There is no matrix product here: each element of x is used KH * KW * M times, not F times. So the loops run along the
channels, which are contiguous: for M = 1 in the tiles of `depthwise_tile.py`, otherwise in the plain loops of
`depthwise_plain.py`.

Shapes: x (N, H, W, C), kernel (KH, KW, C, M), y (N, OH, OW, C * M).
"""

import math

import numpy as np

from cnnlite.engine.jit import jit
from cnnlite.engine.stages import (
    BEGIN,
    CHUNKS,
    HALO,
    IMAGE,
    NONE,
    UNIT,
    array,
    array_as,
    band_rows,
    scratch,
    stage,
    word,
)
from cnnlite.kernels.checks import require
from cnnlite.kernels.convolution.depthwise_plain import add_rows_to_kernel, plain_input_gradient_row, plain_row
from cnnlite.kernels.convolution.depthwise_tile import depthwise_block_address
from cnnlite.kernels.convolution.im2col import NO_PADS, output_shape
from cnnlite.kernels.operation import operation, result
from cnnlite.kernels.product.microkernel import call_block
from cnnlite.kernels.sums import add_chunks, chunk_sums

LONG_SUM = 256  # taps (for dx, weights per pixel) whose products may be added one by one in float32
CHAIN = 1024  # pixels, in whole rows, that are added up before their sum joins a float64 sum
NUMBERS_TOGETHER = 1 << 12  # elements of dy, in whole rows, that are processed for one tap at a time

GEOMETRY = "h w c kh kw m oh ow stride_y stride_x top left dilation_y dilation_x"


@operation(samples="x out")
def depthwise_conv2d(x, kernel, bias=None, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), out=None):
    """Return y, (N, OH, OW, C * M)."""
    owner = "depthwise_conv2d"
    require(x, "x", 4, None, owner)
    kh, kw, _, m = _kernel_shape(kernel.shape, x.shape, owner)
    require(kernel, "kernel", 4, x.dtype, owner)
    channels = x.shape[3] * m
    shape = (x.shape[0], *output_shape(x.shape, (kh, kw), strides, pads, dilation), channels)
    out = result(out, x, shape)
    require(out, "out", shape, x.dtype, owner)
    if bias is not None:
        require(bias, "bias", (channels,), x.dtype, owner)
    is_plain = m > 1 or kh * kw > LONG_SUM
    x.graph.add(
        _depthwise, x=x, kernel=kernel, bias=bias, y=out, work=2 * kh * kw * out.sample_size,
        scratch=channels * (8 + x.itemsize), is_plain=is_plain, is_long=kh * kw > LONG_SUM,
        block=depthwise_block_address(x.dtype), **_geometry(x.shape, kernel.shape, out.shape, strides, pads, dilation))
    return out


@stage(reads="x kernel bias", writes="y", sizes=f"is_plain is_long block {GEOMETRY}", footprint=HALO)
def _depthwise(r, run, first, last):
    channels = r.c * r.m
    start = scratch(run, 8 * channels, (channels,))  # after the float64 sums of `plain_row`
    if r.bias == NONE:
        for f in range(channels):
            start[f] = 0
    else:
        bias = array(run, r.bias, (channels,))
        for f in range(channels):
            start[f] = bias[f]
    top, bottom = band_rows(run, r.oh)
    columns = _columns_of_all_taps(r)
    for n in range(first, last):
        for row in range(top, bottom):
            if r.is_plain:
                plain_row(r, run, n, row, start)
            else:
                _row(r, run, n, row, columns, start)


@jit
def _row(r, run, n, row, columns, start):
    """Compute a row of y: the middle pixels, which see all taps of a kernel row, together, the others one by one."""
    c = r.c
    x, y = array(run, r.x, ((n + 1) * r.h * r.w * c,)), array(run, r.y, ((n + 1) * r.oh * r.ow * c,))
    kernel = array(run, r.kernel, (r.kh * r.kw * c,))
    ky, end_ky = places_inside(row * r.stride_y - r.top, r.dilation_y, r.h, r.kh)
    line = n * r.h + row * r.stride_y + ky * r.dilation_y - r.top
    begin, end = columns
    column = 0
    while column < r.ow:
        pixels, kx, end_kx = 1, 0, r.kw
        if column == begin and end > begin:
            pixels = end - begin
        else:
            kx, end_kx = places_inside(column * r.stride_x - r.left, r.dilation_x, r.w, r.kw)
        source = (line * r.w + column * r.stride_x + kx * r.dilation_x - r.left) * c
        _call(r, pixels, (y, ((n * r.oh + row) * r.ow + column) * c, c), (start, 0, 0),
              (x, source, r.stride_x * c, r.dilation_y * r.w * c, r.dilation_x * c),
              (kernel, (ky * r.kw + kx) * c, r.kw * c, c), end_ky - ky, end_kx - kx)
        column += pixels


@jit
def _call(r, rows, c, start, a, b, n1, n0):
    """Call `depthwise_block` with operands (array, offset of the first element, strides)."""
    call_block(r.block, rows, r.c, _address(c), c[2], _address(start), start[2], _address(a), a[2], a[3], a[4],
               _address(b), b[2], b[3], n1, n0)


@jit
def _address(operand):
    return operand[0].ctypes.data + operand[1] * operand[0].itemsize


@jit
def _columns_of_all_taps(r):
    """Return (begin, end) of the output pixels of a row that see all taps of a kernel row."""
    begin, first_end = places_inside(-r.left, r.stride_x, r.w, r.ow)
    last_begin, end = places_inside((r.kw - 1) * r.dilation_x - r.left, r.stride_x, r.w, r.ow)
    return max(begin, last_begin), min(first_end, end)


@jit
def places_inside(base, step, size, count):
    """Return (begin, end) of the k < count with 0 <= base + k * step < size; (0, 0) if there are none."""
    first, end = max(0, -(base // step)), min(count, (size - 1 - base) // step + 1)
    return (first, end) if end > first else (0, 0)


@operation(samples="dy out")
def depthwise_conv2d_input_gradient(dy, kernel, x_shape, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), out=None):
    """Return dx: each element of dy, times the weight, is added to the pixel that it came from."""
    owner = "depthwise_conv2d_input_gradient"
    kh, kw, c, m = _kernel_shape(kernel.shape, x_shape, owner)
    require(dy, "dy", (x_shape[0], *output_shape(x_shape, (kh, kw), strides, pads, dilation), c * m), None, owner)
    require(kernel, "kernel", 4, dy.dtype, owner)
    out = result(out, dy, x_shape)
    require(out, "out", x_shape, dy.dtype, owner)
    # A long sum is split into one sum per kernel row.
    is_long = kh * kw * m > LONG_SUM
    is_plain = m > 1 or is_long
    dy.graph.add(
        _depthwise_input_gradient, dy=dy, kernel=kernel, dx=out, work=2 * kh * kw * dy.sample_size,
        scratch=c * max(1, x_shape[2]) * dy.itemsize, is_plain=is_plain, is_long=is_long,
        step_y=strides[0] // math.gcd(strides[0], dilation[0]), step_x=strides[1] // math.gcd(strides[1], dilation[1]),
        block=depthwise_block_address(dy.dtype), **_geometry(x_shape, kernel.shape, dy.shape, strides, pads, dilation))
    return out


@stage(reads="dy kernel", writes="dx", sizes=f"is_plain is_long step_y step_x block {GEOMETRY}", footprint=HALO)
def _depthwise_input_gradient(r, run, first, last):
    zeros = scratch(run, 0, (r.c,))
    for i in range(r.c):
        zeros[i] = 0
    top, bottom = band_rows(run, r.h)
    for n in range(first, last):
        for row in range(top, bottom):
            if r.is_plain:
                plain_input_gradient_row(r, run, n, row)
            else:
                _input_gradient_row(r, run, n, row, zeros)


@jit
def _input_gradient_row(r, run, n, row, zeros):
    """Compute a row of dx: for each phase of the stride in turn, the pixels that the same taps reach, together.

    Tap k of the output pixel (place - k * dilation) / stride reaches the pixel of dx at `place` (padding included),
    where that is an integer. Such taps are `step` apart, and their output pixels dilation * step / stride apart.
    """
    c = r.c
    dy, dx = array(run, r.dy, ((n + 1) * r.oh * r.ow * c,)), array(run, r.dx, ((n + 1) * r.h * r.w * c,))
    kernel = array(run, r.kernel, (r.kh * r.kw * c,))
    apart_y, apart_x = r.dilation_y * r.step_y // r.stride_y, r.dilation_x * r.step_x // r.stride_x
    ky, lines = _taps_of(row + r.top, r.stride_y, r.dilation_y, r.step_y, r.kh)
    line = (row + r.top - ky * r.dilation_y) // r.stride_y
    first_y, end_y = places_inside(r.oh - 1 - line, apart_y, r.oh, lines)
    # Backwards, from the last tap, so that the output pixels are added in ascending order.
    ky, line = ky + (end_y - 1) * r.step_y, n * r.oh + line - (end_y - 1) * apart_y
    for phase in range(min(r.stride_x, r.w)):
        kx, taps = _taps_of(phase + r.left, r.stride_x, r.dilation_x, r.step_x, r.kw)
        place = (phase + r.left - kx * r.dilation_x) // r.stride_x
        pixels = (r.w - phase + r.stride_x - 1) // r.stride_x
        begin, end = max(0, (taps - 1) * apart_x - place), min(pixels, r.ow - place)
        t = 0
        while t < pixels:
            count, first_x, end_x = 1, 0, taps
            if t == begin and end > begin and taps > 0:
                count = end - begin
            else:
                first_x, end_x = places_inside(r.ow - 1 - place - t, apart_x, r.ow, taps)
            source = (line * r.ow + place + t - (end_x - 1) * apart_x) * c
            weight = (ky * r.kw + kx + (end_x - 1) * r.step_x) * c
            target = ((n * r.h + row) * r.w + phase + t * r.stride_x) * c
            _call(r, count, (dx, target, r.stride_x * c), (zeros, 0, 0),
                  (dy, source, c, apart_y * r.ow * c, apart_x * c),
                  (kernel, weight, -r.step_y * r.kw * c, -r.step_x * c), end_y - first_y, end_x - first_x)
            t += count


@jit
def _taps_of(place, stride, dilation, step, count):
    """Return the first of `count` taps that reach a pixel at `place`, and how many do."""
    for k in range(min(step, count)):
        if (place - k * dilation) % stride == 0:
            return k, (count - k + step - 1) // step
    return 0, 0


@operation(samples="x dy")
def depthwise_conv2d_kernel_gradient(x, dy, kernel_shape, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), out=None):
    """Return dkernel, a sum over all pixels: a few rows at a time in the dtype of x, and these sums in float64."""
    owner = "depthwise_conv2d_kernel_gradient"
    require(x, "x", 4, None, owner)
    kh, kw, c, m = _kernel_shape(kernel_shape, x.shape, owner)
    shape = (x.shape[0], *output_shape(x.shape, (kh, kw), strides, pads, dilation), c * m)
    require(dy, "dy", shape, x.dtype, owner)
    out = result(out, x, kernel_shape)
    require(out, "out", kernel_shape, x.dtype, owner)
    sums = chunk_sums(x.graph, kernel_shape, np.float64)
    x.graph.add(
        _depthwise_kernel_gradient, x=x, dy=dy, sums=sums, work=2 * kh * kw * dy.sample_size,
        scratch=math.prod(kernel_shape) * x.itemsize, block=depthwise_block_address(x.dtype),
        **_geometry(x.shape, kernel_shape, dy.shape, strides, pads, dilation))
    add_chunks(sums, out)
    return out


@stage(reads="x dy", adds="sums", sizes=f"block {GEOMETRY}", footprint=IMAGE)
def _depthwise_kernel_gradient(r, run, first, last):
    size = r.kh * r.kw * r.c * r.m
    exact = array_as(run, r.sums, (word(run, CHUNKS), size), np.float64)[word(run, UNIT)]
    some = scratch(run, 0, (size,))
    if first == word(run, BEGIN):
        exact[:] = 0
    chain = max(1, CHAIN // max(1, r.ow))
    together = max(1, NUMBERS_TOGETHER // max(1, r.ow * r.c))
    for n in range(first, last):
        for row in range(0, r.oh, chain):
            some[:] = 0
            end = min(r.oh, row + chain)
            if r.m > 1:
                add_rows_to_kernel(r, run, n, row, end)
            else:
                for begin in range(row, end, together):
                    _add_rows(r, run, n, begin, min(end, begin + together), some)
            for i in range(size):
                exact[i] += some[i]


@jit
def _add_rows(r, run, n, first, last, sums):
    """Add the contribution of some rows of an image's dy, for all taps of a kernel row at once where all see x."""
    begin, end = _columns_of_all_taps(r)
    for ky in range(r.kh):
        top, bottom = places_inside(ky * r.dilation_y - r.top, r.stride_y, r.h, r.oh)
        top, bottom = max(top, first), min(bottom, last)
        if top >= bottom:
            continue
        rows = top, bottom
        if end > begin:
            _add_columns(r, run, n, rows, (begin, end), (ky, 0), r.kw, sums)
        for kx in range(r.kw):
            left, right = places_inside(kx * r.dilation_x - r.left, r.stride_x, r.w, r.ow)
            if end > begin:
                _add_columns(r, run, n, rows, (left, begin), (ky, kx), 1, sums)
                _add_columns(r, run, n, rows, (end, right), (ky, kx), 1, sums)
            else:
                _add_columns(r, run, n, rows, (left, right), (ky, kx), 1, sums)


@jit
def _add_columns(r, run, n, rows, columns, tap, taps, sums):
    """Add the contribution of a rectangle of dy to some taps of a kernel row."""
    c, (top, _), (left, right), (ky, kx) = r.c, rows, columns, tap
    if right <= left:
        return
    x, dy = array(run, r.x, ((n + 1) * r.h * r.w * c,)), array(run, r.dy, ((n + 1) * r.oh * r.ow * c,))
    line, column = top * r.stride_y + ky * r.dilation_y - r.top, left * r.stride_x + kx * r.dilation_x - r.left
    target = (sums, (ky * r.kw + kx) * c, c)
    _call(r, taps, target, target,
          (x, ((n * r.h + line) * r.w + column) * c, r.dilation_x * c, r.stride_y * r.w * c, r.stride_x * c),
          (dy, ((n * r.oh + top) * r.ow + left) * c, r.ow * c, c), rows[1] - top, right - left)


def _geometry(x_shape, kernel_shape, y_shape, strides, pads, dilation):
    """Return the sizes that the records hold, by their names in GEOMETRY."""
    (_, h, w, c), (kh, kw, _, m), (_, oh, ow, _) = x_shape, kernel_shape, y_shape
    return dict(zip(GEOMETRY.split(), (h, w, c, kh, kw, m, oh, ow, *strides, pads[0][0], pads[1][0], *dilation)))


def _kernel_shape(kernel_shape, x_shape, owner):
    """Return (KH, KW, C, M), after checking that it fits the channels of x."""
    if len(kernel_shape) != 4 or kernel_shape[2] != x_shape[3]:
        raise ValueError(
            f"{owner}: the kernel must have the shape (KH, KW, {x_shape[3]}, M) for x of shape {x_shape}. "
            f"Received: {kernel_shape}."
        )
    return kernel_shape

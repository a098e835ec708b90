"""Depthwise convolution: every channel has kernels of its own, and no sum runs over channels.

    y[n, oh, ow, c * M + m] = bias[c * M + m]
                              + sum over ky, kx of  x[n, oh*s + ky*d, ow*s + kx*d, c] * kernel[ky, kx, c, m]

There is no matrix product in it: each number of x is used KH * KW * M times and not F times. So
the loops run along the channels, which lie side by side, and numba turns the innermost one into vector instructions.

Shapes: x (N, H, W, C), kernel (KH, KW, C, M), y (N, OH, OW, C * M).
"""

import numpy as np

from cnnlite.engine.jit import kernel as compiled
from cnnlite.floating import arithmetic
from cnnlite.kernels.checks import require
from cnnlite.kernels.im2col import NO_PADS, output_shape
from cnnlite.kernels.matmul import move_sums
from cnnlite.kernels.threads import run

CHUNKS = 16  # see conv2d_kernel_gradient
LONG_SUM = 256  # taps, or weights that a pixel goes back through, whose products may be added one by one in float32
LONG_CHAIN = 8192  # and pixels of a chunk
CHAIN = 1024  # so many pixels, or the next whole row, that are added up before they join a sum in float64


def depthwise_conv2d(x, kernel, bias=None, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), out=None):
    """Return y, (N, OH, OW, C * M)."""
    owner = "depthwise_conv2d"
    require(x, "x", 4, None, owner)
    kh, kw, _, m = _kernel_shape(kernel.shape, x.shape, owner)
    require(kernel, "kernel", 4, x.dtype, owner)
    channels = x.shape[3] * m
    shape = (len(x), *output_shape(x.shape, (kh, kw), strides, pads, dilation), channels)
    out = np.empty(shape, x.dtype) if out is None else out
    require(out, "out", shape, x.dtype, owner)
    bias = np.zeros(channels, x.dtype) if bias is None else bias
    require(bias, "bias", (channels,), x.dtype, owner)
    run(_depthwise_task, shape[0] * shape[1], (x, kernel, bias, out, *_geometry(strides, pads, dilation)))
    return out


@compiled
def _depthwise_task(x, kernel, bias, y, strides, before, dilation, unit):
    n, row = unit // y.shape[1], unit % y.shape[1]
    _depthwise_row(x[n], kernel, bias, y[n, row], row, strides, before, dilation)


@compiled
def _depthwise_row(x, kernel, bias, y, row, strides, before, dilation):
    h, w, channels = x.shape
    kh, kw, _, multiplier = kernel.shape
    if kh * kw > LONG_SUM:
        _long_row(x, kernel, bias, y, row, strides, before, dilation)
        return
    for column in range(y.shape[0]):
        target = y[column]
        for f in range(target.shape[0]):
            target[f] = bias[f]
        for ky in range(kh):
            i = row * strides[0] + ky * dilation[0] - before[0]
            if i < 0 or i >= h:
                continue
            for kx in range(kw):
                j = column * strides[1] + kx * dilation[1] - before[1]
                if j < 0 or j >= w:
                    continue
                source, weights = x[i, j], kernel[ky, kx]
                for m in range(multiplier):
                    for c in range(channels):
                        target[c * multiplier + m] += source[c] * weights[c, m]


@compiled
def _long_row(x, kernel, bias, y, row, strides, before, dilation):
    """Do the same for a kernel of many taps, whose products are added up in float64."""
    h, w, channels = x.shape
    kh, kw, _, multiplier = kernel.shape
    total = np.empty(y.shape[1])
    for column in range(y.shape[0]):
        for f in range(total.shape[0]):
            total[f] = bias[f]
        for ky in range(kh):
            i = row * strides[0] + ky * dilation[0] - before[0]
            for kx in range(kw if 0 <= i < h else 0):
                j = column * strides[1] + kx * dilation[1] - before[1]
                if j < 0 or j >= w:
                    continue
                source, weights = x[i, j], kernel[ky, kx]
                for m in range(multiplier):
                    for c in range(channels):
                        total[c * multiplier + m] += source[c] * weights[c, m]
        for f in range(total.shape[0]):
            y[column, f] = total[f]


def depthwise_conv2d_input_gradient(dy, kernel, x_shape, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), out=None):
    """Return dx: each dy goes back, times the weight, to the pixel that it came from."""
    owner = "depthwise_conv2d_input_gradient"
    kh, kw, c, m = _kernel_shape(kernel.shape, x_shape, owner)
    require(dy, "dy", (x_shape[0], *output_shape(x_shape, (kh, kw), strides, pads, dilation), c * m), None, owner)
    require(kernel, "kernel", 4, dy.dtype, owner)
    out = np.empty(x_shape, dy.dtype) if out is None else out
    require(out, "out", x_shape, dy.dtype, owner)
    run(_input_gradient_task, len(out), (dy, kernel, out, *_geometry(strides, pads, dilation)))
    return out


@compiled
def _input_gradient_task(dy, kernel, dx, strides, before, dilation, unit):
    _depthwise_input_gradient_image(dy[unit], kernel, dx[unit], strides, before, dilation)


@compiled
def _depthwise_input_gradient_image(dy, kernel, dx, strides, before, dilation):
    h, w, channels = dx.shape
    kh, kw, _, multiplier = kernel.shape
    dx[:] = 0
    # A long sum is that of the sums for each row of the kernel.
    is_long = kh * kw * multiplier > LONG_SUM
    line = np.empty((w if is_long else 0, channels), dx.dtype)
    for row in range(dy.shape[0]):
        for ky in range(kh):
            i = row * strides[0] + ky * dilation[0] - before[0]
            if i < 0 or i >= h:
                continue
            targets = line if is_long else dx[i]
            line[:] = 0
            for column in range(dy.shape[1]):
                source = dy[row, column]
                for kx in range(kw):
                    j = column * strides[1] + kx * dilation[1] - before[1]
                    if j < 0 or j >= w:
                        continue
                    target, weights = targets[j], kernel[ky, kx]
                    for m in range(multiplier):
                        for c in range(channels):
                            target[c] += source[c * multiplier + m] * weights[c, m]
            for j in range(len(line)):
                for c in range(channels):
                    dx[i, j, c] += line[j, c]


def depthwise_conv2d_kernel_gradient(x, dy, kernel_shape, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), out=None):
    """Return dkernel: a sum over all pixels, in chunks of images that are added in order."""
    owner = "depthwise_conv2d_kernel_gradient"
    require(x, "x", 4, None, owner)
    kh, kw, c, m = _kernel_shape(kernel_shape, x.shape, owner)
    require(dy, "dy", (len(x), *output_shape(x.shape, (kh, kw), strides, pads, dilation), c * m), x.dtype, owner)
    out = np.empty(kernel_shape, x.dtype) if out is None else out
    require(out, "out", kernel_shape, x.dtype, owner)
    sums = np.zeros((max(1, min(len(x), CHUNKS)), *kernel_shape), x.dtype)
    run(_kernel_gradient_task, len(sums), (x, dy, sums, *_geometry(strides, pads, dilation)))
    with arithmetic():
        np.sum(sums, axis=0, out=out)
    return out


@compiled
def _kernel_gradient_task(x, dy, sums, strides, before, dilation, unit):
    chunks = len(sums)
    first, last = unit * len(x) // chunks, (unit + 1) * len(x) // chunks
    _, oh, ow, _ = dy.shape
    chain, length = sums[unit].reshape(-1), 0
    exact = np.zeros(chain.size if (last - first) * oh * ow > LONG_CHAIN else 0)
    # In rows that are a chain together, or an image at a time.
    rows = max(1, CHAIN // max(1, ow)) if len(exact) else max(1, oh)
    for n in range(first, last):
        for row in range(0, oh, rows):
            some = dy[n, row : row + rows]
            _depthwise_kernel_gradient_rows(x[n], some, row, sums[unit], strides, before, dilation)
            length += len(some) * ow
            if length >= CHAIN and len(exact):
                move_sums(chain, exact)
                length = 0
    if len(exact):
        move_sums(chain, exact)
        for i in range(chain.size):
            chain[i] = exact[i]


@compiled
def _depthwise_kernel_gradient_rows(x, dy, first, sums, strides, before, dilation):
    """Add what dy gives, rows of an image from the first on."""
    h, w, channels = x.shape
    kh, kw, _, multiplier = sums.shape
    for row in range(dy.shape[0]):
        for column in range(dy.shape[1]):
            gradient = dy[row, column]
            for ky in range(kh):
                i = (first + row) * strides[0] + ky * dilation[0] - before[0]
                if i < 0 or i >= h:
                    continue
                for kx in range(kw):
                    j = column * strides[1] + kx * dilation[1] - before[1]
                    if j < 0 or j >= w:
                        continue
                    source, target = x[i, j], sums[ky, kx]
                    for m in range(multiplier):
                        for c in range(channels):
                            target[c, m] += source[c] * gradient[c * multiplier + m]


def _geometry(strides, pads, dilation):
    return tuple(strides), (pads[0][0], pads[1][0]), tuple(dilation)


def _kernel_shape(kernel_shape, x_shape, owner):
    """Return (KH, KW, C, M), checked to be for images with so many channels."""
    if len(kernel_shape) != 4 or kernel_shape[2] != x_shape[3]:
        raise ValueError(
            f"{owner}: the kernel must have the shape (KH, KW, {x_shape[3]}, M) for x of the shape {x_shape}. "
            f"Received: {kernel_shape}."
        )
    return kernel_shape
